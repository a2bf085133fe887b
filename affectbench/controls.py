"""Random controls: units that match a selection in number and layer, and in nothing else."""

from __future__ import annotations

import numpy as np

from affectbench.selector import Selection
from affectbench.sites import UnitArray


def layer_matched(selection: Selection, draws: int, seed: int) -> list[UnitArray]:
    """`draws` sets of random units with the selection's layer histogram, averaged over its emotions.

    One draw serves all emotions. Draw r is the head of a permutation of each layer's units that depends on
    (seed, r, layer) alone, so selections with the same histogram share their draws. A draw may hold units
    that the selection names: any unit of the layer is as likely as any other.
    """
    counts = _mean_histogram(selection)
    width = selection.shape.width
    found = []
    for draw in range(draws):
        chosen = []
        for layer in np.flatnonzero(counts):
            order = np.random.default_rng([seed, draw, int(layer)]).permutation(width)
            chosen.append(layer * width + order[: counts[layer]])
        found.append(np.sort(np.concatenate(chosen)).astype(np.int64))
    return found


def _mean_histogram(selection: Selection) -> UnitArray:
    """Units in each layer, averaged over emotions; rounded so that the total is kept (largest remainder)."""
    sets = [units for units in selection.units if units.size]
    mean = np.mean([selection.shape.histogram(units) for units in sets], axis=0)
    counts = np.floor(mean).astype(np.int64)
    missing = round(float(mean.sum())) - int(counts.sum())
    order = np.argsort(counts - mean, kind="stable")
    counts[order[:missing]] += 1
    matched: UnitArray = np.minimum(counts, selection.shape.width)
    return matched
