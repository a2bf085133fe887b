"""What switching units off takes from alignment: drops by subject, in affective and in neutral pieces, beside
random units."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from affectbench.alignment.rdm import FloatArray

LAYERS, LOUDNESS = "random units of the same layers", "random units as loud"
KINDS = (LAYERS, LOUDNESS)
"""The kinds of draws that stand beside a selector's units."""
ORDERS = 5040
"""Assignments of units to emotions that are tried: all of up to seven emotions, else so many at random."""


@dataclass(frozen=True)
class Parted:
    """Mean drops by subject. `own` and `others` (subjects,): of an emotion's own units, and of those of other
    emotions, in pieces of the emotion, averaged over emotions; `still` (subjects,): of the own units in
    neutral pieces; `drawn` and `drawn_still` (draws, subjects) the same of each kind of random units;
    `swapped` (assignments,): what `own` is on average where units go to another emotion. With one emotion
    there are no others: NaN, and none."""

    own: FloatArray
    others: FloatArray
    still: FloatArray
    swapped: FloatArray
    drawn: Mapping[str, FloatArray]
    drawn_still: Mapping[str, FloatArray]

    @property
    def contrast(self) -> FloatArray:
        """Affective less neutral, (subjects,)."""
        return np.asarray(self.own - self.still)

    @property
    def specific(self) -> FloatArray:
        """In pieces of an emotion, its own units beyond those of other emotions, (subjects,)."""
        return np.asarray(self.own - self.others)

    def drawn_contrast(self, kind: str) -> FloatArray:
        """The same of each draw, (draws, subjects)."""
        return np.asarray(self.drawn[kind] - self.drawn_still[kind])

    def beyond(self, kind: str = LAYERS) -> FloatArray:
        """The contrast beyond the mean of the draws, (subjects,)."""
        return np.asarray(self.contrast - self.drawn_contrast(kind).mean(axis=0))


def parted(
    effects: FloatArray,
    emotions: Sequence[str],
    draws: Mapping[str, int],
    labels: np.ndarray,
    baseline: str,
) -> Parted:
    """Drops from `effects` (subjects, conditions, pieces) of match minus mismatch.

    Conditions: untouched, the units of each of `emotions`, then the `draws` of each kind in order. `labels`
    (pieces,) name the affect of pieces, `baseline` that of neutral ones. A draw has no emotion: it counts in
    the pieces of each as the own units do.
    """
    drops = effects[:, :1] - effects[:, 1:]
    selected, neutral = drops[:, : len(emotions)], labels == baseline
    places = [place for place, name in enumerate(emotions) if name != baseline and (labels == name).any()]
    here = {place: labels == emotions[place] for place in places}
    own = [selected[:, place, here[place]].mean(axis=1) for place in places]
    lost = np.array([[selected[:, units][:, here[place]].mean() for place in places] for units in places])
    others = np.full((1, len(drops)), np.nan)
    if len(emotions) > 1:
        others = np.stack(
            [np.delete(selected, place, axis=1)[:, :, here[place]].mean(axis=(1, 2)) for place in places]
        )
    still = [selected[:, place][:, neutral].mean(axis=1) for place in places]
    drawn, drawn_still = {}, {}
    first = len(emotions)
    for kind, count in draws.items():
        random = drops[:, first : first + count]
        first += count
        drawn[kind] = np.mean([random[:, :, here[place]].mean(axis=2) for place in places], axis=0).T
        drawn_still[kind] = random[:, :, neutral].mean(axis=2).T
    mine, theirs, quiet = (np.mean(each, axis=0) for each in (own, others, still))
    return Parted(mine, theirs, quiet, _swapped(lost), drawn, drawn_still)


def _swapped(lost: FloatArray) -> FloatArray:
    """Means of `lost` (units of an emotion, pieces of an emotion) over its diagonal once rows are in another
    order, for all orders but its own, or for `ORDERS` at random."""
    count = len(lost)
    own = np.arange(count)
    if count <= 7:
        orders = np.array(list(itertools.permutations(range(count))))[1:]
    else:
        rng = np.random.default_rng(29)
        orders = np.array([rng.permutation(count) for _ in range(ORDERS)])
    return np.asarray(lost[orders, own].mean(axis=1) if len(orders) else np.zeros(0))


def among(value: float, draws: FloatArray) -> tuple[int, float]:
    """How many of `draws` (n,) reach `value`, and the one-sided p that follows, (b + 1) / (n + 1). Equal sums
    of numbers in another order may differ in their last bits: they reach it."""
    above = int(((draws >= value) | np.isclose(draws, value, rtol=1e-9, atol=1e-12)).sum())
    return above, (above + 1) / (len(draws) + 1)
