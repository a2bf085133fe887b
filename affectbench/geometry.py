"""How directions of emotions lie to each other, over the depth of a model. Pure functions on arrays.

A site is a place in the residual stream, behind the attention or the MLP of a layer, in the order of depth.
Directions are (E, S, d): emotions, sites, width. Item vectors are (N, S, d).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from affectbench.errors import ScoreError
from affectbench.stats import FloatArray, IntArray, cluster_codes


def similarity_of_sites(directions: npt.ArrayLike) -> FloatArray:
    """Cosine between the directions (E, S, d) of one emotion at two sites, mean over emotions: (S, S)."""
    unit = _unit(np.asarray(directions, dtype=np.float64))
    return np.asarray(np.einsum("esd,etd->st", unit, unit) / len(unit))


def similarity_of_emotions(directions: npt.ArrayLike) -> FloatArray:
    """Cosine between the directions (E, S, d) of two emotions, at each site: (S, E, E)."""
    unit = _unit(np.asarray(directions, dtype=np.float64))
    return np.asarray(np.einsum("esd,fsd->sef", unit, unit))


def neighbour_means(similarity: FloatArray, places: int) -> tuple[float, float, float]:
    """Means of a similarity of sites (S, S): off its diagonal, between the `places` of one layer, and between
    the last place of a layer and the first of the next; NaN where there are none."""
    sites = len(similarity)
    steps = np.diagonal(similarity, offset=1)
    within = np.arange(sites - 1) % places != places - 1
    off = similarity[~np.eye(sites, dtype=bool)]
    return _mean(off), _mean(steps[within]), _mean(steps[~within])


class Separation(NamedTuple):
    """How far emotions separate at each site: (S,) with the ends of its interval, and the first site that
    reaches half of the largest value, with its interval."""

    values: FloatArray
    low: FloatArray
    high: FloatArray
    onset: int
    onset_low: int
    onset_high: int


def without_groups(vectors: npt.ArrayLike, gold: npt.ArrayLike, clusters: npt.ArrayLike) -> FloatArray | None:
    """Item vectors (N, ...) minus the mean of their cluster, so that only what sets emotions apart within one
    context is left; None where some cluster does not hold every emotion equally often."""
    items, truth = np.asarray(vectors, dtype=np.float64), np.asarray(gold)
    codes, count = cluster_codes(clusters)
    labels, own = np.unique(truth, return_inverse=True)
    numbers = np.zeros((count, len(labels)))
    np.add.at(numbers, (codes, own), 1)
    if (numbers != numbers[:, :1]).any():
        return None
    sums = np.zeros((count, *items.shape[1:]))
    np.add.at(sums, codes, items)
    sizes = numbers.sum(axis=1).reshape(-1, *[1] * (items.ndim - 1))
    return np.asarray(items - (sums / sizes)[codes])


def separation(
    vectors: npt.ArrayLike,
    gold: npt.ArrayLike,
    clusters: npt.ArrayLike,
    *,
    draws: int,
    seed: int,
    grouped: bool = False,
) -> Separation:
    """Share of the variance of item vectors (N, S, d) that lies between emotions, beyond what chance gives.

    epsilon^2 = 1 - (1 - eta^2)(N - G) / (N - G - E + 1), eta^2 the between over the total sum of squares, G
    the number of means that were taken out: 1, or one a cluster where vectors are `grouped`. 0 on average
    where emotions do not differ, 1 where items of one emotion are equal. Intervals: jackknife over clusters
    and Student's t, because resampled duplicates would look like separation; that of the onset: percentiles
    over `draws` resamples of clusters, for which the same bias at all sites changes little.

    Args:
        gold: (N,) numbers of emotions.
        clusters: (N,) what makes items dependent.
        grouped: whether vectors are `without_groups`.

    Raises:
        ScoreError: fewer than two emotions or two clusters.
    """
    from scipy.stats import t as student

    items, truth = np.asarray(vectors, dtype=np.float64), np.asarray(gold)
    codes, count = cluster_codes(clusters)
    labels, own = np.unique(truth, return_inverse=True)
    if len(labels) < 2 or count < 2:
        raise ScoreError(f"separation needs two emotions and two clusters, found {len(labels)} and {count}")
    kept = 1.0 - np.eye(count)
    rng = np.random.default_rng([seed, 13])
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)
    weights = np.concatenate([np.ones((1, count)), kept, drawn])
    found = np.stack(
        [
            _epsilon(weights, codes, own, items[:, site], (count, len(labels)), grouped)
            for site in range(items.shape[1])
        ],
        axis=1,
    )
    values, without, resampled = found[0], found[1 : count + 1], found[count + 1 :]
    spread = np.sqrt((count - 1) / count * ((without - without.mean(axis=0)) ** 2).sum(axis=0))
    reach = student.ppf(0.975, count - 1) * spread
    onsets = np.array([onset(draw) for draw in resampled] or [onset(values)])
    low, high = np.percentile(onsets, [2.5, 97.5], method="inverted_cdf")
    return Separation(values, values - reach, values + reach, onset(values), int(low), int(high))


def onset(curve: FloatArray) -> int:
    """The first site at which a curve (S,) reaches half of its largest value."""
    return int(np.argmax(curve >= curve.max() / 2)) if curve.max() > 0 else int(curve.argmax())


def _epsilon(
    weights: FloatArray,
    codes: IntArray,
    own: IntArray,
    vectors: FloatArray,
    size: tuple[int, int],
    grouped: bool,
) -> FloatArray:
    """epsilon^2 at one site for each row of cluster `weights` (D, C): (D,). `size`: clusters, emotions."""
    count, labels = size
    width = vectors.shape[1]
    sums = np.zeros((count, labels, width))
    np.add.at(sums, (codes, own), vectors)
    numbers = np.zeros((count, labels))
    np.add.at(numbers, (codes, own), 1)
    squares = np.bincount(codes, weights=(vectors**2).sum(axis=1), minlength=count)
    group = (weights @ sums.reshape(count, -1)).reshape(len(weights), labels, width)
    n = weights @ numbers
    total_n = n.sum(axis=1)
    middle = (group.sum(axis=1) ** 2).sum(axis=1) / total_n
    each = np.divide((group**2).sum(axis=2), n, out=np.zeros_like(n), where=n > 0).sum(axis=1)
    between, total = each - middle, weights @ squares - middle
    # A sum of squares that is rounding alone is none: all vectors of the site are equal.
    plain = total > 1e-12 * np.maximum(weights @ squares, 1e-300)
    eta = np.divide(between, total, out=np.zeros_like(total), where=plain)
    free = total_n - (weights.sum(axis=1) if grouped else 1)
    left = free - (n > 0).sum(axis=1) + 1
    return np.asarray(1 - (1 - eta) * free / np.maximum(left, 1))


def similarity_intervals(
    vectors: npt.ArrayLike, gold: npt.ArrayLike, clusters: npt.ArrayLike, *, draws: int, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Ends of the 95 % percentile intervals (E, E) of the cosines between emotions' directions at one site:
    clusters of item vectors (N, d) are resampled; a direction is an emotion's mean minus the mean over
    emotions. An emotion that a resample lacks is left out of its cosines."""
    items, truth = np.asarray(vectors, dtype=np.float64), np.asarray(gold)
    codes, count = cluster_codes(clusters)
    labels, own = np.unique(truth, return_inverse=True)
    sums = np.zeros((count, len(labels), items.shape[1]))
    np.add.at(sums, (codes, own), items)
    numbers = np.zeros((count, len(labels)))
    np.add.at(numbers, (codes, own), 1)
    rng = np.random.default_rng([seed, 17])
    weights = rng.multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)
    n = weights @ numbers
    group = (weights @ sums.reshape(count, -1)).reshape(draws, len(labels), -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = group / n[..., None]
    unit = _unit(means - np.nanmean(means, axis=1, keepdims=True))
    low, high = np.nanpercentile(np.einsum("ked,kfd->kef", unit, unit), [2.5, 97.5], axis=0)
    return low, high


def _unit(vectors: FloatArray) -> FloatArray:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1.0))


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if values.size else float("nan")
