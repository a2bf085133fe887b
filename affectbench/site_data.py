"""The boards of the site as plain data: rows, groups that may be compared, ranks, calibration.

Rows compare only where model, task and protocol are the same by content, so a group is keyed by hashes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from affectbench.record import Record, canonical_json, protocol_parts
from affectbench.score_models import Estimate
from affectbench.site_format import slug, spread
from affectbench.site_summary import Summary

Kind = Literal["scored", "control", "unscored"]

RANK_RULE = (
    "Ranks are given among rows with the same model, task, protocol (by content hash), fraction, seed and "
    "origin of the units, in the order of specificity. Going down, a new rank starts at the first row whose "
    "interval lies wholly below that of the first row of the current rank; rows of one rank are tied (=). "
    "Only significant rows are ranked."
)

CONTROL_REASON = "control: shows what no knowledge of the emotions looks like; expected near 0, never ranked"


@dataclass(frozen=True)
class Row:
    """One record on the board. `rank` is None where `unranked` says why; `tied` rows share it with others."""

    record: Summary
    kind: Kind
    rank: int | None
    tied: bool
    unranked: str

    @property
    def id(self) -> str:
        return self.record.id


@dataclass(frozen=True)
class Group:
    """Rows that may be compared: ranked rows, then other scored rows, then those without a score.

    `id` names the group's files: readable, and ending in a hash of all that the rows share.
    """

    id: str
    rows: list[Row]
    baseline: str

    @property
    def record(self) -> Summary:
        """Any record of the group: model, task and protocol are the same in all."""
        return self.rows[0].record

    @property
    def pareto(self) -> bool:
        """Whether an entry has both specificity and preservation, so that there is a figure of them."""
        return any(
            row.kind != "unscored"
            and row.record.headline is not None
            and row.record.headline.pres is not None
            for row in self.rows
        )

    @property
    def n_unscored(self) -> int:
        return sum(row.kind == "unscored" for row in self.rows)


@dataclass(frozen=True)
class CalibrationCell:
    """One selector on one known-answer model: the values of all its records."""

    id: str
    auroc: list[float]
    decoy_auroc: list[float]
    precision_at_k: list[float]
    n_records: int


@dataclass(frozen=True)
class CalibrationBoard:
    """Selectors down, known-answer models across; a cell is None where nothing was run."""

    columns: list[tuple[str, str]]
    rows: list[tuple[str, bool, list[CalibrationCell | None]]]


def row_kind(record: Summary) -> Kind:
    """Unscored whatever the reason for the missing score, control before scored otherwise."""
    if record.status != "ok":
        return "unscored"
    return "control" if record.control else "scored"


def unranked_reason(record: Summary | Record) -> str:
    """Why a record has no rank; empty if it has one."""
    if record.status != "ok" or record.headline is None:
        return f"{record.status}: {record.reason}"
    if record.control:
        return CONTROL_REASON
    if record.cell.targeting == "oracle":
        return "oracle targeting uses the gold label; never ranked"
    if record.headline.spec.low is None:
        return "no interval"
    if not record.headline.significant:
        return "not significant: the effect cannot be told from chance or from random units"
    return ""


def ranks(specs: Sequence[Estimate]) -> list[int]:
    """Ranks of estimates given in descending order, by RANK_RULE; ties share the best position (1, 1, 3)."""
    result: list[int] = []
    first = 0
    for position, estimate in enumerate(specs):
        floor = specs[first].low
        if estimate.high is None or floor is None:
            raise ValueError("only estimates with an interval can be ranked")
        if estimate.high < floor:
            first = position
        result.append(first + 1)
    return result


def groups(records: Sequence[Summary]) -> list[Group]:
    """The boards: groups of comparable rows, real models before calibration instruments."""
    rows = [
        Row(record, row_kind(record), rank=None, tied=False, unranked=unranked_reason(record))
        for record in records
    ]
    keyed = sorted(((_group_key(row.record), _order(row), row) for row in rows), key=lambda item: item[:2])
    result = []
    for key, members in groupby(keyed, key=lambda item: item[0]):
        ranked = _with_ranks([row for *_, row in members])
        baseline = spread(row.record.uar.value for row in ranked if row.record.uar is not None)
        result.append(Group(id=group_id(ranked[0].record, key), rows=ranked, baseline=baseline))
    return result


def group_id(record: Summary, key: tuple[bool | str | float, ...]) -> str:
    """A readable file name for a group that ends in 8 hex of the hash of all that its rows share."""
    cell = record.cell
    names = (cell.model, cell.task, *protocol_parts(cell))
    digest = hashlib.sha256(canonical_json(key).encode()).hexdigest()[:8]
    return f"{'__'.join(slug(name) for name in names)[:150]}__{digest}"


def calibration_board(records: Sequence[Summary]) -> CalibrationBoard | None:
    """Recovery of known units by selector and known-answer model; None if no record has any."""
    by_row: dict[tuple[bool, str], dict[tuple[str, str], list[Summary]]] = {}
    for record in records:
        if record.calibration is not None and record.cell.identification is None:
            cells = by_row.setdefault((record.control, record.cell.selector), {})
            cells.setdefault((record.model.id, record.task.id), []).append(record)
    if not by_row:
        return None
    columns = sorted({column for cells in by_row.values() for column in cells})
    rows = [
        (selector, control, [_calibration_cell(cells.get(column, [])) for column in columns])
        for (control, selector), cells in sorted(by_row.items())
    ]
    return CalibrationBoard(columns=columns, rows=rows)


def _group_key(record: Summary) -> tuple[bool | str | float, ...]:
    cell, hashes = record.cell, record.hashes
    names = (cell.task, cell.model, cell.intervention, cell.targeting, cell.fraction, cell.seed)
    where = (cell.site, cell.positions, cell.identified, hashes.identification)
    model = (hashes.model, hashes.dictionary)
    return (record.model.instrument, *names, *where, hashes.task, *model, hashes.protocol)


def _order(row: Row) -> tuple[bool, bool, float, str]:
    spec = row.record.headline.spec.value if row.record.headline else float("-inf")
    return (row.kind == "unscored", bool(row.unranked), -spec, row.id)


def _with_ranks(rows: list[Row]) -> list[Row]:
    ranked = [row for row in rows if not row.unranked]
    found = ranks([row.record.headline.spec for row in ranked if row.record.headline])
    placed = [
        replace(row, rank=rank, tied=found.count(rank) > 1) for row, rank in zip(ranked, found, strict=True)
    ]
    return placed + [row for row in rows if row.unranked]


def _calibration_cell(members: list[Summary]) -> CalibrationCell | None:
    found = [record.calibration for record in members if record.calibration is not None]
    if not found:
        return None
    return CalibrationCell(
        id=members[0].id,
        auroc=[item.auroc for item in found],
        decoy_auroc=[item.decoy_auroc for item in found if item.decoy_auroc is not None],
        precision_at_k=[item.precision_at_k for item in found],
        n_records=len(found),
    )
