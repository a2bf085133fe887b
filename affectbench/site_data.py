"""The boards of the site as plain data: rows, groups that may be compared, ranks, calibration.

Rows compare only where model, task and protocol are the same by content, so a group is keyed by hashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from affectbench.record import Record, cell_id
from affectbench.score_models import Estimate
from affectbench.site_format import Bar, bar, shared_scale, spread

Kind = Literal["scored", "control", "unscored"]

RANK_RULE = (
    "Ranks are given among rows with the same model, task, protocol (by content hash), fraction and seed, "
    "in the order of specificity. Going down, a new rank starts at the first row whose interval lies "
    "wholly below that of the first row of the current rank; rows of one rank are tied (=). "
    "Only significant rows are ranked."
)

CONTROL_REASON = "control: shows what no knowledge of the emotions looks like; expected near 0, never ranked"


@dataclass(frozen=True)
class Row:
    """One record on the board. `rank` is None where `unranked` says why; `tied` rows share it with others."""

    id: str
    record: Record
    kind: Kind
    rank: int | None
    tied: bool
    unranked: str
    spec: Bar | None
    spec_amplify: Bar | None
    strength: Bar | None


@dataclass(frozen=True)
class Group:
    """Rows that may be compared: ranked rows, then other scored rows, then those without a score."""

    id: str
    rows: list[Row]
    baseline: str

    @property
    def record(self) -> Record:
        """Any record of the group: model, task and protocol are the same in all."""
        return self.rows[0].record

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


def row_kind(record: Record) -> Kind:
    """Unscored whatever the reason for the missing score, control before scored otherwise."""
    if record.status != "ok":
        return "unscored"
    return "control" if record.control else "scored"


def unranked_reason(record: Record) -> str:
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


def groups(records: Sequence[Record]) -> list[Group]:
    """The overall board: groups of comparable rows, real models before calibration instruments."""
    rows = _rows(records)
    rows.sort(key=lambda row: (_group_key(row.record), _order(row)))
    result = []
    for index, (_, members) in enumerate(groupby(rows, key=lambda row: _group_key(row.record))):
        ranked = _with_ranks(list(members))
        baseline = spread(row.record.scores.baseline.uar for row in ranked if row.record.scores)
        result.append(Group(id=f"g{index}", rows=ranked, baseline=baseline))
    return result


def calibration_board(records: Sequence[Record]) -> CalibrationBoard | None:
    """Recovery of known units by selector and known-answer model; None if no record has any."""
    known = [record for record in records if record.calibration is not None]
    if not known:
        return None
    columns = sorted({(record.model.id, record.task.id) for record in known})
    selectors = sorted({(record.control, record.cell.selector) for record in known})
    rows = []
    for control, selector in selectors:
        own = [record for record in known if record.cell.selector == selector and record.control == control]
        rows.append((selector, control, [_calibration_cell(own, column) for column in columns]))
    return CalibrationBoard(columns=columns, rows=rows)


def _rows(records: Sequence[Record]) -> list[Row]:
    headlines = [record.headline for record in records if record.headline is not None]
    spec = shared_scale(item for headline in headlines for item in (headline.spec, headline.spec_amplify))
    strength = shared_scale(headline.strength for headline in headlines)
    return [
        Row(
            id=cell_id(record.cell),
            record=record,
            kind=row_kind(record),
            rank=None,
            tied=False,
            unranked=unranked_reason(record),
            spec=bar(record.headline.spec, spec) if record.headline else None,
            spec_amplify=bar(record.headline.spec_amplify, spec) if record.headline else None,
            strength=bar(record.headline.strength, strength) if record.headline else None,
        )
        for record in records
    ]


def _group_key(record: Record) -> tuple[bool | str | float, ...]:
    cell, hashes = record.cell, record.hashes
    names = (cell.task, cell.model, cell.intervention, cell.targeting, cell.fraction, cell.seed)
    return (record.model.instrument, *names, hashes.task, hashes.model, hashes.protocol)


def _order(row: Row) -> tuple[bool, bool, float, str]:
    spec = row.spec.value if row.spec else float("-inf")
    return (row.kind == "unscored", bool(row.unranked), -spec, row.id)


def _with_ranks(rows: list[Row]) -> list[Row]:
    ranked = [row for row in rows if not row.unranked]
    specs = [row.record.headline.spec for row in ranked if row.record.headline]
    found = ranks(specs)
    placed = [
        replace(row, rank=rank, tied=found.count(rank) > 1) for row, rank in zip(ranked, found, strict=True)
    ]
    return placed + [row for row in rows if row.unranked]


def _calibration_cell(own: list[Record], column: tuple[str, str]) -> CalibrationCell | None:
    members = [record for record in own if (record.model.id, record.task.id) == column]
    found = [record.calibration for record in members if record.calibration is not None]
    if not found:
        return None
    return CalibrationCell(
        id=cell_id(members[0].cell),
        auroc=[item.auroc for item in found],
        decoy_auroc=[item.decoy_auroc for item in found if item.decoy_auroc is not None],
        precision_at_k=[item.precision_at_k for item in found],
        n_records=len(found),
    )
