"""Calibration: does a ranking of units find the ones known to carry each emotion?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from affectbench.errors import ScoreError
from affectbench.score_models import Calibration
from affectbench.stats import FloatArray


def recovery(
    scores: npt.ArrayLike, planted: Sequence[Sequence[int]], decoys: Sequence[Sequence[int]]
) -> Calibration:
    """Compare a selector's scores with the units planted in an instrument model.

    Args:
        scores: (E, U) score of every unit for every emotion, higher = selected earlier.
        planted: for each emotion, the flat indices of its planted units; may be empty.
        decoys: for each emotion, the units that correlate with it and do nothing; may be empty.

    Raises:
        ScoreError: NaN scores, indices that are out of range, repeated, or both planted and decoy; no
            emotion with planted units.
    """
    ranking = np.asarray(scores, dtype=np.float64)
    if ranking.ndim != 2 or len(planted) != len(ranking) or len(decoys) != len(ranking):
        raise ScoreError(
            f"scores {ranking.shape}, {len(planted)} planted and {len(decoys)} decoy lists disagree"
        )
    if np.isnan(ranking).any():
        raise ScoreError("scores of units hold NaN")
    aurocs: list[float | None] = []
    decoy_aurocs: list[float | None] = []
    precisions: list[float | None] = []
    for emotion, row in enumerate(ranking):
        own, fake = _masks(emotion, len(row), planted[emotion], decoys[emotion])
        aurocs.append(auroc(row[own], row[~own]))
        decoy_aurocs.append(auroc(row[own], row[fake]))
        precisions.append(_precision(row, own))
    total, precision = _mean(aurocs), _mean(precisions)
    if total is None or precision is None:
        raise ScoreError("no emotion has both planted and other units: there is nothing to recover")
    return Calibration(
        auroc=total,
        decoy_auroc=_mean(decoy_aurocs),
        precision_at_k=precision,
        auroc_per_emotion=aurocs,
        decoy_auroc_per_emotion=decoy_aurocs,
        precision_per_emotion=precisions,
    )


def auroc(positive: FloatArray, negative: FloatArray) -> float | None:
    """Probability that a positive scores above a negative, ties counting half; None if either is empty."""
    if not positive.size or not negative.size:
        return None
    ascending = np.sort(negative)
    below = np.searchsorted(ascending, positive, side="left")
    up_to = np.searchsorted(ascending, positive, side="right")
    return float((below + up_to).sum() / 2 / (positive.size * negative.size))


def _precision(row: FloatArray, own: npt.NDArray[np.bool_]) -> float | None:
    """Expected share of planted units among the first k = number planted, ties broken at random."""
    k = int(own.sum())
    if not k:
        return None
    bar = np.sort(row)[-k]
    above, tied = row > bar, row == bar
    expected = (own & above).sum() + (own & tied).sum() * (k - above.sum()) / tied.sum()
    return float(expected / k)


def _masks(
    emotion: int, n_units: int, planted: Sequence[int], decoys: Sequence[int]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    units = np.array([*planted, *decoys], dtype=np.int64)
    if units.size and (units.min() < 0 or units.max() >= n_units):
        raise ScoreError(f"emotion {emotion}: planted or decoy units outside 0..{n_units - 1}")
    if len(np.unique(units)) < len(units):
        raise ScoreError(f"emotion {emotion}: a unit is listed twice, or as planted and as decoy")
    own, fake = np.zeros(n_units, dtype=bool), np.zeros(n_units, dtype=bool)
    own[list(planted)] = True
    fake[list(decoys)] = True
    return own, fake


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
