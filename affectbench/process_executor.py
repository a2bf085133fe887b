"""Jobs side by side on one machine: each worker is a process that runs one job after another."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from affectbench.analysis import Analysis
from affectbench.errors import AffectbenchError
from affectbench.executor import Chore, Host, LocalExecutor, Reporter
from affectbench.placement import Options, Order
from affectbench.record import Cell, Record
from affectbench.registry import Registry

if TYPE_CHECKING:
    from affectbench.cell_result import CellResult

PATIENCE = 10.0
"""Seconds that a worker has to end by itself."""
PRELOADED = ["affectbench.cell"]
"""What every worker needs, imported once for all of them."""


@dataclass(frozen=True)
class ProcessExecutor:
    """Runs up to `workers` jobs or chores at a time, each in a process with `threads` CPU threads (0: its
    share).

    A job is not divided: the last bits of a number can depend on what else was packed with it. A worker that
    dies takes the rest of its job with it; the job is told to have failed and the others go on.
    """

    workers: int
    threads: int = 0

    def run(self, works: Iterable[Order | Chore], host: Host) -> None:
        pool = _Pool(host, self.threads or max(1, (os.cpu_count() or 1) // self.workers))
        source = iter(works)
        try:
            while True:
                while len(pool.busy) < self.workers and (work := next(source, None)) is not None:
                    pool.give(work)
                if not pool.busy:
                    return
                pool.listen()
        finally:
            pool.close()


@dataclass(eq=False)
class _Worker:
    process: Any
    pipe: Connection
    work: Order | Chore | None = None


@dataclass
class _Pool:
    """Workers, and what they tell. Only this process writes results."""

    host: Host
    threads: int
    busy: dict[Connection, _Worker] = field(default_factory=dict)
    idle: list[_Worker] = field(default_factory=list)

    def give(self, work: Order | Chore) -> None:
        """Let a worker run an order or a chore: one that is there and idle, or a new one."""
        worker = self.idle.pop() if self.idle else self._started()
        worker.work = work
        self.busy[worker.pipe] = worker
        worker.pipe.send(work)

    def listen(self) -> None:
        """Wait for news and pass it on."""
        for pipe in wait(list(self.busy)):
            worker = self.busy[pipe]  # type: ignore[index]
            try:
                kind, content = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                self._died(worker)
                continue
            self._heard(worker, kind, content)

    def close(self) -> None:
        """End all workers, whatever they are at; the idle ones end by themselves."""
        for worker in self.idle:
            worker.pipe.close()
        for worker in self.busy.values():
            worker.process.terminate()
        for worker in (*self.idle, *self.busy.values()):
            worker.process.join(PATIENCE)
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()

    def _started(self) -> _Worker:
        known = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if "forkserver" in known else "spawn")
        context.set_forkserver_preload(PRELOADED)
        ours, theirs = context.Pipe()
        registry = self.host.registry
        given = (theirs, registry.include, registry.installed, self.host.options, self.threads)
        process = context.Process(target=work, args=given, daemon=True)
        process.start()
        theirs.close()  # So that the worker's end is the only one, and its death is heard.
        return _Worker(process, ours)

    def _heard(self, worker: _Worker, kind: str, content: Any) -> None:
        reporter = self.host.reporter
        match kind:
            case "cell":
                reporter.cell(*content)
            case "advance":
                reporter.advance(content)
            case "phase":
                reporter.phase(content)
            case "note":
                reporter.note(content)
            case "finished":
                self.host.finished(content)
            case "analysed":
                self.host.analysed(content)
            case "failed":
                assert worker.work is not None, "only a worker with something to do fails in it"
                self.host.failed(worker.work, content)
            case "idle":
                self.idle.append(self.busy.pop(worker.pipe))

    def _died(self, worker: _Worker) -> None:
        del self.busy[worker.pipe]
        worker.process.join()
        worker.pipe.close()
        assert worker.work is not None, "a busy worker has something to do"
        code = worker.process.exitcode
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        error = AffectbenchError(
            f"the process that ran it died: {how}",
            hint="if memory ran out, use fewer --workers; the same command goes on from here",
        )
        self.host.failed(worker.work, error)


@dataclass(frozen=True)
class _Voice:
    """The reporter as a worker sees it: whatever is said goes through the pipe."""

    pipe: Connection

    def start(self, cells: int) -> None:
        """Said by the process that started the run."""

    def done(self, record: Record, *, skipped: bool) -> None:
        """Said by the process that keeps the record."""

    def analysed(self, analysis: Analysis, *, skipped: bool) -> None:
        """Said by the process that keeps the analysis."""

    def phase(self, text: str) -> None:
        self.pipe.send(("phase", text))

    def cell(self, cell: Cell, passes: int) -> None:
        self.pipe.send(("cell", (cell, passes)))

    def advance(self, passes: int) -> None:
        self.pipe.send(("advance", passes))

    def note(self, text: str) -> None:
        self.pipe.send(("note", text))


@dataclass
class _Remote:
    """The host as a worker sees it: results go through the pipe."""

    registry: Registry
    options: Options
    reporter: Reporter
    pipe: Connection

    def finished(self, result: CellResult) -> None:
        self.pipe.send(("finished", result))

    def analysed(self, analysis: Analysis) -> None:
        self.pipe.send(("analysed", analysis))

    def failed(self, work: Order | Chore, error: AffectbenchError) -> None:
        self.pipe.send(("failed", error))


def work(pipe: Connection, include: tuple[Any, ...], installed: bool, options: Options, threads: int) -> None:
    """The life of a worker: orders and chores come through the pipe until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the host ends us.
    import torch

    torch.set_num_threads(threads)
    remote = _Remote(Registry(include, installed=installed), options, _Voice(pipe), pipe)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # The host is gone.
        for each in _works(pipe):
            LocalExecutor().run([each], remote)
            pipe.send(("idle", None))


def _works(pipe: Connection) -> Iterator[Order | Chore]:
    while True:
        yield pipe.recv()
