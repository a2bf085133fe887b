"""What amplifying without a gold label does to recognition: change of UAR and accuracy, beside random units.

`oracle` is scored with the same formula and is an upper bound only: it is told each item's emotion.
"""

from __future__ import annotations

import numpy as np

from affectbench import stats
from affectbench.effects import LEVEL, UNDEFINED_DRAWS, rounded
from affectbench.outcomes import Array, Condition, Outcomes, Steered, base_of
from affectbench.score_models import Estimate, LabelFree
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
    uar, accuracy = _estimates(table, point, seed, draws)
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
    )


def _estimates(table: IntArray, point: FloatArray, seed: int, draws: int) -> list[Estimate]:
    """Both changes with 95 % intervals over resampled clusters, without where clusters are too few."""
    if len(table) > 1:
        found = stats.bootstrap(table, changes, draws=draws, seed=seed)
        found = found[np.isfinite(found).all(axis=1)]
        if len(found) >= (1 - UNDEFINED_DRAWS) * draws:
            low, high = np.quantile(found, [LEVEL / 2, 1 - LEVEL / 2], axis=0)
            errors = found.std(axis=0, ddof=1)
            return [
                Estimate(value=rounded(p), low=rounded(a), high=rounded(b), se=rounded(e))
                for p, a, b, e in zip(point, low, high, errors, strict=True)
            ]
    return [Estimate(value=rounded(value)) for value in point]
