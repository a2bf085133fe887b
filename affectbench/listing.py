"""What `list` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from affectbench.errors import AffectbenchError
from affectbench.registry import Entry, Kind, Registry
from affectbench.yaml_loading import suggest

KINDS: dict[str, Kind] = {
    "models": "model",
    "tasks": "benchmark",
    "selectors": "selector",
    "interventions": "intervention",
    "suites": "suite",
}


def print_lists(console: Console, kind: str | None, include: Sequence[Path]) -> None:
    """Print one kind of content, or all. Nothing is imported or loaded."""
    if kind is not None and kind not in KINDS:
        raise AffectbenchError(
            f"cannot list {kind!r}{suggest(kind, KINDS)}", hint=f"known: {', '.join(KINDS)}"
        )
    registry = Registry(include)
    for plural in [kind] if kind else KINDS:
        table = Table(title=plural, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
        table.add_column("name", style="cyan", no_wrap=True)
        table.add_column("what it is", ratio=1)
        table.add_column("from", style="dim")
        for entry in registry.entries(KINDS[plural]):
            table.add_row(entry.name, escape(entry.summary), escape(_origin(entry)))
        console.print(table)
        console.print()
    for reason in registry.ignored:
        console.print(f"[yellow]ignored[/] {escape(reason)}")


def _origin(entry: Entry) -> str:
    return entry.place if entry.place == "built-in" else f"{entry.place} {entry.path}"
