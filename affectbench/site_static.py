"""The first rows of a board as plain cells, for readers without JavaScript; the script draws its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from affectbench.site_board import KINDS, Board, Column
from affectbench.site_format import MISSING, number

STATIC_ROWS = 50
"""Rows in a page itself, shown without JavaScript."""


@dataclass(frozen=True)
class StaticTable:
    """Titles of the shown columns; for each row its kind and the text of its cells; how many rows in all."""

    titles: list[str]
    rows: list[tuple[str, list[str]]]
    n_rows: int


def static_table(board: Board, places: Sequence[int] | None = None) -> StaticTable:
    """The first `STATIC_ROWS` of the rows at these places of a board (by default all), as text."""
    places = range(len(board.kinds)) if places is None else places
    columns = [column for column in board.columns if column.shown]
    rows = []
    for row in places[:STATIC_ROWS]:
        group = board.group_of[row] if board.groups else 0
        rows.append((KINDS[board.kinds[row]], [_text(column, row, group) for column in columns]))
    return StaticTable([column.title for column in columns], rows, len(places))


def _text(column: Column, row: int, group: int) -> str:
    data = column.data
    if column.kind in ("text", "plain"):
        return _decoded(data, group if data.get("by_group") else row)
    if column.kind == "status":
        parts = [_decoded(data, row), _decoded(data["why"], row), _decoded(data["flags"], row)]
        return ": ".join(part for part in parts if part)
    value = data["v"][row]
    if value is None:
        return MISSING
    if column.kind == "rank":
        return f"{value}{'=' if data['tied'][row] else ''}"
    if column.kind == "p":
        return f"{'<0.001' if value == 0 else number(value / 1000)}{'' if data['yes'][row] else ' (n.s.)'}"
    text = number(value / 1000)
    if column.kind == "measure" and data["lo"][row] is not None and data["hi"][row] is not None:
        text += f" [{number(data['lo'][row] / 1000)}, {number(data['hi'][row] / 1000)}]"
    return text


def _decoded(data: dict[str, Any], place: int) -> str:
    text: str = data["d"][data["i"][place]]
    return text
