"""What must hold before records are merged: a folder of published results before and after a change.

Both folders are data; nothing in them is run. A gate that fails says what is wrong and where.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from affectbench.analysis import FOLDER
from affectbench.analysis_gates import analysis_problems
from affectbench.copies import overlaps
from affectbench.errors import AffectbenchError
from affectbench.published import PRECISION, changed_identity, differences
from affectbench.record import Record, cell_id
from affectbench.registry import Registry, source_digest
from affectbench.selector import Selection
from affectbench.store import Damaged, Store
from affectbench.submission import CARD, CELL_FILE, MARKUP, Submission, read_card, texts_of
from affectbench.submitted import budget_of, evaluation_items
from affectbench.task_parts import NAME_PATTERN

KIB = 1 << 10
PLACES: tuple[tuple[str, int], ...] = (
    (rf"records/{CELL_FILE}\.json", 256 * KIB),
    (rf"selections/{CELL_FILE}\.safetensors", 4096 * KIB),
    (r"submissions/[a-z0-9][a-z0-9._-]*/(submission\.yaml|[a-z][a-z0-9_]*\.py)", 64 * KIB),
    (r"README\.md", 64 * KIB),
    (rf"{FOLDER}/{CELL_FILE}\.json", 512 * KIB),
)
"""What a folder of published results holds, and how many bytes a file may have."""
VERSIONED = ("task", "protocol", "model")


@dataclass(frozen=True)
class Gate:
    """One gate's outcome: it is passed where nothing is wrong; notes stop nothing."""

    name: str
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.problems


@dataclass
class Change:
    """Published results before and after, read once."""

    base: Path
    head: Path
    registry: Registry
    data: Path | None = None
    notes: dict[str, list[str]] = field(default_factory=dict)

    @cached_property
    def before(self) -> dict[str, Record]:
        """Records of the base by cell id; a base that is damaged or missing counts for what can be read."""
        return {cell_id(record.cell): record for record in Store(self.base).read_all()[0]}

    @cached_property
    def after(self) -> dict[str, Record]:
        return {cell_id(record.cell): record for record in self._head[0]}

    @property
    def damaged(self) -> list[Damaged]:
        """Files of the head that are no records."""
        return self._head[1]

    @cached_property
    def _head(self) -> tuple[list[Record], list[Damaged]]:
        return Store(self.head).read_all()

    @cached_property
    def fresh(self) -> list[Record]:
        """Records that are new, or not what they were."""
        return [
            record
            for name, record in self.after.items()
            if name not in self.before or self.before[name].hashes.record != record.hashes.record
        ]

    @cached_property
    def builtin(self) -> frozenset[str]:
        return frozenset(entry.name for entry in self.registry.entries("selector"))

    def submission(self, folder: Path, name: str) -> Submission | None:
        """The card of a published submission. Raises `AffectbenchError` where it is not one."""
        path = folder / "submissions" / name / CARD
        if not re.fullmatch(NAME_PATTERN, name):
            return None
        return read_card(path) if path.is_file() and not path.is_symlink() else None

    def note(self, gate: str, text: str) -> None:
        self.notes.setdefault(gate, []).append(text)


def run_gates(change: Change) -> list[Gate]:
    """All gates, in the order in which a reader wants to know. None raises for what the folders hold."""
    gates: dict[str, Callable[[Change], Iterator[str]]] = {
        "files are small and where they belong": _places,
        "records fit the schema, sealed and in plain text": _schema,
        "numbers are finite": _finite,
        "no cell is lost": _complete,
        "hashes are known, and changed only with a version": _identities,
        "no published score moved": _scores,
        "selections are within the budget": _budgets,
        "methods are declared": _declared,
        "units were not found on evaluation items": _items,
        "no selection is a copy": _copies,
        "analyses are sealed, in plain text and kept": _analyses,
    }
    found = []
    for name, gate in gates.items():
        problems = tuple(gate(change))
        found.append(Gate(name, problems, tuple(change.notes.get(gate.__name__, ()))))
    return found


def _places(change: Change) -> Iterator[str]:
    for path in sorted(change.head.rglob("*")):
        name = path.relative_to(change.head).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            yield f"{name}: a link or a special file"
        elif path.is_file():
            limit = next((size for pattern, size in PLACES if re.fullmatch(pattern, name)), None)
            if limit is None:
                yield f"{name}: nothing of that name belongs into published results"
            elif path.stat().st_size > limit:
                yield f"{name}: {path.stat().st_size} bytes, at most {limit} are kept"


def _schema(change: Change) -> Iterator[str]:
    for item in change.damaged:
        yield f"{item.path.name}: {item.reason}"
    for name, record in change.after.items():
        cell = record.cell
        for key in ("model", "task", "selector", "intervention"):
            if not re.fullmatch(NAME_PATTERN, getattr(cell, key)):
                yield f"{name}: {key} {getattr(cell, key)!r} is no name"
        if not re.fullmatch(NAME_PATTERN, cell.origin):
            yield f"{name}: identified on {cell.origin!r}, which is no name"
        for text in texts_of(record.model_dump(mode="json")):
            if MARKUP.search(text):
                yield f"{name}: markup in {text[:60]!r}"
        if record.status == "error":
            yield f"{name}: ended in an error, which is no result: {record.reason}"


def _finite(change: Change) -> Iterator[str]:
    for path in sorted(path for name in ("records", FOLDER) for path in (change.head / name).glob("*.json")):
        odd: list[str] = []

        def number(text: str, odd: list[str] = odd) -> float:
            value = float(text)
            if not math.isfinite(value):
                odd.append(text[:20])
            return value

        try:
            json.loads(path.read_bytes(), parse_float=number, parse_constant=number)
        except (OSError, ValueError, RecursionError):
            continue  # No JSON: the gate of the schema says so.
        if odd:
            yield f"{path.name}: {len(odd)} numbers are not finite, the first is {odd[0]}"


def _complete(change: Change) -> Iterator[str]:
    for name in sorted(set(change.before) - set(change.after)):
        yield f"{name}: published, and not in the change"


def version_of(record: Record, kind: str) -> int:
    """The version of a record's task, protocol or model."""
    versions = {
        "task": record.task.version,
        "protocol": record.protocol_version,
        "model": record.model.version,
    }
    return versions[kind]


def name_of(record: Record, kind: str) -> str:
    return record.cell.intervention if kind == "protocol" else str(getattr(record.cell, kind))


def _identities(change: Change) -> Iterator[str]:
    known: dict[tuple[str, str, int], str] = {}
    for record in change.before.values():
        for kind in VERSIONED:
            known[kind, name_of(record, kind), version_of(record, kind)] = getattr(record.hashes, kind)
    unknown: dict[tuple[str, str, int, str], Record] = {}
    for name, record in change.after.items():
        for kind in VERSIONED:
            key, found = (kind, name_of(record, kind), version_of(record, kind)), getattr(record.hashes, kind)
            if key not in known:
                unknown[(*key, found)] = record
                known[key] = found
            elif known[key] != found:
                yield (
                    f"{name}: {kind} {key[1]} version {key[2]} has the hash {found}, elsewhere "
                    f"{known[key]}: raise the version, or run with the published content"
                )
    for (kind, which, version, found), record in unknown.items():
        yield from _unknown(change, record, kind, which, version, found)
    yield from _origins(change)


def _origins(change: Change) -> Iterator[str]:
    """Transferred cells whose units come from another version of a benchmark than the published one."""
    tasks: dict[str, set[str]] = {}
    for record in change.after.values():
        tasks.setdefault(record.cell.task, set()).add(record.hashes.task)
    for name, record in change.after.items():
        task, found = record.cell.origin, record.hashes.identification
        if task == record.cell.task:
            continue
        if task not in tasks:
            change.note("_identities", f"{name}: no result on {task}, which its units are from, is published")
        elif found not in tasks[task]:
            yield f"{name}: units from {task} with the hash {found}, published is {min(tasks[task])}"


def _unknown(
    change: Change, record: Record, kind: str, which: str, version: int, found: str
) -> Iterator[str]:
    """Whether a hash that was not published before is that of this checkout's content."""
    from affectbench.dataset import load_benchmark
    from affectbench.placement import planned_cells
    from affectbench.plan import job_of_names

    try:
        cell = record.cell
        any_selector = change.registry.entries("selector")[0].name
        names = (cell.model, cell.task, [any_selector], [cell.intervention])
        job = job_of_names(change.registry, *names, cell.seed)
        here = {"task": job.benchmark, "protocol": job.protocols[0], "model": job.card}[kind]
        if here.version != version:
            yield f"{kind} {which}: version {version} in the record, {here.version} in this checkout"
            return
        dataset = load_benchmark(job.benchmark, change.data)
        mine = getattr(planned_cells(change.registry, job.pinned(), dataset)[0].hashes, kind)
    except AffectbenchError as error:
        change.note("_identities", f"{kind} {which} is new and cannot be checked here: {error.message}")
        return
    if mine != found:
        yield f"{kind} {which} version {version}: hash {found}, this checkout's content gives {mine}"


def _scores(change: Change) -> Iterator[str]:
    for name in sorted(set(change.before) & set(change.after)):
        old, new = change.before[name], change.after[name]
        moved = differences(old, new, above=PRECISION)
        if not moved:
            continue
        told = ", ".join(f"{each.name} {_shown(each.before)} → {_shown(each.after)}" for each in moved[:3])
        told += f" and {len(moved) - 3} more" if len(moved) > 3 else ""
        bumped = _bumped(change, old, new)
        if bumped:
            change.note("_scores", f"{name}: {told}, with a new version of its {' and '.join(bumped)}")
        else:
            yield f"{name}: {told}, and no version was raised"


def _bumped(change: Change, old: Record, new: Record) -> list[str]:
    """What a cell has a higher version of: its task, protocol, model or submission."""
    found = [kind for kind in VERSIONED if version_of(new, kind) > version_of(old, kind)]
    before, after = (_version(change, folder, new.cell.selector) for folder in (change.base, change.head))
    if before is not None and after is not None and after > before:
        found.append("submission")
    return found


def _version(change: Change, folder: Path, name: str) -> int | None:
    try:
        found = change.submission(folder, name)
    except AffectbenchError:
        return None
    return found.version if found is not None else None


def _budgets(change: Change) -> Iterator[str]:
    for name, record in change.after.items():
        if record.selection is None:
            continue
        units = record.model.n_layers * record.model.width
        budget = budget_of(record.cell.fraction, units)
        most = max(record.selection.units_per_emotion, default=0)
        if most > budget:
            yield f"{name}: {most} units for an emotion, the budget is {budget}"
        stored = Store(change.head).selections / f"{name}.safetensors"
        if not stored.is_file() or stored.is_symlink():
            continue
        try:
            found = Selection.load(stored, most=budget)
        except AffectbenchError as error:
            yield str(error.message)
            continue
        if found.digest != record.hashes.selection:
            yield f"{name}: its selection file has the digest {found.digest}, not {record.hashes.selection}"


def _declared(change: Change) -> Iterator[str]:
    for name in sorted({record.cell.selector for record in change.after.values()}):
        own = [record for record in change.after.values() if record.cell.selector == name]
        if name in change.builtin:
            yield from _builtin(change, name, own)
            continue
        try:
            found = change.submission(change.head, name)
        except AffectbenchError as error:
            yield f"submissions/{name}: {error.message}"
            continue
        if found is None:
            yield f"{name}: no selector of affectbench, and there is no submissions/{name}/{CARD}"
        elif found.name != name:
            yield f"submissions/{name}: its name is {found.name}"
        elif any(record.control for record in own):
            yield f"{name}: a submission is no control"
        else:
            yield from _unversioned(change, name, own)


def _builtin(change: Change, name: str, own: Sequence[Record]) -> Iterator[str]:
    here = source_digest(change.registry.find("selector", name).path)
    for record in own:
        old = change.before.get(cell_id(record.cell))
        if record.hashes.selector != here and (old is None or old.hashes.selector != record.hashes.selector):
            yield f"{cell_id(record.cell)}: made with another {name} than this checkout's"


def _unversioned(change: Change, name: str, own: Sequence[Record]) -> Iterator[str]:
    """Cells of a submission that are not what they were, though its version is."""
    old_version, new_version = (_version(change, folder, name) for folder in (change.base, change.head))
    if old_version is None or new_version is None or new_version > old_version:
        return
    for record in own:
        old = change.before.get(cell_id(record.cell))
        changed = changed_identity(old, record) if old is not None else []
        if set(changed) & {"selector", "selection"}:
            yield f"{cell_id(record.cell)}: another {' and '.join(changed)} under the same version"


def _items(change: Change) -> Iterator[str]:
    from affectbench.dataset import load_benchmark

    for record in change.fresh:
        stored = Store(change.head).selections / f"{cell_id(record.cell)}.safetensors"
        try:
            items = Selection.load(stored).items if stored.is_file() and not stored.is_symlink() else ()
            if not items:
                continue
            dataset = load_benchmark(change.registry.benchmark(record.cell.task), change.data)
        except AffectbenchError as error:
            change.note("_items", f"{cell_id(record.cell)}: cannot be checked here: {error.message}")
            continue
        found = evaluation_items(items, dataset)
        if found:
            yield f"{cell_id(record.cell)}: found on {len(found)} evaluation items, such as {found[0]!r}"


def _copies(change: Change) -> Iterator[str]:
    own = [record for record in change.fresh if record.cell.selector not in change.builtin]
    for each in overlaps(own, list(change.after.values())):
        if each.copied:
            yield f"{each.cell}: {each.share:.0%} of its units are those of {each.selector} ({each.original})"


def _analyses(change: Change) -> Iterator[str]:
    yield from analysis_problems(change.base, change.head)


def _shown(value: float | str | None) -> str:
    return "none" if value is None else f"{value:.4f}" if isinstance(value, float) else value
