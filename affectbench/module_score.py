"""Scores of adapted models under overlays, with intervals over items and over seeds; pure functions.

Clusters of items and, where there are several, the seeds of the adaptations are resampled together, the same
draws for all conditions, so differences are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from affectbench.errors import ScoreError
from affectbench.score_models import Estimate
from affectbench.stats import bootstrap, cluster_codes

FloatArray = npt.NDArray[np.float64]
DRAWS = 2000
ENOUGH = 2.0
"""Standard errors that a gain needs to be shared out."""


@dataclass(frozen=True)
class Quantity:
    """A number, and what it is in each bootstrap draw, shape (D,)."""

    value: float
    draws: FloatArray

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.value - other.value, self.draws - other.draws)

    @property
    def se(self) -> float:
        """Standard deviation of the draws."""
        return float(np.nanstd(self.draws))

    def estimate(self) -> Estimate:
        """The number with its 95 % percentile interval."""
        low, high = np.nanpercentile(self.draws, [2.5, 97.5])
        return Estimate(value=self.value, low=float(low), high=float(high), se=self.se)

    def share(self, whole: Quantity) -> Quantity:
        """This as a share of another."""
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.where(whole.draws == 0, np.nan, self.draws / whole.draws)
        return Quantity(self.value / whole.value, found)

    @classmethod
    def largest(cls, found: Sequence[Quantity]) -> Quantity:
        """The largest of several, in each draw anew: what one has to beat."""
        return cls(max(each.value for each in found), np.max([each.draws for each in found], axis=0))


def recalls(
    codes: npt.NDArray[np.integer], gold: npt.ArrayLike, clusters: Sequence[str], seed: int, stream: int = 0
) -> list[Quantity]:
    """UAR of each condition, averaged over seeds.

    Args:
        codes: (K, S, N) answers of S models under K conditions to N items; negative ones are wrong.
        gold: (N,) labels.
        clusters: (N,) clusters of the items.
        seed: of the bootstrap.
        stream: equal for questions about the same items; the resampled seeds are the same for all streams.

    Raises:
        ScoreError: the shapes contradict each other.
    """
    truth = np.asarray(gold)
    if codes.ndim != 3 or codes.shape[2] != len(truth) or len(clusters) != len(truth):
        raise ScoreError(f"answers {codes.shape} for {len(truth)} items: expected (conditions, seeds, items)")
    right = codes == truth
    labels = np.unique(truth)
    places, count = cluster_codes(clusters)
    flat = right.reshape(-1, len(truth))
    table = np.zeros((count, len(labels), 1 + len(flat)), dtype=np.int64)
    for column, label in enumerate(labels):
        own = np.flatnonzero(truth == label)
        table[:, column, 0] = np.bincount(places[own], minlength=count)
        for row, answers in enumerate(flat):
            table[:, column, 1 + row] = np.bincount(places[own], weights=answers[own], minlength=count)

    def averaged(sums: FloatArray) -> FloatArray:
        """(D, K * S) UAR; labels of which a draw has no item are left out there."""
        by_label = sums.reshape(len(sums), len(labels), -1)
        with np.errstate(invalid="ignore"):
            shares = np.where(by_label[..., :1] > 0, by_label[..., 1:] / by_label[..., :1], np.nan)
        return np.asarray(np.nanmean(shares, axis=1))

    value = averaged(table.sum(axis=0, dtype=np.float64).reshape(1, -1)).reshape(codes.shape[:2])
    drawn = bootstrap(table.reshape(count, -1), averaged, draws=DRAWS, seed=seed, stream=2 + stream)
    drawn = drawn.reshape(DRAWS, *codes.shape[:2])
    return [Quantity(float(value[k].mean()), _over_seeds(drawn[:, k], seed)) for k in range(len(value))]


def accuracies(right: npt.NDArray[np.integer], seed: int, stream: int = 0) -> list[Quantity]:
    """Accuracy of each condition, averaged over seeds; `right` (K, S, N) is 0 or 1, items are independent."""
    if right.ndim != 3 or not right.size:
        raise ScoreError(f"answers {right.shape}: expected (conditions, seeds, items)")
    flat = right.reshape(-1, right.shape[2]).T.astype(np.int64)
    drawn = bootstrap(flat, lambda sums: sums / len(flat), draws=DRAWS, seed=seed, stream=2 + stream)
    drawn = drawn.reshape(DRAWS, *right.shape[:2])
    means = right.mean(axis=(1, 2))
    return [Quantity(float(means[k]), _over_seeds(drawn[:, k], seed)) for k in range(len(means))]


def _over_seeds(drawn: FloatArray, seed: int) -> FloatArray:
    """(D,) means over resampled seeds of (D, S); the draws of one seed as they are."""
    chosen = np.random.default_rng([seed, 81]).integers(drawn.shape[1], size=drawn.shape)
    return np.asarray(np.take_along_axis(drawn, chosen, axis=1).mean(axis=1))


def recovery(moved: Quantity, base: Quantity, adapted: Quantity) -> Quantity | None:
    """R = (S - S(base)) / (S(adapted) - S(base)); None where the adaptation gains less than two standard
    errors, for a share of nothing says nothing."""
    gain = adapted - base
    return None if gain.value < ENOUGH * gain.se or gain.value <= 0 else (moved - base).share(gain)


def over_seeds(values: npt.ArrayLike) -> Estimate:
    """Mean of one value a seed, with Student's 95 % interval; none from a single seed."""
    found = np.asarray(values, dtype=np.float64)
    mean = float(found.mean())
    if len(found) < 2:
        return Estimate(value=mean)
    from scipy.stats import t as student

    se = float(found.std(ddof=1) / np.sqrt(len(found)))
    half = float(student.ppf(0.975, len(found) - 1)) * se
    return Estimate(value=mean, low=mean - half, high=mean + half, se=se)
