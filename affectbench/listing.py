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
    unread: list[str] = []
    for plural in [kind] if kind else KINDS:
        table = Table(title=plural, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
        table.add_column("name", style="cyan", no_wrap=True)
        table.add_column("what it is", ratio=1)
        table.add_column("from", style="dim")
        for entry in registry.entries(KINDS[plural]):
            table.add_row(entry.name, escape(_summary(entry, unread)), escape(_origin(entry)))
        console.print(table)
        console.print()
    for reason in registry.ignored:
        console.print(f"[yellow]ignored[/] {escape(reason)}", soft_wrap=True, highlight=False)
    for reason in unread:
        console.print(f"[yellow]cannot be read[/] {escape(reason)}", soft_wrap=True, highlight=False)


def _summary(entry: Entry, unread: list[str]) -> str:
    """The first line about an entry; one bad file must not hide the others, so its error goes to `unread`."""
    try:
        return entry.summary
    except AffectbenchError as error:
        unread.append(error.message)
        return "cannot be read (see below)"


def _origin(entry: Entry) -> str:
    return entry.place if entry.place == "built-in" else f"{entry.place} {entry.path}"
