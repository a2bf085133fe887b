"""The figures of the site: SVG text, drawn ahead of time from plain numbers.

Colours are classes and opacity only, so the style sheet decides them for light, dark and print. Each figure
has a title and a description for screen readers; `name` makes their ids unique on the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import floor, log10

from affectbench.score_models import Estimate
from affectbench.site_format import general, interval, number

Matrix = Sequence[Sequence[float]]

CHARACTER = 6.6
"""Width of a character of a figure's text, in units of the drawing."""


@dataclass(frozen=True)
class Axis:
    """A linear map from values to positions, with round ticks."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, count: int = 5) -> list[float]:
        """Multiples of 1, 2 or 5 times a power of ten, about `count` of them."""
        step = 10 ** floor(log10((self.high - self.low) / count))
        step *= next(factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (step * factor) <= count)
        first, last = -floor(-self.low / step + 1e-9), floor(self.high / step + 1e-9)
        return [round(index * step, 10) for index in range(first, last + 1)]


def effect_matrix(name: str, title: str, labels: Sequence[str], matrix: Matrix, top: float) -> str:
    """Heat map of a (targets x gold) effect matrix; colours diverge at 0 and saturate at `top`."""
    left, head, cell, line = _label_width(labels) + 22, _slant(labels) + 20, 46, 30
    width, height = left + cell * len(labels) + 30, head + line * len(labels) + 52
    parts = [
        _text(left + cell * len(labels) / 2, 12, "recall changes on items of", "axis", "middle"),
        _text(12, head + line * len(labels) / 2, "units of", "axis", "middle", turn=-90),
    ]
    parts += _matrix_labels(labels, left, head, cell, line)
    for row, values in enumerate(matrix):
        for column, value in enumerate(values):
            x, y = left + cell * column, head + line * row
            share = min(1.0, abs(value) / top)
            sign = "pos" if value > 0 else "neg"
            parts.append(_rect(x + 1, y + 1, cell - 2, line - 2, sign, share))
            shade = "num strong" if share > 0.55 else "num"
            parts.append(_text(x + cell / 2, y + line / 2 + 4, number(value, 2), shade, "middle"))
        parts.append(_outline(left + cell * row, head + line * row, cell, line))
    parts += _diverging_legend(left, height - 34, top)
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
    left, head, cell, line = _label_width(tasks) + 22, _slant(tasks) + 20, 104, 46
    room = max(0.0, _slant(tasks) * 1.2 - cell / 2)
    width, height = left + cell * len(tasks) + room, head + line * len(tasks) + 52
    parts = [
        _text(left + cell * len(tasks) / 2, 12, "tested on", "axis", "middle"),
        _text(12, head + line * len(tasks) / 2, "identified on", "axis", "middle", turn=-90),
    ]
    parts += _matrix_labels(tasks, left, head, cell, line)
    known = [found.value.value for row in values for found in row if found is not None]
    top, told = max([0.1, *map(abs, known)]), []
    for row, found_row in enumerate(values):
        for column, found in enumerate(found_row):
            x, y = left + cell * column, head + line * row
            if found is None:
                parts.append(_rect(x + 1, y + 1, cell - 2, line - 2, "seq", 0))
                parts.append(_text(x + cell / 2, y + line / 2 + 4, "–", "num zero", "middle"))
                continue
            share = min(1.0, abs(found.value.value) / top)
            parts.append(
                _rect(x + 1, y + 1, cell - 2, line - 2, "pos" if found.value.value > 0 else "neg", share)
            )
            shade = " strong" if share > 0.55 else ""
            star = "*" if found.sure else ""
            parts.append(
                _text(x + cell / 2, y + 20, f"{number(found.value.value, 2)}{star}", f"num{shade}", "middle")
            )
            parts.append(_text(x + cell / 2, y + 36, interval(found.value, 2), f"num{shade}", "middle"))
            told.append(
                f"{tasks[row]} to {tasks[column]} {number(found.value.value, 2)} {interval(found.value, 2)}"
            )
        parts.append(_outline(left + cell * row, head + line * row, cell, line))
    parts += _diverging_legend(left, height - 34, top)
    return svg(name, width, height, title, f"Identified on, to tested on: {'; '.join(told)}.", parts)


def confusion(name: str, title: str, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Heat map of counts (gold x answered), shaded by the share of the gold row."""
    left, head, cell, line = _label_width(labels) + 22, _slant(labels) + 20, 46, 30
    width, height = left + cell * len(labels) + 30, head + line * len(labels) + 8
    parts = [
        _text(left + cell * len(labels) / 2, 12, "answered", "axis", "middle"),
        _text(12, head + line * len(labels) / 2, "gold", "axis", "middle", turn=-90),
    ]
    parts += _matrix_labels(labels, left, head, cell, line)
    for row, values in enumerate(counts):
        total = sum(values) or 1
        for column, value in enumerate(values):
            x, y, share = left + cell * column, head + line * row, value / total
            parts.append(_rect(x + 1, y + 1, cell - 2, line - 2, "seq", share))
            shade = "num strong" if share > 0.55 else "num" if value else "num zero"
            parts.append(_text(x + cell / 2, y + line / 2 + 4, str(value), shade, "middle"))
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
    right = width - _label_width(labels) - 14
    x = Axis(0, max(point.alpha for point in points), left, right)
    ends = [0.0, 0.1]
    for point in points:
        ends += [*point.by_emotion, point.shift.value, *_ends(point.shift)]
    y = Axis(min(ends), max(ends), height - bottom, 14)
    parts = [_grid_line(left, y(tick), right, number(tick, _places(y))) for tick in y.ticks()]
    parts.append(f'<line class="base" x1="{left:g}" y1="{y(0)}" x2="{right:g}" y2="{y(0)}"/>')
    parts += _dose_ticks(points, x, height - bottom)
    parts.append(_text((left + right) / 2, height - 4, "alpha (distance from no change)", "axis", "middle"))
    parts.append(_band(points, x, y))
    for index in range(len(labels)):
        line = [(0.0, 0.0), *((point.alpha, point.by_emotion[index]) for point in points)]
        parts.append(_polyline(line, x, y, f"thin e{index % 8}"))
    mean = [(0.0, 0.0), *((point.alpha, point.shift.value) for point in points)]
    parts.append(_polyline(mean, x, y, "mean"))
    for point in points:
        shade = "dot hollow" if point.collapsed else "dot"
        parts.append(f'<circle class="{shade}" cx="{x(point.alpha)}" cy="{y(point.shift.value)}" r="4"/>')
    heights = apart([y(value) for value in points[-1].by_emotion], 13)
    for index, (label, at) in enumerate(zip(labels, heights, strict=True)):
        parts.append(_text(right + 8, at + 4, label, f"end e{index % 8}", "start"))
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
        parts.append(_text(x(tick), 112, number(tick, _places(x)), "tick", "middle"))
    for index, value in enumerate(draws):
        level = 66 + 20 * ((index * 0.618034) % 1)
        parts.append(f'<circle class="draw" cx="{x(value)}" cy="{level:.1f}" r="3.5"/>')
    if entry.low is not None and entry.high is not None:
        parts.append(f'<line class="whisker-line" x1="{x(entry.low)}" y1="36" x2="{x(entry.high)}" y2="36"/>')
    parts.append(f'<circle class="dot" cx="{x(entry.value)}" cy="36" r="5.5"/>')
    left_half = x(entry.value) < width / 2
    anchor = "start" if left_half else "end"
    parts.append(_text(x(entry.value), 20, f"this entry {number(entry.value)}", "end-label", anchor))
    clear_left = x(min(draws)) - left > 100
    edge, anchor = (x(min(draws)) - 10, "end") if clear_left else (x(max(draws)) + 10, "start")
    parts.append(_text(edge, 80, f"{len(draws)} random draws", "tick", anchor))
    ends_of_draws = f"{number(min(draws))} to {number(max(draws))}"
    text = f"This entry {number(entry.value)}; random draws from {ends_of_draws}."
    return svg(name, width, height, title, text, parts)


def layer_histogram(name: str, title: str, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Selected units by emotion and layer: shaded counts, with the total by layer as bars on top."""
    layers = len(counts[0])
    totals = [sum(row[layer] for row in counts) for layer in range(layers)]
    left, head, line = _label_width(labels) + 6, 84.0, 24
    cell = max(16.0, min(46.0, 460.0 / layers))
    width, height = left + cell * layers + 8, head + line * len(labels) + 36
    parts, peak = [], max(max(totals), 1)
    for layer, total in enumerate(totals):
        tall, x = 56 * total / peak, left + cell * layer
        parts.append(_rect(x + 2, head - 6 - tall, cell - 4, tall, "seq", 0.75))
        if cell >= 26:
            parts.append(_text(x + cell / 2, head - 10 - tall, str(total), "tick", "middle"))
        if cell >= 26 or layer % 5 == 0:
            parts.append(_text(x + cell / 2, height - 20, str(layer), "tick", "middle"))
    most = max(max(max(row) for row in counts), 1)
    for row, (label, values) in enumerate(zip(labels, counts, strict=True)):
        y = head + line * row
        parts.append(_text(left - 8, y + line / 2 + 4, label, "label", "end"))
        for layer, value in enumerate(values):
            x = left + cell * layer
            parts.append(_rect(x + 1, y + 1, cell - 2, line - 2, "seq", value / most))
            if cell >= 26:
                shade = "num strong" if value / most > 0.55 else "num" if value else "num zero"
                parts.append(_text(x + cell / 2, y + line / 2 + 4, str(value), shade, "middle"))
    parts.append(_text(left + cell * layers / 2, height - 4, "layer", "axis", "middle"))
    rows = "; ".join(f"{label}: {list(values)}" for label, values in zip(labels, counts, strict=True))
    return svg(name, width, height, title, f"Units by layer from 0. {rows}.", parts)


def svg(name: str, width: float, height: float, title: str, description: str, parts: list[str]) -> str:
    """A figure of a page: its title and description are read out in place of the drawing."""
    wide = " wide" if width > 620 else ""
    return (
        f'<svg class="figure{wide}" role="img" aria-labelledby="{name}-t {name}-d" width="{width:g}" '
        f'height="{height:g}" viewBox="0 0 {width:g} {height:g}"><title id="{name}-t">{escape(title)}</title>'
        f'<desc id="{name}-d">{escape(description)}</desc>{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, text: str, shade: str, anchor: str, *, turn: int = 0) -> str:
    turned = f' transform="rotate({turn} {x:g} {y:g})"' if turn else ""
    return (
        f'<text class="{shade}" x="{x:g}" y="{y:g}" text-anchor="{anchor}"{turned}>'
        f"{escape(text, quote=False)}</text>"
    )


def _rect(x: float, y: float, width: float, height: float, shade: str, opacity: float) -> str:
    return (
        f'<rect class="{shade}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" '
        f'rx="2" fill-opacity="{opacity:.3g}"/>'
    )


def _outline(x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="own" x="{x:g}" y="{y:g}" width="{width}" height="{height}" rx="3"/>'


def _matrix_labels(labels: Sequence[str], left: float, head: float, cell: int, line: int) -> list[str]:
    parts = []
    for index, label in enumerate(labels):
        x = left + cell * (index + 0.5)
        parts.append(_text(x - 4, head - 7, label, "label", "start", turn=-35))
        parts.append(_text(left - 8, head + line * (index + 0.5) + 4, label, "label", "end"))
    return parts


def _diverging_legend(left: float, y: float, top: float) -> list[str]:
    shares = (-1.0, -0.6, -0.25, 0.0, 0.25, 0.6, 1.0)
    parts = [
        _rect(left + 22 * index, y, 20, 10, "pos" if share > 0 else "neg", abs(share))
        for index, share in enumerate(shares)
    ]
    for index in (0, 3, 6):
        text = number(shares[index] * top, 2) if shares[index] else "0"
        parts.append(_text(left + 22 * index + 10, y + 25, text, "tick", "middle"))
    return parts


def _grid_line(left: float, y: float, right: float, label: str) -> str:
    line = f'<line class="grid" x1="{left:g}" y1="{y}" x2="{right:g}" y2="{y}"/>'
    return line + _text(left - 6, y + 4, label, "tick", "end")


def _dose_ticks(points: Sequence[CurvePoint], x: Axis, y: float) -> list[str]:
    parts = [_text(x(0), y + 16, "0", "tick", "middle")]
    for point in points:
        parts.append(_text(x(point.alpha), y + 16, general(point.alpha), "tick", "middle"))
        parts.append(_text(x(point.alpha), y + 29, f"(dose {general(point.dose)})", "tick", "middle"))
    return parts


def _band(points: Sequence[CurvePoint], x: Axis, y: Axis) -> str:
    known = [(p.alpha, p.shift.low, p.shift.high) for p in points]
    upper = [(x(alpha), y(high)) for alpha, _, high in known if high is not None]
    lower = [(x(alpha), y(low)) for alpha, low, _ in known if low is not None]
    if len(upper) != len(points) or len(lower) != len(points):
        return ""
    corners = [(x(0), y(0)), *upper, *reversed(lower)]
    return f'<polygon class="band" points="{" ".join(f"{a},{b}" for a, b in corners)}"/>'


def _polyline(values: Sequence[tuple[float, float]], x: Axis, y: Axis, shade: str) -> str:
    points = " ".join(f"{x(a)},{y(b)}" for a, b in values)
    return f'<polyline class="{shade}" points="{points}"/>'


def _ends(estimate: Estimate) -> list[float]:
    return [end for end in (estimate.low, estimate.high) if end is not None]


def _places(axis: Axis) -> int:
    ticks = axis.ticks()
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 0.1
    return max(0, -floor(log10(step) + 1e-9))


def _label_width(labels: Sequence[str]) -> float:
    return 12 + CHARACTER * max(len(label) for label in labels)


def _slant(labels: Sequence[str]) -> float:
    return 16 + 0.6 * CHARACTER * max(len(label) for label in labels)


def apart(heights: Sequence[float], least: float) -> list[float]:
    """Heights moved down just enough that no two are closer than `least`."""
    placed = list(heights)
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    for before, after in pairwise(order):
        placed[after] = max(placed[after], placed[before] + least)
    return placed
