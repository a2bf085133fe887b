"""What survives a kill, a full disk, two runs at once: everything that was finished, and nothing in part."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e_content import (
    BENCHMARK,
    MODEL,
    PROTOCOL,
    Bench,
    Log,
    contents,
    die,
    in_child,
)

from affectbench import placement
from affectbench.errors import RecordError
from affectbench.store import Store

ROOT = Path(__file__).resolve().parent.parent
FIVE = ("magnitude", "contrast", "entropy", "magnitude_abs", "random")


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def loading(*_: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(placement, "load_model", loading)


linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks a process that ran torch")


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
    *((f"in forward pass {count}", {"left": count}) for count in (0, 5, 11)),
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
    written = [path for path in tmp_path.rglob("*") if path.is_file() and "partial" not in path.parts]
    assert [path.suffix for path in written] in ([], [".safetensors"])


@pytest.mark.usefixtures("no_model")
def test_an_output_that_cannot_be_a_folder(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(RecordError, match=r"cannot write results to .*taken: Not a directory \(.*--output"):
        bench.run(bench.job("magnitude"), tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "a file"
