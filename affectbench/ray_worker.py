"""What lives on the cluster: a process that holds one placement at a time. Nothing here imports Ray early."""

from __future__ import annotations

import gc
import os
import platform
import threading
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from affectbench import __version__
from affectbench.analyses import PlannedAnalysis
from affectbench.analysing import inputs_of, planned
from affectbench.analysis import Analysis
from affectbench.errors import AffectbenchError
from affectbench.journal import Journal
from affectbench.placement import Options, Order, planned_cells
from affectbench.record import Cell, Record
from affectbench.registry import Registry
from affectbench.resume import Passage, open_journal, sees
from affectbench.transfer import PlannedCell

if TYPE_CHECKING:
    from affectbench.cell_result import CellResult

REPORT_SECONDS = 0.5


class Event(NamedTuple):
    """What a worker tells while it works: the phase it is in, pairs it has done, or something to know."""

    kind: Literal["phase", "advance", "note"]
    content: Any


@dataclass(frozen=True)
class Loaded:
    """What the driver must know of a placement: its notes and, for each cell, how many answers it gives at
    most and the record it gets should no worker survive it. `blind`: the node that does not see the results
    folder, empty where the worker keeps its pieces there."""

    notes: tuple[str, ...]
    blind: str
    answers: dict[Cell, int]
    broken_off: dict[Cell, Record]


class Worker:
    """A Ray actor. `folder`: the driver's working directory, to which relative paths refer; `home`: the
    driver's node, whose files need not be compared."""

    def __init__(self, folder: str, home: str, threads: int) -> None:
        if Path(folder).is_dir():
            os.chdir(folder)
        self.home = home
        self.threads = threads
        self._passage: Passage | None = None
        self._journal: Journal | None = None
        self._events: list[Event] = []
        self._heard = threading.Event()

    def load(
        self,
        include: tuple[Path, ...],
        installed: bool,
        order: Order,
        options: Options,
        marker: str,
        given_up: tuple[Cell, ...] = (),
    ) -> tuple[Loaded, list[Event]]:
        """Let go of what was held and load an order; go on where the worker was that had it before.

        Where the driver's `marker` is not seen, its results folder is not here: then no pieces are kept.
        Raises `AffectbenchError` as `Placement` does.
        """
        import ray
        import torch

        self._begin()
        self._let_go()
        self._passage = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        registry = Registry(include, installed=installed)
        if ray.get_runtime_context().get_node_id() != self.home:
            compare_content(registry, order)
        seen = sees(options.output, marker)
        if seen:
            self._journal = open_journal(order, options, partial(self._tell, "note"))
        phase = partial(self._tell, "phase")
        self._passage = Passage(registry, order, options, phase, self._journal, given_up)
        placed = self._passage.placement
        loaded = Loaded(
            tuple(self._passage.notes),
            "" if seen else platform.node(),
            {each.cell: placed.answers(each) for each in order.cells},
            {each.cell: placed.broken_off(each, "its worker died") for each in order.cells},
        )
        return loaded, self._taken()

    def run(self, planned: PlannedCell, last: bool) -> tuple[CellResult, list[Event]]:
        """Run one cell of the order; if nothing comes after it, pieces may be removed."""
        assert self._passage is not None, "an order is loaded first"
        self._begin()
        result = self._passage.run(planned, partial(self._tell, "advance"))
        if last:
            self._let_go()
        return result, self._taken()

    def analyse(
        self, planned: PlannedAnalysis, last: bool
    ) -> tuple[Analysis | AffectbenchError, list[Event]]:
        """Make one analysis of the order, or say why not; after the `last` one, pieces may be removed."""
        assert self._passage is not None, "an order is loaded first"
        self._begin()
        found: Analysis | AffectbenchError
        try:
            found = self._passage.analyse(planned, partial(self._tell, "advance"))
        except AffectbenchError as error:
            found = error
        if last:
            self._let_go()
        return found, self._taken()

    def report(self) -> list[Event]:
        """What happened since the last report; waits for something to happen."""
        if self._heard.wait(REPORT_SECONDS * 20):
            threading.Event().wait(REPORT_SECONDS)
        return self._taken()

    def _begin(self) -> None:
        import torch

        torch.set_num_threads(self.threads)  # Counts for the calling thread alone.

    def _let_go(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _tell(self, kind: Literal["phase", "advance", "note"], content: str | int) -> None:
        self._events.append(Event(kind, content))
        self._heard.set()

    def _taken(self) -> list[Event]:
        self._heard.clear()
        events, self._events = self._events, []
        return events


def compare_content(registry: Registry, order: Order) -> None:
    """Check that an order means here what it means to the driver.

    Raises:
        AffectbenchError: a task, selector, protocol or checkpoint of this node differs, so that its results
            would bear the hashes of something else.
    """
    job = order.job
    try:
        own = replace(
            job,
            benchmark=registry.benchmark(job.benchmark.name),
            protocols=tuple(registry.intervention(protocol.name) for protocol in job.protocols),
        )
        cells = {each.cell: each for each in planned_cells(registry, own, order.dataset)}
    except AffectbenchError as error:
        raise AffectbenchError(f"node {platform.node()}: {error.message}", hint=HINT) from error
    for each in order.cells:
        for part in ("task", "protocol", "selector", "model"):
            if getattr(cells[each.cell].hashes, part) != getattr(each.hashes, part):
                raise AffectbenchError(
                    f"node {platform.node()} has another version of the {part} of cell "
                    f"{each.cell.selector} on {order.name} (its affectbench is {__version__})",
                    hint=HINT,
                )
    inputs = inputs_of(registry, own, order.dataset, tuple(cells.values())) if order.analyses else {}
    for asked in order.analyses:
        if planned(registry, own, asked.kind, inputs) != asked:
            raise AffectbenchError(
                f"node {platform.node()} would make the analysis {asked.kind} of {order.name} from something "
                f"else (its affectbench is {__version__})",
                hint=HINT,
            )


HINT = "every node needs the same affectbench, and models and --include folders at the same paths"
