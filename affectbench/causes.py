"""How many features cause an emotion's answers, how strongly, and how unevenly: by emotion and phase.

Source: the protocol of `docs/analyses.md`, a reconstruction of arXiv 2604.25866. Pure functions on the
effects that ablating single features has on single items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from affectbench.errors import ScoreError
from affectbench.flow import top_features
from affectbench.stats import FloatArray, IntArray, bootstrap, cluster_codes


class Kinds(NamedTuple):
    """Features that nearly all emotions share, and those of one emotion alone, by number."""

    shared: list[int]
    specific: list[list[int]]


def shared_and_specific(means: npt.ArrayLike, top: int) -> Kinds:
    """Shared features are among the `top` largest means of at least E - 1 emotions, specific ones of exactly
    one.

    Args:
        means: (E, F) mean activation over the items of each emotion.
        top: how many features each emotion lists; fewer where fewer are ever active.
    """
    values = np.asarray(means, dtype=np.float64)
    return kinds_of([top_features(row, top).tolist() for row in values])


def kinds_of(lists: Sequence[Sequence[int]]) -> Kinds:
    """The same from the emotions' lists of features."""
    counts: dict[int, int] = {}
    for own in lists:
        for feature in set(own):
            counts[feature] = counts.get(feature, 0) + 1
    shared = sorted(feature for feature, count in counts.items() if count >= max(2, len(lists) - 1))
    return Kinds(shared, [sorted(f for f in set(own) if counts[f] == 1) for own in lists])


def gini(values: npt.ArrayLike) -> float | None:
    """Gini coefficient of amounts >= 0: 0 where all are equal, (n - 1) / n where one has everything.

    G = sum_i (2 i - n - 1) x_(i) / (n sum x) over ascending x. None for no values, or nothing to share.
    """
    amounts = np.sort(np.asarray(values, dtype=np.float64))
    if amounts.size and amounts[0] < 0:
        raise ScoreError(f"a Gini coefficient is of amounts of at least 0, found {amounts[0]:g}")
    n, total = len(amounts), float(amounts.sum())
    if not n or not total:
        return None
    return float((2 * np.arange(1, n + 1) - n - 1) @ amounts / (n * total))


@dataclass(frozen=True)
class Causes:
    """Features of one emotion that were ablated one by one.

    `layers` and `features` (K,) say which; `effects` (N, K) is the drop of the gold logit minus the mean drop
    of the others on each item of the emotion; `clusters` (N,) what makes items dependent; `bar` (K,) the 95th
    percentile of the mean effects of random features that are as active.
    """

    layers: IntArray
    features: IntArray
    effects: FloatArray
    clusters: tuple[str, ...]
    bar: FloatArray

    def at(self, places: IntArray) -> Causes:
        """The same on these items alone."""
        return replace(
            self, effects=self.effects[places], clusters=tuple(self.clusters[place] for place in places)
        )


class Found(NamedTuple):
    """Mean effects (K,), the ends of their 95 % intervals over clusters, and which are causal."""

    effect: FloatArray
    low: FloatArray
    high: FloatArray
    causal: npt.NDArray[np.bool_]


def causal_features(causes: Causes, *, draws: int, seed: int) -> Found:
    """A feature is causal if the interval of its mean effect lies above 0 and the effect above its bar.

    Below two clusters there is no interval, and nothing is causal.
    """
    effects = causes.effects.mean(axis=0)
    codes, count = cluster_codes(causes.clusters)
    if count < 2:
        nothing = np.full(len(effects), np.nan)
        return Found(effects, nothing, nothing, np.zeros(len(effects), dtype=bool))
    table = np.zeros((count, causes.effects.shape[1] + 1))
    np.add.at(table, codes, np.column_stack([causes.effects, np.ones(len(codes))]))

    def statistic(sums: FloatArray) -> FloatArray:
        return np.asarray(sums[:, :-1] / sums[:, -1:])

    low, high = np.percentile(bootstrap(table, statistic, draws=draws, seed=seed), [2.5, 97.5], axis=0)
    return Found(effects, low, high, (low > 0) & (effects > causes.bar))


class Strength(NamedTuple):
    """Causal features of an emotion in one phase: how many, their summed effect, and its Gini coefficient."""

    number: float
    total: float
    gini: float | None


def strengths(causes: Causes, found: Found, boundaries: tuple[int, int], layers: int) -> list[Strength]:
    """Of each of the three phases; a phase begins at its boundary."""
    edges = (0, *boundaries, layers)
    result = []
    for start, end in pairwise(edges):
        own = found.effect[found.causal & (causes.layers >= start) & (causes.layers < end)]
        result.append(Strength(len(own), float(own.sum()), gini(own)))
    return result


def matched_strengths(
    all_causes: Sequence[Causes],
    boundaries: tuple[int, int],
    layers: int,
    *,
    repeats: int,
    draws: int,
    seed: int,
) -> tuple[int, list[list[Strength]]]:
    """The same on as many items of each emotion as the one with the fewest has: that number, and strengths
    by emotion and phase, means over `repeats` random choices of items. Gini over those that have one."""
    n = min(len(causes.effects) for causes in all_causes)
    rng = np.random.default_rng([seed, 11])
    result = []
    for causes in all_causes:
        runs = []
        for _ in range(1 if len(causes.effects) == n else repeats):
            part = causes.at(np.sort(rng.choice(len(causes.effects), size=n, replace=False)))
            runs.append(strengths(part, causal_features(part, draws=draws, seed=seed), boundaries, layers))
        result.append([_mean([run[phase] for run in runs]) for phase in range(3)])
    return n, result


def _mean(runs: Sequence[Strength]) -> Strength:
    known = [run.gini for run in runs if run.gini is not None]
    return Strength(
        sum(run.number for run in runs) / len(runs),
        sum(run.total for run in runs) / len(runs),
        sum(known) / len(known) if known else None,
    )
