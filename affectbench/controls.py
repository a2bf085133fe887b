"""Random controls: units that match a selection in number and layer, and in nothing else."""

from __future__ import annotations

import numpy as np

from affectbench.selector import Selection
from affectbench.sites import UnitArray


def layer_matched(selection: Selection, draws: int, seed: int) -> list[UnitArray]:
    """`draws` sets of random units with the selection's layer histogram, averaged over its emotions, and with
    as many of each kind where a site joins several.

    One draw serves all emotions. Draw r is the head of a permutation of each layer's units that depends on
    (seed, r, layer) alone, so selections with the same histogram share their draws. A draw may hold units
    that the selection names: any unit of the layer is as likely as any other.
    """
    shape = selection.shape
    widths = [kind.width for kind in shape.kinds] or [shape.width]
    starts = np.cumsum([0, *widths[:-1]])
    counts = _mean_histogram(selection, starts, widths)
    found = []
    for draw in range(draws):
        chosen = []
        for layer, kind in zip(*np.nonzero(counts), strict=True):
            key = [seed, draw, int(layer), *([int(kind)] if kind else [])]
            order = np.random.default_rng(key).permutation(widths[kind])[: counts[layer, kind]]
            chosen.append(layer * shape.width + starts[kind] + order)
        found.append(np.sort(np.concatenate(chosen)).astype(np.int64))
    return found


def parameter_matched(selection: Selection, draws: int, seed: int) -> list[UnitArray]:
    """`draws` sets of random weights with as many parameters as the selection's, averaged over its emotions.

    Units are taken in a random order of all layers and types, each that still fits: what is left open is less
    than the smallest unit that was not taken. One draw serves all emotions, and may hold selected units.
    """
    shape = selection.shape
    sizes = np.tile(np.array(shape.parameters, dtype=np.int64), shape.layers)
    budget = float(np.mean([sizes[units].sum() for units in selection.units if units.size]))
    found = []
    for draw in range(draws):
        chosen, left = [], budget
        for unit in np.random.default_rng([seed, draw, 0x3E16]).permutation(shape.units):
            if sizes[unit] <= left:
                chosen.append(int(unit))
                left -= float(sizes[unit])
        found.append(np.array(sorted(chosen), dtype=np.int64))
    return found


def _mean_histogram(selection: Selection, starts: UnitArray, widths: list[int]) -> UnitArray:
    """Units in each layer and of each kind, (layers, kinds), averaged over emotions; rounded so that the
    total is kept (largest remainder)."""
    shape = selection.shape
    sets = [units for units in selection.units if units.size]
    histograms = np.zeros((len(sets), shape.layers, len(widths)))
    for place, units in enumerate(sets):
        kinds = np.searchsorted(starts, units % shape.width, side="right") - 1
        np.add.at(histograms[place], (units // shape.width, kinds), 1)
    mean = histograms.mean(axis=0).ravel()
    counts = np.floor(mean).astype(np.int64)
    missing = round(float(mean.sum())) - int(counts.sum())
    order = np.argsort(counts - mean, kind="stable")
    counts[order[:missing]] += 1
    matched: UnitArray = np.minimum(counts.reshape(shape.layers, -1), widths)
    return matched
