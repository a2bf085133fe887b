"""Where cells run: an executor takes orders, runs their cells and hands every result back once.

`LocalExecutor` runs them in this process; `ray_executor` on a cluster. Only the host writes results.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from affectbench.errors import AffectbenchError, RecordError
from affectbench.journal import Journal
from affectbench.placement import Options, Order, Placement
from affectbench.record import Cell, Record, cell_id
from affectbench.registry import Registry
from affectbench.resume import cells_to_pass, open_journal

if TYPE_CHECKING:
    from affectbench.cell_result import CellResult


class Reporter(Protocol):
    """Who is told how a run goes. Cells may overlap: several begin before the first is done."""

    def start(self, cells: int) -> None:
        """The run begins; `cells` in all."""

    def phase(self, text: str) -> None:
        """What is being done now."""

    def cell(self, cell: Cell, passes: int) -> None:
        """A cell begins; it will answer at most `passes` (item, intervention) pairs."""

    def advance(self, passes: int) -> None:
        """So many pairs more are done."""

    def note(self, text: str) -> None:
        """Something to know that stops nothing: what is run again, what was left out, and why."""

    def done(self, record: Record, *, skipped: bool) -> None:
        """A cell is finished, or was already."""


class Host(Protocol):
    """Whom an executor works for."""

    registry: Registry
    options: Options
    reporter: Reporter

    def finished(self, result: CellResult) -> None:
        """Keep a result. Raises `RecordError` where that cannot be; the run then ends."""

    def failed(self, order: Order, error: AffectbenchError) -> None:
        """An order could not be run, or not to its end."""


class Executor(Protocol):
    """Runs orders. They are read one by one, when there is room for the next."""

    def run(self, orders: Iterable[Order], host: Host) -> None:
        """Run every cell; each gives exactly one result, unless its order is told to have failed."""


class LocalExecutor:
    """Runs one cell after another in this process."""

    def run(self, orders: Iterable[Order], host: Host) -> None:
        for order in orders:
            try:
                self._run(order, host)
            except RecordError:
                raise
            except AffectbenchError as error:
                host.failed(order, error)
            gc.collect()

    def _run(self, order: Order, host: Host) -> None:
        journal = open_journal(order, host.options, host.reporter.note)
        try:
            self._pass_cells(order, host, journal)
        finally:
            journal.close()

    def _pass_cells(self, order: Order, host: Host, journal: Journal) -> None:
        """Run what is left of an order, on the way of the run that was stopped."""
        report = host.reporter
        way = cells_to_pass(order, journal)
        placement = Placement(host.registry, replace(order, cells=way), host.options, report.phase, journal)
        for note in placement.notes:
            report.note(note)
        if journal.found:
            answers = sum(placement.answers(planned) for planned in way)
            report.note(f"going on: {journal.answers:,} of {answers:,} answers were already there")
        journal.begin(cell_id(planned.cell) for planned in way)
        left = [planned.cell for planned in order.cells]
        for planned in way:
            if planned.cell in left:
                report.cell(planned.cell, placement.answers(planned))
                host.finished(placement.run(planned, report.advance))
                left.remove(planned.cell)
            elif left:
                report.phase(f"taking up {planned.cell.selector}, finished before")
                placement.replay(planned)
