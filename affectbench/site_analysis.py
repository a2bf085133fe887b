"""Pages of analyses: an index, and a page for each with its figures, the numbers in them, and its tables."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from affectbench.analysis import Analysis, Curve, Matrix, Numbers, Series, Table, Topography, Value
from affectbench.figures_analysis import curve_figure, map_figure, matrix_figure
from affectbench.score_models import Estimate, Interval
from affectbench.site_format import MISSING, general, interval, number, shortened

FIRST = 3
"""Findings of an analysis that the index shows."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what is shown, its interval, and what it is sorted by (empty: by what is shown)."""

    text: str
    interval: str = ""
    order: str = ""


@dataclass(frozen=True)
class Grid:
    """A table to be drawn: names of the columns, and rows whose first cell names them."""

    columns: list[str]
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Drawn:
    """A figure as SVG text, what it is called, and the numbers in it."""

    title: str
    note: str
    figure: str
    numbers: Grid


@dataclass(frozen=True)
class Shown:
    """An analysis as its page shows it; `model` and `task` are whether these have pages to link to."""

    analysis: Analysis
    figures: list[Drawn]
    tables: list[tuple[Table, Grid]]
    settings: list[tuple[str, str]]
    model: bool
    task: bool


def shown(analysis: Analysis, models: Collection[str], tasks: Collection[str]) -> Shown:
    """All that a page needs; `models` and `tasks` are those that have pages of their own."""
    settings = [(name, _setting(value)) for name, value in sorted(analysis.settings.items())]
    return Shown(
        analysis,
        [*_figures(analysis)],
        [(table, table_grid(table)) for table in analysis.tables],
        settings,
        analysis.model in models,
        analysis.task in tasks,
    )


def by_kind(analyses: Sequence[Analysis]) -> list[tuple[str, list[Analysis]]]:
    """Analyses by what was asked, each in the order of model, task and seed."""
    found: dict[str, list[Analysis]] = {}
    for analysis in analyses:
        found.setdefault(analysis.kind, []).append(analysis)
    order = {
        kind: sorted(own, key=lambda each: (each.model, each.task, each.seed)) for kind, own in found.items()
    }
    return sorted(order.items())  # fmt: skip


def table_grid(table: Table) -> Grid:
    """A table's values as they are shown."""
    rows = [
        [_cell(value, column.digits) for value, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]
    return Grid([column.name for column in table.columns], rows)


def _figures(analysis: Analysis) -> Iterator[Drawn]:
    for curve in analysis.curves:
        yield Drawn(curve.title, curve.note, curve_figure(curve.name, curve), _curve_grid(curve))
    for matrix in analysis.matrices:
        yield Drawn(matrix.title, matrix.note, matrix_figure(matrix.name, matrix), _matrix_grid(matrix))
    for each in analysis.maps:
        yield Drawn(each.title, each.note, map_figure(each.name, each), _map_grid(each))


def _curve_grid(curve: Curve) -> Grid:
    rows = [
        [Cell(general(x)), *(_at(series, place) for series in curve.series)]
        for place, x in enumerate(curve.x)
    ]
    return Grid([curve.x_label, *(series.label for series in curve.series)], rows)


def _at(series: Series, place: int) -> Cell:
    ends = (series.low[place], series.high[place]) if series.low else None
    return _numeric(series.values[place], ends)


def _matrix_grid(matrix: Matrix) -> Grid:
    known = [value for values in matrix.values for value in values if value is not None]
    whole = all(value == int(value) for value in known)
    rows: list[list[Cell]] = []
    for row, label in enumerate(matrix.rows):
        cells = [Cell(label)]
        for column in range(len(matrix.columns)):
            ends = (matrix.low[row][column], matrix.high[row][column]) if matrix.low else None
            cells.append(_numeric(matrix.values[row][column], ends, whole=whole))
        rows.append(cells)
    return Grid([matrix.row_label or "row", *matrix.columns], rows)


def _map_grid(found: Topography) -> Grid:
    columns: list[Numbers] = found.values
    rows = [
        [Cell(point), *(_numeric(values[place], None) for values in columns)]
        for place, point in enumerate(found.points)
    ]
    return Grid(["point", *found.panels], rows)


def _numeric(
    value: float | None, ends: tuple[float | None, float | None] | None, *, whole: bool = False
) -> Cell:
    if value is None:
        return Cell(MISSING)
    text = general(value) if whole else digits(value)
    return Cell(text, "" if ends is None else _span(*ends), f"{value:.9g}")


def _span(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return interval(Interval(low=None, high=None))
    return f"[{digits(low)}, {digits(high)}]"


def digits(value: float) -> str:
    """Three places; three digits where that would show nothing, or too much."""
    return number(value) if value == 0 or 0.0005 <= abs(value) < 1000 else shortened(value)


def whole_or_digits(value: float) -> str:
    """A layer or a count as it is, anything else to three places."""
    return general(value) if value == int(value) and abs(value) < 1e6 else digits(value)


def _cell(value: Value, digits: int) -> Cell:
    if value is None:
        return Cell(MISSING)
    if isinstance(value, Estimate):
        return Cell(number(value.value, digits), interval(value, digits), f"{value.value:.9g}")
    if isinstance(value, str):
        return Cell(value)
    return Cell(str(value) if isinstance(value, int) else number(value, digits), "", f"{value:.9g}")


def _setting(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_setting, value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: MISSING}[value]
    return general(value) if isinstance(value, float) else str(value)
