"""Workers that are killed, and who started them: what they had done is taken up from the last batch."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from e2e_content import BENCHMARK, MODEL, Bench, Log, write_selector, write_yaml
from e2e_runs import IN_PROCESSES, ON_RAY, ROOT, command, files, needs_ray, run

from affectbench.dataset import load_benchmark
from affectbench.journal import Journal, remove_pieces
from affectbench.placement import Options, Order, planned_cells
from affectbench.ray_executor import RayExecutor, _Dispatcher, _Work
from affectbench.ray_worker import Worker
from affectbench.resume import marking, sees

SUITE = "watched"
KILLED = [
    pytest.param(ON_RAY, os.killpg, (0.4,), marks=needs_ray, id="ray"),
    pytest.param(IN_PROCESSES, os.kill, (0.2, 0.6), id="processes"),
]
WITNESS = """
import os
import signal
from collections import Counter
from pathlib import Path

from affectbench.engine import Engine
from affectbench.dataset import load_benchmark
from affectbench.journal import Journal, remove_pieces
from affectbench.placement import Options, Order, planned_cells
from affectbench.ray_executor import RayExecutor, _Dispatcher, _Work
from affectbench.ray_worker import Worker
from affectbench.pieces import PieceWork

HERE = Path({folder!r})
real_spent, real_piece, real_snapshot, seen = Engine.spent, PieceWork.piece, Journal.snapshot, Counter()


def spent(self, rows):
    with (HERE / "passes").open("a") as stream:
        stream.write(f"{{os.getpid()}}\\n")
    real_spent(self, rows)


def told(kind, folder):
    seen[kind] += 1
    order = HERE / f"kill-{{kind}}-{{seen[kind] - 1}}"
    if {job!r} in folder and order.exists():
        order.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def piece(self, about, *arguments, **options):
    about = list(about)
    found = real_piece(self, about, *arguments, **options)
    told(about[0], self.journal.folder.name)
    return found


def snapshot(self, *arguments):
    self._rested = 0.0  # Each state is kept, however fast they come.
    real_snapshot(self, *arguments)
    told("evidence", self.folder.name)


if not hasattr(Engine, "watched"):  # Each job imports this file.
    Engine.watched = True
    Engine.spent, PieceWork.piece, Journal.snapshot = spent, piece, snapshot
"""


class Watched(NamedTuple):
    """A grid of two jobs of which one is watched: its workers note each forward pass, and die on demand."""

    bench: Bench
    own: Path
    here: Path
    files: dict[str, Any]
    passes: int

    def kill(self, kind: str, count: int) -> None:
        """The next worker that keeps piece number `count` of a kind dies then."""
        (self.here / f"kill-{kind}-{count}").touch()

    def command(self, output: Path, *arguments: str) -> list[str]:
        return [*command(self.bench, self.own, output, SUITE, *arguments), "--tokens", "150"]

    def spent(self) -> int:
        """Forward passes that were really made since this was asked last."""
        path = self.here / "passes"
        count = len(path.read_text().splitlines()) if path.exists() else 0
        path.unlink(missing_ok=True)
        return count


@pytest.fixture(scope="module")
def watched(bench: Bench, own: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    root, here = tmp_path_factory.mktemp("watched"), tmp_path_factory.mktemp("here")
    path = write_selector(root, "witness")
    path.write_text(path.read_text() + WITNESS.format(folder=str(here), job=f"{BENCHMARK}__s0"))
    suite = {
        "kind": "suite", "version": 1, "name": SUITE, "models": [MODEL], "interventions": ["toy-gain"],
        "tasks": {"text": [BENCHMARK, f"{BENCHMARK}-more"]}, "selectors": ["witness", "contrast"],
    }  # fmt: skip
    write_yaml(own / "tasks" / "suites" / f"{SUITE}.yaml", suite)
    (own / "selectors" / "witness.py").write_text(path.read_text())
    output = tmp_path_factory.mktemp("whole")
    found = Watched(bench, own, here, {}, 0)
    run(found.command(output))
    return found._replace(files=files(output), passes=found.spent())


def kept_passes(output: Path) -> int:
    """The forward passes that the journals of a results folder hold."""
    total = 0
    for folder in (output / "partial").glob("*__*"):
        found = Journal(folder, folder.name.rpartition("__")[2], lambda _: None)
        costs = [frame.head.get("cost", {}) for frame in found._frames.values()]
        total += sum(cost.get("forward_passes", 0) for cost in costs)
    return total


def killed_after(line: list[str], passes: int, kill: Callable[[int, int], None]) -> None:
    """Start a run and kill -9 its first process, or its group, when so many passes are kept."""
    import psutil

    output = Path(line[line.index("--output") + 1])
    driver = subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while driver.poll() is None and kept_passes(output) < passes:
        time.sleep(0.02)
    started = psutil.Process(driver.pid).children(recursive=True)
    kill(driver.pid, signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    _, left = psutil.wait_procs(started, timeout=60)
    assert not left


@pytest.mark.slow
def test_processes_that_are_killed_leave_their_batches(watched: Watched, tmp_path: Path) -> None:
    line = watched.command(tmp_path, *IN_PROCESSES)
    for kind, count in (("evidence", 1), ("answers", 3), ("generations", 1)):
        watched.kill(kind, count)
        done = run(line, code=1)
        assert "the process that ran it died: killed by SIGKILL" in done.stderr
        assert kept_passes(tmp_path) > 0
    done = run(line)
    assert "answers were already there" in done.stdout
    assert files(tmp_path) == watched.files
    assert watched.spent() == watched.passes, "no pass was made twice"
    assert not list(watched.here.glob("kill-*"))


@needs_ray
@pytest.mark.slow
def test_a_ray_worker_that_is_killed_leaves_its_batches(watched: Watched, tmp_path: Path) -> None:
    moments = (("evidence", 1), ("answers", 3), ("generations", 1))
    for moment in moments:
        watched.kill(*moment)
    done = run(watched.command(tmp_path, *ON_RAY))
    notes = [line for line in done.stdout.splitlines() if line.startswith("note")]
    assert len([note for note in notes if "it is tried again" in note]) == len(moments)
    assert len([note for note in notes if "answers were already there" in note]) == len(moments)
    assert files(tmp_path) == watched.files
    assert watched.spent() == watched.passes, "no pass was made twice"
    assert not list(watched.here.glob("kill-*"))


@pytest.mark.slow
@pytest.mark.parametrize(("side_by_side", "kill", "shares"), KILLED)
def test_a_killed_parent_loses_no_batch(
    watched: Watched,
    tmp_path: Path,
    side_by_side: tuple[str, ...],
    kill: Callable[[int, int], None],
    shares: tuple[float, ...],
) -> None:
    line = watched.command(tmp_path, *side_by_side)
    for share in shares:
        killed_after(line, round(share * watched.passes), kill)
    kept = kept_passes(tmp_path)
    assert kept >= shares[-1] * watched.passes - 1
    watched.spent()
    done = run(line)
    assert watched.spent() == watched.passes - kept
    assert files(tmp_path) == watched.files
    assert "Traceback" not in done.stderr


def test_a_worker_keeps_pieces_only_where_the_driver_looks(tmp_path: Path) -> None:
    """A folder of the same path on another machine is another folder."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    (other / "partial").mkdir(parents=True)
    with marking(mine) as marker:
        assert sees(mine, marker)
        assert not sees(other, marker)
    assert not sees(mine, marker)
    assert not (mine / "partial").exists()


@needs_ray
def test_a_node_that_does_not_see_the_folder_works_without_pieces(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "here"))
    monkeypatch.chdir(tmp_path)
    registry, job = bench.registry(), bench.job("magnitude")
    dataset = load_benchmark(job.benchmark, bench.root / "data", None)
    cells = planned_cells(registry, job, dataset)
    order, options = Order(job, dataset, cells, cells), Options(tmp_path / "out", data=bench.root / "data")
    worker = Worker(str(tmp_path), "here", 1)
    loaded, _ = worker.load(registry.include, False, order, options, "no-such-marker")
    result, _ = worker.run(cells[0], last=True)
    assert result.record.status == "ok"
    assert loaded.blind
    assert not (tmp_path / "out").exists()
    log = Log()
    host = SimpleNamespace(reporter=log, options=options, registry=registry)
    dispatcher = _Dispatcher(ray, RayExecutor(), host, 1, "marker")  # type: ignore[arg-type]
    for _ in range(3):
        dispatcher._loaded(_Work(order, deque(cells), deque()), loaded)
    assert len(log.notes) == 1
    assert f"does not share {tmp_path / 'out'} with this one" in log.notes[0]


def test_a_marker_that_a_killed_driver_left_goes_with_the_job(tmp_path: Path) -> None:
    with marking(tmp_path) as live:
        (tmp_path / "partial" / "0123456789abcdef.journal").touch()
        remove_pieces(tmp_path / "partial", "job")
        assert [path.name for path in (tmp_path / "partial").iterdir()] == [live]
