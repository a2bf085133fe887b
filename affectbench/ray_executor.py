"""Cells on a Ray cluster: workers hold placements, this process gives out cells and keeps results.

A worker has one job at a time and runs its cells one after another, as the local executor does; a job is
not divided, because the last bits of a number can depend on what else was packed with it. Workers keep their
pieces in the results folder, as local runs do: when one dies, a new one goes on from the last batch, and the
records say what they would have. On a node that does not see that folder, the cell it was at begins anew, and
what is left of the job is packed without its finished cells, so last bits may differ. Only results that
arrived count.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from affectbench.analyses import PlannedAnalysis
from affectbench.analysis import Analysis
from affectbench.cell_result import CellResult
from affectbench.errors import AffectbenchError
from affectbench.executor import Chore, Host, LocalExecutor
from affectbench.placement import Order
from affectbench.ray_worker import Event, Loaded, Worker
from affectbench.record import Cell
from affectbench.resume import marking
from affectbench.transfer import PlannedCell

TRIES = 3
"""How often a cell, or the loading of a model, may take its worker down before it is given up."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
INHERITED = ("OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM", "TRANSFORMERS_VERBOSITY", "HF_HUB_OFFLINE")


@dataclass(frozen=True)
class RayExecutor:
    """Runs orders on Ray, at `address` or on this machine alone.

    `workers`: at most so many at a time, 0 for as many as fit; `gpus` for each, and `threads` (0: one).
    Raises `AffectbenchError` where Ray is not installed.
    """

    address: str | None = None
    workers: int = 0
    gpus: float = 0
    threads: int = 0

    def __post_init__(self) -> None:
        import_ray()

    @property
    def cpus(self) -> int:
        """CPUs for each worker: one for each of its threads."""
        return max(1, self.threads)

    def run(self, works: Iterable[Order | Chore], host: Host) -> None:
        chores: list[Chore] = []
        source = _orders(works, chores)
        first = next(source, None)
        if first is not None:  # Else no cluster is started.
            self._run(chain([first], source), host)
        LocalExecutor().run(chores, host)

    def _run(self, orders: Iterator[Order], host: Host) -> None:
        host.reporter.phase("starting Ray")
        with self.cluster() as ray:
            room = self._room(ray.cluster_resources())
            if room < 1:
                host.reporter.note(
                    f"no node has room for a worker now ({self.cpus} CPU, {self.gpus:g} GPU): waiting for one"
                )
            with marking(host.options.output) as marker:
                dispatcher = _Dispatcher(ray, self, host, self.workers or max(1, room), marker)
                try:
                    dispatcher.run(orders)
                finally:
                    dispatcher.close()

    @contextmanager
    def cluster(self) -> Iterator[Any]:
        """Ray, connected; on the way out only what was started or connected here is shut down."""
        ray = import_ray()
        if ray.is_initialized():
            yield ray
            return
        address = self.address or os.environ.get("RAY_ADDRESS")
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        if address is None:
            here = {"num_cpus": self.workers * self.cpus} if self.workers else {}
            settings |= {"address": "local", "include_dashboard": False} | here
        else:
            settings["address"] = address
        try:
            ray.init(**settings)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = f"at {address}" if address else "on this machine"
            raise AffectbenchError(
                f"Ray could not be reached or started {where}: {str(error).splitlines()[0]}",
                hint="check --ray-address and `ray status`",
            ) from error
        try:
            if address is None and self._room(ray.cluster_resources()) < 1:
                raise AffectbenchError(
                    f"this machine has no room for a worker with {self.cpus} CPU and {self.gpus:g} GPU",
                    hint="ask for less, or name a cluster with --ray-address",
                )
            yield ray
        finally:
            ray.shutdown()

    def _room(self, resources: dict[str, float]) -> int:
        """How many workers the cluster holds at a time."""
        room = int(resources.get("CPU", 0) // self.cpus)
        return min(room, int(resources.get("GPU", 0) // self.gpus)) if self.gpus else room


def _orders(works: Iterable[Order | Chore], chores: list[Chore]) -> Iterator[Order]:
    """The orders; `chores` are put aside, for they write files where the run was started."""
    for work in works:
        if isinstance(work, Order):
            yield work
        else:
            chores.append(work)


@dataclass
class _Work:
    """What is left of an order, how often each of its cells (None: the loading, or an analysis) took a worker
    down, which were given up for that, and what was said of it."""

    order: Order
    left: deque[PlannedCell]
    analyses: deque[PlannedAnalysis]
    deaths: Counter[Cell | None] = field(default_factory=Counter)
    given_up: tuple[Cell, ...] = ()
    loaded: Loaded | None = None
    told: set[str] = field(default_factory=set)


@dataclass(eq=False)
class _Slot:
    """A worker: its actor, its work, the call it is at (`cell` None: it loads) and its next report."""

    actor: Any
    work: _Work | None = None
    cell: PlannedCell | None = None
    call: Any = None
    report: Any = None


@dataclass
class _Dispatcher:
    """Gives work to at most `limit` workers until none is left. `marker` shows that a node sees the results
    folder."""

    ray: Any
    executor: RayExecutor
    host: Host
    limit: int
    marker: str
    _blind: bool = False
    _slots: list[_Slot] = field(default_factory=list)
    _again: deque[_Work] = field(default_factory=deque)

    def run(self, orders: Iterator[Order]) -> None:
        while self._fill(orders):
            calls = {slot.call: slot for slot in self._slots}
            reports = {slot.report: slot for slot in self._slots}
            ready, _ = self.ray.wait([*calls, *reports], num_returns=1)
            for ref in ready:
                if ref in calls:
                    self._answered(calls[ref])
                elif reports[ref] in self._slots:
                    self._report(reports[ref])

    def close(self) -> None:
        """End all workers, whatever they are at."""
        for slot in self._slots:
            self.ray.kill(slot.actor)
        self._slots = []

    def _fill(self, orders: Iterator[Order]) -> bool:
        """Give work to every free place; whether any worker is busy then."""
        idle = [slot for slot in self._slots if slot.work is None]
        while idle or len(self._slots) < self.limit:
            work = self._next(orders)
            if work is None:
                break
            slot = idle.pop() if idle else self._hired()
            slot.work, slot.cell = work, None
            registry, order = self.host.registry, replace(work.order, cells=tuple(work.left))
            slot.call = slot.actor.load.remote(
                registry.include, registry.installed, order, self.host.options, self.marker, work.given_up
            )
        for slot in idle:  # No more work: what it holds is free for others.
            self._dismiss(slot)
        return bool(self._slots)

    def _next(self, orders: Iterator[Order]) -> _Work | None:
        if self._again:
            return self._again.popleft()
        order = next(orders, None)
        return None if order is None else _Work(order, deque(order.cells), deque(order.analyses))

    def _hired(self) -> _Slot:
        executor = self.executor
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        variables = inherited | {"OMP_NUM_THREADS": str(executor.cpus)}
        actor = self.ray.remote(Worker).options(
            num_cpus=executor.cpus,
            num_gpus=executor.gpus,
            max_concurrency=2,  # One call that works, one that reports.
            runtime_env={"env_vars": variables},
        )
        home = self.ray.get_runtime_context().get_node_id()
        slot = _Slot(actor.remote(os.getcwd(), home, executor.cpus))
        slot.report = slot.actor.report.remote()
        self._slots.append(slot)
        return slot

    def _dismiss(self, slot: _Slot) -> None:
        self._slots.remove(slot)
        self.ray.kill(slot.actor)

    def _report(self, slot: _Slot) -> None:
        with suppress(self.ray.exceptions.RayError):  # Its death shows in the call.
            self._tell(self.ray.get(slot.report))
        slot.report = slot.actor.report.remote()

    def _tell(self, events: list[Event]) -> None:
        for kind, content in events:
            getattr(self.host.reporter, kind)(content)

    def _answered(self, slot: _Slot) -> None:
        assert slot.work is not None, "a worker with a call has work"
        try:
            found, events = self.ray.get(slot.call)
        except self.ray.exceptions.RayTaskError as error:
            if not isinstance(error.cause, AffectbenchError):
                raise
            self.host.failed(slot.work.order, error.cause)
            slot.work = None
            return
        except self.ray.exceptions.RayError as error:
            self._died(slot, slot.work, reason_of(error))
            return
        self._tell(events)
        self._keep(slot.work, found)
        self._go_on(slot, slot.work)

    def _keep(self, work: _Work, found: Loaded | CellResult | Analysis | AffectbenchError) -> None:
        if isinstance(found, Loaded):
            self._loaded(work, found)
        elif isinstance(found, CellResult):
            self.host.finished(found)
            work.left.popleft()
        else:
            work.analyses.popleft()
            if isinstance(found, Analysis):
                self.host.analysed(found)
            else:
                self.host.failed(work.order, found)

    def _loaded(self, work: _Work, found: Loaded) -> None:
        work.loaded = found
        for note in found.notes:
            if note not in work.told:
                self.host.reporter.note(note)
        work.told.update(found.notes)
        if found.blind and not self._blind:
            self._blind = True
            self.host.reporter.note(
                f"node {found.blind} does not share {self.host.options.output} with this one: a worker that "
                "dies there loses what it has of its cell (give an --output that all nodes can write to)"
            )

    def _go_on(self, slot: _Slot, work: _Work) -> None:
        if not work.left:
            slot.cell = None
            if work.analyses:
                slot.call = slot.actor.analyse.remote(work.analyses[0], len(work.analyses) == 1)
            else:
                slot.work = None
            return
        assert work.loaded is not None, "cells follow loading"
        slot.cell = work.left[0]
        self.host.reporter.cell(slot.cell.cell, work.loaded.answers[slot.cell.cell])
        slot.call = slot.actor.run.remote(slot.cell, len(work.left) == 1 and not work.analyses)

    def _died(self, slot: _Slot, work: _Work, reason: str) -> None:
        """Put what the worker left undone on the list again; without the cell it was at, if that has taken
        down too many."""
        self._dismiss(slot)
        at = None if slot.cell is None else slot.cell.cell
        work.deaths[at] += 1
        died = f"its worker died {_times(work.deaths[at])}: {reason}"
        again = work.deaths[at] < TRIES
        what = f"loading {work.order.name}" if at is None else f"{at.selector} of {work.order.name}"
        if again:
            self.host.reporter.note(f"{what}: {died}; it is tried again")
        if at is None and not again:
            hint = "is there memory enough for the model? see Ray's logs"
            self.host.failed(work.order, AffectbenchError(f"{what}: {died}", hint=hint))
            return
        if at is not None and not again:
            assert work.loaded is not None, "cells follow loading"
            record = work.loaded.broken_off[at].model_copy(update={"reason": died})
            self.host.finished(CellResult(record, {}, None))
            work.left.popleft()
            work.given_up += (at,)
        if work.left or work.analyses:
            self._again.append(work)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def reason_of(error: Exception) -> str:
    """The part of Ray's message that says what happened."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    _, found, detail = text.partition("Worker exit detail: ")
    return (detail if found else text).splitlines()[0] if text else type(error).__name__


def import_ray() -> Any:
    """The library. Raises `AffectbenchError` where it is not installed."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise AffectbenchError(
            f"the executor `ray` needs Ray, which cannot be imported: {error}",
            hint="pip install 'affectbench[ray]'",
        ) from error
    return ray
