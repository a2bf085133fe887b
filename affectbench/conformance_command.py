"""What `verify-model` prints and writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from affectbench.conformance_report import FOLDER, Conformance
from affectbench.errors import AffectbenchError
from affectbench.registry import Registry
from affectbench.store import write_atomically

COLOURS = {"passed": "green", "failed": "bold red", "skipped": "dim"}


def verify_model(
    console: Console,
    name: str,
    *,
    checkpoint: bool,
    architecture: str | None,
    only: Sequence[str],
    include: Sequence[Path],
    device: str,
    seed: int,
    trust_code: bool,
    format: str,
    output: Path | None,
) -> bool:
    """Make the checks, print them and write the report; returns whether none failed.

    Raises `AffectbenchError` where there is nothing to examine.
    """
    if format not in ("text", "json"):
        raise AffectbenchError(f"format {format!r} does not exist", hint="text or json")
    if only and output is not None:
        raise AffectbenchError("--only makes no report", hint="leave out --output, or make all checks")
    from affectbench.conformance import CHECKS, target, verify

    registry = Registry(include)
    what = target(
        registry, name, checkpoint=checkpoint, architecture=architecture, seed=seed, trust_code=trust_code
    )
    places = {check.id: f"{place} of {len(CHECKS)}" for place, check in enumerate(CHECKS, start=1)}
    with Console(stderr=True).status(f"loading {name}") as status:
        report = verify(
            registry, what, device=device, only=only,
            progress=lambda check: status.update(f"{places[check.id]}: {check.title}"),
        )  # fmt: skip
    path = output or Path("results") / FOLDER / f"{report.model}.json"
    if not only:
        write_atomically(path, report.as_json().encode())
    if format == "json":
        console.file.write(report.as_json())
        return report.passed
    _print(console, report)
    if not only:
        console.print(escape(f"Report: {path}"), highlight=False, soft_wrap=True)
    return report.passed


def _print(console: Console, report: Conformance) -> None:
    instance = "a tiny instance with random weights" if report.instance == "tiny" else "its checkpoint"
    sites = f"{report.n_layers} layers of {report.width}" if report.width else "sites not found"
    console.print(
        escape(
            f"{report.model}: {report.architecture} by family {report.family}, {instance}; {sites}, "
            f"{report.n_parameters:,} parameters, {report.dtype}, {report.device}"
        ),
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("check", "", "measured", "up to", "s"):
        table.add_column(column, justify="right" if column in ("measured", "up to", "s") else "left")
    for check in report.checks:
        table.add_row(
            f"{check.id}", f"[{COLOURS[check.status]}]{check.status}[/]", figure(check.value),
            figure(check.tolerance), f"{check.seconds:.1f}",
        )  # fmt: skip
    console.print(table)
    for check in report.checks:
        if check.status != "passed":
            told = escape(f"{check.id} ({check.title}): {check.reason}")
            console.print(
                f"[{COLOURS[check.status]}]{check.status}[/] {told}", highlight=False, soft_wrap=True
            )
    counts = ", ".join(
        f"{report.count(status)} {status}"
        for status in ("passed", "failed", "skipped")
        if report.count(status)
    )
    console.print(f"{counts}; {report.seconds:.0f} s, at most {report.peak_memory_mib:.0f} MiB")


def figure(value: float | None) -> str:
    """A measured figure or its bound, two digits."""
    return "" if value is None else f"{value:.2g}"
