"""Gram and distance matrices over time steps, and the two ways of centring them.

Double centring (H K H) gives the biased estimators of HSIC, CKA and distance covariance; U-centring (Szekely
and Rizzo 2014) the unbiased ones: for independent series of any length their expectation is zero.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from affectbench.alignment.rdm import FloatArray, degenerate

Median = Literal["usual", "lower"]


def squared_distances(series: FloatArray) -> FloatArray:
    """Squared Euclidean distances (T, T) between time steps, zero on the diagonal."""
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(series, series, "sqeuclidean"))


def linear_gram(series: FloatArray) -> FloatArray:
    """Inner products (T, T) of time steps, each feature centred over time."""
    centred = series - series.mean(axis=0)
    return np.asarray(centred @ centred.T)


def bandwidth(squares: FloatArray, median: Median) -> float:
    """Median of the non-zero squared distances; ``lower`` takes the lower of two middle values, as the
    released code of arXiv 2601.16540 does."""
    above = squares[np.triu_indices(len(squares), 1)]
    above = np.sort(above[above > 0])
    if above.size == 0:
        return float("nan")
    return float(above[(above.size - 1) // 2] if median == "lower" else np.median(above))


def rbf_gram(series: FloatArray, median: Median = "usual") -> FloatArray:
    """exp(-d^2 / (2 s^2)), (T, T), with s^2 the median of `bandwidth`."""
    squares = squared_distances(series)
    return np.asarray(np.exp(-squares / (2 * bandwidth(squares, median))))


def distances(series: FloatArray) -> FloatArray:
    """Euclidean distances (T, T) between time steps."""
    return np.sqrt(squared_distances(series))


def double_centred(gram: FloatArray) -> FloatArray:
    """H K H with H = I - 11'/T."""
    rows = gram.mean(axis=0)
    return np.asarray(gram - rows - rows[:, None] + gram.mean())


def u_centred(gram: FloatArray) -> FloatArray:
    """The U-centred matrix, zero on its diagonal: sums over rows are zero, and the inner product of two such,
    divided by T (T - 3), is the unbiased HSIC, or distance covariance, of their series."""
    steps = len(gram)
    hollow = gram - np.diag(np.diag(gram))
    rows = hollow.sum(axis=0) / (steps - 2)
    found = hollow - rows - rows[:, None] + hollow.sum() / ((steps - 1) * (steps - 2))
    np.fill_diagonal(found, 0.0)
    return np.asarray(found)


def folded(matrix: FloatArray) -> FloatArray:
    """A symmetric (T, T) matrix as a vector with the same inner products: diagonal, and the upper triangle
    times the root of two."""
    return np.concatenate([np.diag(matrix), np.sqrt(2.0) * matrix[np.triu_indices(len(matrix), 1)]])


def nan_like_folded(series: FloatArray) -> FloatArray | None:
    """NaN of the shape of `folded` for a degenerate series, else None."""
    steps = len(series)
    return np.full(steps * (steps + 1) // 2, np.nan) if degenerate(series) else None
