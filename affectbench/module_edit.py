"""A base network with an adaptation laid over it, type by type, and with that adaptation damaged.

Any experiment of the module track is an `Overlay`: which types hold their adapted weights, and what is done
to some of them. Afterwards the network has its base weights again, byte for byte.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from affectbench.errors import AffectbenchError
from affectbench.held_weights import Held, check_unshared, holding, plain
from affectbench.identity import digest_of
from affectbench.model import Model
from affectbench.module_pairs import matched
from affectbench.module_types import OTHER, TYPES, Modules, Piece, modules_of
from affectbench.sites import Damage
from affectbench.stored_weights import LoraAdapter, LowRank, StoredWeights

Operation = Literal["reset", "zero", "noise", "shuffle"]
OPERATIONS: tuple[Operation, ...] = ("reset", "zero", "noise", "shuffle")
EVERYTHING = (*TYPES, OTHER)


class Adapted(Protocol):
    """Weights after an adaptation, by parameter of the network."""

    @property
    def names(self) -> Sequence[str]:
        """The parameters that differ, or may differ."""

    @property
    def digest(self) -> str:
        """Hash of what they are, 16 hex."""

    def read(self, name: str, before: Tensor) -> Tensor:
        """One of them, given its base weights; of the same shape, dtype and device."""


@dataclass(frozen=True)
class LoraWeights:
    """The base with a LoRA merged into it: W + s B A, computed in float32, a parameter at a time."""

    factors: Mapping[str, LowRank]
    digest: str

    @classmethod
    def of(cls, adapter: LoraAdapter, model: Model) -> LoraWeights:
        """Raises `AffectbenchError` where the adapter fits no weight of the model."""
        shapes = {name: tuple(value.shape) for name, value in model.network.named_parameters()}
        names = matched(adapter.factors, shapes, str(adapter.folder))
        factors = {
            names[module]: replace(pair, transposed=is_transposed(model, names[module]))
            for module, pair in adapter.factors.items()
        }
        return cls(factors, adapter.digest)

    @property
    def names(self) -> Sequence[str]:
        return list(self.factors)

    def read(self, name: str, before: Tensor) -> Tensor:
        change = self.factors[name].product().to(before.device)
        merged: Tensor = (before.float() + change).to(before.dtype)
        return merged


def is_transposed(model: Model, name: str) -> bool:
    """Whether a weight is kept as (inputs, outputs); a square one does not tell by its shape."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(model.network.get_submodule(name.rpartition(".")[0]), Conv1D)


@dataclass(frozen=True)
class FullWeights:
    """Whole parameters after an adaptation; those that did not change need not be in it."""

    tensors: Mapping[str, Tensor]
    digest: str

    @property
    def names(self) -> Sequence[str]:
        return list(self.tensors)

    def read(self, name: str, before: Tensor) -> Tensor:
        return self.tensors[name].to(before)


@dataclass(frozen=True)
class FileWeights:
    """Whole parameters in the files of a checkpoint, read one by one when they are needed; `tensors`: under
    which name each is there."""

    stored: StoredWeights
    tensors: Mapping[str, str]
    digest: str

    @property
    def names(self) -> Sequence[str]:
        return list(self.tensors)

    def read(self, name: str, before: Tensor) -> Tensor:
        return self.stored.read(self.tensors[name]).to(before)


@dataclass(frozen=True)
class Overlay:
    """Which types hold their adapted weights, and damage done to some of all types.

    ``reset``: back to the base; ``zero``: no weights; ``noise``: the change is replaced by Gaussian noise of
    the same Frobenius norm, matrix by matrix; ``shuffle``: the rows of the change (its outputs) are permuted.
    The last two keep how large the change is and lose what it says. `adapted` may hold `OTHER`, which cannot
    be damaged. Biases go with their weights.
    """

    adapted: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    operation: Operation = "reset"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (*self.adapted, *self.damaged):
            if name not in EVERYTHING or (name == OTHER and name in self.damaged):
                raise AffectbenchError(f"an overlay of {name!r}", hint=f"types: {', '.join(TYPES)}")
        if self.operation not in OPERATIONS:
            raise AffectbenchError(
                f"operation {self.operation!r} does not exist", hint=f"operations: {', '.join(OPERATIONS)}"
            )

    def digest(self, adapted: Adapted) -> str:
        """Hash of what the network is under it; empty overlays of all adaptations are one."""
        damage = [self.operation, str(self.seed), *sorted(self.damaged)] if self.damaged else []
        own = adapted.digest if self.adapted or self.damaged else ""
        return digest_of([own, *sorted(self.adapted), "/", *damage])


@dataclass
class Pair:
    """A network at its base weights, and an adaptation of it."""

    model: Model
    adapted: Adapted
    modules: Modules = field(init=False)

    def __post_init__(self) -> None:
        self.modules = modules_of(self.model)
        self._parameters = dict(self.model.network.named_parameters())
        unknown = [name for name in self.adapted.names if name not in self._parameters]
        if unknown:
            raise AffectbenchError(
                f"the adaptation has a weight {unknown[0]}, which {self.model.card.name} has not",
                hint="a pair is one architecture, before and after",
            )

    @property
    def everything(self) -> tuple[str, ...]:
        """What an overlay holds that is the adapted model."""
        return (*self.modules.types, OTHER)

    @contextmanager
    def overlaid(self, overlay: Overlay) -> Iterator[None]:
        """The network under an overlay, for the length of the block; also after an error or an interrupt it
        has the bytes it had. Blocks may not be nested: an overlay starts from the base.

        Raises `AffectbenchError`, before anything is changed, for weights that are quantised, shared or not
        in memory.
        """
        names = self._touched(overlay)
        weights = {name: plain(self._parameters[name], name) for name in names}
        own = {name: weight for name, weight in weights.items() if name not in self.modules.others}
        check_unshared(self.model.network, own, "the types of this model cannot be told apart")
        edits = (
            (Held(weight, (...,), weight.clone()), self._under(overlay, name, weight))
            for name, weight in weights.items()
        )
        with holding(self.model, edits, overlay.digest(self.adapted)):
            yield

    def _touched(self, overlay: Overlay) -> list[str]:
        """The parameters that an overlay may change, in the network's order."""
        adapted = set(self.adapted.names)
        found = {
            piece.parameter
            for piece in self.modules.pieces
            if (piece.type in overlay.adapted and piece.parameter in adapted)
            or (piece.type in overlay.damaged and (piece.parameter in adapted or overlay.operation == "zero"))
        }
        if OTHER in overlay.adapted:
            found |= adapted & set(self.modules.others)
        return [name for name in self._parameters if name in found]

    def _under(self, overlay: Overlay, name: str, before: Tensor) -> Tensor:
        """A parameter under an overlay, from its base weights."""
        after = self.adapted.read(name, before) if name in self.adapted.names else before
        pieces = [piece for piece in self.modules.pieces if piece.parameter == name]
        if not pieces:
            return after
        found = before.clone()
        for piece in pieces:
            if piece.type in overlay.damaged:
                made = damaged(piece, before, after, overlay.operation, overlay.seed)
                piece.view(found).copy_(piece.shaped(made, before))
            elif piece.type in overlay.adapted:
                piece.view(found).copy_(piece.view(after))
        return found


def damaged(piece: Piece, before: Tensor, after: Tensor, operation: Operation | Damage, seed: int) -> Tensor:
    """What stands in the place of a piece's adapted weights: (experts, outputs, inputs), float32."""
    base = piece.matrices(before).float()
    if operation == "reset":
        return base
    if operation == "zero":
        return torch.zeros_like(base)
    change = piece.matrices(after).float() - base
    if operation == "negate":
        return base - change
    name = f"{piece.type} {piece.parameter} {seed}"
    random = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if operation == "shuffle":
        shuffled: Tensor = base + change[:, torch.randperm(change.shape[1], generator=random)]
        return shuffled
    noise = torch.randn(change.shape, generator=random).to(change)
    matched: Tensor = change.flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1)
    return base + noise * matched[:, None, None]


@torch.no_grad()
def merge_adapter(model: Model, folder: Path) -> None:
    """Add a LoRA to a model's weights for good. Raises `AffectbenchError` where it does not fit."""
    lora = LoraWeights.of(LoraAdapter.read(folder), model)
    parameters = dict(model.network.named_parameters())
    for name in lora.names:
        weight = plain(parameters[name], name)
        weight.copy_(lora.read(name, weight))
