"""Whether a change of the word confound is found, and how often one is found where there is none."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_regression import template, world

from affectbench import operating, regression, stats
from affectbench.baseline import META, Results, read_results, write_baseline
from affectbench.operating import judged
from affectbench.outcomes import ANSWER_WORDS, Outcomes, content_digest
from affectbench.record import Record, cell_id
from affectbench.regression import Check, compare
from affectbench.score import score_outcomes
from affectbench.score_models import Scores
from affectbench.word_differences import confound_differences
from affectbench.word_score import score_answer_words

Answers = dict[str, Outcomes]
NAME = "word confound"


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records with few bootstrap draws: their own intervals are not what is tested here."""

    def quick(outcomes: Outcomes, *, seed: int, **_: int) -> Scores:
        return score_outcomes(outcomes, seed=seed, bootstrap_draws=200)

    def quick_words(*arguments: Any, seed: int) -> Any:
        return score_answer_words(*arguments, seed=seed, bootstrap_draws=400)

    monkeypatch.setattr(operating, "score_outcomes", quick)
    monkeypatch.setattr(operating, "score_answer_words", quick_words)


def answers(seed: int, on_words: float, effect: float = 0.6, *, n: int = 24, items: int = 0) -> Answers:
    """A cell's answers to one set of items of the task and one of the control, made afresh for each seed."""
    task = world(items, n_per_label=n)(2 * seed, effect=effect)
    words = world(items + 1, n_per_label=n)(2 * seed + 1, effect=on_words)
    return {"test": task, ANSWER_WORDS: words}


def record_of(made: Answers, selector: str = "mad", **changes: Any) -> Record:
    old = template(selector)
    doses = {condition.name for condition in made["test"].conditions}
    kept = [each for each in old.preservation if f"{each.arm} {each.dose:g}" in doses]
    parts = judged({"validation": made["test"], **made}, kept, 0)
    told = {"answer_words": "a" * 16, "predictions": content_digest(made)} | changes.pop("hashes", {})
    hashes = old.hashes.model_copy(update=told)
    return Record.model_validate(dict(old) | parts | {"hashes": hashes} | changes).sealed()


def results(*cells: tuple[Record, Answers]) -> Results:
    stored = {cell_id(record.cell): made for record, made in cells}
    return Results(
        "results", tuple(record for record, _ in cells), lambda record: stored[cell_id(record.cell)]
    )


def checked(one: Answers, two: Answers, selector: str = "mad", **settings: Any) -> Check:
    pair = [results((record_of(made, selector), made)) for made in (one, two)]
    return compare(*pair, draws=1000, **settings)


def change_of(check: Check, name: str = NAME) -> regression.Change:
    (found,) = [c for c in check.cells[0].changes if c.difference.statistic == name]
    return found


# Numbers.


def spec(outcomes: Outcomes) -> float:
    """Of the only condition, counted item by item."""
    (condition,) = outcomes.conditions
    n = len(outcomes.labels)
    change = np.empty((n, n))
    for e in range(n):
        own = outcomes.gold == e
        change[:, e] = (condition.predictions[:, own] == e).mean(axis=1) - (outcomes.base[own] == e).mean()
    on_self = np.trace(change) / n
    return float((change.sum() - np.trace(change)) / (n * (n - 1)) - on_self)


def suppressed(outcomes: Outcomes) -> Outcomes:
    found = outcomes.ordered()
    return replace(found, conditions=tuple(c for c in found.conditions if c.arm == "suppress"))


def swapped(one: Outcomes, two: Outcomes, swaps: dict[str, bool]) -> tuple[Outcomes, Outcomes]:
    """The two runs with their answers to some clusters exchanged."""
    other = np.array([swaps[cluster] for cluster in one.clusters])

    def mixed(mine: Outcomes, theirs: Outcomes) -> Outcomes:
        pairs = zip(mine.conditions, theirs.conditions, strict=True)
        made = [replace(a, predictions=np.where(other, b.predictions, a.predictions)) for a, b in pairs]
        return replace(mine, base=np.where(other, theirs.base, mine.base), conditions=tuple(made))

    return mixed(one, two), mixed(two, one)


def test_the_test_is_that_of_all_swaps_of_answers() -> None:
    """Against every exchange of the two runs' answers to clusters of either set, scored from its items."""
    task, words = world(0, n_per_label=8, n_clusters=5), world(1, n_per_label=8, n_clusters=4)
    effects = ((words, 0.5, 0.7), (task, 0.9, 0.8))
    pairs = [(suppressed(made(1, effect=a)), suppressed(made(2, effect=b))) for made, a, b in effects]
    clusters = [sorted(set(one.clusters)) for one, _ in pairs]
    names = [(side, cluster) for side in (0, 1) for cluster in clusters[side]]

    def statistic(swaps: tuple[bool, ...]) -> float:
        told = dict(zip(names, swaps, strict=True))
        runs = [swapped(*pairs[side], {c: told[side, c] for c in clusters[side]}) for side in (0, 1)]
        (n0, n1), (t0, t1) = [[spec(run) for run in both] for both in runs]
        assert t0 + t1 > 0
        return n1 - n0 - (n0 + n1) / (t0 + t1) * (t1 - t0)

    observed = statistic((False,) * len(names))
    every = np.array([statistic(swaps) for swaps in product((False, True), repeat=len(names))])
    exact = np.mean(np.abs(every) >= abs(observed) - 1e-9)

    made = [{"test": pairs[1][run], ANSWER_WORDS: pairs[0][run]} for run in (0, 1)]
    records = [record_of(each) for each in made]
    (found,), _ = confound_differences(*records, *made, seed=0, draws=200)
    assert found.clusters is not None
    assert len(found.clusters) == len(names) == 9
    assert stats.sign_flip(found.clusters, draws=1000, seed=0)[0] == pytest.approx(exact)
    (n0, n1), (t0, t1) = [[spec(run) for run in both] for both in pairs]
    assert found.size == pytest.approx(n1 / t1 - n0 / t0)
    assert found.clusters.sum() == pytest.approx(found.size * 2 * t0 * t1 / (t0 + t1))


def test_the_interval_is_that_of_resampled_clusters_of_both_sets() -> None:
    """Against a loop that draws clusters by name and counts recalls item by item."""
    one, two = answers(1, on_words=0.3), answers(2, on_words=0.5)
    records = [record_of(made) for made in (one, two)]
    found, notes = confound_differences(*records, one, two, seed=0, draws=4000)
    assert notes == []
    assert [each.statistic for each in found] == [NAME, "confound, amplify"]
    rng = np.random.default_rng(5)

    def rows(outcomes: Outcomes) -> np.ndarray:
        known = np.unique(outcomes.clusters)
        return np.concatenate([np.flatnonzero(outcomes.clusters == c) for c in rng.choice(known, len(known))])

    def at(outcomes: Outcomes, places: np.ndarray) -> Outcomes:
        conditions = tuple(c.items_at(places) for c in outcomes.conditions)
        kept = {name: getattr(outcomes, name)[places] for name in ("gold", "clusters", "base", "base_margin")}
        return replace(outcomes, items=np.arange(len(places)).astype(str), conditions=conditions, **kept)

    runs = [{split: suppressed(made[split]) for split in made} for made in (one, two)]
    differences = []
    for _ in range(1500):
        drawn = {split: rows(runs[0][split]) for split in runs[0]}
        specs = [{split: spec(at(run[split], drawn[split])) for split in run} for run in runs]
        ratios = [each[ANSWER_WORDS] / each["test"] for each in specs]
        differences.append(ratios[1] - ratios[0])
    low, high = np.quantile(differences, [0.025, 0.975])
    assert found[0].low == pytest.approx(low, abs=0.05)
    assert found[0].high == pytest.approx(high, abs=0.05)
    assert found[0].high - found[0].low > 0.3


@pytest.mark.slow
def test_fresh_answers_rarely_raise_a_false_alarm() -> None:
    """Nothing changed, no tolerance, the confound's tests alone: at most 5 % may find anything."""
    alarms = 0
    for trial in range(60):
        made = [answers(10 * trial + run, on_words=0.3, items=2 * trial) for run in (1, 2)]
        records = [record_of(each) for each in made]
        found, _ = confound_differences(*records, *made, seed=0, draws=100)
        table = [each.clusters for each in found]
        assert len(table) == 2
        p = stats.max_t(np.stack(table, axis=1), draws=400, seed=trial)  # type: ignore[arg-type]
        alarms += bool(p.min() < 0.05)
    assert alarms <= 7, "5 % of 60 are 3; more than 7 come by chance in 1 % of the cases"


# Verdicts.


def test_a_rise_is_a_regression_and_a_fall_an_improvement() -> None:
    low, high = answers(1, on_words=0.15, n=60), answers(2, on_words=0.5, n=60)
    worse = checked(low, high)
    found = change_of(worse)
    assert found.difference.method == "paired"
    assert (found.verdict, worse.passed) == ("regressed", False)
    assert found.p is not None
    assert found.p < 0.05
    assert found.difference.low is not None
    assert found.difference.low > 0.2
    better = checked(high, low)
    assert (change_of(better).verdict, better.passed) == ("improved", True)
    assert change_of(checked(low, high, tolerance=2.0)).verdict == "unchanged"
    assert change_of(checked(low, high, selector="random")).verdict == "moved"


def test_equal_answers_are_the_same() -> None:
    made = answers(1, on_words=0.3)
    check = checked(made, made)
    assert (check.cells[0].verdict, check.cells[0].changes) == ("same", ())


def test_a_ratio_that_is_gone_is_told_and_fails_nothing_by_itself() -> None:
    """The control was not done any more; what specificity does is tested by itself."""
    able = answers(1, on_words=0.3)
    wrong = replace(able[ANSWER_WORDS], base=(able[ANSWER_WORDS].gold + 1) % 7)
    unable = {**able, ANSWER_WORDS: wrong}
    check = checked(able, unable)
    assert check.passed
    assert "word confound: none any more: not able: UAR 0.000" in check.cells[0].notes[0]
    assert "word confound: none before: not able" in checked(unable, able).cells[0].notes[0]
    assert NAME not in [c.difference.statistic for c in check.cells[0].changes]


def test_another_control_is_not_compared() -> None:
    one, two = answers(1, on_words=0.15, n=60), answers(2, on_words=0.5, n=60)
    before, after = record_of(one), record_of(two, hashes={"answer_words": "b" * 16})
    check = compare(results((before, one)), results((after, two)), draws=300)
    assert any("asks something else now" in note for note in check.cells[0].notes)
    assert NAME not in [c.difference.statistic for c in check.cells[0].changes]


@pytest.mark.parametrize("missing", [ANSWER_WORDS, "test"])
def test_without_answers_the_intervals_decide(missing: str) -> None:
    one, two = answers(1, on_words=0.15, n=60), answers(2, on_words=0.6, n=60)
    before, after = record_of(one), record_of(two)
    kept = {} if missing == "test" else {"test": one["test"]}
    check = compare(results((before, kept)), results((after, two)), draws=300)
    found = change_of(check)
    assert (found.difference.method, found.verdict) == ("intervals", "regressed")
    old, new = (each.word_confound.suppress for each in (before, after))  # type: ignore[union-attr]
    halves = [max(each.value - each.low, each.high - each.value) for each in (old, new)]  # type: ignore[union-attr, operator]
    assert found.difference.low == pytest.approx(new.value - old.value - np.hypot(*halves))  # type: ignore[union-attr]


# The baseline file.


def written(folder: Path, *cells: tuple[Record, Answers]) -> Path:
    path = folder / "baseline.parquet"
    write_baseline(path, results(*cells))
    return path


def test_a_baseline_file_keeps_what_the_test_needs(tmp_path: Path) -> None:
    one, two = answers(1, on_words=0.15), answers(2, on_words=0.5)
    before, after = results((record_of(one), one)), results((record_of(two), two))
    file = read_results(written(tmp_path, (record_of(one), one)))
    whole, kept = (change_of(compare(each, after, draws=500)) for each in (before, file))
    assert kept.difference.method == "paired"
    assert (kept.p, kept.verdict) == (whole.p, whole.verdict)
    np.testing.assert_array_equal(kept.difference.clusters, whole.difference.clusters)


def test_a_baseline_from_before_the_control_was_kept_is_read(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from affectbench.baseline import _seal

    one, two = answers(1, on_words=0.15, n=60), answers(2, on_words=0.6, n=60)
    path = written(tmp_path, (record_of(one), one))
    table = pq.read_table(path).drop_columns([ANSWER_WORDS])
    seal = {"version": 1, "sha256": _seal(table.to_pylist())}
    pq.write_table(table.replace_schema_metadata({META: json.dumps(seal)}), path)
    assert isinstance(table, pa.Table)
    check = compare(read_results(path), results((record_of(two), two)), draws=300)
    methods = {c.difference.statistic: c.difference.method for c in check.cells[0].changes}
    assert methods[NAME] == "intervals"
    assert methods["specificity"] == "paired"
