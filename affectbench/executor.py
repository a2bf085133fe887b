"""Where cells run: an executor takes orders, runs their cells and hands every result back once.

`LocalExecutor` runs them in this process, `process_executor` in several, `ray_executor` on a cluster. Only
the host writes results of cells. Beside orders there are chores: work in files, that any process can do.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from affectbench.analysis import Analysis
from affectbench.errors import AffectbenchError, RecordError
from affectbench.placement import Options, Order
from affectbench.record import Cell, Record
from affectbench.registry import Registry
from affectbench.resume import Passage, open_journal

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

    def analysed(self, analysis: Analysis, *, skipped: bool) -> None:
        """An analysis is finished, or was already."""


class Chore(Protocol):
    """Work beside the cells whose results are files that it writes itself, each whole or not at all; done
    again, it finds them. It travels to other processes."""

    @property
    def name(self) -> str:
        """What is done to what."""

    def run(self, registry: Registry, told: Callable[[str], None]) -> None:
        """Do it; `told` hears how far it is. Raises `AffectbenchError` where it cannot be done."""


class Host(Protocol):
    """Whom an executor works for."""

    registry: Registry
    options: Options
    reporter: Reporter

    def finished(self, result: CellResult) -> None:
        """Keep a result. Raises `RecordError` where that cannot be; the run then ends."""

    def analysed(self, analysis: Analysis) -> None:
        """Keep an analysis. Raises `RecordError` as `finished` does."""

    def failed(self, work: Order | Chore, error: AffectbenchError) -> None:
        """An order or a chore could not be run, or not to its end, or one of its analyses failed."""


class Executor(Protocol):
    """Runs orders and chores. They are read one by one, when there is room for the next."""

    def run(self, works: Iterable[Order | Chore], host: Host) -> None:
        """Run every cell; each gives exactly one result, unless its order is told to have failed."""


class LocalExecutor:
    """Runs one cell after another in this process."""

    def run(self, works: Iterable[Order | Chore], host: Host) -> None:
        for place, work in enumerate(works):
            if place:
                gc.collect()  # A model is held in circles: it goes before the next one comes.
            try:
                if isinstance(work, Order):
                    self._run(work, host)
                else:
                    work.run(host.registry, host.reporter.phase)
            except RecordError:
                raise
            except AffectbenchError as error:
                host.failed(work, error)

    def _run(self, order: Order, host: Host) -> None:
        journal = open_journal(order, host.options, host.reporter.note)
        try:
            report = host.reporter
            passage = Passage(host.registry, order, host.options, report.phase, journal)
            for note in passage.notes:
                report.note(note)
            for planned in order.cells:
                report.cell(planned.cell, passage.placement.answers(planned))
                host.finished(passage.run(planned, report.advance))
            for analysis in order.analyses:
                try:
                    made = passage.analyse(analysis, report.advance)
                except AffectbenchError as error:
                    host.failed(order, error)
                else:
                    host.analysed(made)
        finally:
            journal.close()
