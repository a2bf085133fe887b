"""From counts by cluster to effect matrices, target-rate shifts, their intervals and their tests.

One formula serves the point values and the resamples, so that they cannot drift apart: everything is computed
from sums over clusters of 0/1 columns, the point from the plain sums, the intervals from resampled ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from affectbench import stats
from affectbench.errors import ScoreError
from affectbench.outcomes import Array, Condition, Outcomes, base_of
from affectbench.score_models import Estimate, Interval
from affectbench.stats import FloatArray, IntArray

LEVEL = 0.05
"""One minus the coverage of intervals, and the bar for p."""
UNDEFINED_DRAWS = 0.1
"""Above this share of resamples that lack an emotion altogether, no interval is given."""
N_TOTALS = 6
"""Statistics of a condition over all emotions: self, cross, spec, gap_abs, UAR change, target-rate shift."""


class Effects(NamedTuple):
    """Summaries of effect matrices (..., E, E); a leading axis of any shape is kept."""

    on_self: FloatArray
    cross_row: FloatArray
    row_gap: FloatArray
    self_effect: FloatArray
    cross_effect: FloatArray
    gap_abs: FloatArray


def effects(matrix: FloatArray, direction: FloatArray | float) -> Effects:
    """Self, cross and gap of complete effect matrices (rows target, columns gold).

    Args:
        matrix: (..., E, E) changes of recall.
        direction: -1 for suppression, +1 for amplification; broadcasts against (...).
    """
    n_labels = matrix.shape[-1]
    on_self = np.diagonal(matrix, axis1=-2, axis2=-1)
    cross_row = (matrix.sum(axis=-1) - on_self) / (n_labels - 1)
    size = (np.abs(matrix).sum(axis=(-2, -1)) - np.abs(on_self).sum(axis=-1)) / (n_labels * (n_labels - 1))
    self_effect = on_self.mean(axis=-1)
    return Effects(
        on_self=on_self,
        cross_row=cross_row,
        row_gap=on_self - cross_row,
        self_effect=self_effect,
        cross_effect=cross_row.mean(axis=-1),
        gap_abs=direction * self_effect - size,
    )


@dataclass(frozen=True)
class Tally:
    """Counts by cluster: all that specificity and strength need from the items.

    `table` (C, E + B*E + K*E*E + B*E + K*E) holds, in this order: items by gold; correct answers by gold in
    each of B bases, the outcomes' own first; correct answers by condition, target and gold; answers of s
    among items of other gold, by s, in each base; the same under each condition that targets s. `bases` (K,)
    says which base a condition is compared with.
    """

    table: IntArray
    n_labels: int
    direction: FloatArray
    bases: IntArray
    strength_weights: FloatArray | None

    def unpack(self, sums: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(D, T) sums -> effect matrices (D, K, E, E) and target-rate shifts (D, K, E)."""
        size, n_labels, k = len(sums), self.n_labels, len(self.direction)
        n_gold, base, cells, base_hits, hits = self.parts(sums)
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = cells.reshape(size, k, n_labels, n_labels) / n_gold[:, None, None, :]
            matrix = recall - (base[:, self.bases] / n_gold[:, None, :])[:, :, None, :]
            others = n_gold.sum(axis=1, keepdims=True) - n_gold
            gain = (hits.reshape(size, k, n_labels) - base_hits[:, self.bases]) / others[:, None, :]
        loss = -np.diagonal(matrix, axis1=-2, axis2=-1)
        return matrix, np.where((self.direction > 0)[None, :, None], gain, loss)

    def parts(self, sums: FloatArray) -> tuple[FloatArray, ...]:
        """The parts of (D, T) rows in the order of `table`; those of bases are (D, B, E), others (D, ...)."""
        n_labels, k, size = self.n_labels, len(self.direction), len(sums)
        wide = n_labels * (int(self.bases.max(initial=0)) + 1)
        ends = np.cumsum([n_labels, wide, k * n_labels**2, wide])
        n_gold, base, cells, base_hits, hits = np.split(sums, ends, axis=1)
        shape = (size, -1, n_labels)
        return n_gold, base.reshape(shape), cells, base_hits.reshape(shape), hits

    def by_cluster(self) -> FloatArray:
        """(C, T): each cluster's sums beside the items by gold of all clusters. Statistics of its rows that
        are linear for fixed items (self, cross, spec, UAR change, strength) sum to those of the whole."""
        sums = self.table.astype(np.float64)
        sums[:, : self.n_labels] = sums[:, : self.n_labels].sum(axis=0)
        return sums

    def statistics(self, sums: FloatArray) -> FloatArray:
        """(D, T) sums -> (D, S): for each condition 6 totals and 3 E values by emotion, then the strength."""
        matrix, shift = self.unpack(sums)
        found = effects(matrix, self.direction)
        sign = self.direction[None, :, None]
        totals = (
            found.self_effect,
            found.cross_effect,
            self.direction * (found.self_effect - found.cross_effect),
            found.gap_abs,
            matrix.mean(axis=(-2, -1)),
            shift.mean(axis=-1),
        )
        blocks = [np.stack(totals, axis=-1), found.on_self, sign * found.row_gap, shift]
        flat = np.concatenate(blocks, axis=-1).reshape(len(sums), -1)
        if self.strength_weights is None:
            return flat
        strength = shift.mean(axis=-1) @ self.strength_weights
        return np.concatenate([flat, strength[:, None]], axis=1)


def tally_outcomes(outcomes: Outcomes) -> Tally:
    n_labels = len(outcomes.labels)
    codes, n_clusters = stats.cluster_codes(outcomes.clusters)
    cell = codes * n_labels + outcomes.gold
    targets = np.arange(n_labels)[:, None]

    def by_gold(chosen: Array) -> IntArray:
        counts = np.bincount(cell[chosen], minlength=n_clusters * n_labels)
        return counts.reshape(n_clusters, n_labels)

    def by_target(answers: Array) -> IntArray:
        """(E, N) answers under each target -> (C, E) answers of the target on items of other gold."""
        hits = (answers == targets) & (outcomes.gold != targets)
        return np.stack([np.bincount(codes[hit], minlength=n_clusters) for hit in hits], axis=1)

    bases, which = _bases(outcomes)
    columns = [by_gold(np.ones(len(cell), dtype=bool)), *(by_gold(base == outcomes.gold) for base in bases)]
    for condition in outcomes.conditions:
        columns += [by_gold(row == outcomes.gold) for row in condition.predictions]
    columns += [by_target(np.broadcast_to(base, (n_labels, len(cell)))) for base in bases]
    columns += [by_target(condition.predictions) for condition in outcomes.conditions]
    return Tally(
        bases=np.array(which, dtype=np.int64),
        table=np.concatenate(columns, axis=1).astype(np.int64),
        n_labels=n_labels,
        direction=np.array([direction(condition) for condition in outcomes.conditions]),
        strength_weights=_strength_weights(outcomes.conditions),
    )


def _bases(outcomes: Outcomes) -> tuple[list[Array], list[int]]:
    """The distinct bases, the outcomes' own first, and the place of each condition's among them."""
    bases, which = [outcomes.base], []
    for condition in outcomes.conditions:
        own = base_of(outcomes, condition)
        place = next((n for n, known in enumerate(bases) if np.array_equal(known, own)), len(bases))
        bases += [own] * (place == len(bases))
        which.append(place)
    return bases, which


def direction(condition: Condition) -> float:
    return 1.0 if condition.arm == "amplify" else -1.0


def _strength_weights(conditions: tuple[Condition, ...]) -> FloatArray | None:
    """(K,) weights from shifts at each condition to area / largest alpha; None without amplification."""
    amplify = [k for k, condition in enumerate(conditions) if condition.arm == "amplify"]
    if not amplify:
        return None
    alpha = np.array([conditions[k].alpha for k in amplify])
    if len(set(alpha)) < len(alpha):
        raise ScoreError(f"two amplify doses share one alpha: {sorted(alpha.tolist())}")
    order = np.argsort(alpha)
    grid = np.concatenate([[0.0], alpha[order]])
    unit_curves = np.concatenate([np.zeros((1, len(amplify))), np.eye(len(amplify))])
    weights = np.zeros(len(conditions))
    weights[np.array(amplify)[order]] = stats.trapezoid(grid, unit_curves) / grid[-1]
    return weights


@dataclass(frozen=True)
class Inference:
    """Points (S,), bounds (4, S: low, high, corrected low, corrected high), errors (S,), p (K, E), and the
    resamples (D, S) that hold all emotions."""

    point: FloatArray
    bounds: FloatArray | None
    errors: FloatArray | None
    p: FloatArray | None
    reason: str
    resamples: FloatArray | None = None

    def estimate(self, column: int) -> Estimate:
        """One statistic with its 95 % interval."""
        value = rounded(self.point[column])
        if self.bounds is None or self.errors is None:
            return Estimate(value=value)
        low, high = (rounded(bound) for bound in self.bounds[:2, column])
        return Estimate(value=value, low=low, high=high, se=rounded(self.errors[column]))

    def corrected(self, column: int) -> Interval:
        """The interval of one statistic that holds for all conditions of the cell at once."""
        if self.bounds is None:
            return Interval(low=None, high=None)
        low, high = (rounded(bound) for bound in self.bounds[2:, column])
        return Interval(low=low, high=high)


def estimate_of(value: float, resamples: FloatArray) -> Estimate:
    """A value with the percentiles of its resamples (D,); none where over 10 % of them are undefined."""
    defined = resamples[np.isfinite(resamples)]
    if len(defined) < max(2.0, (1 - UNDEFINED_DRAWS) * len(resamples)):
        return Estimate(value=rounded(value))
    low, high = (rounded(bound) for bound in np.quantile(defined, [LEVEL / 2, 1 - LEVEL / 2]))
    return Estimate(value=rounded(value), low=low, high=high, se=rounded(defined.std(ddof=1)))


def rounded(value: float) -> float:
    """To 12 decimals: sums of counts that cancel are then 0, not 1e-18 of either sign."""
    return round(float(value), 12) + 0.0


def infer(tally: Tally, seed: int, draws: int) -> Inference:
    point = tally.statistics(tally.table.sum(axis=0, dtype=np.float64)[None])[0]
    n_clusters = len(tally.table)
    if n_clusters < 2:
        return Inference(point, None, None, None, "intervals need at least 2 clusters, there is 1")
    p = stats.sign_flip(_row_gap_contributions(tally), draws=draws, seed=seed)
    p = p.reshape(len(tally.direction), tally.n_labels)
    resampled = stats.bootstrap(tally.table, tally.statistics, draws=draws, seed=seed)
    defined = resampled[np.isfinite(resampled).all(axis=1)]
    undefined = 1 - len(defined) / draws
    if undefined > UNDEFINED_DRAWS:
        reason = (
            f"{n_clusters} clusters are too few: an emotion is missing from {undefined:.0%} of the resamples"
        )
        return Inference(point, None, None, p, reason)
    tail = LEVEL / 2
    narrow = tail / len(tally.direction)
    bounds = np.quantile(defined, [tail, 1 - tail, narrow, 1 - narrow], axis=0)
    return Inference(point, bounds, defined.std(axis=0, ddof=1), p, "", defined)


def resampled_spec(outcomes: Outcomes, condition: Condition, seed: int, draws: int) -> FloatArray:
    """(draws,) specificity of one condition under resampled clusters; NaN where an emotion is missing."""
    tally = tally_outcomes(replace(outcomes, conditions=(condition,)))
    found = stats.bootstrap(tally.table, lambda sums: tally.statistics(sums)[:, 2:3], draws=draws, seed=seed)
    return found[:, 0]


def _row_gap_contributions(tally: Tally) -> FloatArray:
    """(C, K*E): what each cluster adds to each row gap, items weighted by 1 / (items of their gold)."""
    k, n_labels = len(tally.direction), tally.n_labels
    n_gold, base, cells, _, _ = tally.parts(tally.table.astype(np.float64))
    change = cells.reshape(-1, k, n_labels, n_labels) - base[:, tally.bases][:, :, None, :]
    weights = np.where(np.eye(n_labels, dtype=bool), 1.0, -1.0 / (n_labels - 1)) / n_gold.sum(axis=0)
    return np.asarray(np.einsum("ckse,se->cks", change, weights)).reshape(len(tally.table), -1)
