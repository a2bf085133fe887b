"""What weights were adapted from, as the engine sees it: changes of weight matrices that can be edited.

Module types take the place of units: type t of layer L is unit ``L * types + t`` of the site `module`. To
scale a unit is to scale what the adaptation changed in it: by 0 the base is back, by 2 twice as much changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

from affectbench.intervention import Edit
from affectbench.sites import FloatArray, SiteShape, UnitArray

Measure = Literal["absolute", "relative", "rms", "top", "stable_rank"]


class Adaptation(Protocol):
    """`types`: the module types of a layer, in the order of the units; `digest` identifies the base's
    weights, 16 hex."""

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

    def changes(self, measure: Measure) -> FloatArray:
        """How large the change of each unit is, (layers, types)."""
        ...
