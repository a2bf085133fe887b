"""How a run looks on a terminal: a bar for all cells, one for the current cell, a line for each result."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from affectbench.analysis import Analysis, Finding
from affectbench.record import Cell, Record


class Terminal:
    """Reports a run with rich; on a pipe or file only the result lines appear."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._cells = self._bars.add_task("cells", total=0, unit="cells")
        self._passes = self._bars.add_task("starting", total=None, unit="answers")
        self._skipped = 0
        self._running: set[Cell] = set()

    def __enter__(self) -> Terminal:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        if self._skipped:
            were = "cell was" if self._skipped == 1 else "cells were"
            self.console.print(f"{self._skipped} {were} finished before and kept", highlight=False)

    def start(self, cells: int) -> None:
        self._bars.update(self._cells, total=cells)

    def phase(self, text: str) -> None:
        if not self._running:
            self._bars.reset(self._passes, total=None, description=escape(text))

    def cell(self, cell: Cell, passes: int) -> None:
        name = f"{cell.model} · {cell.selector}"
        if not self._running - {cell}:
            self._bars.reset(self._passes, total=passes, description=name)
        elif cell not in self._running:
            known = self._bars.tasks[self._passes].total or 0
            together = f"{len(self._running) + 1} cells at a time"
            self._bars.update(self._passes, total=known + passes, description=together)
        self._running.add(cell)

    def advance(self, passes: int) -> None:
        self._bars.advance(self._passes, passes)

    def note(self, text: str) -> None:
        self.console.print(f"[yellow]note[/] {escape(text)}", highlight=False, soft_wrap=True)

    def done(self, record: Record, *, skipped: bool) -> None:
        self._bars.advance(self._cells)
        self._running.discard(record.cell)
        if skipped:
            self._skipped += 1
        else:
            self.console.print(line(record), highlight=False, soft_wrap=True)

    def analysed(self, analysis: Analysis, *, skipped: bool) -> None:
        if not skipped:
            self.console.print(analysis_line(analysis), highlight=False, soft_wrap=True)


def analysis_line(analysis: Analysis) -> str:
    """One line on a finished analysis, with its first finding."""
    where = " · ".join(name for name in (analysis.model, analysis.task) if name)
    found = f": {escape(finding_text(analysis.findings[0]))}" if analysis.findings else ""
    return f"{where} · [bold]{analysis.kind}[/]{found} ({analysis.cost.wall_s:.1f} s)"


def finding_text(finding: Finding) -> str:
    """A finding in one line, with its number, interval and p."""
    text, value = finding.text, finding.value
    if value is not None:
        ends = "" if value.low is None or value.high is None else f" [{value.low:.3g}, {value.high:.3g}]"
        text += f" {value.value:.3g}{ends}"
    return text if finding.p is None else f"{text}, p {finding.p:.2g}"


def line(record: Record) -> str:
    """One line on a finished cell."""
    cell = record.cell
    name = f"{cell.model} · {cell.task} · [bold]{cell.selector}[/] · {cell.intervention} {cell.fraction:.2%}"
    if record.headline is None:
        return f"{name}: [yellow]{record.status}[/] ({escape(record.reason)})"
    head = record.headline
    low, high = head.spec.low, head.spec.high
    span = "" if low is None or high is None else f" [{low:+.2f}, {high:+.2f}]".replace("[", r"\[")
    strength = "" if head.strength is None else f", strength {head.strength.value:.2f}"
    pres = "" if head.pres is None else f", preservation {head.pres.value:.2f}"
    mark = " [green]*[/]" if head.significant else ""
    status = "" if record.status == "ok" else f", [yellow]{record.status}[/]"
    found = f"specificity {head.spec.value:+.2f}{span}{mark}{strength}{pres}{status}"
    return f"{name}: {found} ({record.cost.wall_s:.1f} s)"
