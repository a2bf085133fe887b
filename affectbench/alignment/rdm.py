"""Dissimilarity of all pairs of time steps, as the condensed upper triangle (m,), m = T (T - 1) / 2.

Blocks of rows are computed and written one after the other, so that no T x T matrix of a long recording is
held beside its triangle. Pairs are ordered as by ``scipy.spatial.distance.pdist``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from affectbench.errors import AffectbenchError

FloatArray = npt.NDArray[np.float64]
Distance = Literal["correlation", "euclidean", "cosine"]
SHORTEST = 4
"""Below so many time steps every measure is undefined."""
BLOCK = 512
"""Rows computed at once."""


def as_series(values: npt.ArrayLike) -> FloatArray:
    """A (T, features) array in float64; one feature may come as (T,).

    Raises `AffectbenchError` for another shape and for values that are not finite.
    """
    series = np.asarray(values, dtype=np.float64)
    series = series[:, None] if series.ndim == 1 else series
    if series.ndim != 2 or series.shape[1] < 1:
        raise AffectbenchError(f"expected a series (time, features), got shape {series.shape}")
    if not np.isfinite(series).all():
        raise AffectbenchError("a series has values that are not finite", hint="drop or repair bad channels")
    return series


def degenerate(series: FloatArray) -> bool:
    """Whether a series is too short, or constant over time: all measures of it are then NaN."""
    return series.shape[0] < SHORTEST or bool((series == series[0]).all())


def rdm(values: npt.ArrayLike, distance: Distance = "correlation", block: int = BLOCK) -> FloatArray:
    """Condensed dissimilarities (m,) between the time steps of a series (T, features).

    ``correlation`` is 1 - Pearson between the feature vectors of two steps; a single feature, which has no
    correlation, gives the absolute difference. NaN where a series is degenerate, or where a step without
    variance (length, for ``cosine``) leaves a pair undefined.
    """
    series = as_series(values)
    steps = series.shape[0]
    if degenerate(series):
        return np.full(steps * (steps - 1) // 2, np.nan)
    if distance == "euclidean" or series.shape[1] == 1:
        return _condensed(steps, block, lambda rows: _euclidean(series, rows))
    if distance == "correlation":
        series = series - series.mean(axis=1, keepdims=True)
    scale = np.linalg.norm(series, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = np.where(scale > 1e-12 * scale.max(), series / scale, np.nan)
    return _condensed(steps, block, lambda rows: 1.0 - unit[rows] @ unit[rows.start :].T)


def _euclidean(series: FloatArray, rows: slice) -> FloatArray:
    """Distances (rows, T - start) of a block of steps to themselves and all later ones."""
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(series[rows], series[rows.start :]))


def _condensed(steps: int, block: int, rows_of: Callable[[slice], FloatArray]) -> FloatArray:
    found = np.empty(steps * (steps - 1) // 2)
    done = 0
    for start in range(0, steps, block):
        rows = slice(start, min(start + block, steps))
        values = rows_of(rows)[_above(rows.stop - start, steps - start)]
        found[done : done + values.size] = values
        done += values.size
    return found


@lru_cache(maxsize=64)
def _above(rows: int, columns: int) -> npt.NDArray[np.bool_]:
    """Which entries of a block whose first row and column are the same step lie above the diagonal."""
    return np.arange(columns)[None, :] > np.arange(rows)[:, None]


def ranks(values: FloatArray) -> FloatArray:
    """Ranks from 1, ties given their average; NaN everywhere where a value is NaN."""
    from scipy.stats import rankdata

    if np.isnan(values).any():
        return np.full(values.shape, np.nan)
    order = np.argsort(values)
    placed = values[order]
    if (placed[1:] == placed[:-1]).any():
        return np.asarray(rankdata(values), dtype=np.float64)
    found = np.empty(values.shape)  # Without ties, several times as fast as scipy's.
    found[order] = np.arange(1.0, values.size + 1)
    return found
