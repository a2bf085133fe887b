"""What `run --plan` prints: what there is to do and what it takes. Nothing is started or written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from affectbench.errors import AffectbenchError
from affectbench.tables import WIDE
from affectbench.yaml_loading import suggest

if TYPE_CHECKING:
    from affectbench.analysis import Analysis
    from affectbench.estimate import Estimate
    from affectbench.module_run import Request
    from affectbench.placement import Options
    from affectbench.plan import Job
    from affectbench.record import Cell, Record
    from affectbench.registry import Registry

FORMATS = ("text", "json")
RIGHT = ("cells", "kept", "items", "interventions", "passes", "rows", "time", "memory")


class Listener:
    """A reporter that keeps notes and says nothing."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self, cells: int) -> None: ...

    def phase(self, text: str) -> None: ...

    def cell(self, cell: Cell, passes: int) -> None: ...

    def advance(self, passes: int) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)

    def done(self, record: Record, *, skipped: bool) -> None: ...

    def analysed(self, analysis: Analysis, *, skipped: bool) -> None: ...


def print_plan(
    console: Console,
    registry: Registry,
    jobs: Sequence[Job],
    options: Options,
    form: str,
    adapting: Request | None = None,
) -> None:
    """Print the plan of a run, one row a job, and what is adapted beside it. Raises `AffectbenchError` where
    no job can be planned."""
    if form not in FORMATS:
        raise AffectbenchError(
            f"format {form!r} is not known{suggest(form, FORMATS)}", hint=f"a plan is {' or '.join(FORMATS)}"
        )
    from affectbench.module_chores import adaptations_of

    listener = Listener()
    found = planned(registry, jobs, options, listener)
    adapted = 0 if adapting is None else adaptations_of(adapting)
    if form == "json":
        jobs_found = [asdict(each) for each in found]
        told = {"jobs": jobs_found, "total": _total(found), "adaptations": adapted}
        print(json.dumps(told, indent=1))
        return
    for note in listener.notes:
        console.print(f"[yellow]note[/] {escape(note)}", highlight=False, soft_wrap=True)
    wide = console if console.is_terminal else Console(width=WIDE)
    wide.print(_table(found))
    for line in [*_remarks(found), *_adapted(adapting, adapted)]:
        console.print(escape(line), highlight=False, soft_wrap=True)


def _adapted(request: Request | None, count: int) -> list[str]:
    if request is None:
        return []
    budget = request.recipe.budget
    return [
        f"Beside the cells, and not in the table: {count} adaptations of {request.card.name}, each of "
        f"{budget.steps} updates of {budget.batch} items with {budget.looks} looks at validation, then what "
        "compares them. Those that are there already are kept."
    ]


def planned(
    registry: Registry, jobs: Sequence[Job], options: Options, listener: Listener | None = None
) -> list[Estimate]:
    """What each job takes, in order; one that cannot be read says why."""
    from affectbench.estimate import Estimate, Estimator
    from affectbench.run import Run

    run = Run(registry, options, listener or Listener(), plans_only=True)
    records = run.store.read_all()[0]
    made = bool(records) or any(run.analysis_store.folder.glob("*.json"))
    estimator = Estimator(registry, options, records)
    found = []
    for job in jobs:
        failures = len(run.failures)
        orders = list(run.orders([job], weights=made))
        if orders:
            found.append(estimator.of(orders[0]))
        elif len(run.failures) > failures:
            why = Estimate(job.card.name, job.title, job.size, 0, unknown=run.failures[failures:])
            found.append(why)
        else:
            found.append(Estimate(job.card.name, job.title, 0, job.size))
    return found


def _total(found: Sequence[Estimate]) -> dict[str, Any]:
    """Sums over the jobs, None where a part is not known; memory is that of the largest job."""
    open_jobs = [each for each in found if each.cells or each.analyses]

    def total(name: str) -> Any:
        values = [getattr(each, name) for each in open_jobs]
        return None if None in values else sum(values)

    names = ("interventions", "passes", "rows", "seconds")
    return {
        "cells": sum(each.cells for each in found),
        "kept": sum(each.kept for each in found),
        "analyses": sum(each.analyses for each in found),
        **{name: total(name) for name in names},
        "memory_mib": max((each.memory_mib.get("total", 0.0) for each in open_jobs), default=0.0),
    }


def _table(found: Sequence[Estimate]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("model", "task", *RIGHT):
        table.add_column(name, justify="right" if name in RIGHT else "left", no_wrap=name in RIGHT)
    for each in found:
        items = " + ".join(str(count) for count in each.items.values())
        row = [each.model, each.task, str(each.cells), str(each.kept), items]
        open_ones = each.cells + each.analyses
        table.add_row(*map(escape, row), *_figures(asdict(each), each.memory_mib.get("total"), open_ones))
    if len(found) > 1:
        total = _total(found)
        row = ["all", "", str(total["cells"]), str(total["kept"]), ""]
        open_ones = total["cells"] + total["analyses"]
        table.add_row(*row, *_figures(total, total["memory_mib"], open_ones), style="bold")
    return table


def _figures(values: dict[str, Any], memory: float | None, left: int) -> list[str]:
    if not left:
        return ["–"] * 5
    counts = [values[name] for name in ("interventions", "passes", "rows")]
    shown = ["?" if count is None else f"{count:,}" for count in counts]
    shown.append("?" if values["seconds"] is None else duration(values["seconds"]))
    return [*shown, f"{memory / 1024:.1f} GiB" if memory else "?"]


def _remarks(found: Sequence[Estimate]) -> list[str]:
    lines = ["Items: identification + validation + test. Rows: an item or text in a model call."]
    if analyses := sum(each.analyses for each in found):
        lines.append(f"Passes, rows and time hold those of {analyses} analyses, roughly.")
    lines += [f"{each.model} on {each.task}: not known: {why}" for each in found for why in each.unknown]
    for basis in dict.fromkeys(each.basis for each in found if each.seconds is not None):
        models = ", ".join(dict.fromkeys(each.model for each in found if each.basis == basis))
        lines.append(f"Time of {models}: from {basis}.")
    if any(each.basis.startswith("operations") for each in found):
        lines.append("Small models take longer than their operations; loading is not counted.")
    return lines


def duration(seconds: float) -> str:
    """About how long, for people."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
