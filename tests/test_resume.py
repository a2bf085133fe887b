"""A run that is stopped goes on from its last finished piece; its records say what they would have."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from e2e_content import Bench, Log, die, in_child, write_selector

from affectbench.engine import Engine
from affectbench.journal import Journal
from affectbench.pieces import PieceWork

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks a process that ran torch")

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


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the forked processes: nothing is taken from a run with another number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
