"""Weights that are changed for a while: what stood there comes back byte for byte, after an interrupt too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from affectbench.errors import AffectbenchError

if TYPE_CHECKING:
    from affectbench.model import Model

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Held:
    """A part of a weight: `view[places]`, and `kept`, the bytes that stood there."""

    view: Tensor
    places: tuple[Any, ...]
    kept: Tensor

    @torch.no_grad()
    def write(self, values: Tensor) -> None:
        self.view[self.places] = values


@contextmanager
def holding(model: Model, edits: Iterable[tuple[Held, Tensor]], digest: str) -> Iterator[None]:
    """Write each edit's values for the length of the block; `digest` says what the model is then.

    Edits are taken one by one, so they need not all be in memory. Blocks may be nested.
    """
    written: list[Held] = []
    before = model.folds
    try:
        model.folds = (*before, digest)
        for held, values in edits:
            written.append(held)
            held.write(values)
        yield
    finally:
        try:
            _put_back(written)
        finally:
            model.folds = before


def _put_back(written: list[Held]) -> None:
    try:
        for held in reversed(written):  # Of two edits of one place, the first knows what stood there.
            held.write(held.kept)
    except KeyboardInterrupt:
        # A second interrupt: a half-restored model would go on giving wrong answers.
        _put_back(written)
        raise


def plain(weight: Any, what: str) -> Tensor:
    """The numbers of a parameter. Raises `AffectbenchError` where they are not plain numbers in memory."""
    if type(weight) is not nn.Parameter or weight.dtype not in FLOATS or weight.device.type == "meta":
        raise AffectbenchError(
            f"{what} are {type(weight).__name__} of {weight.dtype} on {weight.device}, not plain numbers in "
            "memory",
            hint="load the model without quantisation, and without offloading",
        )
    return weight.detach()


def check_unshared(network: Any, weights: Mapping[str, Tensor], hint: str) -> None:
    """Raise `AffectbenchError` where the memory of one of these weights is used under another name, too.

    `weights`: by what an error calls them.
    """
    spans = [
        (parameter.data_ptr(), parameter.data_ptr() + parameter.nbytes, name)
        for name, parameter in network.named_parameters(remove_duplicate=False)
        if parameter.nbytes and not parameter.is_meta
    ]
    for what, weight in weights.items():
        start, end = weight.data_ptr(), weight.data_ptr() + weight.nbytes
        names = [name for low, high, name in spans if low < end and start < high]
        if len(names) > 1:
            raise AffectbenchError(
                f"{what}: {names[0]} and {names[1]} share memory, so an edit of one is one of both", hint=hint
            )
