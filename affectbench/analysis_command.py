"""What `analyse` does, and how `table` prints what it found."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from affectbench.analyses import known
from affectbench.analysis import FOLDER, Analysis, AnalysisStore
from affectbench.errors import AffectbenchError
from affectbench.progress import Terminal, finding_text
from affectbench.registry import Registry
from affectbench.run_command import Where

COLUMNS = ("analysis", "model", "task", "seed", "finding", "value", "low", "high", "p")


def analyse(
    console: Console,
    names: Sequence[str],
    model: str,
    task: str | None,
    where: Where,
    *,
    include: Sequence[Path],
    data: Path | None,
    limit: int | None,
    device: str,
    tokens: int,
    seed: int,
    output: Path | None,
    trust_code: bool,
) -> None:
    """Make analyses of one model on one task, without cells, and print what they found.

    Raises `AffectbenchError` where one could not be made.
    """
    from affectbench.placement import Options
    from affectbench.plan import job_of_names
    from affectbench.run import Run, command_line

    for name in names:
        known(name)
    registry = Registry(include)
    job = replace(job_of_names(registry, model, task, (), (), seed), analyses=tuple(dict.fromkeys(names)))
    job = job.trusted() if trust_code else job
    name = f"{job.card.name}-{job.benchmark.name}"
    folder = output or Path("results") / (name if limit is None else f"{name}-limit{limit}")
    options = Options(folder, device, data, limit, tokens, command_line())
    with Terminal(console) as terminal:
        run = Run(registry, options, terminal, where.made(device))
        run.run([job])
    if run.failures:
        raise AffectbenchError(run.failures[0])
    for analysis in run.analyses.values():
        if analysis is not None:
            _print_findings(console, analysis)
    for text in (f"Analyses: {folder / FOLDER}", f"Site:  python harness.py leaderboard --results {folder}"):
        console.print(escape(text), highlight=False, soft_wrap=True)


def _print_findings(console: Console, analysis: Analysis) -> None:
    console.print(f"\n[bold]{escape(analysis.title)}[/]", highlight=False)
    for finding in analysis.findings:
        console.print(escape(f"  {finding_text(finding)}"), highlight=False, soft_wrap=True)
    for note in analysis.notes:
        console.print(escape(f"  {note}"), highlight=False, soft_wrap=True, style="dim")


def print_analyses(console: Console, results: Path, form: str) -> None:
    """Print the findings of all analyses of a results folder. Damaged files are named and left out."""
    from affectbench.tables import WIDE, check_format

    check_format(form)
    found, damaged = AnalysisStore(results).read_all()
    for item in damaged:
        text = f"[yellow]left out[/] {escape(f'{item.path}: {item.reason}')}"
        Console(stderr=True).print(text, soft_wrap=True)
    if not found:
        raise AffectbenchError(
            f"{results} holds no analyses", hint="a suite's key `analyses` asks for some, or `analyse`"
        )
    rows = [row for analysis in found for row in finding_rows(analysis)]
    if form == "json":
        print(json.dumps(rows, indent=1, allow_nan=False))
    elif form == "csv":
        stream = io.StringIO()
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        print(stream.getvalue(), end="")
    elif form == "md":
        lines = [COLUMNS, ["---"] * len(COLUMNS), *([_shown(row[name]) for name in COLUMNS] for row in rows)]
        print("".join(f"| {' | '.join(line)} |\n" for line in lines), end="")
    else:
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
        for name in COLUMNS:
            table.add_column(name)
        for row in rows:
            table.add_row(*(escape(_shown(row[name])) for name in COLUMNS))
        (console if console.is_terminal else Console(width=WIDE)).print(table)


def finding_rows(analysis: Analysis) -> list[dict[str, Any]]:
    """One row a finding; one without any for an analysis that has only figures and tables."""
    own = (analysis.kind, analysis.model, analysis.task, analysis.seed)
    if not analysis.findings:
        return [dict(zip(COLUMNS, (*own, "", None, None, None, None), strict=True))]
    rows = []
    for each in analysis.findings:
        value = each.value
        numbers = (None, None, None) if value is None else (value.value, value.low, value.high)
        rows.append(dict(zip(COLUMNS, (*own, each.text, *numbers, each.p), strict=True)))
    return rows


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("|", r"\|")
