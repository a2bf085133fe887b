"""The figures of the site: SVG text, drawn ahead of time from plain numbers.

Colours are classes and opacity only, so the style sheet decides them for light, dark and print. Each figure
has a title and a description for screen readers; `name` makes their ids unique on the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from affectbench.figures_parts import (
    Axis,
    apart,
    box,
    diverging_legend,
    label_width,
    matrix_labels,
    outline,
    places_of,
    polyline,
    slant,
    svg,
    text_at,
)
from affectbench.score_models import Estimate
from affectbench.site_format import general, interval, number

Matrix = Sequence[Sequence[float]]


def effect_matrix(name: str, title: str, labels: Sequence[str], matrix: Matrix, top: float) -> str:
    """Heat map of a (targets x gold) effect matrix; colours diverge at 0 and saturate at `top`."""
    left, head, cell, line = label_width(labels) + 22, slant(labels) + 20, 46, 30
    width, height = left + cell * len(labels) + 30, head + line * len(labels) + 52
    parts = [
        text_at(left + cell * len(labels) / 2, 12, "recall changes on items of", "axis", "middle"),
        text_at(12, head + line * len(labels) / 2, "units of", "axis", "middle", turn=-90),
    ]
    parts += matrix_labels(labels, left, head, cell, line)
    for row, values in enumerate(matrix):
        for column, value in enumerate(values):
            x, y = left + cell * column, head + line * row
            share = min(1.0, abs(value) / top)
            sign = "pos" if value > 0 else "neg"
            parts.append(box(x + 1, y + 1, cell - 2, line - 2, sign, share))
            shade = "num strong" if share > 0.55 else "num"
            parts.append(text_at(x + cell / 2, y + line / 2 + 4, number(value, 2), shade, "middle"))
        parts.append(outline(left + cell * row, head + line * row, cell, line))
    parts += diverging_legend(left, height - 34, top)
    rows = "; ".join(
        f"units of {label}: {', '.join(number(value, 2) for value in values)}"
        for label, values in zip(labels, matrix, strict=True)
    )
    return svg(name, width, height, title, f"Columns {', '.join(labels)}. {rows}.", parts)


@dataclass(frozen=True)
class GridValue:
    """One field of a grid: a value with its interval; `sure` where it is significant."""

    value: Estimate
    sure: bool


def grid(name: str, title: str, tasks: Sequence[str], values: Sequence[Sequence[GridValue | None]]) -> str:
    """Heat map of specificity, identified on (rows) and tested on (columns); the diagonal is outlined."""
    left, head, cell, line = label_width(tasks) + 22, slant(tasks) + 20, 104, 46
    room = max(0.0, slant(tasks) * 1.2 - cell / 2)
    width, height = left + cell * len(tasks) + room, head + line * len(tasks) + 52
    parts = [
        text_at(left + cell * len(tasks) / 2, 12, "tested on", "axis", "middle"),
        text_at(12, head + line * len(tasks) / 2, "identified on", "axis", "middle", turn=-90),
    ]
    parts += matrix_labels(tasks, left, head, cell, line)
    known = [found.value.value for row in values for found in row if found is not None]
    top, told = max([0.1, *map(abs, known)]), []
    for row, found_row in enumerate(values):
        for column, found in enumerate(found_row):
            x, y = left + cell * column, head + line * row
            if found is None:
                parts.append(box(x + 1, y + 1, cell - 2, line - 2, "seq", 0))
                parts.append(text_at(x + cell / 2, y + line / 2 + 4, "–", "num zero", "middle"))
                continue
            share = min(1.0, abs(found.value.value) / top)
            parts.append(
                box(x + 1, y + 1, cell - 2, line - 2, "pos" if found.value.value > 0 else "neg", share)
            )
            shade = " strong" if share > 0.55 else ""
            star = "*" if found.sure else ""
            told_value = f"{number(found.value.value, 2)}{star}"
            parts.append(text_at(x + cell / 2, y + 20, told_value, f"num{shade}", "middle"))
            parts.append(text_at(x + cell / 2, y + 36, interval(found.value, 2), f"num{shade}", "middle"))
            told.append(
                f"{tasks[row]} to {tasks[column]} {number(found.value.value, 2)} {interval(found.value, 2)}"
            )
        parts.append(outline(left + cell * row, head + line * row, cell, line))
    parts += diverging_legend(left, height - 34, top)
    return svg(name, width, height, title, f"Identified on, to tested on: {'; '.join(told)}.", parts)


def confusion(name: str, title: str, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Heat map of counts (gold x answered), shaded by the share of the gold row."""
    left, head, cell, line = label_width(labels) + 22, slant(labels) + 20, 46, 30
    width, height = left + cell * len(labels) + 30, head + line * len(labels) + 8
    parts = [
        text_at(left + cell * len(labels) / 2, 12, "answered", "axis", "middle"),
        text_at(12, head + line * len(labels) / 2, "gold", "axis", "middle", turn=-90),
    ]
    parts += matrix_labels(labels, left, head, cell, line)
    for row, values in enumerate(counts):
        total = sum(values) or 1
        for column, value in enumerate(values):
            x, y, share = left + cell * column, head + line * row, value / total
            parts.append(box(x + 1, y + 1, cell - 2, line - 2, "seq", share))
            shade = "num strong" if share > 0.55 else "num" if value else "num zero"
            parts.append(text_at(x + cell / 2, y + line / 2 + 4, str(value), shade, "middle"))
    rows = "; ".join(f"{label}: {list(values)}" for label, values in zip(labels, counts, strict=True))
    return svg(name, width, height, title, f"Answered labels in columns. {rows}.", parts)


@dataclass(frozen=True)
class CurvePoint:
    """The target-rate shift at one dose: over all emotions with its interval, and by emotion."""

    alpha: float
    dose: float
    shift: Estimate
    by_emotion: Sequence[float]
    collapsed: bool


def dose_curve(name: str, title: str, labels: Sequence[str], points: Sequence[CurvePoint]) -> str:
    """Target-rate shift against alpha from (0, 0): mean with its interval, a thin line an emotion."""
    width, height, left, bottom = 560.0, 300.0, 44.0, 46.0
    right = width - label_width(labels) - 14
    x = Axis(0, max(point.alpha for point in points), left, right)
    ends = [0.0, 0.1]
    for point in points:
        ends += [*point.by_emotion, point.shift.value, *_ends(point.shift)]
    y = Axis(min(ends), max(ends), height - bottom, 14)
    parts = [_grid_line(left, y(tick), right, number(tick, places_of(y))) for tick in y.ticks()]
    parts.append(f'<line class="base" x1="{left:g}" y1="{y(0)}" x2="{right:g}" y2="{y(0)}"/>')
    parts += _dose_ticks(points, x, height - bottom)
    parts.append(text_at((left + right) / 2, height - 4, "alpha (distance from no change)", "axis", "middle"))
    parts.append(_band(points, x, y))
    for index in range(len(labels)):
        line = [(0.0, 0.0), *((point.alpha, point.by_emotion[index]) for point in points)]
        parts.append(polyline(line, x, y, f"thin e{index % 8}"))
    mean = [(0.0, 0.0), *((point.alpha, point.shift.value) for point in points)]
    parts.append(polyline(mean, x, y, "mean"))
    for point in points:
        shade = "dot hollow" if point.collapsed else "dot"
        parts.append(f'<circle class="{shade}" cx="{x(point.alpha)}" cy="{y(point.shift.value)}" r="4"/>')
    heights = apart([y(value) for value in points[-1].by_emotion], 13)
    for index, (label, at) in enumerate(zip(labels, heights, strict=True)):
        parts.append(text_at(right + 8, at + 4, label, f"end e{index % 8}", "start"))
    values = "; ".join(
        f"dose {general(point.dose)}: {number(point.shift.value)}"
        + (" (answers collapsed)" if point.collapsed else "")
        for point in points
    )
    return svg(name, width, height, title, f"Mean over emotions. {values}.", parts)


def random_strip(name: str, title: str, entry: Estimate, draws: Sequence[float]) -> str:
    """Specificity of each random draw as a dot, and the entry with its interval above them, on one axis."""
    width, height, left, right = 560.0, 128.0, 14.0, 546.0
    ends = [0.0, entry.value, *_ends(entry), *draws]
    room = 0.04 * (max(ends) - min(ends) or 1.0)
    x = Axis(min(ends) - room, max(ends) + room, left, right)
    parts = [f'<line class="base" x1="{x(0)}" y1="8" x2="{x(0)}" y2="94"/>']
    for tick in x.ticks(7):
        parts.append(f'<line class="grid" x1="{x(tick)}" y1="94" x2="{x(tick)}" y2="99"/>')
        parts.append(text_at(x(tick), 112, number(tick, places_of(x)), "tick", "middle"))
    for index, value in enumerate(draws):
        level = 66 + 20 * ((index * 0.618034) % 1)
        parts.append(f'<circle class="draw" cx="{x(value)}" cy="{level:.1f}" r="3.5"/>')
    if entry.low is not None and entry.high is not None:
        parts.append(f'<line class="whisker-line" x1="{x(entry.low)}" y1="36" x2="{x(entry.high)}" y2="36"/>')
    parts.append(f'<circle class="dot" cx="{x(entry.value)}" cy="36" r="5.5"/>')
    left_half = x(entry.value) < width / 2
    anchor = "start" if left_half else "end"
    parts.append(text_at(x(entry.value), 20, f"this entry {number(entry.value)}", "end-label", anchor))
    clear_left = x(min(draws)) - left > 100
    edge, anchor = (x(min(draws)) - 10, "end") if clear_left else (x(max(draws)) + 10, "start")
    parts.append(text_at(edge, 80, f"{len(draws)} random draws", "tick", anchor))
    ends_of_draws = f"{number(min(draws))} to {number(max(draws))}"
    text = f"This entry {number(entry.value)}; random draws from {ends_of_draws}."
    return svg(name, width, height, title, text, parts)


def layer_histogram(name: str, title: str, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Selected units by emotion and layer: shaded counts, with the total by layer as bars on top."""
    layers = len(counts[0])
    totals = [sum(row[layer] for row in counts) for layer in range(layers)]
    left, head, line = label_width(labels) + 6, 84.0, 24
    cell = max(16.0, min(46.0, 460.0 / layers))
    width, height = left + cell * layers + 8, head + line * len(labels) + 36
    parts, peak = [], max(max(totals), 1)
    for layer, total in enumerate(totals):
        tall, x = 56 * total / peak, left + cell * layer
        parts.append(box(x + 2, head - 6 - tall, cell - 4, tall, "seq", 0.75))
        if cell >= 26:
            parts.append(text_at(x + cell / 2, head - 10 - tall, str(total), "tick", "middle"))
        if cell >= 26 or layer % 5 == 0:
            parts.append(text_at(x + cell / 2, height - 20, str(layer), "tick", "middle"))
    most = max(max(max(row) for row in counts), 1)
    for row, (label, values) in enumerate(zip(labels, counts, strict=True)):
        y = head + line * row
        parts.append(text_at(left - 8, y + line / 2 + 4, label, "label", "end"))
        for layer, value in enumerate(values):
            x = left + cell * layer
            parts.append(box(x + 1, y + 1, cell - 2, line - 2, "seq", value / most))
            if cell >= 26:
                shade = "num strong" if value / most > 0.55 else "num" if value else "num zero"
                parts.append(text_at(x + cell / 2, y + line / 2 + 4, str(value), shade, "middle"))
    parts.append(text_at(left + cell * layers / 2, height - 4, "layer", "axis", "middle"))
    rows = "; ".join(f"{label}: {list(values)}" for label, values in zip(labels, counts, strict=True))
    return svg(name, width, height, title, f"Units by layer from 0. {rows}.", parts)


def _grid_line(left: float, y: float, right: float, label: str) -> str:
    line = f'<line class="grid" x1="{left:g}" y1="{y}" x2="{right:g}" y2="{y}"/>'
    return line + text_at(left - 6, y + 4, label, "tick", "end")


def _dose_ticks(points: Sequence[CurvePoint], x: Axis, y: float) -> list[str]:
    parts = [text_at(x(0), y + 16, "0", "tick", "middle")]
    for point in points:
        parts.append(text_at(x(point.alpha), y + 16, general(point.alpha), "tick", "middle"))
        parts.append(text_at(x(point.alpha), y + 29, f"(dose {general(point.dose)})", "tick", "middle"))
    return parts


def _band(points: Sequence[CurvePoint], x: Axis, y: Axis) -> str:
    known = [(p.alpha, p.shift.low, p.shift.high) for p in points]
    upper = [(x(alpha), y(high)) for alpha, _, high in known if high is not None]
    lower = [(x(alpha), y(low)) for alpha, low, _ in known if low is not None]
    if len(upper) != len(points) or len(lower) != len(points):
        return ""
    corners = [(x(0), y(0)), *upper, *reversed(lower)]
    return f'<polygon class="band" points="{" ".join(f"{a},{b}" for a, b in corners)}"/>'


def _ends(estimate: Estimate) -> list[float]:
    return [end for end in (estimate.low, estimate.high) if end is not None]
