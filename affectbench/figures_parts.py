"""What all figures of pages are drawn with: axes, texts, boxes, and the frame that is read out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import floor, log10

from affectbench.site_format import number

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


def svg(name: str, width: float, height: float, title: str, description: str, parts: list[str]) -> str:
    """A figure of a page: its title and description are read out in place of the drawing."""
    wide = " wide" if width > 620 else ""
    return (
        f'<svg class="figure{wide}" role="img" aria-labelledby="{name}-t {name}-d" width="{width:g}" '
        f'height="{height:g}" viewBox="0 0 {width:g} {height:g}"><title id="{name}-t">{escape(title)}</title>'
        f'<desc id="{name}-d">{escape(description)}</desc>{"".join(parts)}</svg>'
    )


def text_at(x: float, y: float, text: str, shade: str, anchor: str, *, turn: int = 0) -> str:
    """A text of a CSS class; `turn` in degrees about its own place."""
    turned = f' transform="rotate({turn} {x:g} {y:g})"' if turn else ""
    return (
        f'<text class="{shade}" x="{x:g}" y="{y:g}" text-anchor="{anchor}"{turned}>'
        f"{escape(text, quote=False)}</text>"
    )


def box(x: float, y: float, width: float, height: float, shade: str, opacity: float) -> str:
    """A filled rectangle with round corners."""
    return (
        f'<rect class="{shade}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" '
        f'rx="2" fill-opacity="{opacity:.3g}"/>'
    )


def outline(x: float, y: float, width: float, height: float) -> str:
    """The frame of a field of a matrix that stands out."""
    return f'<rect class="own" x="{x:g}" y="{y:g}" width="{width}" height="{height}" rx="3"/>'


def matrix_labels(labels: Sequence[str], left: float, head: float, cell: int, line: int) -> list[str]:
    """Names of the rows and, slanted, of the columns of a square matrix."""
    parts = []
    for index, label in enumerate(labels):
        x = left + cell * (index + 0.5)
        parts.append(text_at(x - 4, head - 7, label, "label", "start", turn=-35))
        parts.append(text_at(left - 8, head + line * (index + 0.5) + 4, label, "label", "end"))
    return parts


def diverging_legend(left: float, y: float, top: float) -> list[str]:
    """Colours from -`top` over 0 to `top`."""
    shares = (-1.0, -0.6, -0.25, 0.0, 0.25, 0.6, 1.0)
    parts = [
        box(left + 22 * index, y, 20, 10, "pos" if share > 0 else "neg", abs(share))
        for index, share in enumerate(shares)
    ]
    for index in (0, 3, 6):
        text = number(shares[index] * top, 2) if shares[index] else "0"
        parts.append(text_at(left + 22 * index + 10, y + 25, text, "tick", "middle"))
    return parts


def polyline(values: Sequence[tuple[float, float]], x: Axis, y: Axis, shade: str) -> str:
    """A line through values, in the units of two axes."""
    points = " ".join(f"{x(a)},{y(b)}" for a, b in values)
    return f'<polyline class="{shade}" points="{points}"/>'


def places_of(axis: Axis) -> int:
    """Digits after the point that an axis' ticks need."""
    ticks = axis.ticks()
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 0.1
    return max(0, -floor(log10(step) + 1e-9))


def label_width(labels: Sequence[str]) -> float:
    """Room for the names of rows."""
    return 12 + CHARACTER * max(len(label) for label in labels)


def slant(labels: Sequence[str]) -> float:
    """Height of slanted names of columns."""
    return 16 + 0.6 * CHARACTER * max(len(label) for label in labels)


def apart(heights: Sequence[float], least: float) -> list[float]:
    """Heights moved down just enough that no two are closer than `least`."""
    placed = list(heights)
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    for before, after in pairwise(order):
        placed[after] = max(placed[after], placed[before] + least)
    return placed
