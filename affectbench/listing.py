"""What `list` prints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from affectbench.errors import AffectbenchError
from affectbench.readiness import Machine, gib, readiness
from affectbench.registry import Entry, Kind, Registry
from affectbench.yaml_loading import load_document, suggest

KINDS: dict[str, Kind] = {
    "models": "model",
    "saes": "sae",
    "tasks": "benchmark",
    "selectors": "selector",
    "interventions": "intervention",
    "suites": "suite",
    "judges": "judge",
    "alignments": "alignment",
}

ANALYSES = "analyses"
"""Listed too; they are part of the engine."""


def print_lists(console: Console, kind: str | None, include: Sequence[Path]) -> None:
    """Print one kind of content, or all; of tasks alone, also how to get the data that are not here.

    Nothing is imported or loaded.
    """
    known = (*KINDS, ANALYSES)
    if kind is not None and kind not in known:
        raise AffectbenchError(
            f"cannot list {kind!r}{suggest(kind, known)}", hint=f"known: {', '.join(known)}"
        )
    if kind == ANALYSES:
        _print_analyses(console)
        return
    registry = Registry(include)
    unread: list[str] = []
    for plural in [kind] if kind else KINDS:
        here = _Here(registry, plural == "models")
        table = Table(title=plural, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
        table.add_column("name", style="cyan", no_wrap=True)
        table.add_column("what it is", ratio=1)
        if here.wanted:
            table.add_column("memory", justify="right", no_wrap=True)
            table.add_column("runs here", no_wrap=True)
        table.add_column("from", style="dim")
        if plural == "tasks":
            table.add_column("data")
        for entry in registry.entries(KINDS[plural]):
            row = [entry.name, escape(_summary(entry, unread)), *here.words(entry), escape(_origin(entry))]
            table.add_row(*row, *([_data(entry)[0]] if plural == "tasks" else []))
        console.print(table)
        for line in here.lines if kind else here.pointer:
            console.print(escape(line), soft_wrap=True, highlight=False)
        console.print()
        if plural == "tasks":
            _print_absent(console, registry.entries("benchmark"), details=kind == "tasks")
    if kind is None:
        _print_analyses(console)
    for reason in registry.ignored:
        console.print(f"[yellow]ignored[/] {escape(reason)}", soft_wrap=True, highlight=False)
    for reason in unread:
        console.print(f"[yellow]cannot be read[/] {escape(reason)}", soft_wrap=True, highlight=False)


def _print_analyses(console: Console) -> None:
    from affectbench import analyses

    table = Table(title=ANALYSES, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    table.add_column("name", style="cyan", no_wrap=True)
    table.add_column("what it tells", ratio=1)
    for name in sorted(analyses.ANALYSES):
        table.add_row(name, escape(analyses.ANALYSES[name].summary))
    console.print(table)
    console.print()


class _Here:
    """What is said of models on this machine; nothing of other kinds."""

    def __init__(self, registry: Registry, wanted: bool) -> None:
        self.registry = registry
        self.wanted = wanted
        self.lines: list[str] = []
        self._machine = Machine.here() if wanted else None

    @property
    def pointer(self) -> list[str]:
        """Where the lines are, for a list of everything."""
        return ["What keeps a model from running here, and what to do: list models"] if self.lines else []

    def words(self, entry: Entry) -> list[str]:
        if self._machine is None:
            return []
        try:
            found = readiness(self.registry.model(entry.name), self._machine)
        except AffectbenchError:  # `_summary` tells of what cannot be read at all.
            return ["", "no"]
        if found.lines:
            self.lines += [f"\n{entry.name}", *(f"  {line}" for line in found.lines)]
        return [gib(found.memory) if found.memory is not None else "", found.word]


def _summary(entry: Entry, unread: list[str]) -> str:
    """The first line about an entry; one bad file must not hide the others, so its error goes to `unread`."""
    try:
        return entry.summary
    except AffectbenchError as error:
        unread.append(error.message)
        return "cannot be read (see below)"


def _data(entry: Entry) -> tuple[str, str]:
    """Whether a task's data are here, and how to get them; nothing for a file that cannot be read."""
    try:
        task = load_document(entry.path).data
    except AffectbenchError:
        return "", ""
    folder, data = task.get("data"), os.environ.get("AFFECTBENCH_DATA")
    if not folder:
        return "shipped", ""
    here = data is not None and (Path(data) / str(folder)).is_dir()
    source = task.get("source")
    away = "hub" if isinstance(source, dict) and source.get("reader") == "hub" else "absent"
    return ("here" if here else away), str(task.get("obtain") or "")


def _print_absent(console: Console, entries: Sequence[Entry], *, details: bool) -> None:
    absent = [
        (entry.name, obtain) for entry in entries for state, obtain in [_data(entry)] if state == "absent"
    ]
    if not absent:
        return
    place = "AFFECTBENCH_DATA names the folder that holds the data; how to get those that are absent"
    console.print(f"{place}:" if details else f"{place}: list tasks", highlight=False, soft_wrap=True)
    for name, obtain in absent if details else []:
        console.print(f"[cyan]{name}[/] {escape(obtain or 'see its YAML')}", highlight=False, soft_wrap=True)
    console.print()


def _origin(entry: Entry) -> str:
    return entry.place if entry.place == "built-in" else f"{entry.place} {entry.path}"
