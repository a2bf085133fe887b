"""Two sets of results compared: what counts as a change, what as chance, and what cannot be compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from example_records import LABELS, example_record

from affectbench import regression
from affectbench.baseline import Results
from affectbench.differences import paired_differences, same_items, unpaired_difference
from affectbench.operating import judged
from affectbench.outcomes import Condition, Outcomes, content_digest
from affectbench.record import Record, cell_id
from affectbench.regression import Check, compare
from affectbench.score import score_outcomes
from affectbench.score_models import Estimate, Scores

N_CLUSTERS = 30
GRID = (("suppress", 0.0), ("amplify", 2.0), ("amplify", 4.0))
World = Callable[..., Outcomes]


def world(seed: int, n_per_label: int = 24, n_clusters: int = N_CLUSTERS) -> World:
    """A fixed set of items whose difficulty depends on item and cluster; each call answers them afresh."""
    rng = np.random.default_rng(seed)
    gold = np.repeat(np.arange(len(LABELS)), n_per_label)
    clusters = rng.integers(0, n_clusters, len(gold))
    right = np.clip(0.7 + rng.normal(0, 0.1, n_clusters)[clusters] + rng.normal(0, 0.1, len(gold)), 0, 1)

    def answers(seed: int, effect: float = 0.5, accuracy: float = 0.0) -> Outcomes:
        dice = np.random.default_rng(seed)
        wrong = dice.integers(0, len(LABELS), len(gold))
        base = np.where(dice.random(len(gold)) < right + accuracy, gold, wrong)
        return Outcomes(
            labels=LABELS,
            items=np.array([f"item-{i:04d}" for i in range(len(gold))]),
            gold=gold,
            clusters=np.array([f"speaker-{c:02d}" for c in clusters]),
            base=base,
            base_margin=np.full((len(gold), len(LABELS)), np.nan),
            conditions=tuple(_condition(dice, arm, dose, effect, gold, base) for arm, dose in GRID),
        )

    return answers


def _condition(
    dice: np.random.Generator, arm: str, dose: float, effect: float, gold: np.ndarray, base: np.ndarray
) -> Condition:
    found = np.tile(base, (len(LABELS), 1))
    for s in range(len(LABELS)):
        if arm == "suppress":
            hit = (gold == s) & (dice.random(len(gold)) < effect)
            found[s, hit] = (s + 1) % len(LABELS)
        else:
            found[s, dice.random(len(gold)) < effect * dose / 8] = s
    return Condition(arm, dose, abs(dose - 1), found, np.full(found.shape, np.nan), np.tile(base, (8, 1)))


@cache
def template(selector: str = "mad") -> Record:
    return example_record(selector=selector)


def record_of(outcomes: Outcomes, selector: str = "mad", **changes: Any) -> Record:
    """The record that these answers would have given, with preservation as in the example."""
    old = template(selector)
    kept = [each for each in old.preservation if (each.arm, each.dose) in GRID]
    parts = judged({"validation": outcomes, "test": outcomes}, kept, 0)
    hashes = old.hashes.model_copy(
        update={"predictions": content_digest({"test": outcomes})} | changes.pop("hashes", {})
    )
    return Record.model_validate(dict(old) | parts | {"hashes": hashes} | changes).sealed()


def results(*cells: tuple[Record, Outcomes | None], name: str = "results") -> Results:
    stored = {cell_id(record.cell): {"test": outcomes} if outcomes else {} for record, outcomes in cells}
    return Results(name, tuple(record for record, _ in cells), lambda record: stored[cell_id(record.cell)])


def one(check: Check) -> regression.CellCheck:
    (cell,) = check.cells
    return cell


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores with few bootstrap draws: the intervals of a record are not what is tested here."""
    from affectbench import operating

    def quick(outcomes: Outcomes, *, seed: int, **_: int) -> Scores:
        return score_outcomes(outcomes, seed=seed, bootstrap_draws=200)

    monkeypatch.setattr(operating, "score_outcomes", quick)


# Numbers.


def test_what_clusters_add_sums_to_the_difference_of_the_records() -> None:
    answers = world(0)
    old, new = answers(1), answers(2, effect=0.3, accuracy=-0.1)
    before, after = record_of(old), record_of(new)
    found = paired_differences(before, after, old.ordered(), new.ordered(), seed=0, draws=500)
    assert [each.statistic for each in found] == ["specificity", "strength", "base UAR"]
    for each in found:
        assert each.clusters is not None
        assert each.clusters.shape == (N_CLUSTERS,)
        assert each.clusters.sum() == pytest.approx(each.size, abs=1e-9)
        assert each.size is not None
        assert each.low is not None
        assert each.high is not None
        assert each.low < each.size < each.high


def test_the_paired_interval_is_narrower_than_that_of_two_runs() -> None:
    answers = world(0)
    old = answers(1)
    kept = replace(old, base=np.where(np.arange(len(old.gold)) % 40 == 0, (old.gold + 1) % 7, old.base))
    before, after = record_of(old), record_of(kept)
    (paired,) = [
        each
        for each in paired_differences(before, after, old.ordered(), kept.ordered(), seed=0, draws=500)
        if each.statistic == "base UAR"
    ]
    apart = unpaired_difference(before, after, "base UAR")
    assert paired.high - paired.low < 0.7 * (apart.high - apart.low)  # type: ignore[operator]


def test_a_bootstrap_interval_covers_the_difference_as_often_as_it_says() -> None:
    """The truth is 0: two fresh sets of answers to one set of items, with the same chances."""
    inside = []
    for trial in range(100):
        answers = world(trial)
        old, new = answers(2 * trial + 1000), answers(2 * trial + 1001)
        before, after = template(), template()
        found = paired_differences(before, after, old.ordered(), new.ordered(), seed=0, draws=200)
        inside += [each.low <= 0 <= each.high for each in found]  # type: ignore[operator]
    assert 0.88 <= np.mean(inside) <= 0.99


# Chance and change.


def two_cells(answers: World, seed: int, effect: float = 0.5) -> Results:
    made = [answers(seed + place, effect=effect) for place in range(3)]
    names = ("mad", "cas", "lap")
    return results(*((record_of(o, name), o) for o, name in zip(made, names, strict=True)))


@pytest.mark.slow
def test_fresh_answers_rarely_raise_a_false_alarm() -> None:
    """Three cells, nothing changed, no tolerance: at most 5 % of the checks may find anything."""
    alarms = 0
    for trial in range(120):
        answers = world(trial)
        check = compare(
            two_cells(answers, 10 * trial), two_cells(answers, 10 * trial + 5), tolerance=0, draws=400
        )
        alarms += any(cell.verdict != "unchanged" for cell in check.cells)
    assert alarms <= 11, "5 % of 120 are 6; more than 11 come by chance in 1.6 % of the cases"


def test_a_planted_drop_is_found_and_its_size_told() -> None:
    answers = world(3, n_per_label=60)
    check = compare(two_cells(answers, 0), two_cells(answers, 5, effect=0.3), draws=1000)
    assert not check.passed
    assert {cell.verdict for cell in check.cells} == {"regressed"}
    for cell in check.cells:
        (spec,) = [change for change in cell.changes if change.difference.statistic == "specificity"]
        assert spec.verdict == "regressed"
        assert spec.difference.method == "paired"
        assert spec.difference.size == pytest.approx(-0.2 * 0.7, abs=0.08)
        assert spec.p is not None
        assert spec.p < 0.05


def test_a_gain_passes_and_is_told() -> None:
    answers = world(3)
    check = compare(two_cells(answers, 0, effect=0.3), two_cells(answers, 5), draws=1000)
    assert check.passed
    assert {cell.verdict for cell in check.cells} == {"improved"}


def test_a_change_within_the_tolerance_counts_for_nothing() -> None:
    answers = world(3)
    old, new = two_cells(answers, 0), two_cells(answers, 5, effect=0.3)
    check = compare(old, new, tolerance=0.5, draws=1000)
    assert check.passed
    assert {cell.verdict for cell in check.cells} == {"unchanged"}


def test_equal_answers_are_the_same_without_being_read() -> None:
    outcomes = world(0)(1)
    record = record_of(outcomes)

    def unread(_: Record) -> Outcomes:
        raise AssertionError("predictions were read")

    same = Results("x", (record,), unread)
    cell = one(compare(same, same))
    assert (cell.verdict, cell.changes, cell.notes) == ("same", (), ())


def with_preservation(record: Record, value: float | None, se: float | None = None) -> Record:
    assert record.headline is not None
    pres = None if value is None else Estimate(value=value, se=se)
    return record.model_copy(update={"headline": record.headline.model_copy(update={"pres": pres})})


def test_preservation_is_judged_by_its_standard_error() -> None:
    outcomes = world(0)(1)

    def after(value: float | None, se: float | None = None) -> str:
        before = with_preservation(record_of(outcomes), 0.95, 0.02)
        now = with_preservation(record_of(outcomes), value, se)
        return one(compare(results((before, outcomes)), results((now, outcomes)))).verdict

    assert after(0.75, 0.02) == "regressed"
    assert after(0.75, 0.4) == "unchanged"
    assert after(None) == "regressed"


def test_a_control_has_nothing_to_lose() -> None:
    answers = world(3)
    old, new = answers(1), answers(2, effect=0.2)
    check = compare(
        results((record_of(old, "random"), old)), results((record_of(new, "random"), new)), draws=500
    )
    assert check.passed
    assert one(check).verdict == "moved"


# What there is to pair.


def test_without_predictions_the_intervals_decide() -> None:
    answers = world(3)
    old, new = answers(1), answers(2, effect=0.1)
    cell = one(compare(results((record_of(old), None)), results((record_of(new), new))))
    assert cell.verdict == "regressed"
    assert {change.difference.method for change in cell.changes} == {"intervals"}
    assert "no predictions to pair: intervals compared" in cell.notes


def test_other_items_are_not_paired() -> None:
    old = world(3)(1)
    new = world(4)(1)
    assert not same_items(old.ordered(), new.ordered())
    cell = one(compare(results((record_of(old), old)), results((record_of(new), new))))
    assert "the two runs answered different items: intervals compared" in cell.notes
    assert all(change.difference.method == "intervals" for change in cell.changes)


def test_the_order_of_the_items_does_not_matter() -> None:
    old = world(3)(1)
    new = world(3)(2)
    shuffled = replace_order(new, np.random.default_rng(0).permutation(len(new.items)))
    first = compare(results((record_of(old), old)), results((record_of(new), new)), draws=300)
    second = compare(results((record_of(old), old)), results((record_of(shuffled), shuffled)), draws=300)
    p = [[change.p for change in one(check).changes] for check in (first, second)]
    assert p[0] == pytest.approx(p[1])


def replace_order(outcomes: Outcomes, order: np.ndarray) -> Outcomes:
    def reordered(condition: Condition) -> Condition:
        rows = {name: getattr(condition, name)[:, order] for name in ("predictions", "margin", "draws")}
        return replace(condition, **rows)

    columns = ("items", "gold", "clusters", "base", "base_margin")
    return replace(
        outcomes,
        conditions=tuple(map(reordered, outcomes.conditions)),
        **{name: getattr(outcomes, name)[order] for name in columns},
    )


def test_too_few_clusters_for_a_test_leave_the_size_to_decide() -> None:
    answers = world(3, n_clusters=4)
    old, new = answers(1), answers(2, effect=0.2)
    cell = one(compare(results((record_of(old), old)), results((record_of(new), new))))
    spec = cell.changes[0]
    assert (spec.p, spec.verdict) == (None, "regressed")


def test_rounding_is_no_test_that_others_pay_for() -> None:
    """Six clusters reach p = 2 / 64 in one family of tests, and nothing below 0.05 in two."""
    answers = world(1, n_per_label=60, n_clusters=6)
    old, new = answers(1, effect=0.8), answers(2, effect=0.1)
    before, after = record_of(old), record_of(new)
    assert after.headline is not None
    assert before.headline is not None
    assert before.headline.pres is not None
    after = with_preservation(after, before.headline.pres.value - 1e-9, before.headline.pres.se)
    cell = one(compare(results((before, old)), results((after, new))))
    spec = cell.changes[0]
    assert spec.difference.statistic == "specificity"
    assert spec.p == pytest.approx(2 / 64)
    assert spec.verdict == "regressed"


# What cannot be compared.


@pytest.mark.parametrize("name", ["task", "protocol", "selector", "model"])
def test_a_changed_identity_is_named_and_fails(name: str) -> None:
    outcomes = world(0)(1)
    before, after = record_of(outcomes), record_of(outcomes, hashes={name: "0" * 16})
    cell = one(compare(results((before, outcomes)), results((after, outcomes))))
    assert (cell.verdict, cell.hashes) == ("identity changed", (name,))
    allowed = compare(results((before, outcomes)), results((after, outcomes)), allowed=["selector", "model"])
    assert allowed.passed == (name in ("selector", "model"))


def test_scores_of_another_task_are_not_compared_and_those_of_another_model_are() -> None:
    answers = world(3)
    old, new = answers(1), answers(2, effect=0.2)
    for name, compared in (("task", False), ("model", True)):
        after = record_of(new, hashes={name: "0" * 16})
        cell = one(compare(results((record_of(old), old)), results((after, new)), draws=300))
        assert bool(cell.changes) == compared
    allowed = compare(results((record_of(old), old)), results((after, new)), allowed=["model"], draws=300)
    assert one(allowed).verdict == "regressed"


def test_missing_and_new_cells_are_told_apart() -> None:
    outcomes = world(0)(1)
    mad, cas = record_of(outcomes), record_of(outcomes, "cas")
    lost = compare(results((mad, outcomes), (cas, outcomes)), results((mad, outcomes)))
    assert [cell.verdict for cell in lost.cells] == ["same", "missing"]
    assert not lost.passed
    gained = compare(results((mad, outcomes)), results((mad, outcomes), (cas, outcomes)))
    assert [cell.verdict for cell in gained.cells] == ["same", "new"]
    assert gained.passed


def test_a_protocol_that_names_another_site_changed_it_does_not_lose_the_cell() -> None:
    outcomes = world(0)(1)
    before = record_of(outcomes)
    moved = before.cell.model_copy(update={"site": "neuron"})
    after = record_of(outcomes, hashes={"protocol": "0" * 16}, cell=moved)
    cell = one(compare(results((before, outcomes)), results((after, outcomes))))
    assert (cell.verdict, cell.hashes) == ("identity changed", ("protocol",))


def test_a_worse_status_fails_and_a_better_one_passes() -> None:
    from example_records import failed

    outcomes = world(0)(1)
    fine = record_of(outcomes)
    broken = failed(fine, "error", "the selector ran out of memory")
    worse = compare(results((fine, outcomes)), results((broken, None)))
    assert not worse.passed
    assert "ended in an error: the selector ran out of memory" in one(worse).notes
    poor = failed(fine, "insufficient", "too few items")
    assert one(compare(results((fine, outcomes)), results((poor, None)))).verdict == "regressed"
    assert one(compare(results((poor, None)), results((fine, outcomes)))).verdict == "improved"
    assert not compare(results((broken, None)), results((broken, None))).passed


def test_another_environment_is_a_note_and_no_failure() -> None:
    outcomes = world(0)(1)
    before = record_of(outcomes)
    newer = before.provenance.model_copy(update={"torch": "3.0.0", "threads": 2})
    check = compare(results((before, outcomes)), results((record_of(outcomes, provenance=newer), outcomes)))
    assert check.passed
    assert check.environment == ("torch 2.13.0 → 3.0.0 (1 cell)", "threads 1 → 2 (1 cell)")
