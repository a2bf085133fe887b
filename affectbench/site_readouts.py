"""The readouts board: what the same units do when answers are words, letters, or words without emotion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from affectbench.readouts import SameUnits, same_units
from affectbench.score_models import Estimate
from affectbench.site_format import Bar, bar, general, shared_scale
from affectbench.site_summary import Summary
from affectbench.word_score import is_high

READOUTS = {
    "labels": "label words",
    "letters": "lettered options",
    "generate": "free text, read for a label",
    "judge": "free text, judged",
}
"""What a record's `task.readout` means. Others are shown by their name."""


@dataclass(frozen=True)
class Column:
    """A task, and how it takes its answers."""

    task: str
    readout: str


@dataclass(frozen=True)
class Row:
    """One set of units: specificity by column, on the answer words, and the ratio of the latter; `links` has
    the entries' ids by column, `why` says why there is no ratio."""

    units: SameUnits
    specs: list[Bar | None]
    links: list[str]
    words: Bar | None
    confound: Estimate | None
    high: bool
    why: str


@dataclass(frozen=True)
class Table:
    """All sets of units of one model under one protocol that were tested under two readouts or more."""

    record: Summary
    protocol: str
    columns: list[Column]
    rows: list[Row]


def readouts_board(records: Sequence[Summary]) -> list[Table]:
    """Real models before instruments; of each set of rows, methods before controls. Empty where no units
    were tested under two readouts."""
    tables: dict[tuple[bool, str, str, str, str, float, int], list[SameUnits]] = {}
    for units in same_units(records):
        if len(units.readouts) > 1:
            cell, hashes = units.home.cell, units.home.hashes
            key = (
                *(units.home.model.instrument, cell.model, hashes.model, cell.intervention),
                *(hashes.protocol, cell.fraction, cell.seed),
            )
            tables.setdefault(key, []).append(units)
    return [_table(tables[key]) for key in sorted(tables)]


def _table(every: list[SameUnits]) -> Table:
    every = sorted(
        every, key=lambda each: (each.home.control, each.home.cell.selector, each.home.cell.origin)
    )
    tasks = {task: record for units in every for task, record in units.by_task.items()}
    columns = sorted(
        (
            Column(task, READOUTS.get(record.task.readout, record.task.readout))
            for task, record in tasks.items()
        ),
        key=lambda column: (column.readout != READOUTS["labels"], column.readout, column.task),
    )
    shown = [units.spec(column.task) for units in every for column in columns]
    scale = shared_scale([*shown, *(units.home.words for units in every)])
    cell = every[0].home.cell
    protocol = f"{cell.intervention} · {general(100 * cell.fraction)} % of the units · seed {cell.seed}"
    rows = [
        Row(
            units=units,
            specs=[bar(units.spec(column.task), scale) for column in columns],
            links=[units.by_task[c.task].id if c.task in units.by_task else "" for c in columns],
            words=bar(units.home.words, scale),
            confound=units.confound,
            high=is_high(units.confound),
            why=units.home.word_confound.reason if units.home.word_confound is not None else "",
        )
        for units in every
    ]
    return Table(every[0].home, protocol, columns, rows)
