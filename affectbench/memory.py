"""Memory that runs out, told apart from what is wrong with a model or with its inputs."""

from __future__ import annotations

import torch

SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
"""What PyTorch says on a CPU, on Windows, on other devices, and from a library of the device."""


def ran_out(error: BaseException) -> bool:
    """Whether `error` says that there was not enough memory: less at once may still do."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def release() -> None:
    """Give cached memory back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
