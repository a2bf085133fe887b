"""What lives on the cluster: a process that holds one placement at a time. Nothing here imports Ray early."""

from __future__ import annotations

import gc
import os
import platform
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from affectbench import __version__
from affectbench.errors import AffectbenchError
from affectbench.placement import Options, Order, Placement, PlannedCell, planned_cells
from affectbench.record import Cell, Record
from affectbench.registry import Registry

if TYPE_CHECKING:
    from affectbench.cell_result import CellResult

Event = str | int
"""What is being done now, or how many pairs were done."""
REPORT_SECONDS = 0.5


@dataclass(frozen=True)
class Loaded:
    """What the driver must know of a placement: its notes and, for each cell, how many answers it gives at
    most and the record it gets should no worker survive it."""

    notes: tuple[str, ...]
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
        self.placement: Placement | None = None
        self._events: list[Event] = []
        self._heard = threading.Event()

    def load(
        self, include: tuple[Path, ...], installed: bool, order: Order, options: Options
    ) -> tuple[Loaded, list[Event]]:
        """Let go of what was held and load an order. Raises `AffectbenchError` as `Placement` does."""
        import ray
        import torch

        self._begin()
        self.placement = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        registry = Registry(include, installed=installed)
        if ray.get_runtime_context().get_node_id() != self.home:
            compare_content(registry, order)
        self.placement = placed = Placement(registry, order, options, self._tell)
        loaded = Loaded(
            tuple(placed.notes),
            {each.cell: placed.answers(each) for each in order.cells},
            {each.cell: placed.broken_off(each, "its worker died") for each in order.cells},
        )
        return loaded, self._taken()

    def run(self, planned: PlannedCell) -> tuple[CellResult, list[Event]]:
        """Run one cell of the order."""
        assert self.placement is not None, "an order is loaded first"
        self._begin()
        return self.placement.run(planned, self._tell), self._taken()

    def report(self) -> list[Event]:
        """What happened since the last report; waits for something to happen."""
        if self._heard.wait(REPORT_SECONDS * 20):
            threading.Event().wait(REPORT_SECONDS)
        return self._taken()

    def _begin(self) -> None:
        import torch

        torch.set_num_threads(self.threads)  # Counts for the calling thread alone.

    def _tell(self, event: Event) -> None:
        self._events.append(event)
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
        mine = {each.cell: each.hashes for each in planned_cells(registry, own, order.dataset)}
    except AffectbenchError as error:
        raise AffectbenchError(f"node {platform.node()}: {error.message}", hint=HINT) from error
    for each in order.cells:
        for part in ("task", "protocol", "selector", "model"):
            if getattr(mine[each.cell], part) != getattr(each.hashes, part):
                raise AffectbenchError(
                    f"node {platform.node()} has another version of the {part} of cell "
                    f"{each.cell.selector} on {order.name} (its affectbench is {__version__})",
                    hint=HINT,
                )


HINT = "every node needs the same affectbench, and models and --include folders at the same paths"
