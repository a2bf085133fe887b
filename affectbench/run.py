"""The run: jobs -> cells -> records. Finished cells are skipped, so a killed run goes on where it stopped."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from affectbench.analyses import PlannedAnalysis
from affectbench.analysing import inputs_of, planned
from affectbench.analysis import Analysis, AnalysisStore, read_analysis
from affectbench.dataset import Dataset, load_benchmark
from affectbench.errors import AffectbenchError, RecordError
from affectbench.executor import Chore, Executor, LocalExecutor, Reporter
from affectbench.outcomes import content_digest
from affectbench.placement import Options, Order, planned_cells
from affectbench.plan import Job
from affectbench.record import Hashes, Record, cell_id
from affectbench.registry import Registry
from affectbench.replies import read_replies
from affectbench.resume import forget
from affectbench.store import Damaged, Store, read_record, set_aside
from affectbench.transfer import PlannedCell, with_carried, with_ratio

if TYPE_CHECKING:
    from affectbench.cell_result import CellResult

SOUNDS_BETWEEN = 50
"""After so many decoded sounds it is said how far that has come."""


@dataclass
class Run:
    """Runs jobs into a store of records. `failures` names the jobs and analyses that could not run, and why;
    `analyses` are those of all jobs, by name. With `plans_only`, nothing is changed in the store."""

    registry: Registry
    options: Options
    reporter: Reporter
    executor: Executor = field(default_factory=LocalExecutor)
    plans_only: bool = False
    store: Store = field(init=False)
    analysis_store: AnalysisStore = field(init=False)
    failures: list[str] = field(init=False, default_factory=list)
    analyses: dict[str, Analysis | None] = field(init=False, default_factory=dict)
    _records: dict[str, Record | None] = field(init=False, default_factory=dict)
    _chores_failed: bool = field(init=False, default=False)
    _read: list[tuple[Job, tuple[PlannedCell, ...], tuple[PlannedAnalysis, ...]]] = field(
        init=False, default_factory=list
    )

    def __post_init__(self) -> None:
        self.store = Store(self.options.output)
        self.analysis_store = AnalysisStore(self.options.output)

    def run(self, jobs: list[Job], chores: Sequence[Sequence[Chore]] = ()) -> list[Record]:
        """Run every cell that is not finished; returns the records there are of all cells, in order.

        `chores` are done beside the cells, group by group: those of one need what those before have made. A
        job that cannot run (its data or checkpoint is missing) goes to `failures`, and the next one begins;
        after a chore that failed come no more groups. Raises `RecordError` where results cannot be written.
        """
        self.store.prepare()
        self.reporter.start(sum(job.size for job in jobs))
        first, *later = chores or [()]
        waves = [job for job in jobs if not job.identified_on], transfers(jobs)
        for wave, beside in zip(waves, (first, ()), strict=True):
            self.executor.run(chain(self.orders(wave), beside), self)
        for group in later:
            if not self._chores_failed:
                self.executor.run(group, self)
        self._compare_transferred()
        for job, cells, asked in self._read:
            records = [self._records[cell_id(each.cell)] for each in cells]
            whole = all(self.analyses[each.name] is not None for each in asked)
            if whole and all(record is not None and record.status != "error" for record in records):
                forget(self.options.output, job)
        return [record for record in self._records.values() if record is not None]

    def _compare_transferred(self) -> None:
        """Set each transferred cell beside the result of the tested benchmark's own units."""
        for name, record in self._records.items():
            found = with_ratio(record, self.store, self._records.get) if record is not None else None
            if found is not None and found is not record:
                self.store.write(found)
                self._records[name] = found

    def finished(self, result: CellResult) -> None:
        """Write what a cell gave: predictions and selection first, so that a record never stands alone."""
        cell = result.record.cell
        if result.outcomes:
            self.store.write_predictions(cell, result.outcomes)
        if result.replies is not None:
            self.store.write_replies(cell, result.replies)
        if result.selection is not None:
            result.selection.save(self.store.selections / f"{cell_id(cell)}.safetensors")
        self.store.write(result.record)
        self._records[cell_id(cell)] = result.record
        self.reporter.done(result.record, skipped=False)

    def analysed(self, analysis: Analysis) -> None:
        """Write an analysis that was made."""
        self.analysis_store.write(analysis)
        self.analyses[analysis.name] = analysis
        self.reporter.analysed(analysis, skipped=False)

    def failed(self, work: Order | Chore, error: AffectbenchError) -> None:
        """Remember an order or a chore that could not be run, or not to its end."""
        self._chores_failed |= not isinstance(work, Order)
        self._note_failure(work.name, error)

    def _note_failure(self, name: str, error: AffectbenchError) -> None:
        self.failures.append(f"{name}: {error}")
        self.reporter.note(self.failures[-1])

    def orders(self, jobs: Iterable[Job], *, weights: bool = True) -> Iterator[Order]:
        """What is left of each job; those of which nothing is left are not given.

        Without `weights` the checkpoints are not read for their hashes: enough where no record is kept.
        """
        for job in jobs:
            try:
                order = self._order(job, weights)
            except RecordError:
                raise
            except AffectbenchError as error:
                self._note_failure(job.name, error)
                continue
            if order.cells or order.analyses:
                yield order

    def _order(self, job: Job, weights: bool) -> Order:
        job = job.pinned()
        reading = f"reading {job.benchmark.name}"
        self.reporter.phase(reading)

        def decoded(done: int, total: int) -> None:
            if done % SOUNDS_BETWEEN == 0:
                self.reporter.phase(f"{reading}: {done} of {total} sounds")

        dataset = load_benchmark(job.benchmark, self.options.data, self.options.limit, decoded)
        pending = []
        cells = tuple(
            with_carried(each, job, self.store, self._records.get)
            for each in planned_cells(self.registry, job, dataset, weights)
        )
        for each in cells:
            record = self._kept(each)
            self._records[cell_id(each.cell)] = record
            if record is None:
                pending.append(each)
            else:
                self.reporter.done(record, skipped=True)
        asked = tuple(self._asked(job, dataset, cells))
        self._read.append((job, cells, asked))
        left = tuple(each for each in asked if self._left(each))
        return Order(job, dataset, tuple(pending), cells, left)

    def _asked(self, job: Job, dataset: Dataset, cells: Sequence[PlannedCell]) -> Iterator[PlannedAnalysis]:
        """The analyses of a job; one that cannot be made of its model is a failure, and the cells are run."""
        inputs = inputs_of(self.registry, job, dataset, cells) if job.analyses else {}
        for name in job.analyses:
            try:
                yield planned(self.registry, job, name, inputs)
            except AffectbenchError as error:
                self._note_failure(
                    job.name, AffectbenchError(f"analysis {name}: {error.message}", hint=error.hint)
                )

    def _left(self, asked: PlannedAnalysis) -> bool:
        """Whether an analysis has to be made; a note where one is there that is no use."""
        found = self.analysis_store.finished(asked.name, asked.hashes, asked.settings)
        self.analyses[asked.name] = found
        if found is not None:
            self.reporter.analysed(found, skipped=True)
            return False
        path = self.analysis_store.path(asked.name)
        if path.exists():
            stored = read_analysis(path)
            damaged = isinstance(stored, Damaged)
            reason = stored.reason if isinstance(stored, Damaged) else "made from something else"
            aside = self._aside(path) if damaged else ""
            self.reporter.note(f"{path}: {reason}; the analysis is made again{aside}")
        return True

    def _kept(self, each: PlannedCell) -> Record | None:
        """The stored record of a cell, with its predictions; a note where one is there that is no use."""
        path = self.store.record_path(each.cell)
        if not path.exists():
            return None
        found = self.store.finished(each.cell, each.hashes)
        if found is None:
            stored = read_record(path)
            aside = self._aside(path) if isinstance(stored, Damaged) else ""
            self.reporter.note(f"{path}: {_unusable(stored, each.hashes)}; the cell is run again{aside}")
            return None
        damage = self._damage(found)
        if damage is not None:
            aside = self._aside(damage.path) if damage.path.exists() else ""
            self.reporter.note(f"{damage.reason}; the cell is run again{aside}")
            return None
        return found

    def _aside(self, path: Path) -> str:
        """Move a damaged file out of the way, and say so; a plan leaves it where it is."""
        return "" if self.plans_only else f" (the file is now {set_aside(path).name})"

    def _damage(self, record: Record) -> Damaged | None:
        """What is wrong with the predictions or the selection that a record was made with."""
        from affectbench.selector import Selection

        if record.scores is None:
            return None
        path = self.store.predictions_path(record.cell)
        try:
            outcomes = self.store.read_predictions(record.cell)
        except RecordError as error:
            return Damaged(path, error.message)
        if content_digest(outcomes) != record.hashes.predictions:
            return Damaged(path, f"{path}: these are not the answers of its record")
        if record.hashes.replies:
            path = self.store.replies_path(record.cell)
            try:
                texts = read_replies(path).digest
            except RecordError as error:
                return Damaged(path, error.message)
            if texts != record.hashes.replies:
                return Damaged(path, f"{path}: these are not the replies of its record")
        path = self.store.selections / f"{cell_id(record.cell)}.safetensors"
        try:
            intact = Selection.load(path).digest == record.hashes.selection
        except Exception as error:  # Whatever the reader makes of bytes that are no selection.
            reason = (str(error) or type(error).__name__).splitlines()[0]
            return Damaged(path, f"the selection in {path} is damaged: {reason}")
        return None if intact else Damaged(path, f"{path}: this is not the selection of its record")


def transfers(jobs: Iterable[Job]) -> list[Job]:
    """The jobs that test units of other cells, and so wait for them."""
    return [job for job in jobs if job.identified_on]


def _unusable(found: Record | Damaged, hashes: Hashes) -> str:
    """Why a stored record does not stand for its cell any more."""
    if isinstance(found, Damaged):
        return found.reason
    if found.status == "error":
        return f"it ended in an error ({found.reason})"
    names = ["task", "protocol", "selector", "model", "answer_words", "dictionary", "identification"]
    names += ["selection"] if hashes.selection else []
    changed = [name for name in names if getattr(found.hashes, name) != getattr(hashes, name)]
    return f"made with another version of its {' and '.join(changed)}"


def command_line() -> str:
    """The command that started this process, as one would type it."""
    return shlex.join(["python", os.path.basename(sys.argv[0]) or "harness.py", *sys.argv[1:]])
