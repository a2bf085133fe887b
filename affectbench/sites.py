"""Where a unit lives: the sites of a transformer that can be read and edited, and how units are addressed.

A *site* is one tensor of every decoder layer. A *unit* is a part of it that is edited as one: a channel, or
several neighbouring ones (an attention head, the whole residual stream). It is addressed by the flat index
``layer * width + unit``; flat indices are the only unit addresses that cross module borders.

In a mixture of experts the channels of a layer are those of its routed experts, one expert after the other:
channel c of expert e is ``e * expert width + c``, and the layer's width is experts x expert width. An expert
that a token is not sent to does not run: its units count as zero there, and editing them does nothing. A
shared expert, which every token passes, is not a part of the site.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from affectbench.errors import AffectbenchError

UnitArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

GATE = "gate"
NEURON = "neuron"
HEAD = "head"
COMPONENT = "component"
ATTENTION = "attention"
MIDDLE = "middle"
RESIDUAL = "residual"
FEATURE = "feature"
MODULE = "module"
SITES = {
    GATE: "output of the MLP's activation function, act(gate_proj x)",
    NEURON: "input of down_proj, act(gate_proj x) * (up_proj x)",
    HEAD: "one attention head: its slice of the input of o_proj",
    COMPONENT: "what writes into the residual stream: the neurons of a layer, and then its heads",
    ATTENTION: "what attention adds to the residual stream, all of it a unit",
    RESIDUAL: "the residual stream after a layer, all of it a unit",
    FEATURE: "features of a sparse autoencoder of the residual stream after a layer",
    MODULE: "what an adaptation changed in one weight of a layer: q, k, v, o, gate, up or down",
}
"""Every site the engine can read and edit, with what it is."""
Damage = Literal["zero", "noise", "shuffle", "negate"]
DAMAGES: tuple[Damage, ...] = ("zero", "noise", "shuffle", "negate")
"""What is done to weights of the site `module`, beside scaling and adding what was changed in them."""
COMPONENT_PARTS = (NEURON, HEAD)
"""The sites that `component` joins, in order."""
CHANNEL_SITES = (GATE, NEURON, FEATURE)
"""Sites whose units are single channels."""
READ_ONLY = {MIDDLE: "the residual stream between attention and MLP, all of it a unit"}
"""Sites that have statistics and cannot be edited: to add to `middle`, add to `attention`."""


def check_weights(site: str, operation: str, positions: str) -> None:
    """Raise `AffectbenchError` unless weights, and nothing but weights, are damaged, and at all positions."""
    if site != MODULE and operation not in DAMAGES:
        return
    if site != MODULE or operation not in ("scale", "add", *DAMAGES) or positions != "all":
        raise AffectbenchError(
            f"an edit {operation!r} of site {site!r} at positions {positions!r}",
            hint=f"the site 'module' takes scale, add and, alone, {', '.join(DAMAGES)}: at all positions",
        )


class Kind(NamedTuple):
    """Units of one kind within a layer: the site they are of, how many, and channels in each."""

    site: str
    width: int
    size: int


@dataclass(frozen=True)
class SiteShape:
    """Number of decoder layers that have the site, units in each, and channels in a unit.

    `kinds`: where a site joins units of other sites, those of each, in order; `size` is 1 then.
    `parameters`: where units are weights, how many numbers each unit of a layer has.
    """

    layers: int
    width: int
    size: int = 1
    kinds: tuple[Kind, ...] = ()
    parameters: tuple[int, ...] = ()

    @classmethod
    def joined(cls, layers: int, kinds: tuple[Kind, ...]) -> SiteShape:
        """The shape of a site that joins `kinds`."""
        return cls(layers, sum(kind.width for kind in kinds), 1, kinds)

    @property
    def units(self) -> int:
        return self.layers * self.width

    @property
    def channels(self) -> int:
        """Channels of a layer."""
        return sum(kind.width * kind.size for kind in self.kinds) if self.kinds else self.width * self.size

    def __str__(self) -> str:
        return f"{self.layers} layers x {self.width}" + (f" of {self.size} channels" * (self.size > 1))

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
        """Split flat indices into ``{layer: (units, places)}``; `places` index the input array."""
        layers = units // self.width
        found: dict[int, tuple[UnitArray, UnitArray]] = {}
        for layer in np.unique(layers):
            places = np.flatnonzero(layers == layer)
            found[int(layer)] = (units[places] % self.width, places)
        return found

    def histogram(self, units: UnitArray) -> UnitArray:
        """Units in each layer, shape (layers,)."""
        return np.bincount(units // self.width, minlength=self.layers).astype(np.int64)

    def spread(self, units: UnitArray) -> UnitArray:
        """Flat indices of the channels of flat `units`, unit by unit; those of a site without `kinds`."""
        return (units[:, None] * self.size + np.arange(self.size)).ravel()

    def sizes(self, units: UnitArray) -> UnitArray:
        """Channels in each of `units`, shape (units,)."""
        if not self.kinds:
            return np.full(units.shape, self.size, dtype=np.int64)
        sizes = np.repeat([kind.size for kind in self.kinds], [kind.width for kind in self.kinds])
        return np.asarray(sizes[units % self.width], dtype=np.int64)

    def split(self, units: UnitArray) -> list[tuple[Kind, UnitArray, UnitArray]]:
        """Of each of `kinds`, those of `units` that belong to it, as flat indices in its own site, and their
        places in the input array."""
        found, start = [], 0
        own = units % self.width
        for kind in self.kinds:
            places = np.flatnonzero((own >= start) & (own < start + kind.width))
            layers = units[places] // self.width
            found.append((kind, layers * kind.width + own[places] - start, places))
            start += kind.width
        return found

    def within(self, site: str, units: UnitArray) -> UnitArray:
        """Flat indices in this site, which joins several, of flat `units` of one: `split` backwards."""
        starts = np.cumsum([0, *(kind.width for kind in self.kinds)])
        place = next(at for at, kind in enumerate(self.kinds) if kind.site == site)
        layers, own = np.divmod(units, self.kinds[place].width)
        return np.asarray(layers * self.width + starts[place] + own, dtype=np.int64)
