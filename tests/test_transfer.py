"""Units identified on one benchmark, tested on another: what is taken over, what is scored and kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e_content import (
    BENCHMARK,
    CUES,
    Bench,
    Log,
    contents,
)
from e2e_transfer import OTHERS, REORDERED, TWO, jobs, suite, transfer_content
from submissions import folder

from affectbench.errors import AffectbenchError
from affectbench.gates import Change, run_gates
from affectbench.outcomes import OTHER
from affectbench.placement import Options
from affectbench.process_executor import ProcessExecutor
from affectbench.record import Record
from affectbench.run import Run
from affectbench.selector import Selection
from affectbench.site_data import groups
from affectbench.site_summary import summary_of
from affectbench.store import Store
from affectbench.submission_archive import staged
from affectbench.submitted import evaluate, parts_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def more(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return transfer_content(bench, tmp_path_factory.mktemp("transfer"))


@pytest.fixture(scope="module")
def grid(
    bench: Bench, more: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[tuple[str, str], Record]]:
    """The folder of a whole run, and its records by (identified on, tested on)."""
    output = tmp_path_factory.mktemp("grid")
    records, _ = bench.run(jobs(bench, more), output, more=[more])
    found = {
        (each.cell.identification.task if each.cell.identification else each.cell.task, each.cell.task): each
        for each in records
    }
    assert len(found) == len(records)
    return output, found


class TestPlan:
    def test_every_pair_that_shares_two_labels_is_a_cell_and_none_twice(
        self, bench: Bench, more: Path
    ) -> None:
        ordinary = [job for job in jobs(bench, more) if not job.identified_on]
        moved = [job for job in jobs(bench, more) if job.identified_on]
        assert [job.benchmark.name for job in ordinary] == [BENCHMARK, OTHERS, TWO]
        pairs = {(source.name, job.benchmark.name) for job in moved for source in job.identified_on}
        names = {BENCHMARK, OTHERS, TWO}
        assert pairs == {(one, other) for one in names for other in names if one != other}
        assert sum(job.size for job in moved) == 6

    def test_a_suite_with_nothing_to_transfer_says_so(self, bench: Bench, more: Path) -> None:
        suite(more, "lonely", [BENCHMARK])
        with pytest.raises(AffectbenchError, match="nothing to transfer"):
            jobs(bench, more, "lonely")

    def test_a_suite_without_transfer_has_the_digest_it_always_had(self, bench: Bench, more: Path) -> None:
        registry = bench.registry(more)
        plain = registry.suite("toy-suite")
        assert "identification" not in plain.model_dump(mode="json")
        assert "identification" in registry.suite("grid").model_dump(mode="json")


class TestCells:
    def test_the_whole_grid_is_there_and_scored(self, grid: tuple[Path, dict[Any, Record]]) -> None:
        _, found = grid
        assert set(found) == {(a, b) for a in (BENCHMARK, OTHERS, TWO) for b in (BENCHMARK, OTHERS, TWO)}
        assert {record.status for record in found.values()} <= {"ok", "collapsed"}

    def test_units_are_those_of_the_other_benchmark_matched_by_label(
        self, grid: tuple[Path, dict[Any, Record]]
    ) -> None:
        _, found = grid
        source, moved = found[BENCHMARK, BENCHMARK], found[BENCHMARK, OTHERS]
        assert source.selection is not None
        assert moved.selection is not None
        assert moved.task.labels == REORDERED
        by_label = dict(zip(source.task.labels, source.selection.units, strict=True))
        assert moved.selection.units == [by_label[label] for label in REORDERED]
        assert moved.hashes.identification == source.hashes.task != moved.hashes.task

    def test_the_selection_kept_beside_the_record_is_the_transferred_one(
        self, grid: tuple[Path, dict[Any, Record]]
    ) -> None:
        output, found = grid
        moved = found[BENCHMARK, OTHERS]
        path = next((output / "selections").glob(f"*{OTHERS}*from-{BENCHMARK}__*"))
        assert Selection.load(path).digest == moved.hashes.selection

    def test_doses_are_those_chosen_on_the_benchmark_of_identification(
        self, grid: tuple[Path, dict[Any, Record]]
    ) -> None:
        _, found = grid
        source, moved = found[OTHERS, OTHERS].operating, found[OTHERS, BENCHMARK].operating
        assert source is not None
        assert moved is not None
        assert (moved.suppress_dose, moved.amplify_dose) == (source.suppress_dose, source.amplify_dose)
        assert f"chosen on {OTHERS}" in moved.reason
        assert found[OTHERS, BENCHMARK].validation == []

    def test_the_model_without_intervention_is_the_same_as_in_the_ordinary_cell(
        self, grid: tuple[Path, dict[Any, Record]]
    ) -> None:
        _, found = grid
        own, moved = found[OTHERS, OTHERS].scores, found[BENCHMARK, OTHERS].scores
        assert own is not None
        assert moved is not None
        assert own.baseline == moved.baseline

    def test_where_labels_differ_only_items_and_units_of_shared_ones_count(
        self, grid: tuple[Path, dict[Any, Record]]
    ) -> None:
        output, found = grid
        moved = found[TWO, BENCHMARK]
        assert moved.task.labels == ["anger", "joy"]
        assert moved.task.chance == pytest.approx(1 / 3)
        whole = Store(output).read_predictions(found[BENCHMARK, BENCHMARK].cell)["test"]
        own = Store(output).read_predictions(moved.cell)["test"]
        shared = [place for place, label in enumerate(CUES) if label != "sadness"]
        kept = np.isin(whole.gold, shared)
        assert own.items.tolist() == whole.items[kept].tolist()
        assert moved.task.n_items["test"] == int(kept.sum()) == len(own.items)
        inside = np.isin(whole.base[kept], shared)
        assert (own.base[inside] == whole.base[kept][inside]).all()  # anger, joy come first in both.
        assert (own.base[~inside] == OTHER).all()

    def test_a_transferred_selection_has_random_draws_of_its_own_layers(
        self, grid: tuple[Path, dict[Any, Record]]
    ) -> None:
        _, found = grid
        scores = found[BENCHMARK, OTHERS].scores
        assert scores is not None
        assert all(dose.random is not None for dose in scores.doses)
        assert all(dose.random.n_draws == 6 for dose in scores.doses if dose.random)

    def test_scoring_again_from_predictions_changes_nothing(
        self, grid: tuple[Path, dict[Any, Record]], run_cli: Callable[..., Any], tmp_path: Path
    ) -> None:
        shutil.copytree(grid[0], tmp_path / "copy")
        code, out, _ = run_cli("score", "--results", tmp_path / "copy")
        assert code == 0
        assert "9 records scored again, 0 changed" in out


class TestResume:
    def test_finished_cells_are_skipped(self, bench: Bench, more: Path, grid: tuple[Path, Any]) -> None:
        before = contents(grid[0])
        _, log = bench.run(jobs(bench, more), grid[0], more=[more])
        assert (log.ran, len(log.skipped)) == ([], 9)
        assert contents(grid[0]) == before
        assert not (grid[0] / "partial").exists()

    def test_a_lost_transferred_cell_is_made_again_alone_and_equal(
        self, bench: Bench, more: Path, grid: tuple[Path, Any], tmp_path: Path
    ) -> None:
        output = tmp_path / "copy"
        shutil.copytree(grid[0], output)
        before = contents(output)
        lost = next((output / "records").glob(f"*__from-{TWO}__*.json"))
        lost.unlink()
        _, log = bench.run(jobs(bench, more), output, more=[more])
        assert len(log.ran) == 1
        assert contents(output) == before

    def test_cells_follow_when_their_units_change(
        self, bench: Bench, more: Path, grid: tuple[Path, Any], tmp_path: Path
    ) -> None:
        """Other items of identification: that task and all that its units are tested on run again."""
        output, other = tmp_path / "copy", tmp_path / "more"
        shutil.copytree(grid[0], output)
        shutil.copytree(more, other)
        path = other / "tasks" / "benchmarks" / f"{TWO}.yaml"
        path.write_text(
            path.read_text().replace("label: emotion", "label: emotion") + "limits: {identification: 6}\n"
        )
        _, log = bench.run(jobs(bench, other), output, more=[other])
        assert len(log.ran) == 5  # Its own cell, two from it, two onto it.
        assert any("another version of its" in note for note in log.notes)

    def test_what_cannot_be_identified_is_told_and_tried_again(
        self, bench: Bench, more: Path, tmp_path: Path
    ) -> None:
        """A task whose data are missing fails alone; cells that need its units say so and do not count."""
        data = tmp_path / "data"
        shutil.copytree(bench.root / "data", data)
        shutil.rmtree(data / TWO)
        records, log = bench.run(jobs(bench, more), tmp_path / "out", more=[more], data=data)
        failed = [each for each in records if each.status == "error"]
        assert {each.cell.task for each in failed} == {BENCHMARK, OTHERS}
        assert all(f"no units from {TWO}" in each.reason for each in failed)
        assert sum(TWO in note for note in log.notes) >= 2
        records, log = bench.run(jobs(bench, more), tmp_path / "out", more=[more])
        assert len(records) == 9
        assert all(each.status != "error" for each in records)
        assert len(log.skipped) == 4

    def test_units_of_another_version_of_the_model_are_not_taken(
        self, bench: Bench, more: Path, grid: tuple[Path, Any], tmp_path: Path
    ) -> None:
        """A result that is there, but of other weights, when the cells that need it are run alone."""
        output = tmp_path / "copy"
        shutil.copytree(grid[0], output)
        for record in grid[1].values():
            if record.cell.identification is None:
                hashes = record.hashes.model_copy(update={"model": "0" * 16})
                Store(output).write(record.model_copy(update={"hashes": hashes}))
            else:
                Store(output).record_path(record.cell).unlink()
        moved = [job for job in jobs(bench, more) if job.identified_on]
        records, _ = bench.run(moved, output, more=[more])
        assert {each.status for each in records} == {"error"}
        assert all("another version of its model" in each.reason for each in records)


class TestIdentity:
    def test_transferred_and_ordinary_rows_are_never_compared(self, grid: tuple[Path, Any]) -> None:
        found = groups([summary_of(record) for record in grid[1].values()])
        assert len(found) == 9
        assert all(len(group.rows) == 1 for group in found)

    def test_ordinary_records_are_stored_as_before(self, grid: tuple[Path, Any]) -> None:
        for (one, other), record in grid[1].items():
            stored = json.loads(record.canonical())
            assert ("identification" in stored["cell"]) == (one != other)
            assert ("identification" in stored["hashes"]) == (one != other)

    def test_the_table_names_where_units_are_from(
        self, grid: tuple[Path, Any], run_cli: Callable[..., Any]
    ) -> None:
        _, out, _ = run_cli("table", grid[0], "--format", "csv")
        header, *rows = out.splitlines()
        column = header.split(",").index("identified_on")
        assert {row.split(",")[column] for row in rows} == {BENCHMARK, OTHERS, TWO}

    def test_a_regression_check_pairs_each_cell_with_itself(
        self, grid: tuple[Path, Any], run_cli: Callable[..., Any], tmp_path: Path
    ) -> None:
        code, out, err = run_cli("check", grid[0], "--baseline", grid[0])
        assert code == 0, out + err


class TestElsewhere:
    """Where cells run, and whose units they are, changes nothing about transfer."""

    def test_processes_wait_for_the_units_and_give_the_same_records(
        self, bench: Bench, more: Path, grid: tuple[Path, Any], tmp_path: Path
    ) -> None:
        options = Options(tmp_path, data=bench.root / "data")
        records = Run(bench.registry(more), options, Log(), ProcessExecutor(2, 1)).run(jobs(bench, more))
        assert len(records) == 9
        assert contents(tmp_path) == contents(grid[0])

    def test_submitted_units_are_transferred_from_the_task_they_are_for(
        self, bench: Bench, more: Path, tmp_path: Path
    ) -> None:
        """Units for one task alone: they are tested on it and on both others; the rest is not covered."""
        folder(tmp_path / "mine", suite="grid")
        registry, options = bench.registry(more), Options(tmp_path / "out", data=bench.root / "data")
        with staged(tmp_path / "mine") as checked:
            parts = parts_of(checked, registry)
            records, failed = evaluate(parts, registry, options, Log())
        assert failed == []
        assert {(each.cell.origin, each.cell.task) for each in records} == {
            (BENCHMARK, task) for task in (BENCHMARK, OTHERS, TWO)
        }
        assert sum(part.path is None for part in parts) == 2 + 4
        by_task = {each.cell.task: each for each in records}
        own, other = by_task[BENCHMARK].selection, by_task[OTHERS].selection
        assert own is not None
        assert other is not None
        assert sorted(own.units) == sorted(other.units)


class TestGates:
    @pytest.fixture
    def published(self, bench: Bench, more: Path, grid: tuple[Path, Any], tmp_path: Path) -> Change:
        for name in ("records", "selections"):
            shutil.copytree(grid[0] / name, tmp_path / "head" / name)
        (tmp_path / "base" / "records").mkdir(parents=True)
        return Change(tmp_path / "base", tmp_path / "head", bench.registry(more), bench.root / "data")

    def test_a_whole_grid_passes(self, published: Change) -> None:
        assert [gate.problems for gate in run_gates(published) if not gate.passed] == []

    def test_units_from_another_version_of_a_task_do_not(self, published: Change) -> None:
        path = next((published.head / "records").glob(f"*__from-{TWO}__*"))
        record = Record.model_validate_json(path.read_text())
        hashes = record.hashes.model_copy(update={"identification": "0" * 16})
        Store(published.head).write(record.model_copy(update={"hashes": hashes}))
        problems = [problem for gate in run_gates(published) for problem in gate.problems]
        assert len(problems) == 1
        assert f"units from {TWO} with the hash 0000000000000000" in problems[0]


def test_log_counts_every_cell(bench: Bench, more: Path, grid: tuple[Path, Any]) -> None:
    log = Log()
    bench.run(jobs(bench, more), grid[0], more=[more], log=log)
    assert log.cells == 9 == len(log.skipped)
