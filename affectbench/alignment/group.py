"""From subjects to a claim: tests over subjects, noise ceilings, peaks, and how measures rank models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from affectbench.alignment.rdm import FloatArray
from affectbench.analysis import Series, numbers
from affectbench.errors import AffectbenchError
from affectbench.score_models import Estimate
from affectbench.stats import benjamini_hochberg, max_t, sign_flip

Correction = Literal["fdr", "max_t"]


class GroupTest(NamedTuple):
    """Over subjects, for each hypothesis: mean effect, sign-flip p, and p corrected for all of them."""

    mean: FloatArray
    p: FloatArray
    corrected: FloatArray


def over_subjects(
    effects: npt.ArrayLike, *, draws: int = 4999, seed: int = 0, correction: Correction = "fdr"
) -> GroupTest:
    """Test effects (subjects, ...) against zero by flipping the signs of whole subjects.

    An effect is a subject's mean of match minus mean mismatch, so zero is what it is without alignment. All
    hypotheses are flipped together; correction is Benjamini and Hochberg's, or the largest statistic's.
    Hypotheses that are NaN for some subject get NaN.
    """
    values = np.asarray(effects, dtype=np.float64)
    if len(values) < 2:
        raise AffectbenchError(
            f"a test over subjects needs two, got {len(values)}", hint="name more subjects"
        )
    flat = values.reshape(len(values), -1)
    sound = np.isfinite(flat).all(axis=0)
    found = np.full((3, flat.shape[1]), np.nan)
    if sound.any():
        table = flat[:, sound]
        found[0, sound] = table.mean(axis=0)
        found[1, sound] = sign_flip(table, draws=draws, seed=seed)
        found[2, sound] = (
            benjamini_hochberg(found[1, sound])
            if correction == "fdr"
            else max_t(table, draws=draws, seed=seed)
        )
    return GroupTest(*found.reshape(3, *values.shape[1:]))


def interval(effects: npt.ArrayLike, *, seed: int, draws: int = 1000) -> FloatArray:
    """Mean and the bounds of its 95 % bootstrap interval over subjects, (3, ...)."""
    values = np.asarray(effects, dtype=np.float64)
    drawn = np.random.default_rng([seed, 2]).integers(0, len(values), (draws, len(values)))
    counts = np.stack([np.bincount(row, minlength=len(values)) for row in drawn]) / len(values)
    means = np.tensordot(counts, values, axes=1)
    return np.concatenate([values.mean(axis=0)[None], np.percentile(means, [2.5, 97.5], axis=0)])


def estimate_of(values: npt.ArrayLike, *, seed: int) -> Estimate:
    """The mean of `values` (subjects,) with its interval."""
    return estimated(interval(values, seed=seed))


def banded(label: str, values: npt.ArrayLike, *, seed: int) -> Series:
    """A line of a curve: the mean of `values` (subjects, n) with its interval."""
    mean, low, high = interval(values, seed=seed)
    return Series(label=label, values=numbers(mean), low=numbers(low), high=numbers(high))


def estimated(spread: FloatArray) -> Estimate:
    """What `interval` gives for one effect, (3,), as records hold it."""
    value, low, high = (float(each) for each in np.ravel(spread))
    return Estimate(value=value, low=low, high=high)


def noise_ceiling(vectors: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Bounds (subjects,) on the RSA that any model can reach (Nili et al. 2014).

    `vectors` (subjects, m): what a side of a correlation gives, centred at length one. Lower: each subject
    with the mean of the others; upper: with the mean of all.
    """
    sides = np.asarray(vectors, dtype=np.float64)
    if len(sides) < 2:
        raise AffectbenchError("a noise ceiling needs two subjects", hint="name more subjects")
    total = sides.sum(axis=0)
    others = total - sides
    lower = (sides * others).sum(axis=1) / np.linalg.norm(others, axis=1)
    return lower, sides @ (total / np.linalg.norm(total))


def peak(curves: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Where curves (subjects, n) are highest, by cross-validation: for each subject the place where the mean
    of the others is highest, and that subject's own height there. So no height is the best of many draws.
    A place that is undefined for some subject is none."""
    values = np.asarray(curves, dtype=np.float64)
    others = values.sum(axis=0) - values
    places = np.where(np.isnan(others), -np.inf, others).argmax(axis=1)
    return places, values[np.arange(len(values)), places]


def kendall_w(scores: npt.ArrayLike) -> float:
    """Kendall's coefficient of concordance of `scores` (judges, objects), corrected for ties; NaN below two
    judges or objects."""
    from scipy.stats import rankdata

    values = np.asarray(scores, dtype=np.float64)
    judges, objects = values.shape
    if judges < 2 or objects < 2 or np.isnan(values).any():
        return float("nan")
    ranked = np.stack([rankdata(row) for row in values])
    spread = ((ranked.sum(axis=0) - judges * (objects + 1) / 2) ** 2).sum()
    ties = sum(
        float((counts**3 - counts).sum()) for counts in (np.unique(r, return_counts=True)[1] for r in ranked)
    )
    most = judges**2 * (objects**3 - objects) - judges * ties
    return float(12 * spread / most) if most > 0 else float("nan")


def rank_agreement(scores: npt.ArrayLike, *, seed: int, draws: int = 500) -> FloatArray:
    """Do measures rank models alike? Spearman correlation of each two measures over models, with its 95 %
    bootstrap interval over subjects: (3, measures, measures) of value, low and high.

    `scores` (subjects, measures, models).
    """
    values = np.asarray(scores, dtype=np.float64)
    rng = np.random.default_rng([seed, 3])
    drawn = rng.integers(0, len(values), (draws, len(values)))
    found = np.stack([_rank_correlations(values[rows].mean(axis=0)) for rows in drawn])
    with np.errstate(invalid="ignore"):
        low, high = np.percentile(found, [2.5, 97.5], axis=0)
    return np.stack([_rank_correlations(values.mean(axis=0)), low, high])


def _rank_correlations(scores: FloatArray) -> FloatArray:
    from scipy.stats import rankdata

    ranked = np.stack([rankdata(row) for row in scores])
    centred = ranked - ranked.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(centred @ centred.T / np.outer(norms, norms))


def family_split(
    scores: npt.ArrayLike, families: Sequence[str], *, seed: int, draws: int = 500
) -> FloatArray:
    """How much more alike measures of one family rank objects than measures of different families do: mean
    Spearman correlation within families less that between them, with its 95 % bootstrap interval over
    subjects, (3,) of value, low and high. NaN where there is no such pair.

    `scores` (subjects, measures, objects).
    """
    values = np.asarray(scores, dtype=np.float64)
    same = np.equal.outer(families, families)[np.triu_indices(len(families), 1)]
    if same.all() or not same.any():
        return np.full(3, np.nan)

    def split(table: FloatArray) -> float:
        pairs = _rank_correlations(table)[np.triu_indices(len(families), 1)]
        return float(pairs[same].mean() - pairs[~same].mean())

    rng = np.random.default_rng([seed, 4])
    drawn = [split(values[rng.integers(0, len(values), len(values))].mean(axis=0)) for _ in range(draws)]
    return np.array([split(values.mean(axis=0)), *np.percentile(drawn, [2.5, 97.5])])


def rank_spread(scores: npt.ArrayLike, *, seed: int, draws: int = 1000) -> FloatArray:
    """Ranks of objects by each measure, 1 the highest, with the 95 % bootstrap interval over subjects,
    (3, measures, objects). `scores` (subjects, measures, objects)."""
    from scipy.stats import rankdata

    values = np.asarray(scores, dtype=np.float64)
    rows = np.random.default_rng([seed, 5]).integers(0, len(values), (draws, len(values)))
    drawn = rankdata([-values[row].mean(axis=0) for row in rows], axis=-1)
    own = rankdata(-values.mean(axis=0), axis=-1)
    return np.concatenate([own[None], np.percentile(drawn, [2.5, 97.5], axis=0)])


def share_interval(count: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share."""
    from scipy.stats import binomtest

    found = binomtest(count, total).proportion_ci(method="wilson")
    return float(found.low), float(found.high)
