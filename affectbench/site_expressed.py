"""The expression board: told to, steered or neither, with intervals, on one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from affectbench.expressed import NAMES, Way, expressed
from affectbench.site_format import Bar, Scale, bar, general
from affectbench.site_summary import Summary

SHARES = Scale(0.0, 1.0)


@dataclass(frozen=True)
class Row:
    """A way with its share expressed as a bar, and in words what was done."""

    way: Way
    name: str
    expressed: Bar | None


@dataclass(frozen=True)
class Table:
    """All ways of one model on one task."""

    record: Summary
    rows: list[Row]


def expressed_board(records: Sequence[Summary]) -> list[Table]:
    """Real models before instruments. Empty where nothing was expressed."""
    return [
        Table(
            ways[0].record,
            [Row(way, _name(way), bar(way.measures()["expressed"], SHARES)) for way in ways],
        )
        for ways in expressed(records)
    ]


def _name(way: Way) -> str:
    if way.baseline:
        return NAMES[way.method]
    cell = way.record.cell
    dose = "" if way.dose is None else f", dose {general(way.dose)}"
    seed = f", seed {cell.seed}" if cell.seed else ""
    return f"{cell.intervention}, {general(100 * cell.fraction)} % of units{dose}{seed}"
