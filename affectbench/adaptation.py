"""What weights were adapted from, or to, as the engine sees it: changes of weights that can be edited.

Module types take the place of units: type t of layer L is unit ``L * types + t`` of the site `module`. To
scale a unit of an adapted network is to scale what the adaptation changed in it: by 0 the base is back, by 2
twice as much changed. To add to a unit of the base is to put so much of the change in: by 1 the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

from affectbench.intervention import Edit
from affectbench.sites import FloatArray, SiteShape, UnitArray

Measure = Literal["absolute", "relative", "rms", "top", "stable_rank"]
Side = Literal["adapted", "base"]
"""Which side of a pair a network is."""


class Adaptation(Protocol):
    """`types`: the module types of a layer, in the order of the units; `digest` identifies the weights of the
    other side, 16 hex."""

    @property
    def side(self) -> Side: ...

    @property
    def types(self) -> tuple[str, ...]: ...

    @property
    def shape(self) -> SiteShape: ...

    @property
    def digest(self) -> str: ...

    @property
    def adapter_parameters(self) -> UnitArray | None:
        """Parameters of the LoRA in each unit, (units,); None where the model was adapted otherwise."""
        ...

    def under(self, edits: Sequence[Edit]) -> AbstractContextManager[None]:
        """Weights as `edits` say for the length of the block; afterwards, after an error or an interrupt too,
        they have the bytes they had. Raises `AffectbenchError` for weights that cannot be edited."""
        ...

    def crossed(self) -> AbstractContextManager[None]:
        """All weights as the other side has them for the length of the block, as safely as `under`."""
        ...

    def changes(self, measure: Measure) -> FloatArray:
        """How large the change of each unit is, (layers, types)."""
        ...
