"""What a cell of the site `module` tells beyond its axes: how large its modules are, and what damage to them
takes from the emotion task more than from a control task without emotion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from affectbench import stats
from affectbench.effects import estimate_of, rounded
from affectbench.outcomes import Array, Condition, Outcomes
from affectbench.preservation_score import ITEMS, numbers
from affectbench.score_models import (
    ModuleFindings,
    Necessity,
    PreservationCounts,
    PreservationScore,
    RandomNecessity,
)
from affectbench.selector import Selection
from affectbench.sites import UnitArray
from affectbench.stats import FloatArray

DRAWS = 10_000


@dataclass(frozen=True)
class _Drops:
    """Of the selected modules, and of random ones on average: the drop (2,), and in resamples (D, 2); of each
    draw of random ones (R,). NaN where there are none."""

    value: FloatArray
    resampled: FloatArray
    each: FloatArray


def sizes_of(selection: Selection, adapter: UnitArray | None) -> ModuleFindings:
    """How large the selected modules are. `adapter` (units,): parameters of a LoRA in each module."""
    weights = np.tile(np.array(selection.shape.parameters, dtype=np.int64), selection.shape.layers)

    def shares(sizes: UnitArray) -> list[float]:
        return [float(sizes[units].sum() / sizes.sum()) for units in selection.units]

    return ModuleFindings(
        parameters=[int(weights[units].sum()) for units in selection.units],
        share=shares(weights),
        adapter_share=None if adapter is None else shares(adapter),
        necessity=[],
    )


def with_necessity(
    found: ModuleFindings, outcomes: Outcomes, kept: Sequence[PreservationScore], *, seed: int
) -> ModuleFindings:
    """The findings with the necessity at each dose of the suppress arm, from answers to the test items and to
    the capability's."""
    if len(np.unique(outcomes.gold)) < len(outcomes.labels):
        return found.model_copy(update={"necessity": []})  # Without items of some label there is no UAR.
    counts = {each.dose: each.counts for each in kept if (each.arm, each.targeting) == ("suppress", None)}
    necessity = [
        _necessity(condition.dose, _task(outcomes, condition, seed), _control(counts[condition.dose], seed))
        for condition in outcomes.conditions
        if condition.arm == "suppress"
    ]
    return found.model_copy(update={"necessity": necessity})


def _necessity(dose: float, task: _Drops, control: _Drops | None) -> Necessity:
    difference = random = None
    if control is not None:
        beyond, drawn = task.value - control.value, task.resampled - control.resampled
        difference = estimate_of(beyond[0], drawn[:, 0])
        if len(task.each) and len(control.each) == len(task.each):
            at_or_above = (task.each - control.each >= beyond[0] - 1e-12).sum()
            random = RandomNecessity(
                n_draws=len(task.each),
                task=rounded(task.value[1]),
                control=rounded(control.value[1]),
                difference=estimate_of(beyond[1], drawn[:, 1]),
                p=float((at_or_above + 1) / (len(task.each) + 1)),
            )
    return Necessity(
        dose=dose,
        task=estimate_of(task.value[0], task.resampled[:, 0]),
        control=None if control is None else estimate_of(control.value[0], control.resampled[:, 0]),
        difference=difference,
        random=random,
    )


def _task(outcomes: Outcomes, condition: Condition, seed: int) -> _Drops:
    """Drops of UAR, by clusters of the test items, in the resamples that all scores of the cell are of."""
    labels, draws = len(outcomes.labels), len(condition.draws)
    codes, clusters = stats.cluster_codes(outcomes.clusters)
    cell = codes * labels + outcomes.gold

    def by_gold(weights: Array) -> Array:
        return np.bincount(cell, weights, clusters * labels).reshape(clusters, labels)

    hits = (condition.predictions == outcomes.gold, condition.draws == outcomes.gold)
    own, random = (each.sum(axis=0) for each in hits)
    columns = (np.ones(len(cell)), outcomes.base == outcomes.gold, own, random)
    table = np.concatenate([by_gold(each) for each in columns], axis=1).astype(np.int64)

    def dropped(sums: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore", divide="ignore"):
            n_gold, base, found, drawn = np.split(sums, 4, axis=1)
            after = found / (labels * n_gold), drawn / (draws * n_gold)
            return np.stack([(base / n_gold - each).mean(axis=1) for each in after], axis=1)

    value = dropped(table.sum(axis=0, dtype=np.float64)[None])[0]
    recall = [hits[1][:, outcomes.gold == label].mean(axis=1) for label in range(labels)]
    base = [float((outcomes.base == label)[outcomes.gold == label].mean()) for label in range(labels)]
    each = np.mean(base) - np.mean(recall, axis=0)
    return _Drops(value, _resampled(table, dropped, seed, 0), np.asarray(each))


def _control(counts: PreservationCounts, seed: int) -> _Drops | None:
    """Drops of the capability's accuracy; None where none was measured."""
    correct, base = numbers(counts.correct), numbers(counts.correct_base)
    if not len(correct):
        return None
    random, totals = numbers(counts.random_correct), numbers(counts.random_totals)
    answers, drawn = counts.interventions * len(correct), len(totals) * len(correct)
    random = random if len(random) else np.zeros(len(correct))
    table = np.stack([base, correct, random], axis=1).astype(np.int64)

    def dropped(sums: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore", divide="ignore"):
            before, after, by_draw = sums.T
            return np.stack([before / answers - after / answers, before / answers - by_draw / drawn], axis=1)

    value = dropped(table.sum(axis=0, dtype=np.float64)[None])[0]
    each = base.sum() / answers - totals / len(correct)
    return _Drops(value, _resampled(table, dropped, seed, ITEMS), each)


def _resampled(table: Array, statistic: stats.Statistic, seed: int, stream: int) -> FloatArray:
    """(D, 2) drops in resamples of the rows of a table; NaN below two rows."""
    if len(table) < 2:
        return np.full((DRAWS, 2), np.nan)
    return stats.bootstrap(table, statistic, draws=DRAWS, seed=seed, stream=stream)
