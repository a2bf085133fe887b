"""A submitted method as the engine sees it: a selector like any other, found under the submission's name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from affectbench.content import load_module, pick_class
from affectbench.dataset import Dataset, load_benchmark
from affectbench.errors import AffectbenchError
from affectbench.executor import Reporter
from affectbench.placement import Options
from affectbench.placement import cells_of as placed_cells
from affectbench.plan import Job, jobs_of_suite
from affectbench.record import Cell, Record
from affectbench.registry import Entry, Kind, Registry
from affectbench.run import Run
from affectbench.selector import Selection, Selector
from affectbench.submission import Folder, SubmissionError
from affectbench.task import InterventionProtocol, SplitName

if TYPE_CHECKING:
    from affectbench.study import Study

PLACE = "submission"
JUDGING: tuple[SplitName, ...] = ("validation", "test")
MAX_UNITS = 1 << 20
"""More units than any budget of a model of today; refused before they are read."""


class FixedSelection(Selector):
    """Returns the units of a file, whatever the study: the best ones where the file names more than fit."""

    path: ClassVar[Path]

    def select(self, study: Study, budget: int) -> Selection:
        found = Selection.load(self.path)
        return replace(found, units=tuple(units[:budget] for units in found.units))


class SubmissionRegistry(Registry):
    """The content of `base` and one selector more: that of a submission, for the cells of one job.

    `path` is the file that decides what is selected, so that its hash is the selector's identity: a selector
    file, whose code is imported when the class is asked for, or the selection's data.
    """

    def __init__(self, base: Registry, name: str, path: Path) -> None:
        super().__init__(base.include, installed=base.installed)
        self.own = Entry("selector", name, path, PLACE)

    def entries(self, kind: Kind) -> list[Entry]:
        found = super().entries(kind)
        if kind != "selector":
            return found
        taken = next((entry for entry in found if entry.name == self.own.name), None)
        if taken is not None:
            raise SubmissionError(
                f"there is a selector {taken.name!r} already: {taken.path}",
                hint="give the submission another name",
            )
        return sorted([*found, self.own], key=lambda entry: entry.name)

    def selector(self, name: str) -> type:
        if name != self.own.name:
            return super().selector(name)
        if self.own.path.suffix == ".py":
            module = load_module("selector", name, self.own.path)
            return pick_class(module, "selector", name, "select", str(self.own.path))
        return type("Submitted", (FixedSelection,), {"name": name, "path": self.own.path})


@dataclass(frozen=True)
class Part:
    """Cells that are run together, or that cannot be: a model, a task, protocols, and the file for them.

    `path` is None where the submission has no units for these cells, and `reason` says why.
    """

    job: Job
    path: Path | None
    reason: str = ""

    @property
    def size(self) -> int:
        return self.job.size

    @property
    def remote(self) -> bool:
        """Whether running it needs code that comes with a checkpoint."""
        return self.path is not None and self.job.card.remote_code

    def trusted(self) -> Part:
        """The same cells with the user's consent to run that code."""
        return replace(self, job=self.job.trusted())


def parts_of(folder: Folder, registry: Registry, *, suite: str | None = None) -> list[Part]:
    """What of its suite a submission covers, checked against the files it names.

    Raises `AffectbenchError`: a selection for a cell that the suite does not have, for other labels, or with
    more units than the largest budget; a name that another selector has.
    """
    submission = folder.submission
    name = suite or submission.suite
    SubmissionRegistry(registry, submission.name, folder.root).entries("selector")
    jobs = jobs_of_suite(registry, name, None)
    if folder.selector_path is not None:
        own = SubmissionRegistry(registry, submission.name, folder.selector_path)
        sites = {submission.name: own.selector_sites(submission.name)}
        return [
            Part(replace(_own(job, submission.name, job.protocols), sites=sites), folder.selector_path)
            for job in jobs
        ]
    _check_entries(folder, jobs, name)
    parts = [part for job in jobs if not job.identified_on for part in _data_parts(folder, job)]
    return parts + [part for job in jobs for part in _transferred_parts(folder, job)]


def _own(job: Job, name: str, protocols: Sequence[InterventionProtocol]) -> Job:
    return replace(job, selectors=(name,), protocols=tuple(protocols), sites={})


def _check_entries(folder: Folder, jobs: Sequence[Job], suite: str) -> None:
    cells = {(job.card.name, job.benchmark.name, protocol.name) for job in jobs for protocol in job.protocols}
    for entry in folder.submission.selections:
        fitting = [
            cell
            for cell in cells
            if cell[:2] == (entry.model, entry.task) and entry.intervention in (cell[2], None)
        ]
        if not fitting:
            what = " · ".join(filter(None, (entry.model, entry.task, entry.intervention)))
            known = ", ".join(sorted({f"{model} · {task}" for model, task, _ in cells}))
            raise SubmissionError(f"{entry.file}: suite {suite} has no cell {what}", hint=f"it has {known}")


def _data_parts(folder: Folder, job: Job) -> list[Part]:
    """One part for each file that covers protocols of the job, and one for what nothing covers."""
    job = replace(job, samples=())  # Its units are what they are, however few items there were.
    files: dict[Path | None, list[InterventionProtocol]] = {}
    reasons: list[str] = []
    for protocol in job.protocols:
        path, reason = _file_for(folder, job, protocol)
        files.setdefault(path, []).append(protocol)
        reasons += [reason] if reason else []
    name = folder.submission.name
    return [
        Part(_own(job, name, protocols), path, "" if path is not None else "; ".join(dict.fromkeys(reasons)))
        for path, protocols in files.items()
    ]


def _transferred_parts(folder: Folder, job: Job) -> list[Part]:
    """As `_data_parts` for units that are tested on another benchmark than the one they are given for."""
    return [
        replace(part, job=replace(part.job, benchmark=job.benchmark, identified_on=(source,)))
        for source in job.identified_on
        for part in _data_parts(folder, replace(job, benchmark=source))
    ]


def _file_for(folder: Folder, job: Job, protocol: InterventionProtocol) -> tuple[Path | None, str]:
    """The file for a protocol, or None and why. Raises `AffectbenchError` where the file does not fit."""
    entry = folder.submission.entry_for(job.card.name, job.benchmark.name, protocol.name)
    if entry is None:
        return None, "the submission has no selection for it"
    path = folder.path(entry.file)
    found = Selection.load(path, most=MAX_UNITS)
    if found.site != protocol.site:
        if entry.intervention is None:
            return None, f"its selection is for site {found.site}, the protocol works at {protocol.site}"
        raise SubmissionError(
            f"{entry.file}: its units are of site {found.site}; {protocol.name} works at {protocol.site}",
            hint="a selection for each site",
        )
    if found.labels != job.benchmark.labels:
        raise SubmissionError(
            f"{entry.file}: its labels are {', '.join(found.labels)[:200]}",
            hint=f"{job.benchmark.name} has, in this order: {', '.join(job.benchmark.labels)}",
        )
    _check_scores(found, entry.file)
    try:
        found.check_budget(budget_of(max(protocol.fractions), found.shape.units))
    except AffectbenchError as error:
        raise SubmissionError(f"{entry.file}: {error.message}", hint=error.hint) from error
    return path, ""


def _check_scores(found: Selection, file: str) -> None:
    """Scores, where they are given, are those that the units were ranked by."""
    if found.scores is None:
        return
    for label, units, scores in zip(found.labels, found.units, found.scores, strict=True):
        own, others = scores[units], np.delete(scores, units)
        if (np.diff(own) > 0).any() or (own.size and others.size and others.max() > own.min()):
            raise SubmissionError(
                f"{file}: the units for {label!r} are not the best by the file's own scores, best first",
                hint="leave `scores` out, or rank the units by them",
            )


def budget_of(fraction: float, units: int) -> int:
    """Units an emotion that a fraction of a site allows; at least one."""
    return max(1, round(fraction * units))


def cells_of(part: Part) -> list[Cell]:
    """The cells of a part, by name."""
    return placed_cells(part.job)


def evaluation_items(items: Iterable[str], dataset: Dataset) -> list[str]:
    """Those of `items` that are validation or test items of a benchmark, so must not find units."""
    judging = {example.id for split in JUDGING for example in dataset.splits[split]}
    return sorted(judging & set(items))


def check_not_peeked(parts: Sequence[Part], options: Options) -> None:
    """Raise `SubmissionError` where a selection says that it was found on items that judge it."""
    for part in parts:
        if part.path is None or part.path.suffix == ".py":
            continue
        items = Selection.load(part.path).items
        benchmark = part.job.benchmark
        found = evaluation_items(items, load_benchmark(benchmark, options.data)) if items else []
        if found:
            raise SubmissionError(
                f"{part.path.name}: found on {len(found)} validation or test items of {benchmark.name}, "
                f"such as {found[0]!r}",
                hint="find the units on the identification split, or on other data",
            )


class _Together:
    """Reports several runs as one."""

    def __init__(self, reporter: Reporter, cells: int) -> None:
        reporter.start(cells)
        self.phase, self.cell, self.advance = reporter.phase, reporter.cell, reporter.advance
        self.note, self.done, self.analysed = reporter.note, reporter.done, reporter.analysed

    def start(self, cells: int) -> None:
        """The whole was announced already."""


def evaluate(
    parts: Sequence[Part], registry: Registry, options: Options, reporter: Reporter
) -> tuple[list[Record], list[str]]:
    """Run the covered cells into `options.output`; returns their records, and what could not run and why."""
    covered = [part for part in parts if part.path is not None]
    together = _Together(reporter, sum(part.size for part in covered))
    records: list[Record] = []
    failed: list[str] = []
    for part in covered:
        assert part.path is not None
        own = SubmissionRegistry(registry, part.job.selectors[0], part.path)
        run = Run(own, options, together)
        records += run.run([part.job])
        failed += run.failures
    return records, failed
