"""Memory that runs out, told apart from what is wrong with a model or with its inputs."""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from functools import cache
from pathlib import Path

import torch

SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
"""What PyTorch says on a CPU, on Windows, on other devices, and from a library of the device."""


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD, KEPT_FREE = 32 << 20, 256 << 20
"""Bytes. glibc takes no larger threshold for memory that it maps for one allocation alone."""


@cache
def keep_freed() -> None:
    """Let this process keep up to 256 MiB that it freed, where its C library is glibc.

    Otherwise activations of a few MiB go back to the system after every layer, and their pages are cleared
    and mapped anew for the next: a third of the time of a small model.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        library.mallopt(M_TRIM_THRESHOLD, KEPT_FREE)


def ran_out(error: BaseException) -> bool:
    """Whether `error` says that there was not enough memory: less at once may still do."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def release() -> None:
    """Give cached memory back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_memory_mib() -> float:
    """The most memory that this process has held, MiB."""
    status = Path("/proc/self/status")
    if (
        status.exists()
    ):  # On Linux, what `getrusage` says begins with the peak of whoever started the process.
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(encoding="ascii"), re.MULTILINE)
        if found is not None:
            return round(int(found[1]) / (1 << 10), 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)
