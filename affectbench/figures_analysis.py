"""Figures of analyses: curves with bands and marks, matrices, and heads seen from above.

The numbers themselves stand in a table beside each figure; its description says where they lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import groupby
from math import ceil

from affectbench.analysis import Curve, Mark, Matrix, Numbers, Series, Topography
from affectbench.figures_parts import (
    CHARACTER,
    Axis,
    apart,
    box,
    diverging_legend,
    label_width,
    places_of,
    slant,
    svg,
    text_at,
)
from affectbench.site_format import MISSING, general, number, shortened

Written = Callable[[float | None], str]
"""How a number is written in a field."""
COLOURS = 8
DENSE = 14
"""More columns than this, and the fields of a matrix are drawn without their numbers."""


def curve_figure(name: str, curve: Curve) -> str:
    """All series over one axis; bands are intervals, upright lines the marks with theirs."""
    shown = [series for series in curve.series if any(value is not None for value in series.values)]
    room = 20 + CHARACTER * max([len(series.label) for series in shown], default=0)
    wide = max(420.0, min(900.0, 22.0 * len(curve.x)))
    head = 16.0 + 15 * min(3, len(curve.marks))
    y = Axis(*_span(curve), head + 240, head)
    left = 14 + CHARACTER * max(len(number(tick, places_of(y))) for tick in y.ticks())
    x = Axis(curve.x[0], _last(curve.x), left + 8, left + 8 + wide)
    right, bottom = left + wide + 16, head + 240
    parts = [_rung(tick, y, left, right) for tick in y.ticks()]
    parts += [text_at(x(tick), bottom + 18, text, "tick", "middle") for tick, text in _ticks(curve.x, x)]
    parts += [part for place, mark in enumerate(curve.marks) for part in _mark(mark, x, place, head, bottom)]
    if curve.reference is not None:
        at = y(curve.reference)
        parts.append(f'<line class="reference" x1="{left:g}" y1="{at}" x2="{right:g}" y2="{at}"/>')
        parts.append(text_at(left + 10, at - 5, curve.reference_label, "tick", "start"))
    parts += [_area(series, curve.x, x, y, place) for place, series in enumerate(shown)]
    ends = apart([y(_final(series.values)) for series in shown], 13)
    for place, (series, end) in enumerate(zip(shown, ends, strict=True)):
        parts += _line(series.values, curve.x, x, y, place)
        parts.append(text_at(right + 6, end + 4, series.label, f"end {_shade(place)}", "start"))
    parts.append(text_at((left + right) / 2, bottom + 38, curve.x_label, "axis", "middle"))
    parts.append(text_at(4, 11, curve.y_label, "axis", "start"))
    return svg(name, right + room, bottom + 46, curve.title, _told_curve(curve, shown), parts)


def matrix_figure(name: str, matrix: Matrix) -> str:
    """Heat map with its numbers, as far as there is room for them."""
    columns, known = len(matrix.columns), _known(matrix.values)
    written = general if all(value == int(value) for value in known) else shortened
    dense = columns > DENSE
    cell, line = (18.0, 18.0) if dense else (50.0, 30.0)
    top = max(map(abs, known), default=0.0) or 1.0
    left = label_width(matrix.rows) + (22 if matrix.row_label else 6)
    head = slant(matrix.columns) + (20 if matrix.column_label else 4)
    wide, high = cell * columns, line * len(matrix.rows)
    parts = [
        text_at(left + wide / 2, 12, matrix.column_label, "axis", "middle"),
        text_at(12, head + high / 2, matrix.row_label, "axis", "middle", turn=-90),
    ]
    parts += [
        text_at(left + cell * (place + 0.5) - 4, head - 7, label, "label", "start", turn=-35)
        for place, label in enumerate(matrix.columns)
    ]
    parts += [
        text_at(left - 8, head + line * (place + 0.5) + 4, label, "label", "end")
        for place, label in enumerate(matrix.rows)
    ]
    for row, values in enumerate(matrix.values):
        for column, value in enumerate(values):
            where = (left + cell * column, head + line * row, cell, line)
            names = f"{matrix.rows[row]}, {matrix.columns[column]}"
            parts.append(_field(where, names, value, top, matrix.scale, written, inside=not dense))
    parts += _legend(left, head + high + 14, top, matrix.scale, written)
    room = max(16.0, slant(matrix.columns) * 1.3 - cell / 2)
    return svg(name, left + wide + room, head + high + 50, matrix.title, _told_matrix(matrix), parts)


def map_figure(name: str, found: Topography) -> str:
    """One head a panel, the nose on top; a dot a point, coloured by its value."""
    top = max(map(abs, _known(found.values)), default=0.0) or 1.0
    far = max([1.0, *(abs(place) for place in (*found.x, *found.y))])
    radius, across = 74.0, 4
    side = 2 * radius * far + 36
    rows = ceil(len(found.panels) / across)
    parts = []
    for place, (panel, values) in enumerate(zip(found.panels, found.values, strict=True)):
        cx, cy = side * (place % across + 0.5), (side + 26) * (place // across) + side / 2 + 26
        parts.append(text_at(cx, cy - radius * far - 20, panel, "label", "middle"))
        parts.append(_head(cx, cy, radius))
        for point, x, y, value in zip(found.points, found.x, found.y, values, strict=True):
            where = (cx + radius * x - 8, cy - radius * y - 8, 16.0, 16.0)
            names = f"{point}, {panel}"
            parts.append(_field(where, names, value, top, found.scale, shortened, inside=False, corner=8))
    height = (side + 26) * rows + 10
    parts += _legend(14, height, top, found.scale, shortened)
    width = side * min(across, len(found.panels))
    return svg(name, max(width, 180), height + 34, found.title, _told_map(found), parts)


def _rung(tick: float, y: Axis, left: float, right: float) -> str:
    shade = "base" if tick == 0 else "grid"
    line = f'<line class="{shade}" x1="{left:g}" y1="{y(tick)}" x2="{right:g}" y2="{y(tick)}"/>'
    return line + text_at(left - 6, y(tick) + 4, number(tick, places_of(y)), "tick", "end")


def _span(curve: Curve) -> tuple[float, float]:
    """The lowest and the highest value to be shown, with a little room; never of no height."""
    found = [value for series in curve.series for value in _known([series.values, series.low, series.high])]
    found += [] if curve.reference is None else [curve.reference]
    low, high = min(found, default=0.0), max(found, default=1.0)
    room = 0.04 * (high - low) or max(0.5 * abs(high), 0.5)
    return low - (room if low < 0 or low > room else low), high + room


def _last(x: Sequence[float]) -> float:
    return x[-1] if len(x) > 1 else x[0] + 1


def _ticks(x: Sequence[float], axis: Axis) -> list[tuple[float, str]]:
    """Every x where there is room for all, else round ones."""
    if len(x) <= 20 and max(len(general(value)) for value in x) <= 4:
        return [(value, general(value)) for value in x]
    whole = all(value == int(value) for value in x)
    return [(tick, general(tick)) for tick in axis.ticks(10) if not whole or tick == int(tick)]


def _mark(mark: Mark, x: Axis, place: int, head: float, bottom: float) -> list[str]:
    """An upright line, its interval as a band, and its name above, on one of three lines."""
    parts = []
    if mark.low is not None and mark.high is not None:
        start, end = x(max(mark.low, x.low)), x(min(mark.high, x.high))
        parts.append(box(start, head, max(1.0, end - start), bottom - head, "mark-band", 1))
    parts.append(f'<line class="mark-line" x1="{x(mark.x)}" y1="{head:g}" x2="{x(mark.x)}" y2="{bottom:g}"/>')
    anchor = "end" if x(mark.x) > (x.start + x.end) / 2 else "start"
    shift = -4 if anchor == "end" else 4
    label = f"{mark.label}: {general(mark.x)}{_ends(mark)}"
    return [*parts, text_at(x(mark.x) + shift, 26 + 15 * (place % 3), label, "mark-label", anchor)]


def _ends(mark: Mark) -> str:
    if mark.low is None or mark.high is None:
        return ""
    return f" [{general(mark.low)}, {general(mark.high)}]"


def _runs(values: Numbers) -> Iterator[list[int]]:
    """Places of values without a gap between them."""
    for known, places in groupby(range(len(values)), key=lambda place: values[place] is not None):
        if known:
            yield list(places)


def _area(series: Series, xs: Sequence[float], x: Axis, y: Axis, place: int) -> str:
    """The band between the ends of the intervals, in as many pieces as there are gaps."""
    whole: Numbers = [
        None if low is None or high is None else 1.0
        for low, high in zip(series.low, series.high, strict=True)
    ]
    drawn = []
    for run in _runs(whole):
        upper = [(xs[at], series.high[at]) for at in run]
        lower = [(xs[at], series.low[at]) for at in reversed(run)]
        corners = " ".join(f"{x(a)},{y(b)}" for a, b in [*upper, *lower] if b is not None)
        drawn.append(f'<polygon class="area {_shade(place)}" points="{corners}"/>')
    return "".join(drawn)


def _line(values: Numbers, xs: Sequence[float], x: Axis, y: Axis, place: int) -> list[str]:
    dashed = " dashed" if place >= COLOURS else ""
    parts = []
    for run in _runs(values):
        points = [(x(xs[at]), y(value)) for at in run if (value := values[at]) is not None]
        if len(points) == 1:
            parts.append(
                f'<circle class="point {_shade(place)}" cx="{points[0][0]}" cy="{points[0][1]}" r="3"/>'
            )
            continue
        corners = " ".join(f"{a},{b}" for a, b in points)
        parts.append(f'<polyline class="thin{dashed} {_shade(place)}" points="{corners}"/>')
    return parts  # fmt: skip


def _shade(place: int) -> str:
    return f"e{place % COLOURS}"


def _final(values: Numbers) -> float:
    return next(value for value in reversed(values) if value is not None)


def _known(rows: Sequence[Numbers]) -> list[float]:
    return [value for row in rows for value in row if value is not None]


def _field(
    where: tuple[float, float, float, float],
    names: str,
    value: float | None,
    top: float,
    scale: str,
    written: Written,
    *,
    inside: bool,
    corner: float = 2,
) -> str:
    """One value as a coloured field, with its number in it or as a hint."""
    x, y, wide, high = where
    share = 0.0 if value is None else min(1.0, abs(value) / top)
    shade = "seq" if scale == "sequential" or value is None else "pos" if value > 0 else "neg"
    shown = written(value)
    hint = f"<title>{escape(names)}: {shown}</title>"
    gap = 1.0 if corner < wide / 2 else 0.0
    drawn = (
        f'<rect class="{shade}" x="{x + gap:.1f}" y="{y + gap:.1f}" width="{wide - 2 * gap:g}" '
        f'height="{high - 2 * gap:g}" rx="{corner:g}" fill-opacity="{share:.3g}"/>'
    )
    if not inside:
        frame = "" if gap else f'<circle class="ring" cx="{x + wide / 2:.1f}" cy="{y + high / 2:.1f}" r="8"/>'
        return f"<g>{hint}{drawn}{frame}</g>"
    ink = "num zero" if value is None else "num strong" if share > 0.55 else "num"
    return f"<g>{hint}{drawn}{text_at(x + wide / 2, y + high / 2 + 4, shown, ink, 'middle')}</g>"


def _legend(left: float, y: float, top: float, scale: str, written: Written) -> list[str]:
    if scale == "diverging":
        return diverging_legend(left, y, top)
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    parts = [box(left + 22 * place, y, 20, 10, "seq", share) for place, share in enumerate(shares)]
    ends = [(0, "0"), (4, written(top))]
    return parts + [text_at(left + 22 * at + 10, y + 25, text, "tick", "middle") for at, text in ends]


def _head(cx: float, cy: float, radius: float) -> str:
    """Outline of a head from above: skull, nose, ears."""
    nose = f"{cx - 9:g},{cy - radius + 1:g} {cx:g},{cy - radius - 12:g} {cx + 9:g},{cy - radius + 1:g}"
    ears = "".join(
        f'<ellipse class="skull" cx="{cx + side * (radius + 4):g}" cy="{cy:g}" rx="4" ry="12"/>'
        for side in (-1, 1)
    )
    return (
        f'<polyline class="skull" points="{nose}"/>{ears}'
        f'<circle class="skull" cx="{cx:g}" cy="{cy:g}" r="{radius:g}"/>'
    )


def _told_curve(curve: Curve, shown: Sequence[Series]) -> str:
    told = [f"{curve.y_label} by {curve.x_label}"]
    for series in shown:
        known = [(at, value) for at, value in zip(curve.x, series.values, strict=True) if value is not None]
        (first, start), (last, end) = known[0], known[-1]
        most = max(known, key=lambda pair: pair[1])
        told.append(
            f"{series.label}: {shortened(start)} at {general(first)} to {shortened(end)} at {general(last)}, "
            f"largest {shortened(most[1])} at {general(most[0])}"
        )
    told += [f"mark {mark.label} at {general(mark.x)}{_ends(mark)}" for mark in curve.marks]
    return f"{'; '.join(told)}. The numbers are in the table that follows."


def _told_matrix(matrix: Matrix) -> str:
    places = [
        (value, matrix.rows[row], matrix.columns[column])
        for row, values in enumerate(matrix.values)
        for column, value in enumerate(values)
        if value is not None
    ]
    extremes = [
        f"{word} {shortened(value)} ({row}, {column})"
        for word, (value, row, column) in (("largest", max(places)), ("smallest", min(places)))
    ] if places else [MISSING]  # fmt: skip
    size = f"{len(matrix.rows)} rows, {len(matrix.columns)} columns"
    return f"{size}; {', '.join(extremes)}. The numbers are in the table that follows."


def _told_map(found: Topography) -> str:
    told = []
    for panel, values in zip(found.panels, found.values, strict=True):
        known = [
            (value, point) for point, value in zip(found.points, values, strict=True) if value is not None
        ]
        if known:
            value, point = max(known)
            told.append(f"{panel}: largest {shortened(value)} at {point}")
    return f"{'; '.join(told)}. The numbers are in the table that follows."  # fmt: skip
