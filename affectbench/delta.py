"""What a change of published results means, as Markdown: gates, new rows beside references and controls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean

from affectbench.gates import Change, Gate
from affectbench.record import Record, cell_id
from affectbench.score_models import Estimate
from affectbench.verification import markdown, worthless

MAX_GROUPS = 40
MAX_LINES = 20
MAX_CHARACTERS = 60_000
"""A comment on GitHub holds 65,536 characters."""
COLUMNS = ("method", "specificity", "to the best reference", "to the controls", "strength", "preservation",
           "aggregate", "not ranked because")  # fmt: skip


def report(change: Change, gates: Sequence[Gate]) -> str:
    """The whole comment, cut to what a comment may hold. Everything a stranger wrote is shown as text."""
    failed = [gate for gate in gates if not gate.passed]
    fresh = change.fresh
    verdict = f"{len(failed)} of {len(gates)} gates fail" if failed else f"all {len(gates)} gates pass"
    lines = [f"## Records: {verdict}", "", f"{len(change.after)} cells, {len(fresh)} new or changed.", ""]
    lines += [f"- {'✅' if gate.passed else '❌'} {gate.name}{_listed(gate.problems)}" for gate in gates]
    notes = [note for gate in gates for note in gate.notes]
    if notes:
        lines += ["", "Notes:", *(f"- {markdown(note)}" for note in notes[:MAX_LINES])]
    tables = [_table(change, group) for group in _groups(fresh)]
    for table in tables[:MAX_GROUPS]:
        lines += ["", *table]
    if len(tables) > MAX_GROUPS:
        lines += ["", f"and {len(tables) - MAX_GROUPS} more groups of cells"]
    text = "\n".join(lines) + "\n"
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS].rsplit("\n", 1)[0] + "\n\n(cut)\n"


def _listed(problems: Sequence[str]) -> str:
    shown = [f"\n  - {markdown(problem)}" for problem in problems[:MAX_LINES]]
    if len(problems) > MAX_LINES:
        shown.append(f"\n  - and {len(problems) - MAX_LINES} more")
    return "".join(shown)


def _key(record: Record) -> tuple[str | float, ...]:
    """Records compare where model, task, protocol and the origin of units agree by content, with the same
    fraction and seed."""
    cell, hashes = record.cell, record.hashes
    names = (cell.model, cell.task, cell.intervention, cell.fraction, cell.seed, cell.identified)
    return (*names, hashes.model, hashes.task, hashes.protocol, hashes.dictionary, hashes.identification)


def _groups(fresh: Iterable[Record]) -> list[list[Record]]:
    found: dict[tuple[str | float, ...], list[Record]] = {}
    for record in fresh:
        found.setdefault(_key(record), []).append(record)
    return [found[key] for key in sorted(found)]


def _table(change: Change, fresh: Sequence[Record]) -> list[str]:
    """New rows of a group, with the best reference method and the controls below them."""
    cell = fresh[0].cell
    peers = [record for record in change.after.values() if _key(record) == _key(fresh[0])]
    new = {cell_id(record.cell) for record in fresh}
    controls = [record for record in peers if record.control]
    references = [
        record
        for record in peers
        if record.cell.selector in change.builtin and not record.control and cell_id(record.cell) not in new
    ]
    best = max(references, key=_spec, default=None)
    level = mean(map(_spec, controls)) if controls else None
    title = f"{cell.model} · {cell.task} · {cell.intervention} {cell.fraction:g} {cell.identified}".rstrip()
    lines = [f"### {markdown(title)}", "", _row(COLUMNS), _row(["---"] * len(COLUMNS))]
    for record in sorted(fresh, key=_spec, reverse=True):
        lines.append(_line(change, record, best, level, mark="**"))
    others = ([best] if best is not None else []) + [
        each for each in controls if cell_id(each.cell) not in new
    ]
    lines += [_line(change, record, None, None) for record in others]
    missing = [what for what, there in (("method", references), ("control", controls)) if not there]
    if missing:
        lines += ["", f"No built-in {' and no '.join(missing)} is published beside it."]
    return lines


def _line(change: Change, record: Record, best: Record | None, level: float | None, mark: str = "") -> str:
    head, spec = record.headline, _spec(record)
    known = head is not None and record.status == "ok"
    old = change.before.get(cell_id(record.cell))
    was = f" (was {_spec(old):+.3f})" if mark and old is not None and old.headline is not None else ""
    kind = "control" if record.control else "" if mark else "reference"
    cells = [
        f"{mark}{markdown(record.cell.selector)}{mark}" + (f" ({kind})" if kind else ""),
        (_estimate(head.spec) if head is not None else "–") + was,
        f"{spec - _spec(best):+.3f} ({markdown(best.cell.selector)})" if known and best is not None else "–",
        f"{spec - level:+.3f}" if known and level is not None else "–",
        _estimate(head.strength) if head is not None else "–",
        _estimate(head.pres, "") if head is not None else "–",
        _estimate(head.agg, "") if head is not None else "–",
        markdown(worthless(record)) or "–",
    ]
    return _row(cells)


def _spec(record: Record) -> float:
    return record.headline.spec.value if record.headline is not None else float("-inf")


def _estimate(value: Estimate | None, sign: str = "+") -> str:
    """With its interval; `sign` is empty for what cannot be below 0."""
    if value is None:
        return "–"
    low, high = value.low, value.high
    span = "" if low is None or high is None else f" [{low:{sign}.3f}, {high:{sign}.3f}]"
    return f"{value.value:{sign}.3f}{span}"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
