"""A run end to end: what is in its records, what is kept, what is run again, and why."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e_content import (
    SELECTORS,
    Bench,
    benchmark,
    contents,
    protocol,
    write_benchmark,
    write_protocol,
    write_selector,
)

from affectbench import placement
from affectbench.record import Record, cell_id
from affectbench.selector import Selection
from affectbench.store import Store

ROOT = Path(__file__).resolve().parent.parent
FIVE = ("magnitude", "contrast", "entropy", "magnitude_abs", "random")


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "copy"))


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def loading(*_: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(placement, "load_model", loading)


def files(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def test_a_suite_gives_valid_records_of_what_was_run(bench: Bench, tmp_path: Path) -> None:
    records, log = bench.run(bench.suite(), tmp_path)
    assert log.ran == list(SELECTORS)
    assert log.cells == 2
    assert 0 < log.passes <= log.announced
    stored, damaged = Store(tmp_path).read_all()
    assert not damaged
    assert {record.cell.selector for record in stored} == set(SELECTORS)
    for record in records:
        assert record.status == "ok", record.reason
        assert record.scores is not None
        assert record.scores.baseline.uar == 1.0, "the model learnt its task"
        assert [(dose.arm, dose.dose) for dose in record.scores.doses] == [
            ("suppress", 0), ("amplify", 2), ("amplify", 4)
        ]  # fmt: skip
        assert all(dose.random is not None and dose.random.n_draws == 6 for dose in record.scores.doses)
        assert record.control == (record.cell.selector == "random")
        assert record.evidence == ([] if record.control else ["mean"])
        assert record.task.n_items == {"identification": 24, "validation": 12, "test": 36}
        assert record.task.n_clusters == {"identification": 4, "validation": 2, "test": 6}
        assert record.selection is not None
        assert record.selection.units_per_emotion == [4, 4, 4]
        stored = Selection.load(Store(tmp_path).selections / f"{cell_id(record.cell)}.safetensors")
        assert record.selection.units == [" ".join(map(str, sorted(own))) for own in stored.units]
        assert record.cost.forward_passes > 0
        assert record.cost.items_forwarded > 0
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_same_suite_twice_gives_the_same_records(bench: Bench, done: Path, tmp_path: Path) -> None:
    bench.run(bench.suite(), tmp_path)
    assert contents(tmp_path) == contents(done)


def test_a_cell_does_not_depend_on_its_company(bench: Bench, done: Path, tmp_path: Path) -> None:
    for selector in SELECTORS[::-1]:
        bench.run(bench.job(selector), tmp_path / selector)
        assert contents(tmp_path / selector).items() <= contents(done).items()


def test_another_seed_is_another_cell(bench: Bench, copy: Path) -> None:
    _, log = bench.run(bench.suite(seed=1), copy)
    assert log.ran == list(SELECTORS)
    assert len(contents(copy)) == 4


@pytest.mark.usefixtures("no_model")
def test_finished_cells_are_kept_without_loading_the_model(bench: Bench, copy: Path) -> None:
    before = files(copy)
    records, log = bench.run(bench.suite(), copy)
    assert (log.ran, log.skipped, log.notes) == ([], list(SELECTORS), [])
    assert [record.cell.selector for record in records] == list(SELECTORS)
    assert files(copy) == before


def test_a_new_selector_runs_only_its_own_cell(bench: Bench, copy: Path) -> None:
    before = contents(copy)
    _, log = bench.run(bench.job("magnitude", "contrast", "random", "contrast"), copy)
    assert log.ran == ["contrast"]
    assert log.skipped == ["magnitude", "random"]
    assert before.items() < contents(copy).items()


def test_a_changed_selector_runs_again_and_says_so(bench: Bench, tmp_path: Path) -> None:
    write_selector(tmp_path, "mine")
    bench.run(bench.job("mine", "random", more=[tmp_path]), tmp_path / "out", more=[tmp_path])
    write_selector(tmp_path, "mine", "units = units[::-1]")
    _, log = bench.run(bench.job("mine", "random", more=[tmp_path]), tmp_path / "out", more=[tmp_path])
    assert (log.ran, log.skipped) == (["mine"], ["random"])
    assert "another version of its selector; the cell is run again" in log.notes[0]


def test_a_limit_changes_the_task(bench: Bench, copy: Path) -> None:
    records, log = bench.run(bench.suite(), copy, limit=3)
    assert log.ran == list(SELECTORS)
    assert "another version of its task" in log.notes[0]
    assert records[0].task.n_items == {"identification": 9, "validation": 9, "test": 9}


def test_a_change_of_the_capability_benchmark_changes_the_task(bench: Bench, tmp_path: Path) -> None:
    keeps = benchmark()["preservation"] | {"capability": {"kind": "benchmark", "task": "toy-control"}}
    write_benchmark(tmp_path, name="toy-main", preservation=keeps)
    write_benchmark(tmp_path, name="toy-control")
    job = bench.job("magnitude", task="toy-main", more=[tmp_path])
    records, _ = bench.run(job, tmp_path / "out", more=[tmp_path])
    assert records[0].status == "ok", records[0].reason
    assert records[0].preservation[0].capability_base == 1.0
    assert records[0].preservation[0].capability_task == "toy-control"
    write_benchmark(tmp_path, name="toy-control", version=2)
    _, log = bench.run(job, tmp_path / "out", more=[tmp_path])
    assert log.ran == ["magnitude"]


# Damage.


def record_of(output: Path, selector: str, folder: str = "records") -> Path:
    return next((output / folder).glob(f"*__{selector}__*"))


def edit_effect(path: Path) -> None:
    path.write_text(path.read_text().replace('"spec": {', '"spec": {\n', 1).replace("0.166666666667", "0.9"))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "folder", "said"),
    [
        (edit_effect, "records", "edited by hand or damaged; the cell is run again"),
        (truncate, "records", "not valid JSON"),
        (empty, "records", "not valid JSON"),
        (truncate, "predictions", "are damaged"),
        (empty, "predictions", "are damaged"),
        (Path.unlink, "predictions", "no predictions are stored"),
        (truncate, "selections", "is damaged"),
        (empty, "selections", "is damaged"),
        (Path.unlink, "selections", "is damaged"),
    ],
)
def test_damage_is_told_and_mended(
    bench: Bench, done: Path, copy: Path, damage: Any, folder: str, said: str
) -> None:
    path = record_of(copy, "magnitude", folder)
    damage(path)
    _, log = bench.run(bench.suite(), copy)
    assert (log.ran, log.skipped) == (["magnitude"], ["random"])
    assert len(log.notes) == 1
    assert said in log.notes[0]
    assert path.name in log.notes[0]
    assert contents(copy) == contents(done)
    aside = path.with_name(f"{path.name}.damaged")
    assert aside.exists() == (damage is not Path.unlink)
    assert (aside.name in log.notes[0]) == aside.exists()


def test_an_error_is_tried_again(bench: Bench, tmp_path: Path) -> None:
    more = [tmp_path]
    write_selector(tmp_path, "moody", "raise ValueError('not today')")
    records, _ = bench.run(bench.job("moody", more=more), tmp_path / "out", more=more)
    assert records[0].status == "error"
    _, log = bench.run(bench.job("moody", more=more), tmp_path / "out", more=more)
    assert log.ran == ["moody"]
    assert "it ended in an error" in log.notes[0]
    assert "not today" in log.notes[0]


# Scoring again.


def test_scores_follow_from_predictions_alone(copy: Path, run_cli: Any) -> None:
    before = files(copy)
    code, printed, _ = run_cli("score", "--results", copy)
    assert code == 0
    assert "2 records scored again, 0 changed" in printed
    assert files(copy) == before


def test_scores_that_were_changed_are_restored(done: Path, copy: Path, run_cli: Any) -> None:
    path = record_of(copy, "magnitude")
    record = Record.model_validate_json(path.read_text())
    assert record.scores is not None
    fewer = record.scores.model_copy(update={"doses": record.scores.doses[:1]})
    Store(copy).write(record.model_copy(update={"scores": fewer}))
    _, printed, _ = run_cli("score", "--results", copy)
    assert "2 records scored again, 1 changed" in printed
    assert contents(copy) == contents(done)


def test_scoring_names_damaged_predictions_and_scores_the_rest(copy: Path, run_cli: Any) -> None:
    path = record_of(copy, "magnitude", "predictions")
    truncate(path)
    code, printed, said = run_cli("score", "--results", copy)
    assert code == 1
    assert "1 records scored again" in printed
    assert str(path) in said
    assert "damaged" in said


def test_scoring_refuses_the_answers_of_another_cell(copy: Path, run_cli: Any) -> None:
    mine, other = (record_of(copy, name, "predictions") for name in ("random", "magnitude"))
    before = record_of(copy, "random").read_text()
    mine.write_bytes(other.read_bytes())
    code, printed, said = run_cli("score", "--results", copy)
    assert code == 1
    assert "1 records scored again, 0 changed" in printed
    assert f"{mine}: these are not the answers of its record" in said
    assert record_of(copy, "random").read_text() == before


# What a protocol and a benchmark may ask for.


def test_the_token_budget_changes_no_prediction(bench: Bench, done: Path, tmp_path: Path) -> None:
    bench.run(bench.suite(), tmp_path, tokens=40)
    for record in Store(done).read_all()[0]:
        found, wanted = (Store(root).read_predictions(record.cell) for root in (tmp_path, done))
        for split in ("validation", "test"):
            np.testing.assert_array_equal(found[split].base, wanted[split].base)
            for mine, theirs in zip(found[split].conditions, wanted[split].conditions, strict=True):
                np.testing.assert_array_equal(mine.predictions, theirs.predictions)
                np.testing.assert_array_equal(mine.draws, theirs.draws)
                np.testing.assert_allclose(mine.margin, theirs.margin, atol=1e-4)


LONG = {"anger": " anger", "joy": " joy very", "sadness": " sadness very very"}
LETTERED = "Text : {text} Question : {options} Emotion :"


@pytest.mark.parametrize(
    ("changes", "uar"),
    [
        ({}, 1.0),
        ({"readout": {"kind": "labels", "verbalisers": LONG}}, None),
        ({"readout": {"kind": "letters"}, "prompt": LETTERED}, None),
        ({"readout": {"kind": "generate", "max_new_tokens": 3}}, 1.0),
    ],
    ids=["labels", "labels of several tokens", "letters", "generate"],
)
def test_every_readout_runs_end_to_end(
    bench: Bench, tmp_path: Path, changes: dict[str, Any], uar: float | None
) -> None:
    write_benchmark(tmp_path, name="asked", **changes)
    records, _ = bench.run(bench.job(task="asked", more=[tmp_path]), tmp_path / "out", more=[tmp_path])
    for record in records:
        assert record.status in ("ok", "collapsed"), record.reason
        assert record.scores is not None
        assert record.scores.baseline.n_error == 0
        assert uar is None or record.scores.baseline.uar == uar
    _, again = bench.run(bench.job(task="asked", more=[tmp_path]), tmp_path / "out", more=[tmp_path])
    assert (again.ran, again.notes) == ([], [])


def test_margins_of_generation_are_missing_not_invented(bench: Bench, tmp_path: Path) -> None:
    write_benchmark(tmp_path, name="asked", readout={"kind": "generate", "max_new_tokens": 3})
    records, _ = bench.run(
        bench.job("magnitude", task="asked", more=[tmp_path]), tmp_path / "out", more=[tmp_path]
    )
    outcomes = Store(tmp_path / "out").read_predictions(records[0].cell)["test"]
    assert np.isnan(outcomes.base_margin).all()
    assert all(np.isnan(condition.margin).all() for condition in outcomes.conditions)
    assert records[0].scores is not None
    assert {dose.margin_mean for dose in records[0].scores.doses} == {None}


BY_CONTENT = {"positions": "content", "items": "correct", "minimum_items": 4}
FEW_CORRECT = {"positions": "all", "items": "correct_or_all", "minimum_items": 8}


@pytest.mark.parametrize(
    "changes",
    [
        {"arms": protocol()["arms"] | {"suppress": {"operation": "mean", "doses": [0]}}},
        {"positions": "content", "statistics": BY_CONTENT},
        {"positions": "answer", "statistics": FEW_CORRECT},
        {"site": "neuron", "fractions": [0.02, 0.1]},
        {"controls": {"random_draws": 0}},
        {"fractions": [0.9]},
    ],
    ids=["mean", "content", "answer", "neuron", "no draws", "nearly all units"],
)
def test_every_kind_of_protocol_runs_end_to_end(
    bench: Bench, tmp_path: Path, changes: dict[str, Any]
) -> None:
    write_protocol(tmp_path, name="other", **changes)
    records, _ = bench.run(bench.job(protocol="other", more=[tmp_path]), tmp_path / "out", more=[tmp_path])
    assert len(records) == 2 * len(changes.get("fractions", [1]))
    for record in records:
        assert record.status in ("ok", "collapsed"), record.reason
        assert record.scores is not None
        assert (record.scores.doses[0].random is None) == ("controls" in changes)
        assert record.cell.positions == changes.get("positions", "all")
        if "controls" in changes:
            assert not any(dose.significant for dose in record.scores.doses)


def test_an_emotion_without_units_is_left_exactly_as_it_was(bench: Bench, tmp_path: Path) -> None:
    write_selector(tmp_path, "half", "units = (units[0], units[1][:0], units[2])")
    records, _ = bench.run(bench.job("half", more=[tmp_path]), tmp_path / "out", more=[tmp_path])
    outcomes = Store(tmp_path / "out").read_predictions(records[0].cell)["test"]
    for condition in outcomes.conditions:
        np.testing.assert_array_equal(condition.predictions[1], outcomes.base)
        np.testing.assert_array_equal(condition.margin[1], outcomes.base_margin[:, 1])


def test_a_mean_is_taken_over_the_positions_it_is_written_to() -> None:
    from affectbench.identifying import CellPlan
    from affectbench.registry import Registry
    from affectbench.selector import Selector

    registry = Registry(installed=False)
    protocol = registry.intervention("mean-gain")
    assert protocol.positions != protocol.statistics.positions
    plan = CellPlan(None, protocol, registry.selector("contrast")(), None)  # type: ignore[arg-type]
    assert isinstance(plan.selector, Selector)
    assert plan.requests == {("gate", "answer", "rate"), ("gate", "all", "mean")}


def test_a_model_that_breaks_off_ends_its_own_cell_only(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from affectbench.cell import CellRun

    real = CellRun._select

    def breaks(self: Any, study: Any) -> Any:
        if self.plan.cell.selector == "magnitude":
            raise RuntimeError("out of memory, say")
        return real(self, study)

    monkeypatch.setattr(CellRun, "_select", breaks)
    records, _ = bench.run(bench.job("magnitude", "random"), tmp_path)
    found = {record.cell.selector: record for record in records}
    assert found["magnitude"].status == "error"
    assert "RuntimeError: out of memory, say" in found["magnitude"].reason
    assert found["random"].status == "ok"
