"""From a selection to what is edited: units of single sites, with what is added to them; random ones too.

A selection's site may join others (`component`); edits are of the sites it joins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from affectbench.controls import layer_matched, parameter_matched
from affectbench.evidence import Evidence
from affectbench.intervention import Edit, Intervention, add, mean_ablation, project, scale
from affectbench.score_models import Arm
from affectbench.selector import Selection
from affectbench.sites import DAMAGES, MODULE, FloatArray, SiteShape, UnitArray
from affectbench.task import InterventionProtocol


@dataclass(frozen=True)
class Units:
    """Units of one site; `vectors` (channels of the units,) are added to them at dose 1, or projected out."""

    site: str
    shape: SiteShape
    units: UnitArray
    vectors: FloatArray | None = None


Target = tuple[Units, ...]
"""What is edited at once, for one emotion or one random draw."""


def site_parts(site: str, shape: SiteShape) -> dict[str, SiteShape]:
    """The sites that units of `site` are edited at, with their shapes."""
    if not shape.kinds:
        return {site: shape}
    return {kind.site: SiteShape(shape.layers, kind.width, kind.size) for kind in shape.kinds}


def target_of(site: str, shape: SiteShape, units: UnitArray, vectors: FloatArray | None) -> Target:
    """Units of a selection's site as units of the sites that are edited."""
    if not shape.kinds:
        return (Units(site, shape, units, vectors),)
    ends = np.cumsum(shape.sizes(units))
    rows = None if vectors is None else np.split(vectors, ends[:-1])
    found = []
    for kind, own, places in shape.split(units):
        part = None
        if rows is not None:
            part = np.concatenate([np.empty(0), *(rows[place] for place in places)])
        found.append(Units(kind.site, SiteShape(shape.layers, kind.width, kind.size), own, part))
    return tuple(each for each in found if each.units.size)


def targets_of(selection: Selection) -> list[Target]:
    """One target for each emotion."""
    vectors = selection.vectors or (None,) * len(selection.labels)
    return [
        target_of(selection.site, selection.shape, units, own)
        for units, own in zip(selection.units, vectors, strict=True)
    ]


def random_targets(selection: Selection, draws: int, seed: int) -> list[Target]:
    """Random controls: units matched in number, layer and kind; weights, in how many numbers they have.

    Where the selection has vectors, they get vectors of its units in the same layer, drawn at random: as much
    is added, elsewhere. Where a unit is a whole stream, there is no elsewhere in its layer: it gets a random
    direction of the same size instead.
    """
    matched = parameter_matched if selection.shape.parameters else layer_matched
    sets = matched(selection, draws, seed)
    if selection.vectors is None:
        return [target_of(selection.site, selection.shape, units, None) for units in sets]
    pools = _pools(selection)
    found = []
    for draw, units in enumerate(sets):
        rng = np.random.default_rng([seed, draw, 0x7EC7])
        rows = [_drawn(pools[key], rng, selection.shape.width == 1) for key in _keys(selection.shape, units)]
        vectors = np.concatenate(rows) if rows else np.empty(0)
        found.append(target_of(selection.site, selection.shape, units, vectors))
    return found


Key = tuple[int, int]
"""(layer, kind) of a unit."""


def _keys(shape: SiteShape, units: UnitArray) -> list[Key]:
    ends = np.cumsum([kind.width for kind in shape.kinds] or [shape.width])
    kinds = np.searchsorted(ends, units % shape.width, side="right")
    return [(int(unit) // shape.width, int(kind)) for unit, kind in zip(units, kinds, strict=True)]


def _pools(selection: Selection) -> Mapping[Key, list[FloatArray]]:
    """The vectors of the selected units of all emotions, by layer and kind."""
    pools: dict[Key, list[FloatArray]] = {}
    for units, vectors in zip(selection.units, selection.vectors or (), strict=True):
        rows = np.split(vectors, np.cumsum(selection.shape.sizes(units))[:-1])
        for key, row in zip(_keys(selection.shape, units), rows, strict=False):
            pools.setdefault(key, []).append(row)
    return pools


def _drawn(pool: list[FloatArray], rng: np.random.Generator, turned: bool) -> FloatArray:
    chosen = pool[int(rng.integers(len(pool)))]
    if not turned:
        return chosen
    direction = rng.normal(size=chosen.shape)
    return np.asarray(direction * np.linalg.norm(chosen) / np.linalg.norm(direction), dtype=np.float64)


def with_differences(selection: Selection, evidence: Callable[[str], Evidence]) -> Selection:
    """The selection with what an emotion's units do more than over all emotions, for what has no vectors yet.

    ``mean[e] - mean over emotions of mean``, of the channels of each unit; `evidence` gives that of a site.
    """
    if selection.vectors is not None:
        return selection
    means = {site: evidence(site).mean for site in site_parts(selection.site, selection.shape)}
    flat = {site: (mean - mean.mean(axis=0)).reshape(len(mean), -1) for site, mean in means.items()}
    vectors = []
    for emotion, units in enumerate(selection.units):
        if not selection.shape.kinds:
            vectors.append(flat[selection.site][emotion, selection.shape.spread(units)])
            continue
        rows: list[FloatArray] = [np.empty(0)] * units.size
        for kind, own, places in selection.shape.split(units):
            part = SiteShape(selection.shape.layers, kind.width, kind.size)
            values = flat[kind.site][emotion, part.spread(own)].reshape(own.size, kind.size)
            for place, row in zip(places, values, strict=True):
                rows[place] = row
        vectors.append(np.concatenate([np.empty(0), *rows]))
    return replace(selection, vectors=tuple(vectors))


@dataclass(frozen=True)
class Dosing:
    """Turns targets into interventions as a protocol says; `means` holds the flat means of each site's
    channels, where the protocol replaces by them."""

    protocol: InterventionProtocol
    means: Mapping[str, FloatArray]

    def of(self, arm: Arm, dose: float, target: Target) -> Intervention:
        """A target under one arm at one dose."""
        operation = getattr(self.protocol.arms, arm).operation
        edits = [edit for each in target for edit in self._one(operation, dose, each).edits]
        return Intervention(tuple(edits))

    def union(self, targets: Sequence[Target], dose: float) -> Intervention:
        """All targets amplified at once: a unit of several by the dose; what is added to it adds up."""
        if self.protocol.arms.amplify.operation == "add":
            return self.mixed(targets, [1.0] * len(targets), dose)
        found: dict[str, list[Units]] = {}
        for each in (units for target in targets for units in target):
            found.setdefault(each.site, []).append(each)
        return Intervention(
            tuple(
                edit
                for several in found.values()
                for edit in self._one(
                    "scale",
                    dose,
                    replace(several[0], units=np.unique(np.concatenate([e.units for e in several]))),
                ).edits
            )
        )

    def mixed(self, targets: Sequence[Target], shares: Sequence[float], dose: float) -> Intervention:
        """Each target amplified by its share of the dose's distance from doing nothing; shares add up."""
        if self.protocol.arms.amplify.operation == "add":
            every = [
                self.of("amplify", dose * share, target)
                for share, target in zip(shares, targets, strict=True)
            ]
            return Intervention(tuple(edit for each in every for edit in each.edits))
        gains: dict[str, FloatArray] = {}
        shapes: dict[str, SiteShape] = {}
        for share, target in zip(shares, targets, strict=True):
            for each in target:
                shapes[each.site] = each.shape
                sums = gains.setdefault(each.site, np.full(each.shape.units, np.nan))
                sums[each.units] = np.nan_to_num(sums[each.units]) + share
        edits = []
        for site, sums in gains.items():
            units = np.flatnonzero(~np.isnan(sums))
            value = 1.0 + (dose - 1.0) * sums[units]
            edits.append(Edit(site, shapes[site], units, "scale", value, self.protocol.positions))
        return Intervention(tuple(edits))

    def _one(self, operation: str, dose: float, each: Units) -> Intervention:
        where = (each.site, each.shape, each.units)
        positions = self.protocol.positions
        if operation in DAMAGES:
            seed = np.zeros(each.units.shape)
            return Intervention((Edit(*where, operation, seed, positions),))
        if operation == "mean":
            return mean_ablation(*where, self.means[each.site], positions)
        if operation == "scale":
            return scale(*where, dose, positions)
        if each.site == MODULE:  # What is added is known there: the change.
            return add(*where, np.full(each.units.shape, dose), positions)
        assert each.vectors is not None, "protocols that add or project fill in what a selection lacks"
        if operation == "project":
            return project(*where, each.vectors, dose, positions)
        relative = self.protocol.arms.amplify.relative
        return add(*where, dose * each.vectors, positions, relative=relative)
