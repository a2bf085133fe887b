"""Where a unit lives: the sites of a transformer that can be read and edited, and how units are addressed.

A *site* is one tensor of every decoder layer. A *unit* is one channel of it, addressed by the flat index
``layer * width + channel``; flat indices are the only unit addresses that cross module borders.

In a mixture of experts the channels of a layer are those of its routed experts, one expert after the other:
channel c of expert e is ``e * expert width + c``, and the layer's width is experts x expert width. An expert
that a token is not sent to does not run: its units count as zero there, and editing them does nothing. A
shared expert, which every token passes, is not a part of the site.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from affectbench.errors import AffectbenchError

UnitArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

GATE = "gate"
NEURON = "neuron"
SITES = {
    GATE: "output of the MLP's activation function, act(gate_proj x)",
    NEURON: "input of down_proj, act(gate_proj x) * (up_proj x)",
}
"""Every site the engine can read and edit, with what it is."""


@dataclass(frozen=True)
class SiteShape:
    """Number of decoder layers that have the site, and channels in each."""

    layers: int
    width: int

    @property
    def units(self) -> int:
        return self.layers * self.width

    def check(self, units: UnitArray, what: str) -> None:
        """Raise `AffectbenchError` unless `units` are distinct flat indices of this site."""
        outside = units[(units < 0) | (units >= self.units)]
        if outside.size:
            raise AffectbenchError(
                f"{what}: unit {int(outside[0])} does not exist",
                hint=f"flat indices run from 0 to {self.units - 1} ({self.layers} layers x {self.width})",
            )
        distinct, counts = np.unique(units, return_counts=True)
        if distinct.size != units.size:
            raise AffectbenchError(
                f"{what}: unit {int(distinct[counts > 1][0])} is listed more than once",
                hint="list every unit once",
            )

    def by_layer(self, units: UnitArray) -> dict[int, tuple[UnitArray, UnitArray]]:
        """Split flat indices into ``{layer: (channels, places)}``; `places` index the input array."""
        layers = units // self.width
        found: dict[int, tuple[UnitArray, UnitArray]] = {}
        for layer in np.unique(layers):
            places = np.flatnonzero(layers == layer)
            found[int(layer)] = (units[places] % self.width, places)
        return found

    def histogram(self, units: UnitArray) -> UnitArray:
        """Units in each layer, shape (layers,)."""
        return np.bincount(units // self.width, minlength=self.layers).astype(np.int64)
