"""A run end to end: what is kept, what is run again, what survives a kill, a full disk, two runs at once."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e_content import (
    BENCHMARK,
    MODEL,
    PROTOCOL,
    SELECTORS,
    Bench,
    Log,
    benchmark,
    contents,
    protocol,
    write_benchmark,
    write_protocol,
    write_selector,
)

from affectbench import run as run_module
from affectbench.errors import AffectbenchError, RecordError
from affectbench.record import Record
from affectbench.store import Store

ROOT = Path(__file__).resolve().parent.parent
FIVE = ("magnitude", "contrast", "entropy", "magnitude_abs", "random")


@pytest.fixture(scope="module")
def done(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished suite; tests that change it work on a copy."""
    output = tmp_path_factory.mktemp("done")
    bench.run(bench.suite(), output)
    return output


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "copy"))


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def loading(*_: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(run_module, "load_model", loading)


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
        assert record.task.n_items == {"identification": 24, "validation": 12, "test": 36}
        assert record.task.n_clusters == {"identification": 4, "validation": 2, "test": 6}
        assert record.selection is not None
        assert record.selection.units_per_emotion == [4, 4, 4]
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


# Kills, full disks, two runs at once.

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks a process that ran torch")


def in_child(action: Callable[[], object]) -> int:
    """Start `action` in a forked process; returns its id. It exits with 0, or 1 after an exception."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        import torch

        torch.set_num_threads(1)  # The pool of the parent's threads is gone.
        action()
        code = 0
    except AffectbenchError:
        code = 3
    finally:
        os._exit(code)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(function: Callable[..., Any], count: int, *, after: bool = False) -> Callable[..., Any]:
    """`function`, but the process is killed at its call number `count`, before or after it."""
    calls = iter(range(count + 1))

    def called(*arguments: Any, **options: Any) -> Any:
        if next(calls) < count:
            return function(*arguments, **options)
        if after:
            function(*arguments, **options)
        return die()

    return called


@dataclass
class DyingLog(Log):
    left: int = 0

    def advance(self, passes: int) -> None:
        self.left -= 1
        if self.left < 0:
            die()


@pytest.fixture(scope="module")
def five(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run of five cells that nothing disturbs leaves behind."""
    output = tmp_path_factory.mktemp("five")
    bench.run(bench.job(*FIVE), output)
    return contents(output)


KILLS = [
    *((f"in forward pass {count}", {"left": count}) for count in (0, 9, 21)),
    *((f"before file {count} appears", {"patch": "replace", "count": count}) for count in (0, 1, 2, 3, 7)),
    ("after file 2 appears", {"patch": "replace", "count": 2, "after": True}),
    ("after file 9 appears", {"patch": "replace", "count": 9, "after": True}),
    *((f"while file {count} is written", {"patch": "fsync", "count": count}) for count in (0, 2, 13)),
]


@linux_only
@pytest.mark.parametrize(("moment", "how"), KILLS, ids=[moment for moment, _ in KILLS])
def test_a_killed_run_goes_on_where_it_stopped(
    bench: Bench, five: dict[str, str], tmp_path: Path, moment: str, how: dict[str, Any]
) -> None:
    def run() -> None:
        if "patch" in how:
            name = how["patch"]
            setattr(os, name, dying(getattr(os, name), how["count"], after=how.get("after", False)))
        bench.run(bench.job(*FIVE), tmp_path, log=DyingLog(left=how.get("left", 1 << 30)))

    _, status = os.waitpid(in_child(run), 0)
    assert os.WIFSIGNALED(status)
    before, (_, damaged) = contents(tmp_path), Store(tmp_path).read_all()
    assert not damaged
    assert before.items() <= five.items()
    _, log = bench.run(bench.job(*FIVE), tmp_path)
    assert len(log.skipped) == len(before)
    assert contents(tmp_path) == five


@pytest.mark.slow
@pytest.mark.parametrize("cells", [1, 3])
def test_kill_9_from_outside(bench: Bench, five: dict[str, str], tmp_path: Path, cells: int) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "harness.py", "run", "--model", MODEL, "--task", BENCHMARK, "-o", str(output)]
    command += ["--intervention", PROTOCOL, "--include", str(bench.root), "--data", str(bench.root / "data")]
    command += [part for name in FIVE for part in ("--selector", name)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None and len(list(output.glob("records/*.json"))) < cells:
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = contents(output)
    assert len(before) >= cells
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "finished before and kept" in done.stdout
    assert contents(output) == five


@linux_only
def test_two_runs_into_one_folder(bench: Bench, five: dict[str, str], tmp_path: Path) -> None:
    children = [
        in_child(lambda order=order: bench.run(bench.job(*order), tmp_path))  # type: ignore[misc]
        for order in (FIVE, FIVE[::-1])
    ]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert contents(tmp_path) == five
    assert not Store(tmp_path).read_all()[1]
    assert not list(tmp_path.rglob("*.tmp"))
    records, log = bench.run(bench.job(*FIVE), tmp_path)
    assert log.ran == []
    for record in records:
        Store(tmp_path).read_predictions(record.cell)


@pytest.mark.parametrize("count", range(6))
def test_a_full_disk_is_named_and_loses_nothing(
    bench: Bench, five: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    real, calls = os.fsync, iter(range(100))

    def full(descriptor: int) -> None:
        if next(calls) >= count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RecordError, match=r"cannot write .*: No space left on device \(free space"):
            bench.run(bench.job(*FIVE), tmp_path)
    before = contents(tmp_path)
    assert len(before) == count // 3, "a cell writes predictions, selection and record"
    assert before.items() <= five.items()
    assert not list(tmp_path.rglob("*.tmp"))
    _, log = bench.run(bench.job(*FIVE), tmp_path)
    assert len(log.skipped) == len(before)
    assert contents(tmp_path) == five


@linux_only
def test_a_file_that_may_not_grow_is_an_error_not_a_part(bench: Bench, tmp_path: Path) -> None:
    import resource

    def run() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
        bench.run(bench.job("magnitude"), tmp_path)

    _, status = os.waitpid(in_child(run), 0)
    assert os.waitstatus_to_exitcode(status) == 3
    assert not contents(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".safetensors"]


@pytest.mark.usefixtures("no_model")
def test_an_output_that_cannot_be_a_folder(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(RecordError, match=r"cannot write results to .*taken: Not a directory \(.*--output"):
        bench.run(bench.job("magnitude"), tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "a file"


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
