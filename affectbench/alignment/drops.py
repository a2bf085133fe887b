"""What switching units off takes from alignment: drops by subject, in affective and in neutral pieces, beside
random units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from affectbench.alignment.rdm import FloatArray

LAYERS, LOUDNESS = "random units of the same layers", "random units as loud"
KINDS = (LAYERS, LOUDNESS)
"""The kinds of draws that stand beside a selector's units."""


@dataclass(frozen=True)
class Parted:
    """Mean drops by subject. `own` and `others` (subjects,): of an emotion's own units, and of those of other
    emotions, in pieces of the emotion, averaged over emotions; `still` (subjects,): of the own units in
    neutral pieces; `drawn` and `drawn_still` (draws, subjects) the same of each kind of random units."""

    own: FloatArray
    others: FloatArray
    still: FloatArray
    drawn: Mapping[str, FloatArray]
    drawn_still: Mapping[str, FloatArray]

    @property
    def contrast(self) -> FloatArray:
        """Affective less neutral, (subjects,)."""
        return np.asarray(self.own - self.still)

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
    others = [np.delete(selected, place, axis=1)[:, :, here[place]].mean(axis=(1, 2)) for place in places]
    still = [selected[:, place][:, neutral].mean(axis=1) for place in places]
    drawn, drawn_still = {}, {}
    first = len(emotions)
    for kind, count in draws.items():
        random = drops[:, first : first + count]
        first += count
        drawn[kind] = np.mean([random[:, :, here[place]].mean(axis=2) for place in places], axis=0).T
        drawn_still[kind] = random[:, :, neutral].mean(axis=2).T
    return Parted(np.mean(own, axis=0), np.mean(others, axis=0), np.mean(still, axis=0), drawn, drawn_still)


def among(value: float, draws: FloatArray) -> tuple[int, float]:
    """How many of `draws` (n,) reach `value`, and the one-sided p that follows, (b + 1) / (n + 1)."""
    above = int((draws >= value).sum())
    return above, (above + 1) / (len(draws) + 1)
