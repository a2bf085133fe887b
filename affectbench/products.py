"""Matrix products on a CPU: oneDNN's, where PyTorch would take MKL's.

MKL keeps its AVX-512 kernels for CPUs of one maker; oneDNN asks what the CPU can do. On others the same
product, in the same precision, takes less than half the time.
"""

from __future__ import annotations

import platform

import torch
from torch import Tensor, nn

FEWEST_ROWS = 16
"""Below this the call itself costs more than the product."""


class OneDnnLinear(nn.Linear):
    """A `nn.Linear` whose float32 products without gradients go through oneDNN. Weights stay as they are, so
    it can be copied, edited and saved like any other."""

    def forward(self, input: Tensor) -> Tensor:
        if (
            torch.is_grad_enabled()
            or input.dtype is not torch.float32
            or input.numel() < FEWEST_ROWS * self.in_features
            or not self.weight.is_contiguous()
        ):
            return super().forward(input)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], "")
        return product


def available() -> bool:
    """Whether this machine's PyTorch has oneDNN for x86."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return x86 and built and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def quicken(network: nn.Module) -> None:
    """Let the plain float32 `nn.Linear` modules of a network on a CPU use oneDNN, in place."""
    if not available():
        return
    for module in network.modules():
        if type(module) is nn.Linear and module.weight.is_cpu and module.weight.dtype is torch.float32:
            module.__class__ = OneDnnLinear
