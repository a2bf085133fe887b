"""Statistics on scores whose items come in clusters (a speaker, a dialogue, a document): pure functions.

Items of one cluster are not independent, so the cluster is what every test here resamples or flips.
Nothing depends on the order of the items: clusters are numbered by their sorted labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from affectbench.errors import ScoreError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Statistic = Callable[[FloatArray], FloatArray]
"""Maps sums of columns (D, T) to statistics (D, S)."""
CHUNK_ELEMENTS = 2**21
"""Draws are processed in chunks of about this many (draw, cluster) pairs: 16 MiB, whatever the data."""


def cluster_codes(clusters: npt.ArrayLike) -> tuple[IntArray, int]:
    """Number the clusters 0..C-1 by sorted label. Returns (code of each item, (N,)) and C."""
    labels, codes = np.unique(np.asarray(clusters), return_inverse=True)
    return codes.reshape(-1).astype(np.int64), len(labels)


def standard_error(scores: npt.ArrayLike) -> float | None:
    """sd / sqrt(n) with n - 1 in the variance; None below two scores."""
    values = _finite(scores)
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def clustered_se(
    scores: npt.ArrayLike, clusters: npt.ArrayLike, variant: Literal["A", "B"] = "B"
) -> float | None:
    """Standard error of a mean of clustered scores; None below two clusters, where it is undefined.

    With deviations r_i from the mean m and cluster sums R_c:
    variant A (arXiv 2411.00640): sqrt(SE^2 + (sum_c R_c^2 - sum_i r_i^2) / n^2), SE the naive one;
    variant B (as in inspect_ai): sqrt(C / (C - 1) * sum_c R_c^2) / n.
    """
    values = _finite(scores)
    codes, n_clusters = cluster_codes(clusters)
    if len(codes) != len(values):
        raise ScoreError(f"{len(values)} scores but {len(codes)} clusters: one cluster an item is needed")
    if n_clusters < 2:
        return None
    residuals = values - values.mean()
    between = float((np.bincount(codes, weights=residuals) ** 2).sum())
    if variant == "B":
        return float(np.sqrt(n_clusters / (n_clusters - 1) * between) / len(values))
    n = len(values)
    naive_square = float(residuals @ residuals) / (n - 1) / n
    # Strong negative correlation within clusters can take this below zero, where variant A has no root.
    return float(np.sqrt(max(0.0, naive_square + (between - float(residuals @ residuals)) / n**2)))


class PairedTest(NamedTuple):
    """Mean difference, its standard error, t, degrees of freedom and two-sided p; None where undefined."""

    mean: float
    se: float | None
    t: float | None
    df: int
    p: float | None


def paired_test(differences: npt.ArrayLike, clusters: npt.ArrayLike | None = None) -> PairedTest:
    """t test of paired differences: naive SE and n - 1 df, or variant B and C - 1 df with clusters."""
    from scipy.stats import t as student

    values = _finite(differences)
    if clusters is None:
        se, df = standard_error(values), len(values) - 1
    else:
        se, df = clustered_se(values, clusters), cluster_codes(clusters)[1] - 1
    mean = float(values.mean())
    if not se:
        return PairedTest(mean, se, None, df, None)
    return PairedTest(mean, se, mean / se, df, float(2 * student.sf(abs(mean / se), df)))


def bootstrap(
    table: npt.NDArray[Any],
    statistic: Statistic,
    *,
    draws: int,
    seed: int,
    stream: int = 0,
) -> FloatArray:
    """Resample clusters with replacement and recompute a statistic of column sums, all statistics at once.

    Args:
        table: (C, T) sums within each cluster, e.g. counts of items and of correct items.
        statistic: maps (D, T) sums over resampled clusters to (D, S) statistics.
        draws: number of resamples.
        seed: equal seeds give equal resamples for equal C.
        stream: resamples of different streams are independent under one seed; 1 is that of `sign_flip`.

    Returns:
        (draws, S).
    """
    exact = bool(np.issubdtype(table.dtype, np.integer)) and _fits_float32(table)
    dtype: type[np.floating[Any]] = np.float32 if exact else np.float64
    columns: npt.NDArray[np.floating[Any]] = np.ascontiguousarray(table, dtype=dtype)
    parts = [
        statistic((counts.astype(dtype) @ columns).astype(np.float64))
        for counts in _resample_counts(len(table), draws, seed, stream)
    ]
    return np.concatenate(parts)


def _fits_float32(table: npt.NDArray[Any]) -> bool:
    """Whether every resampled sum of this integer table is exact in float32 (twice as fast)."""
    return table.size == 0 or len(table) * int(np.abs(table).max()) < 2**24


def _resample_counts(n_clusters: int, draws: int, seed: int, stream: int) -> Iterator[IntArray]:
    """Yield (D, C) chunks: how often each cluster was drawn. Rows sum to C."""
    rng = np.random.default_rng([seed, stream])
    step = max(1, CHUNK_ELEMENTS // n_clusters)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        drawn = rng.integers(0, n_clusters, size=(size, n_clusters))
        drawn += np.arange(size)[:, None] * n_clusters
        yield np.bincount(drawn.ravel(), minlength=size * n_clusters).reshape(size, n_clusters)


def sign_flip(table: npt.ArrayLike, *, draws: int, seed: int) -> FloatArray:
    """Two-sided clustered sign-flip test of a sum, for H hypotheses at once.

    Args:
        table: (C, H) or (C,) contributions of each cluster to each statistic.
        draws: 2^C patterns are enumerated where there are at most this many, else so many are drawn.
        seed: seed of the drawn patterns.

    Returns:
        (H,) p: exact share of patterns at least as extreme, or (b + 1) / (draws + 1) with drawn ones.
    """
    values = _table(table)
    observed = np.abs(values.sum(axis=0))
    slack = 1e-9 * np.abs(values).sum(axis=0)
    extreme = np.zeros(values.shape[1], dtype=np.int64)
    patterns = 0
    for signs in _signs(len(values), draws, seed):
        extreme += (np.abs(signs @ values) >= observed - slack).sum(axis=0)
        patterns += len(signs)
    return _share(extreme, patterns, exact=2 ** len(values) <= draws)


def max_t(table: npt.ArrayLike, *, draws: int, seed: int) -> FloatArray:
    """Sign-flip p adjusted for all hypotheses by the largest studentised statistic (Westfall and Young).

    The statistic is abs(sum_c g_c) / sqrt(sum_c g_c^2); an all-zero column gets p = 1.
    Arguments as `sign_flip`.
    """
    values = _table(table)
    norm = np.sqrt((values**2).sum(axis=0))
    scaled = np.divide(values, norm, out=np.zeros_like(values), where=norm > 0)
    observed = np.abs(scaled.sum(axis=0))
    extreme = np.zeros(values.shape[1], dtype=np.int64)
    patterns = 0
    for signs in _signs(len(values), draws, seed):
        largest = np.abs(signs @ scaled).max(axis=1)
        extreme += (largest[:, None] >= observed - 1e-9).sum(axis=0)
        patterns += len(signs)
    return _share(extreme, patterns, exact=2 ** len(values) <= draws)


def _signs(n_clusters: int, draws: int, seed: int) -> Iterator[FloatArray]:
    """Yield (D, C) chunks of -1 and +1: all 2^C patterns if at most `draws`, else `draws` at random."""
    enumerate_all = 2**n_clusters <= draws
    total = 2**n_clusters if enumerate_all else draws
    rng = np.random.default_rng([seed, 1])
    step = max(1, CHUNK_ELEMENTS // n_clusters)
    for start in range(0, total, step):
        size = min(step, total - start)
        if enumerate_all:
            numbers = np.arange(start, start + size)
            bits = ((numbers[:, None] >> np.arange(n_clusters)) & 1).astype(np.uint8)
        else:
            packed = rng.integers(0, 256, size=(size, -(-n_clusters // 8)), dtype=np.uint8)
            bits = np.unpackbits(packed, axis=1, count=n_clusters)
        yield bits.astype(np.float64) * 2 - 1


def _share(extreme: IntArray, patterns: int, *, exact: bool) -> FloatArray:
    """All patterns include the observed one; drawn patterns do not, hence the + 1."""
    return extreme / patterns if exact else (extreme + 1) / (patterns + 1)


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """Holm's step-down adjustment of (H,) p values, in the given order."""
    p = _p_values(p_values)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return _unsort(np.minimum(1.0, stepped), order)


def benjamini_hochberg(p_values: npt.ArrayLike) -> FloatArray:
    """Benjamini and Hochberg's false-discovery-rate adjustment of (H,) p values, in the given order."""
    p = _p_values(p_values)
    order = np.argsort(p, kind="stable")
    stepped = p[order] * len(p) / np.arange(1, len(p) + 1)
    return _unsort(np.minimum(1.0, np.minimum.accumulate(stepped[::-1])[::-1]), order)


def trapezoid(x: npt.ArrayLike, y: npt.ArrayLike) -> FloatArray:
    """Area under y (A, ...) over ascending x (A,) by the trapezoid rule along the first axis."""
    steps = np.diff(np.asarray(x, dtype=np.float64))
    heights = np.asarray(y, dtype=np.float64)
    return np.asarray(np.tensordot(steps, (heights[1:] + heights[:-1]) / 2, axes=1))


def line(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Least-squares line through (x, y) for every column of y (A, ...): (slope, intercept)."""
    positions = np.asarray(x, dtype=np.float64)
    values = np.asarray(y, dtype=np.float64)
    centred = positions - positions.mean()
    slope = np.asarray(np.tensordot(centred / (centred @ centred), values, axes=1))
    return slope, values.mean(axis=0) - slope * positions.mean()


def _unsort(values: FloatArray, order: IntArray) -> FloatArray:
    result = np.empty_like(values)
    result[order] = values
    return result


def _finite(values: npt.ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ScoreError(f"expected a non-empty list of scores, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ScoreError(f"scores must be finite; item {int(np.argmin(np.isfinite(array)))} is not")
    return array


def _table(table: npt.ArrayLike) -> FloatArray:
    values = np.asarray(table, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise ScoreError(f"expected finite contributions (clusters, hypotheses), got shape {values.shape}")
    return values


def _p_values(p_values: npt.ArrayLike) -> FloatArray:
    p = _finite(p_values)
    if ((p < 0) | (p > 1)).any():
        raise ScoreError("p values must lie between 0 and 1")
    return p
