"""The site `module` of one side of a pair: what an adaptation changed, one module type of one layer a unit.

The network is one side, and the other side's weights are read as they are needed. An edit writes weights for
a while. In the adapted network changes are scaled, or damaged as `module_edit` does it; into the base they
are put, whole or in part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from affectbench.adaptation import Measure, Side
from affectbench.errors import AffectbenchError
from affectbench.held_weights import Held, check_unshared, holding, plain
from affectbench.identity import digest_of
from affectbench.intervention import Edit, Intervention
from affectbench.model import Model
from affectbench.module_change import Change, change_of, together
from affectbench.module_edit import Adapted, FullWeights, damaged
from affectbench.module_pairs import check_shapes
from affectbench.module_types import Modules, Piece, modules_of
from affectbench.sites import DAMAGES, FloatArray, SiteShape, UnitArray

Ranks = Mapping[str, int]


@dataclass(frozen=True)
class AdaptedModules:
    """The modules of `model`, which is one `side` of a pair; `other`: the weights of the other side, of the
    parameters that differ. What is of no type (embeddings, norms, the head) is not among the units and stays
    as it is. `ranks`: of a LoRA, by the parameter that it changes; empty where the adaptation is none."""

    model: Model
    modules: Modules
    other: Adapted
    side: Side = "adapted"
    ranks: Ranks = field(default_factory=dict)

    @classmethod
    def between(
        cls, other: Model, model: Model, digest: str, side: Side = "adapted", ranks: Ranks | None = None
    ) -> AdaptedModules:
        """The changes between two networks; `digest` identifies the weights of `other`.

        Raises `AffectbenchError` where they are not one architecture.
        """
        there, here = (dict(each.network.named_parameters()) for each in (other, model))
        shapes, own = ({name: value.shape for name, value in each.items()} for each in (there, here))
        check_shapes(shapes, own, f"the other side of {model.card.name}", model.card.name)
        changed = {
            name: value.detach() for name, value in there.items() if not bool((value == here[name]).all())
        }
        return cls(model, modules_of(model), FullWeights(changed, digest), side, ranks or {})

    @property
    def digest(self) -> str:
        return self.other.digest

    @property
    def types(self) -> tuple[str, ...]:
        return self.modules.types

    @cached_property
    def shape(self) -> SiteShape:
        """Layers x types. Raises `AffectbenchError` where layers differ in their modules."""
        rows = {
            tuple(self._numel(kind, layer) for kind in self.types) for layer in range(self.modules.layers)
        }
        if len(rows) != 1 or 0 in min(rows):
            raise AffectbenchError(
                f"the layers of {self.model.card.name} differ in their modules",
                hint="the site `module` needs layers with the same matrices of the same sizes",
            )
        return SiteShape(self.modules.layers, len(self.types), parameters=rows.pop())

    def _numel(self, kind: str, layer: int) -> int:
        pieces = self.modules.of((kind,), layer, matrices=True)
        return sum(piece.numel(self.modules.shapes[piece.parameter]) for piece in pieces)

    @property
    def adapter_parameters(self) -> UnitArray | None:
        """Parameters of the LoRA in each unit, (units,): those of a fused weight are split as the weight is,
        so that its first factor counts for each part. None where the model was adapted otherwise."""
        if not self.ranks:
            return None
        found = np.zeros(self.shape.units, dtype=np.int64)
        for piece in self.modules.of(self.types, matrices=True):
            unit = piece.layer * self.shape.width + self.types.index(piece.type)
            found[unit] += self.modules.lora_numel(piece, self.ranks.get(piece.parameter, 0))
        return found

    @contextmanager
    def under(self, edits: Sequence[Edit]) -> Iterator[None]:
        """Weights as `edits` say, one after the other, for the length of the block; afterwards, after an
        error or an interrupt too, they have the bytes they had. Biases go with their weights.

        Raises `AffectbenchError`, before anything is changed, for edits of another model, and for weights
        that are quantised, shared or not in memory.
        """
        wanted = self._wanted(edits)
        parameters = dict(self.model.network.named_parameters())
        names = [name for name in parameters if name in wanted]
        weights = {name: plain(parameters[name], name) for name in names}
        check_unshared(self.model.network, weights, "the modules of this model cannot be told apart")
        written = (
            (Held(weight, (...,), weight.clone()), self._edited(name, weight, wanted[name]))
            for name, weight in weights.items()
        )
        with holding(self.model, written, Intervention(tuple(edits)).digest):
            yield

    @contextmanager
    def crossed(self) -> Iterator[None]:
        """The network as the other side for the length of the block, in all that differs."""
        parameters = dict(self.model.network.named_parameters())
        weights = {name: plain(parameters[name], name) for name in self.other.names}
        written = (
            (Held(weight, (...,), weight.clone()), self.other.read(name, weight))
            for name, weight in weights.items()
        )
        with holding(self.model, written, digest_of(["the other side", self.digest])):
            yield

    def _wanted(self, edits: Sequence[Edit]) -> dict[str, list[tuple[Piece, Edit, float]]]:
        """By parameter, its pieces that are edited, and how, in order."""
        found: dict[str, list[tuple[Piece, Edit, float]]] = {}
        for edit in edits:
            if edit.shape != self.shape:
                raise AffectbenchError(
                    f"an edit of {edit.shape} modules does not fit {self.model.card.name}",
                    hint=f"it has {self.shape}: {', '.join(self.types)}",
                )
            if edit.operation == ("scale" if self.side == "base" else "add"):
                raise AffectbenchError(
                    f"an edit {edit.operation!r} of modules of {self.model.card.name}, the {self.side} side",
                    hint="changes are scaled in the adapted model, and added to the base",
                )
            for layer, (units, places) in edit.by_layer.items():
                for unit, value in zip(units, edit.value[places], strict=True):
                    for piece in self.modules.of((self.types[unit],), layer):
                        if piece.parameter in self._names or edit.operation == "zero":
                            found.setdefault(piece.parameter, []).append((piece, edit, float(value)))
        return found

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.other.names)

    def _sides(self, name: str, weight: Tensor) -> tuple[Tensor, Tensor]:
        """A parameter before and after the adaptation, where the network holds `weight`."""
        other = self.other.read(name, weight) if name in self._names else weight
        return (weight, other) if self.side == "base" else (other, weight)

    def _edited(self, name: str, weight: Tensor, wanted: Sequence[tuple[Piece, Edit, float]]) -> Tensor:
        """A parameter with some pieces edited; changes are scaled in float32, as adapters are merged."""
        found = weight.clone()
        before, after = self._sides(name, weight)
        for piece, edit, value in wanted:
            if edit.operation in DAMAGES:
                changed = after if self.side == "base" else found
                made = damaged(piece, before, changed, edit.operation, int(value))
            else:
                old, new, here = (piece.matrices(each).float() for each in (before, after, found))
                if edit.operation == "scale":
                    made = old + value * (here - old)
                elif value == 1 and torch.equal(here, old):
                    made = new  # To the bit, which a sum would not be.
                else:
                    made = here + value * (new - old)
            piece.view(found).copy_(piece.shaped(made, weight))
        return found

    def changes(self, measure: Measure) -> FloatArray:
        """How large the change of each unit is, (layers, types): see `module_change`."""
        rows = [[change.value(measure) for change in row] for row in self._changes]
        return np.array(rows, dtype=np.float64)

    @cached_property
    def _changes(self) -> list[list[Change]]:
        parameters = dict(self.model.network.named_parameters())

        def change(kind: str, layer: int) -> Change:
            found = []
            for piece in self.modules.of((kind,), layer, matrices=True):
                here = parameters[piece.parameter].detach()
                before, after = self._sides(piece.parameter, here)
                found.append(change_of(piece.matrices(before), piece.matrices(after)))
            return together(found)

        return [[change(kind, layer) for kind in self.types] for layer in range(self.modules.layers)]
