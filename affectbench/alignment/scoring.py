"""Match and mismatch: how a subject's EEG of a piece aligns with the states for it, and for other speech."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from affectbench.alignment.metrics import Measure
from affectbench.alignment.rdm import Distance, FloatArray
from affectbench.alignment.series import Timing
from affectbench.errors import AffectbenchError

MOST = 199
"""Mismatched pieces for measures that are inner products: all of them cost one product."""
MOST_PAIRS = 5
"""And for those that need both series at once."""


@dataclass(frozen=True)
class Reference:
    """The states' side of one measure, `prepared`. For inner products `match` and `mismatch` hold, for each
    piece, what EEG is multiplied with, (points, m), the latter averaged over the mismatched pieces; else what
    EEG is joined with, (points, ...) and (mismatched pieces, points, ...)."""

    measure: Measure
    distance: Distance
    match: list[FloatArray]
    mismatch: list[FloatArray]


def reference(
    measure: Measure,
    states: Sequence[FloatArray],
    timing: Timing,
    *,
    seed: int,
    distance: Distance = "correlation",
) -> Reference:
    """Prepare the states of all pieces (points, cells, k) for one measure.

    A mismatched piece is heard from its own beginning and cut to the same length, so that what any beginning
    does to EEG and states is in both.
    """
    match: list[FloatArray] = []
    mismatch: list[FloatArray] = []
    for piece, own in enumerate(states):
        count = timing.lengths[piece]
        others = timing.mismatched(piece, MOST if measure.side else MOST_PAIRS, seed)
        if not others:
            raise AffectbenchError(f"piece {piece} has no mismatch", hint="use more sentences")
        match.append(_prepared(measure, own, distance))
        heard = (_prepared(measure, states[other][:, :count], distance) for other in others)
        if measure.side is None:
            mismatch.append(np.stack(list(heard)))
            continue
        total = np.zeros_like(match[-1])
        for each in heard:
            total += each
        mismatch.append(total / len(others))
    return Reference(measure, distance, match, mismatch)


def _prepared(measure: Measure, series: FloatArray, distance: Distance) -> FloatArray:
    """What a measure needs of each of several series (n, T, features)."""
    return np.stack([measure.prepared(each, distance) for each in series])


def scores(found: Reference, eeg: Sequence[FloatArray]) -> FloatArray:
    """Match and mean mismatch of each piece, lag and point, (2, pieces, lags, points).

    `eeg` holds the pieces of one subject, (lags, cells, channels) each.
    """
    return np.stack([_piece_scores(found, piece, series) for piece, series in enumerate(eeg)], axis=1)


def _piece_scores(found: Reference, piece: int, eeg: FloatArray) -> FloatArray:
    """(2, lags, points) of one piece."""
    match, mismatch = found.match[piece], found.mismatch[piece]
    heard = _prepared(found.measure, eeg, found.distance)
    if found.measure.side is not None:
        return np.stack([heard @ match.T, heard @ mismatch.T])
    joined = found.measure.joined
    own = [[joined(lagged, point) for point in match] for lagged in heard]
    others = [
        [np.mean([joined(lagged, other[point]) for other in mismatch]) for point in range(len(match))]
        for lagged in heard
    ]
    return np.array([own, others])


def effects(found: FloatArray) -> FloatArray:
    """Match minus mean mismatch over pieces, (lags, points), of `scores`; pieces without a value are left
    out."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nanmean(found[0] - found[1], axis=0))
