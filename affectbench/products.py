"""Matrix products on a CPU: oneDNN's, where PyTorch would take MKL's.

MKL keeps its AVX-512 kernels for CPUs of one maker; oneDNN asks what the CPU can do. On others the same
product, in the same precision, takes less than half the time.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor, nn

FEWEST_ROWS = 16
"""Below this the call itself costs more than the product."""


class OneDnnLinear(nn.Linear):
    """A `nn.Linear` whose float32 products go through oneDNN, those of gradients of its input too. Weights
    stay as they are, so it can be copied, edited and saved like any other; where a weight itself takes a
    gradient, PyTorch's own product is used."""

    def forward(self, input: Tensor) -> Tensor:
        trained = torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())
        if (
            trained
            or input.dtype is not torch.float32
            or input.numel() < FEWEST_ROWS * self.in_features
            or not self.weight.is_contiguous()
        ):
            return super().forward(input)
        if torch.is_grad_enabled() and input.requires_grad:
            found: Tensor = _Product.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
            return found
        return _product(input, self.weight, self.bias)


def _product(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    return found


class _Product(torch.autograd.Function):
    """The product with a constant weight, and its gradient with respect to the input."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _product(input, weight, bias)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _product(slope, weight.T, None), None, None


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
