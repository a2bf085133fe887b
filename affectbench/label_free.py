"""What amplifying without a gold label does to recognition: change of UAR and accuracy, beside random units.

`oracle` is scored with the same formula and is an upper bound only: it is told each item's emotion.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from affectbench import stats
from affectbench.effects import LEVEL, UNDEFINED_DRAWS, rounded
from affectbench.outcomes import Array, Condition, Outcomes, Steered, base_of
from affectbench.score_models import Estimate, LabelFree, Recognition
from affectbench.stats import FloatArray, IntArray


def label_free_scores(outcomes: Outcomes, condition: Condition, seed: int, draws: int) -> list[LabelFree]:
    """One score for each targeting of a condition, and that of the oracle; empty where none was run."""
    if not condition.steered:
        return []
    ways = [*condition.steered, _oracle(outcomes, condition)]
    base = base_of(outcomes, condition)
    return [_score(outcomes, base, way, seed, draws) for way in ways]


def changes(sums: FloatArray) -> FloatArray:
    """(D, 3 E) sums of items, correct base answers and correct steered answers by gold -> (D, 2) changes of
    UAR and of accuracy. NaN where an emotion has no item."""
    items, base, now = np.split(sums, 3, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        uar = ((now - base) / items).mean(axis=1)
    return np.stack([uar, (now - base).sum(axis=1) / items.sum(axis=1)], axis=1)


def _oracle(outcomes: Outcomes, condition: Condition) -> Steered:
    """Each item under the units of its own emotion: the diagonal of the effect matrix."""
    places = np.arange(len(outcomes.gold))
    gold, n_draws = outcomes.gold.astype(np.int64), len(condition.draws)
    controls = n_draws if n_draws >= len(outcomes.labels) else 0
    drawn = [condition.draws[(j + gold) % n_draws, places] for j in range(controls)]
    shape = (controls, len(places))
    return Steered(
        "oracle", condition.predictions[gold, places], np.array(drawn, dtype=np.int16).reshape(shape)
    )


def _table(outcomes: Outcomes, base: Array, answers: Array) -> IntArray:
    """(C, 3 E) counts by cluster: items, correct base answers, correct steered answers, each by gold."""
    n_labels = len(outcomes.labels)
    codes, n_clusters = stats.cluster_codes(outcomes.clusters)
    cell = codes * n_labels + outcomes.gold

    def by_gold(chosen: Array) -> IntArray:
        return np.bincount(cell[chosen], minlength=n_clusters * n_labels).reshape(n_clusters, n_labels)

    gold = outcomes.gold
    parts = (np.ones(len(gold), dtype=bool), base == gold, answers == gold)
    return np.concatenate([by_gold(part) for part in parts], axis=1).astype(np.int64)


def _score(outcomes: Outcomes, base: Array, way: Steered, seed: int, draws: int) -> LabelFree:
    table = _table(outcomes, base, way.answers)
    point = changes(table.sum(axis=0, dtype=np.float64)[None])[0]
    uar, accuracy = _intervals(table, changes, point, seed, draws)
    controls = np.array(
        [changes(_table(outcomes, base, row).sum(axis=0, dtype=np.float64)[None])[0, 0] for row in way.draws]
    )
    known = controls.size > 1
    largest = max(np.bincount(way.answers[way.answers >= 0], minlength=1)) / len(way.answers)
    return LabelFree(
        targeting=way.targeting,
        uar_change=uar,
        accuracy_change=accuracy,
        largest_share=rounded(largest),
        flip_rate=rounded((way.answers != base).mean()),
        n_draws=len(controls),
        random_mean=rounded(controls.mean()) if known else None,
        random_sd=rounded(controls.std(ddof=1)) if known else None,
        p_random=rounded(((controls >= point[0] - 1e-12).sum() + 1) / (len(controls) + 1)) if known else None,
        recognition=_recognition(outcomes, way, seed, draws),
    )


def macro_f1(confusion: FloatArray) -> FloatArray:
    """Mean over emotions of F1 = 2 hits / (gold + answered) of counts (..., E, E + 1), gold in rows, no
    answer in the last column; an emotion that is neither gold nor answered counts as 0."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    both = confusion.sum(axis=-1) + confusion.sum(axis=-2)[..., :-1]
    return np.asarray((2 * hits / np.maximum(both, 1)).mean(axis=-1))


def macro_f1_of(gold: Array, answers: Array, labels: int) -> float:
    """Macro-F1 of (N,) answers, negative where there is none, to items of (N,) gold labels."""
    confusion = np.zeros((labels, labels + 1))
    np.add.at(confusion, (gold, np.where(answers >= 0, answers, labels)), 1)
    return float(macro_f1(confusion))


def _confusion(outcomes: Outcomes, answers: Array) -> IntArray:
    """(C, E * (E + 1)) counts of each gold label with each answer, by cluster."""
    n_labels = len(outcomes.labels)
    codes, n_clusters = stats.cluster_codes(outcomes.clusters)
    answered = np.where(answers >= 0, answers, n_labels)
    size = n_labels * (n_labels + 1)
    cell = codes * size + outcomes.gold * (n_labels + 1) + answered
    return np.bincount(cell, minlength=n_clusters * size).reshape(n_clusters, size).astype(np.int64)


def _recognition(outcomes: Outcomes, way: Steered, seed: int, draws: int) -> Recognition:
    n_labels = len(outcomes.labels)
    table = np.concatenate([_confusion(outcomes, each) for each in (outcomes.base, way.answers)], axis=1)

    def f1(sums: FloatArray) -> FloatArray:
        before, after = np.split(np.asarray(sums, dtype=np.float64), 2, axis=1)
        shape = (len(sums), n_labels, n_labels + 1)
        return np.stack([macro_f1(before.reshape(shape)), macro_f1(after.reshape(shape))], axis=1)

    def change(sums: FloatArray) -> FloatArray:
        return np.diff(f1(sums), axis=1)

    total = table.sum(axis=0, dtype=np.float64)[None]
    before, after = f1(total)[0]
    return Recognition(
        accuracy_before=rounded((outcomes.base == outcomes.gold).mean()),
        accuracy_after=rounded((way.answers == outcomes.gold).mean()),
        macro_f1_before=rounded(before),
        macro_f1_after=rounded(after),
        macro_f1_change=_intervals(table, change, change(total)[0], seed, draws)[0],
    )


def _intervals(
    table: IntArray, statistic: Callable[[FloatArray], FloatArray], point: FloatArray, seed: int, draws: int
) -> list[Estimate]:
    """Statistics with 95 % intervals over resampled clusters, without where clusters are too few."""
    if len(table) > 1:
        found = stats.bootstrap(table, statistic, draws=draws, seed=seed)
        found = found[np.isfinite(found).all(axis=1)]
        if len(found) >= (1 - UNDEFINED_DRAWS) * draws:
            low, high = np.quantile(found, [LEVEL / 2, 1 - LEVEL / 2], axis=0)
            errors = found.std(axis=0, ddof=1)
            return [
                Estimate(value=rounded(p), low=rounded(a), high=rounded(b), se=rounded(e))
                for p, a, b, e in zip(point, low, high, errors, strict=True)
            ]
    return [Estimate(value=rounded(value)) for value in point]
