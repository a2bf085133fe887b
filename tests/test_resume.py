"""A run that is stopped goes on from its last finished piece; its records say what they would have."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from e2e_content import Bench, Log, die, in_child, write_selector

from affectbench.engine import Engine
from affectbench.journal import Journal, remove_pieces
from affectbench.model import Model
from affectbench.pieces import PieceWork

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks a process that ran torch"),
    pytest.mark.usefixtures("one_thread"),  # As in the forked processes.
]

TOKENS = 150
"""So few that every split takes several batches."""
TIMES = {"cost": ("wall_s", "cpu_s", "peak_memory_mib"), "provenance": ("started", "finished")}
CURIOUS = """
from affectbench.intervention import scale
study.ask([scale(study.site, study.shape, chosen, 0.0) for chosen in units])
"""


class Whole(NamedTuple):
    """What a run leaves that nothing disturbs, the kinds of its pieces, and its forward passes."""

    files: dict[str, bytes]
    pieces: list[str]
    passes: int


def files(output: Path) -> dict[str, bytes]:
    """All files of a results folder, records without what counts as time."""
    found = {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}
    for name in found:
        if name.startswith("records/"):
            record = json.loads(found[name])
            for part, fields in TIMES.items():
                for each in fields:
                    del record[part][each]
            found[name] = json.dumps(record, sort_keys=True).encode()
    return found


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A selector that asks the model on its own, and shares what it asks with nobody else."""
    root = tmp_path_factory.mktemp("more")
    write_selector(root, "curious", CURIOUS)
    return root


@pytest.fixture
def go(bench: Bench, more: Path, tmp_path: Path) -> Callable[..., Log]:
    def run(output: Path = tmp_path / "out", tokens: int = TOKENS, log: Log | None = None) -> Log:
        job = bench.job("contrast", "curious", "random", more=[more])
        return bench.run(job, output, more=[more], tokens=tokens, log=log)[1]

    return run


@pytest.fixture(scope="module")
def whole(bench: Bench, more: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    output, kinds = tmp_path_factory.mktemp("whole"), []
    with pytest.MonkeyPatch.context() as patched:
        after_pieces(patched, lambda kind, _count: kinds.append(kind))
        passes = counted(patched)
        job = bench.job("contrast", "curious", "random", more=[more])
        bench.run(job, output, more=[more], tokens=TOKENS)
    return Whole(files(output), kinds, len(passes))


def after_pieces(patched: pytest.MonkeyPatch, hook: Callable[[str, int], object]) -> None:
    """Call `hook` with the kind of each piece, and how many of that kind went before, once it is kept."""
    real_piece, real_snapshot, seen = PieceWork.piece, Journal.snapshot, Counter[str]()

    def told(kind: str) -> None:
        seen[kind] += 1
        hook(kind, seen[kind] - 1)

    def piece(self: Any, about: Any, *arguments: Any, **options: Any) -> Any:
        about = list(about)
        found = real_piece(self, about, *arguments, **options)
        told(about[0])
        return found

    def snapshot(self: Any, *arguments: Any) -> None:
        self._rested = 0.0  # Each state is kept, however fast they come.
        real_snapshot(self, *arguments)
        told("evidence")

    patched.setattr(PieceWork, "piece", piece)
    patched.setattr(Journal, "snapshot", snapshot)


def counted(patched: pytest.MonkeyPatch) -> list[int]:
    """The rows of every forward pass that is really made from here on."""
    real, passes = Engine.spent, []  # type: ignore[var-annotated]

    def spent(self: Engine, rows: int) -> None:
        passes.append(rows)
        real(self, rows)

    patched.setattr(Engine, "spent", spent)
    return passes


def killed(action: Callable[[], object]) -> None:
    _, status = os.waitpid(in_child(action), 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def killed_after(go: Callable[..., Log], kind: str, count: int, output: Path | None = None) -> None:
    """A run that is killed once piece number `count` of a kind is kept."""

    def run() -> None:
        with pytest.MonkeyPatch.context() as patched:
            after_pieces(patched, lambda *at: die() if at == (kind, count) else None)
            go() if output is None else go(output)

    killed(run)


def kept_passes(output: Path) -> int:
    """The forward passes that the journals of a results folder hold."""
    (folder,) = (output / "partial").iterdir()
    found = Journal(folder, folder.name.rpartition("__")[2], lambda _: None)
    return sum(frame.head.get("cost", {}).get("forward_passes", 0) for frame in found._frames.values())


POINTS = [
    ("evidence", 0),
    ("evidence", 1),
    ("answers", 0),
    ("answers", 3),
    ("answers", 9),
    ("likelihoods", 0),
    ("likelihoods", 2),
    ("generations", 0),
    ("answers", 16),
    ("likelihoods", 5),
    ("generations", 2),
]


@pytest.mark.parametrize(("kind", "count"), POINTS, ids=[f"{kind}-{count}" for kind, count in POINTS])
def test_a_killed_run_ends_as_if_nothing_had_been(
    go: Callable[..., Log],
    whole: Whole,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    count: int,
) -> None:
    output = tmp_path / "out"
    killed_after(go, kind, count)
    kept = kept_passes(output)
    assert kept > 0
    passes = counted(monkeypatch)
    log = go()
    assert files(output) == whole.files
    assert len(passes) == whole.passes - kept
    assert [note for note in log.notes if "answers were already there" in note]
    assert not (output / "partial").exists()


def test_pieces_of_all_kinds_are_kept(whole: Whole) -> None:
    counts = Counter(whole.pieces)
    assert all(counts[kind] > count for kind, count in POINTS)
    assert counts["evidence"] > 1


def test_a_run_may_be_killed_again_and_again(go: Callable[..., Log], whole: Whole, tmp_path: Path) -> None:
    for kind, count in (("answers", 1), ("likelihoods", 1), ("generations", 1)):
        killed_after(go, kind, count)
    log = go()
    assert files(tmp_path / "out") == whole.files
    assert len([note for note in log.notes if note.startswith("going on")]) == 1


def test_a_piece_that_was_half_written_is_dropped(
    go: Callable[..., Log], whole: Whole, tmp_path: Path
) -> None:
    real, frames = Journal._append, []  # type: ignore[var-annotated]

    def append(self: Journal, frame: bytes) -> None:
        frames.append(frame)
        real(self, frame if len(frames) < 7 else frame[: len(frame) // 2])
        if len(frames) == 7:
            die()

    def run() -> None:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Journal, "_append", append)
            go()

    killed(run)
    log = go()
    assert files(tmp_path / "out") == whole.files
    assert len([note for note in log.notes if "its last piece was cut off" in note]) == 1


@pytest.mark.parametrize(
    "stop", [KeyboardInterrupt, SystemExit, MemoryError("of another kind"), signal.SIGTERM]
)
def test_other_ends_lose_no_more(
    go: Callable[..., Log], whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: Any
) -> None:
    class Stopped(Log):
        def phase(self, text: str) -> None:
            pass

        def done(self, record: Any, *, skipped: bool) -> None:
            if record.cell.selector == "curious":
                if isinstance(stop, signal.Signals):
                    os.kill(os.getpid(), stop)
                raise stop

    _, status = os.waitpid(in_child(lambda: go(log=Stopped())), 0)
    assert status != 0
    kept = kept_passes(tmp_path / "out")
    passes = counted(monkeypatch)
    go()
    assert files(tmp_path / "out") == whole.files
    assert len(passes) == whole.passes - kept < whole.passes / 2


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_damaged_journal_is_set_aside_and_mended(
    go: Callable[..., Log], whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    killed_after(
        go, "likelihoods", 5
    )  # In the last cell, so that the damage reaches cells that are finished.
    (path,) = (tmp_path / "out" / "partial").glob("*/*.journal")
    flip(path, int(share * path.stat().st_size))
    passes = counted(monkeypatch)
    log = go()
    assert len([note for note in log.notes if "is damaged: set aside as" in note]) == 1
    (aside,) = (tmp_path / "out" / "partial").rglob("*.damaged")
    found = files(tmp_path / "out")
    del found[str(aside.relative_to(tmp_path / "out"))]
    assert found == whole.files
    assert len(passes) < whole.passes / 2


def test_a_damaged_snapshot_is_set_aside(go: Callable[..., Log], whole: Whole, tmp_path: Path) -> None:
    killed_after(go, "evidence", 1)
    (path,) = (tmp_path / "out" / "partial").glob("*/*.snapshot")
    flip(path, 100)
    log = go()
    assert [note for note in log.notes if "is damaged: set aside as" in note]
    assert {
        name: content for name, content in files(tmp_path / "out").items() if "partial" not in name
    } == whole.files


def test_nothing_is_taken_from_a_run_with_other_settings(
    go: Callable[..., Log], whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(lambda: go(log=Log(on_done=lambda _: die())))
    with monkeypatch.context() as patched:
        passes = counted(patched)
        log = go(tokens=400)
        fewer = len(passes)
    assert not [note for note in log.notes if note.startswith("going on")]
    passes = counted(monkeypatch)
    go(tmp_path / "fresh", tokens=400)
    assert fewer < len(passes), "the finished cell was kept"
    assert not (tmp_path / "out" / "partial").exists(), "a finished job leaves no journal of another version"


def test_a_full_disk_ends_the_journal_not_the_run(
    go: Callable[..., Log], whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Journal._append, iter(range(1000))

    def append(self: Journal, frame: bytes) -> None:
        if next(calls) >= 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, frame)

    monkeypatch.setattr(Journal, "_append", append)
    log = go()
    assert [note for note in log.notes if "No space left on device" in note] == log.notes[-1:]
    assert files(tmp_path / "out") == whole.files


def test_two_processes_go_on_in_one_folder(go: Callable[..., Log], whole: Whole, tmp_path: Path) -> None:
    killed_after(go, "likelihoods", 2)
    children = [in_child(go) for _ in range(2)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert files(tmp_path / "out") == whole.files


def test_a_live_process_keeps_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "job__0123456789abcdef"
    mine, other = (Journal(folder, "0123456789abcdef", lambda _: None) for _ in range(2))
    for journal in (mine, other):
        journal.add(f"of {id(journal)}", {}, {"cost": {}})
    mine.close()
    remove_pieces(tmp_path, "job")
    assert len(list(folder.glob("*.journal"))) == 1
    found = Journal(folder, "0123456789abcdef", lambda _: None)
    assert found.find(f"of {id(other)}") is not None
    assert found.find(f"of {id(mine)}") is None
    other.close()
    remove_pieces(tmp_path, "job")
    assert not folder.exists()


def test_a_frame_of_another_job_never_passes(tmp_path: Path) -> None:
    told: list[str] = []
    journal = Journal(tmp_path / "a", "a" * 16, told.append)
    journal.add("key", {"x": np.arange(3)}, {"cost": {}})
    journal.close()
    assert Journal(tmp_path / "a", "a" * 16, told.append).find("key") is not None
    assert not told
    assert Journal(tmp_path / "a", "b" * 16, told.append).find("key") is None
    assert "damaged" in told[0]


def test_halved_batches_are_halved_again(
    go: Callable[..., Log], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Model.decode

    def small_memory(self: Model, batch: Any, **options: Any) -> Any:
        if batch.embeds.shape[0] > 12:
            raise torch.OutOfMemoryError("pretend")
        return real(self, batch, **options)

    monkeypatch.setattr(Model, "decode", small_memory)
    go(tmp_path / "undisturbed")
    expected = files(tmp_path / "undisturbed")
    halved = [json.loads(expected[name])["cost"]["halvings"] for name in expected if "records/" in name]
    assert max(halved) > 0
    for kind, count in (("answers", 0), ("answers", 2), ("likelihoods", 3)):
        killed_after(go, kind, count)
    go()
    assert files(tmp_path / "out") == expected
