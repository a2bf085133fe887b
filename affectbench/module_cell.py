"""What a cell of the site `module` tells beyond its axes.

How large its modules are; what damage to them takes from the emotion task more than from a control task
without emotion; and where they are put into the base, how much of what the adaptation gained they recover.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from affectbench import stats
from affectbench.effects import estimate_of, rounded
from affectbench.outcomes import ADAPTED, Array, Condition, Outcomes
from affectbench.preservation_score import ITEMS, numbers
from affectbench.score_models import (
    Estimate,
    ModuleFindings,
    Necessity,
    PreservationCounts,
    PreservationScore,
    RandomNecessity,
    Recovery,
)
from affectbench.selector import Selection
from affectbench.sites import UnitArray
from affectbench.stats import FloatArray

DRAWS = 10_000
ENOUGH = 2.0
"""Standard errors that an adaptation has to gain for a share of it to say anything."""


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


def module_findings(
    found: ModuleFindings, outcomes: Mapping[str, Outcomes], kept: Sequence[PreservationScore], *, seed: int
) -> ModuleFindings:
    """The findings with what follows from answers to the test items and to the capability's: the necessity at
    each dose of the suppress arm; where modules are put into the base, recovery at each of the other."""
    test, adapted = outcomes["test"].ordered(), outcomes.get(ADAPTED)
    if len(np.unique(test.gold)) < len(test.labels):  # Without items of some label there is no UAR.
        return found.model_copy(update={"necessity": [], "adapted_uar": None, "recovery": []})
    if adapted is not None:
        amplified = [each for each in test.conditions if each.arm == "amplify"]
        whole, recovered = _recoveries(test, adapted.ordered(), amplified, seed)
        return found.model_copy(update={"necessity": [], "adapted_uar": whole, "recovery": recovered})
    counts = {each.dose: each.counts for each in kept if (each.arm, each.targeting) == ("suppress", None)}
    necessity = [
        _necessity(each.dose, _task(test, each, seed), _control(counts[each.dose], seed))
        for each in test.conditions
        if each.arm == "suppress"
    ]
    return found.model_copy(update={"necessity": necessity, "adapted_uar": None, "recovery": []})


def _recoveries(
    test: Outcomes, adapted: Outcomes, conditions: Sequence[Condition], seed: int
) -> tuple[Estimate, list[Recovery]]:
    """UAR of the adapted model, and R at each condition; items stand in one order in all of them."""
    rows = [test.base[None], adapted.base[None]]
    rows += [each for condition in conditions for each in (condition.predictions, condition.draws)]
    found = _uars(test, rows, seed)
    base, whole = found[0], found[1]
    gain = (whole.value - base.value, whole.resampled - base.resampled)
    se, reason = estimate_of(*gain).se, ""
    if se is None:
        reason = "there are too few clusters to tell what the adaptation gains"
    elif gain[0] < ENOUGH * se or gain[0] <= 0:
        reason = f"the adaptation gains {gain[0]:.3f}, less than {ENOUGH:g} standard errors of {se:.3f}"

    def share(each: _Uar) -> Estimate | None:
        if reason or not len(each.each):
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = (each.resampled - base.resampled) / gain[1]
        return estimate_of((each.value - base.value) / gain[0], drawn)

    recovered = []
    for condition, own, random in zip(conditions, found[2::2], found[3::2], strict=True):
        above = int((random.each >= own.value - 1e-12).sum())
        p = (above + 1) / (len(random.each) + 1) if len(random.each) and not reason else None
        recovered.append(
            Recovery(
                dose=condition.dose, share=share(own), reason=reason, n_draws=len(random.each),
                random=share(random), p=p,
            )
        )  # fmt: skip
    return estimate_of(whole.value, whole.resampled), recovered


@dataclass(frozen=True)
class _Uar:
    """UAR over several sets of answers, their mean, in resamples (D,), and of each set."""

    value: float
    resampled: FloatArray
    each: FloatArray


def _uars(test: Outcomes, rows: Sequence[Array], seed: int) -> list[_Uar]:
    """UAR of answers (M, N) each, all in the resamples of clusters that all scores of the cell are of."""
    labels = len(test.labels)
    codes, clusters = stats.cluster_codes(test.clusters)
    cell = codes * labels + test.gold

    def by_gold(weights: Array) -> Array:
        return np.bincount(cell, weights, clusters * labels).reshape(clusters, labels)

    hits = [each == test.gold for each in rows]
    columns = [by_gold(np.ones(len(cell))), *(by_gold(each.sum(axis=0)) for each in hits)]
    table = np.concatenate(columns, axis=1).astype(np.int64)
    counts = np.array([len(each) for each in rows])

    def averaged(sums: FloatArray) -> FloatArray:
        parts = sums.reshape(len(sums), -1, labels)
        with np.errstate(invalid="ignore", divide="ignore"):
            recalls = parts[:, 1:] / (counts[:, None] * parts[:, :1])
        return np.asarray(recalls.mean(axis=2))

    value = averaged(table.sum(axis=0, dtype=np.float64)[None])[0]
    drawn = _resampled(table, averaged, seed, 0)
    own = [
        np.mean([each[:, test.gold == label].mean(axis=1) for label in range(labels)], axis=0)
        for each in hits
    ]
    return [_Uar(float(value[k]), drawn[:, k], own[k]) for k in range(len(rows))]


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
    """Drops of UAR."""
    base, own, random = _uars(outcomes, [outcomes.base[None], condition.predictions, condition.draws], seed)
    value = base.value - np.array([own.value, random.value])
    drawn = base.resampled[:, None] - np.stack([own.resampled, random.resampled], axis=1)
    return _Drops(value, drawn, base.value - random.each)


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
    """(D, S) statistics in resamples of the rows of a table; NaN below two rows."""
    if len(table) < 2:
        return np.full((DRAWS, statistic(table.astype(np.float64)).shape[1]), np.nan)
    return stats.bootstrap(table, statistic, draws=DRAWS, seed=seed, stream=stream)
