"""Random units that do as much as the selected ones while speech is heard: a stronger control than any units.

A unit that is nearly silent changes nothing when it is switched off, whatever it stands for. So beside draws
of the same layers (`controls.layer_matched`) stand draws of units of the same layers that are as loud.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from affectbench.alignment.features import States
from affectbench.alignment.rdm import FloatArray
from affectbench.selector import Selection
from affectbench.sites import UnitArray

NEAREST = 10
"""A unit's stand-in is one of so many that come nearest to it in loudness."""


def loudness(states: Iterable[States], size: int = 1) -> FloatArray:
    """Root mean square (layers, units) of what each unit of a site does over all tokens of all pieces; a unit
    has `size` channels."""
    total, tokens = 0.0, 0
    for each in states:
        squares = each.values.astype(np.float64) ** 2
        total = total + squares.sum(axis=1)
        tokens += squares.shape[1]
    channels = np.asarray(total) / tokens
    return np.asarray(np.sqrt(channels.reshape(len(channels), -1, size).sum(axis=2)))


def activation_matched(selection: Selection, loud: FloatArray, draws: int, seed: int) -> list[UnitArray]:
    """`draws` sets of units that the selection does not name, matched to units that it names in layer and in
    loudness `loud` (layers, units).

    A set has as many units of each layer as the selection's emotions have on average (rounded); each stands
    in for a unit drawn from all that the selection names there. One draw serves all emotions.
    """
    width = selection.shape.width
    named = np.unique(np.concatenate(selection.units))
    counts = np.zeros(selection.shape.layers)
    for units in selection.units:
        counts += np.bincount(units // width, minlength=len(counts)) / len(selection.units)
    found = []
    for draw in range(draws):
        chosen: list[int] = []
        for layer in np.flatnonzero(np.round(counts)).tolist():
            rng = np.random.default_rng([seed, draw, layer, 23])
            own = named[named // width == layer] % width
            chosen += (layer * width + _stand_ins(own, loud[layer], round(counts[layer]), rng)).tolist()
        found.append(np.sort(np.array(chosen, dtype=np.int64)))
    return found


def _stand_ins(own: UnitArray, loud: FloatArray, count: int, rng: np.random.Generator) -> UnitArray:
    """`count` units of a layer, none of `own`, each one of the `NEAREST` to one of `own` in loudness."""
    free = np.ones(len(loud), dtype=bool)
    free[own] = False
    chosen: list[int] = []
    for unit in rng.permutation(own)[: min(count, int(free.sum()))].tolist():
        others = np.flatnonzero(free)
        near = others[np.argsort(np.abs(loud[others] - loud[unit]), kind="stable")[:NEAREST]]
        chosen.append(int(rng.choice(near)))
        free[chosen[-1]] = False
    return np.array(chosen, dtype=np.int64)
