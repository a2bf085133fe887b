"""Information flow over layers, read from features: three curves and the two places where they change.

Source: the protocol of `docs/analyses.md`, a reconstruction of arXiv 2604.25866, whose statistic is not
public. Features of one layer are an array z (N, F): activations at the last token of each item. Curves, by
layer: overlap of the 100 features with the largest mean with those of the layer below; share of features that
separate emotions; macro-F1 of a linear probe. All functions are pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise, permutations
from math import factorial
from typing import Any

import numpy as np
import numpy.typing as npt

from affectbench.errors import ScoreError
from affectbench.stats import FloatArray, IntArray, benjamini_hochberg, bootstrap, cluster_codes

Activations = npt.NDArray[np.floating[Any]]
TOP = 100
"""Features of a layer that stand for it in the overlap."""
ALPHA = 0.05
COLUMNS = 512
"""Features ranked at a time, which bounds memory."""
CURVES = ("overlap", "separating", "probe")


def top_features(means: npt.ArrayLike, count: int) -> IntArray:
    """The `count` features with the largest mean, ascending by number; of equal ones the lower numbers.

    A feature that is never active has no place among them, so there may be fewer.
    """
    values = np.asarray(means, dtype=np.float64)
    order = np.argsort(-values, kind="stable")[:count]
    return np.sort(order[values[order] > 0]).astype(np.int64)


def counterparts(below: FloatArray, above: FloatArray, least: float) -> IntArray:
    """For each direction of `below` (K, d) its counterpart in `above` (M, d), or -1: (K,).

    A counterpart is the nearest direction by cosine, if that is mutual and the cosine is at least `least`:
    features of dictionaries that were trained apart have nothing in common by their numbers.
    """
    if not len(below) or not len(above):
        return np.full(len(below), -1, dtype=np.int64)
    cosine = _unit(below) @ _unit(above).T
    nearest, back = cosine.argmax(axis=1), cosine.argmax(axis=0)
    rows = np.arange(len(below))
    mutual = (back[nearest] == rows) & (cosine[rows, nearest] >= least)
    return np.where(mutual, nearest, -1).astype(np.int64)


def jaccard_of_pairs(pairs: IntArray, n_above: int) -> float:
    """Jaccard index of two sets where `pairs` (K,) tells the counterpart of each member of the first, -1 for
    none; the second has `n_above` members. NaN where both are empty."""
    both = int((pairs >= 0).sum())
    either = len(pairs) + n_above - both
    return both / either if either else float("nan")


def kruskal_wallis(z: npt.ArrayLike, gold: npt.ArrayLike) -> FloatArray:
    """p of the Kruskal-Wallis test of each column of z (N, F) over the groups of `gold` (N,).

    H = (N - 1) sum_g n_g (r_g - r)^2 / sum_i (r_i - r)^2 of mid-ranks r, which is the usual statistic with
    its correction for ties; chi-squared with G - 1 degrees of freedom. NaN for a column that is constant.
    Raises `ScoreError` below two groups.
    """
    from scipy.stats import chi2, rankdata

    values, groups = np.asarray(z), np.asarray(gold)
    labels, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(labels) < 2:
        raise ScoreError("items of one emotion alone cannot tell emotions apart")
    members = np.zeros((len(labels), len(groups)))
    members[codes, np.arange(len(groups))] = 1
    found = np.full(values.shape[1], np.nan)
    varies = np.flatnonzero(values.min(axis=0) < values.max(axis=0))
    for start in range(0, len(varies), COLUMNS):
        columns = varies[start : start + COLUMNS]
        ranks = rankdata(values[:, columns], axis=0) - (len(groups) + 1) / 2
        between = ((members @ ranks) ** 2 / sizes[:, None]).sum(axis=0)
        found[columns] = chi2.sf((len(groups) - 1) * between / (ranks**2).sum(axis=0), len(labels) - 1)
    return found


def separating_share(z: npt.ArrayLike, gold: npt.ArrayLike) -> float:
    """Share of all features whose activation differs between emotions: Kruskal-Wallis, p after Benjamini and
    Hochberg over the features that vary at all below 0.05."""
    p = kruskal_wallis(z, gold)
    varies = np.isfinite(p)
    if not varies.any():
        return 0.0
    return float((benjamini_hochberg(p[varies]) < ALPHA).sum() / len(p))


def macro_f1(confusion: npt.ArrayLike) -> FloatArray:
    """Mean over emotions of F1 of (..., E, E) counts, gold in rows: 2 hits / (gold + answered).

    An emotion that is neither gold nor answered is left out; NaN where that holds for all.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    both = counts.sum(axis=-1) + counts.sum(axis=-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        each = np.where(both > 0, 2 * hits / both, np.nan)
        present = np.isfinite(each)
        found = np.where(present, each, 0).sum(axis=-1) / present.sum(axis=-1)
    return np.asarray(found)


def probe_confusion(
    fit: tuple[Activations, IntArray], held_out: tuple[Activations, IntArray, Sequence[str]], labels: int
) -> IntArray:
    """Confusion of a logistic probe (C = 1) on items that it was not fitted on, by cluster: (C, E, E).

    Features are standardised by the fitted items: their size grows with depth, and C must mean the same at
    each layer.

    Args:
        fit: z (N, F) and gold (N,) of the items that it is fitted on.
        held_out: z (M, F), gold (M,) and cluster (M,) of the items that it is judged on.
        labels: number of emotions E.
    """
    from sklearn.linear_model import LogisticRegression

    (z, gold), (unseen, truth, clusters) = fit, held_out
    middle, spread = z.mean(axis=0), z.std(axis=0)
    used = spread > 0
    codes, n_clusters = cluster_codes(clusters)
    found = np.zeros((n_clusters, labels, labels), dtype=np.int64)
    if not used.any():  # Nothing to go by: the most frequent emotion.
        answers = np.full(len(truth), np.bincount(gold).argmax())
    else:
        probe = LogisticRegression(C=1.0, max_iter=1000)
        probe.fit((z - middle)[:, used] / spread[used], gold)
        answers = probe.predict((unseen - middle)[:, used] / spread[used])
    np.add.at(found, (codes, truth, answers), 1)
    return found


@dataclass(frozen=True)
class Sample:
    """Items that curves are read from: gold (N,) as numbers of emotions, and what makes items dependent."""

    gold: IntArray
    clusters: tuple[str, ...]

    def resamples(self, draws: int, seed: int) -> list[IntArray]:
        """Places of items, clusters drawn with replacement; the first are all items as they are."""
        codes, count = cluster_codes(self.clusters)
        members = [np.flatnonzero(codes == code) for code in range(count)]
        rng = np.random.default_rng([seed, 7])
        chosen = rng.integers(0, count, size=(draws, count))
        return [np.arange(len(codes)), *(np.concatenate([members[at] for at in row]) for row in chosen)]


@dataclass(frozen=True)
class LayerReading:
    """What is kept of one layer, observed (first) and for each resample: top features and the share that
    separates emotions; of the probe, its confusions by cluster; `directions` (F, d) of the top features; and
    the share of features that are `active` on any item."""

    tops: tuple[IntArray, ...]
    shares: FloatArray
    confusions: IntArray
    directions: dict[int, FloatArray]
    active: float


def read_layer(
    z: Activations,
    sample: Sample,
    held_out: tuple[Activations, Sample],
    labels: int,
    decoder: Activations | None,
    *,
    draws: int,
    seed: int,
    top: int = TOP,
) -> LayerReading:
    """Read one layer, so that only one layer's activations are held at a time.

    Args:
        z: (N, F) activations of the items of `sample`.
        held_out: activations (M, F) and items that the probe is judged on; no cluster in both.
        labels: number of emotions.
        decoder: (F, d) what each feature writes; None where features keep their numbers over layers.
        draws: resamples of clusters for the change points' intervals.
    """
    unseen, other = held_out
    tops, shares = [], []
    for rows in sample.resamples(draws, seed):
        part = z[rows]
        tops.append(top_features(part.mean(axis=0), top))
        gold = sample.gold[rows]
        shares.append(separating_share(part, gold) if len(np.unique(gold)) > 1 else 0.0)
    confusions = probe_confusion((z, sample.gold), (unseen, other.gold, other.clusters), labels)
    used = sorted({int(feature) for each in tops for feature in each})
    rows_of = {} if decoder is None else {feature: decoder[feature].astype(np.float64) for feature in used}
    active = float((z.max(axis=0) > 0).mean())
    return LayerReading(tuple(tops), np.array(shares), confusions, rows_of, active)


@dataclass(frozen=True)
class Flow:
    """The three curves (3, L) in the order of `CURVES`, NaN where a curve has no value; the probe's interval
    (2, L); the change points, and those of each resample (draws, 2): a phase begins at that layer.

    `explained` is the share of the curves' variance over layers that phases explain, and `p` how often layers
    in any other order have phases that explain as much.
    """

    curves: FloatArray
    probe_interval: FloatArray
    boundaries: tuple[int, int]
    resampled: IntArray
    explained: float
    p: float

    def interval(self, place: int) -> tuple[float, float]:
        """Ends of the 95 % percentile interval of a change point."""
        low, high = np.percentile(self.resampled[:, place], [2.5, 97.5], method="inverted_cdf")
        return float(low), float(high)


def flow_of(layers: Sequence[LayerReading], *, least_cosine: float | None, seed: int) -> Flow:
    """Curves and change points of consecutive layers.

    Args:
        layers: readings of at least three layers, all of one sample.
        least_cosine: of decoder directions that count as the same feature of two layers; None where equal
            numbers do.

    Raises:
        ScoreError: fewer than three layers, which cannot have three phases.
    """
    if len(layers) < 3:
        raise ScoreError(f"three phases need three layers, there are {len(layers)}")
    overlaps = np.stack([
        [float("nan"), *(_overlap(below, above, draw, least_cosine) for below, above in pairwise(layers))]
        for draw in range(len(layers[0].tops))
    ])  # fmt: skip
    shares = np.stack([layer.shares for layer in layers], axis=1)
    probes = [_probe_draws(layer.confusions, len(overlaps) - 1, seed) for layer in layers]
    probe = np.stack(probes, axis=1)
    curves = np.stack([overlaps, shares, probe], axis=1)
    found = [change_points(draw) for draw in curves]
    resampled = np.array(found[1:], dtype=np.int64).reshape(-1, 2)
    missing = np.full((2, len(layers)), np.nan)
    ends = np.percentile(probe[1:], [2.5, 97.5], axis=0) if len(probe) > 1 else missing
    return Flow(curves[0], ends, found[0], resampled, *phases_explain(curves[0], seed=seed))


def _overlap(below: LayerReading, above: LayerReading, draw: int, least: float | None) -> float:
    one, other = below.tops[draw], above.tops[draw]
    if least is None:
        return jaccard_of_pairs(np.where(np.isin(one, other), one, -1), len(other))
    directions = [
        np.array([layer.directions[int(feature)] for feature in tops])
        for layer, tops in ((below, one), (above, other))
    ]
    return jaccard_of_pairs(counterparts(directions[0], directions[1], least), len(other))


def _probe_draws(confusions: IntArray, draws: int, seed: int) -> FloatArray:
    """(draws + 1,) macro-F1 observed, and over resampled clusters."""
    labels = confusions.shape[-1]
    table = confusions.reshape(len(confusions), -1)

    def statistic(sums: FloatArray) -> FloatArray:
        return macro_f1(sums.reshape(-1, labels, labels))[:, None]

    observed = macro_f1(confusions.sum(axis=0))
    if not draws:
        return np.array([observed])
    return np.concatenate([[observed], bootstrap(table, statistic, draws=draws, seed=seed)[:, 0]])


def change_points(curves: npt.ArrayLike) -> tuple[int, int]:
    """The two layers at which a new phase begins: least squares of piecewise constant, standardised curves.

    Curves (C, L) are standardised over their known values; a constant one says nothing. All pairs of
    boundaries 0 < a < b < L are tried, and the sum over curves of squared distances to the means of the three
    pieces is least at the one returned; of equal ones the lower. Missing values (NaN) count in no piece.

    Raises:
        ScoreError: fewer than three layers.
    """
    values = np.atleast_2d(np.asarray(curves, dtype=np.float64))
    if values.shape[1] < 3:
        raise ScoreError(f"two change points need three layers, there are {values.shape[1]}")
    gains = _gains(standardised(values)[None])[0]
    first = int(np.flatnonzero(gains >= gains.max() - 1e-9)[0])
    return list(combinations(range(1, values.shape[1]), 2))[first]


def phases_explain(curves: npt.ArrayLike, *, seed: int, orders: int = 999) -> tuple[float, float]:
    """How much two change points explain of standardised curves (C, L), and how surprising that is.

    Returns the share of their sum of squares, 0 to 1 (0 where all are constant); and p, the share of orders
    of the layers whose best change points explain as much: of all orders where there are at most `orders`,
    else of that many at random, and (b + 1) / (orders + 1). A few layers have phases in many orders, so p
    cannot be small then.
    """
    scaled = standardised(np.atleast_2d(np.asarray(curves, dtype=np.float64)))
    layers = scaled.shape[1]
    total = float(np.nansum(scaled**2))
    if not total:
        return 0.0, 1.0
    observed = float(_gains(scaled[None]).max())
    everything = factorial(layers) <= orders
    if everything:
        places = np.array(list(permutations(range(layers))))
    else:
        rng = np.random.default_rng([seed, 19])
        places = np.stack([rng.permutation(layers) for _ in range(orders)])
    reached = _gains(np.moveaxis(scaled[:, places], 1, 0)).max(axis=1) >= observed - 1e-9
    p = reached.mean() if everything else (reached.sum() + 1) / (orders + 1)
    return observed / total, float(p)


def _gains(scaled: FloatArray) -> FloatArray:
    """For standardised curves (K, C, L), the sum of squares that each pair of change points explains: (K, P),
    pairs in the order of `combinations`."""
    known = np.isfinite(scaled)
    count, total = (_running(each) for each in (known.astype(float), np.where(known, scaled, 0.0)))
    layers = scaled.shape[-1]

    def piece(start: int, end: int) -> FloatArray:
        n, s = count[..., end] - count[..., start], total[..., end] - total[..., start]
        return np.asarray(np.divide(s**2, n, out=np.zeros_like(s), where=n > 0).sum(axis=-1))

    spans = [(start, end) for start in range(layers) for end in range(start + 1, layers + 1)]
    pieces = {span: piece(*span) for span in spans}
    pairs = combinations(range(1, layers), 2)
    return np.stack([pieces[0, a] + pieces[a, b] + pieces[b, layers] for a, b in pairs], axis=1)


def standardised(curves: npt.ArrayLike) -> FloatArray:
    """Each curve (C, L) with mean 0 and standard deviation 1 over its known values; zeros if constant."""
    values = np.asarray(curves, dtype=np.float64)
    known = np.isfinite(values)
    n = np.maximum(known.sum(axis=1, keepdims=True), 1)
    mean = np.where(known, values, 0).sum(axis=1, keepdims=True) / n
    centred = np.where(known, values - mean, 0)
    spread = np.sqrt((centred**2).sum(axis=1, keepdims=True) / n)
    scaled = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-12)
    return np.where(known, scaled, np.nan)


def _running(values: FloatArray) -> FloatArray:
    """Sums up to each place of the last axis, with 0 before the first."""
    return np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1)], axis=-1)


def _unit(directions: FloatArray) -> FloatArray:
    norms = np.linalg.norm(directions, axis=1, keepdims=True)
    return np.asarray(np.divide(directions, norms, out=np.zeros_like(directions), where=norms > 0))
