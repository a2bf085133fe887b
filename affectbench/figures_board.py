"""Figures that compare entries, as SVG files of their own: pages of many entries show one file.

An entry's page links to its own mark by the file's fragment (`figure.svg#c1234abcd`), which `:target` makes
stand out; so a new entry changes the file and not the pages of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape

from affectbench.content import builtin_root
from affectbench.figures_parts import Axis
from affectbench.score_models import Estimate
from affectbench.site_format import number


@cache
def _style() -> str:
    return (builtin_root() / "leaderboard" / "templates" / "figure.css").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Mark:
    """One entry in the figure of preservation and specificity."""

    name: str
    digest: str
    spec: Estimate
    pres: Estimate
    control: bool


def front(marks: Sequence[Mark]) -> list[Mark]:
    """The marks that no other exceeds in both preservation and specificity, by falling preservation."""
    best, found = float("-inf"), []
    for mark in sorted(marks, key=lambda mark: (-mark.pres.value, -mark.spec.value, mark.digest)):
        if mark.spec.value > best:
            best = mark.spec.value
            found.append(mark)
    return found


def pareto(marks: Sequence[Mark]) -> str:
    """Specificity against preservation of comparable entries, with intervals of both and the Pareto front.

    Controls are drawn hollow and are not part of the front.
    """
    width, height, left, bottom, top, right = 640.0, 400.0, 50.0, 46.0, 30.0, 500.0
    specs = [
        end for mark in marks for end in (mark.spec.value, mark.spec.low, mark.spec.high) if end is not None
    ]
    presses = [mark.pres.value if mark.pres.low is None else mark.pres.low for mark in marks]
    room = max(0.02, 0.08 * (1 - min(presses)))
    x = Axis(max(0.0, min(presses) - room), 1.0 + 0.3 * room, left, right)
    pad = 0.05 * (max([*specs, 0.1]) - min([*specs, 0.0]))
    y = Axis(min([*specs, 0.0]) - pad, max([*specs, 0.1]) + pad, height - bottom, top)
    parts = []
    for tick in y.ticks():
        parts.append(_line("base" if tick == 0 else "grid", left, y(tick), right, y(tick)))
        parts.append(_text(left - 8, y(tick) + 4, number(tick, 2), "tick", "end"))
    for tick in x.ticks(6):
        parts.append(_text(x(tick), height - bottom + 18, number(tick, 2), "tick", "middle"))
    parts.append(_text((left + right) / 2, height - 8, "preservation (1 = untouched)", "axis", "middle"))
    parts.append(_text(4, 12, "specificity", "axis", "start"))
    best = front([mark for mark in marks if not mark.control])
    parts.append(_stairs(best, x, y))
    named = {mark.digest for mark in (best if len(marks) > 14 else marks)}
    labels = _label_heights([mark for mark in marks if mark.digest in named], x, y)
    for mark in marks:
        parts.append(_mark(mark, x, y, mark in best, labels.get(mark.digest)))
    listed = ", ".join(f"{m.name} ({number(m.pres.value)}, {number(m.spec.value)})" for m in best[:12])
    text = f"{len(marks)} entries. On the front, as (preservation, specificity): {listed or 'none'}."
    return _file(width, height, "Specificity against preservation", text, parts)


@dataclass(frozen=True)
class Overlap:
    """How far another entry of the same comparison selects the same units, and what chance would give."""

    name: str
    control: bool
    jaccard: float
    chance: float


def overlap_bars(name: str, overlaps: Sequence[Overlap]) -> str:
    """One bar a selector: the mean over emotions of shared units over all units of either set."""
    left = 16 + 6.8 * max((len(item.name) for item in overlaps), default=8)
    width, line = left + 400.0, 22.0
    height = line * len(overlaps) + 40
    x = Axis(0, 1, left, left + 330)
    parts = [_line("grid", x(tick), 4, x(tick), height - 34) for tick in (0.25, 0.5, 0.75, 1)]
    for place, item in enumerate(overlaps):
        y = 6 + line * place
        shade = "bar control" if item.control else "bar"
        parts.append(_text(left - 8, y + 12, item.name, "tick", "end"))
        parts.append(
            f'<rect class="{shade}" x="{left:g}" y="{y:g}" width="{max(0.5, x(item.jaccard) - left):.1f}" '
            f'height="14" rx="2"/>'
        )
        parts.append(_line("chance", x(item.chance), y - 2, x(item.chance), y + 16))
        parts.append(
            _text(max(x(item.jaccard), x(item.chance)) + 8, y + 12, number(item.jaccard, 2), "", "start")
        )
    for tick in (0.0, 0.5, 1.0):
        parts.append(_text(x(tick), height - 20, number(tick, 1), "tick", "middle"))
    label = "shared units / all units, mean over emotions; upright mark: by chance"
    parts.append(_text(left, height - 4, label, "chance-label", "start"))
    values = "; ".join(f"{item.name} {number(item.jaccard, 2)}" for item in overlaps)
    return _file(width, height, f"Overlap of the units of {name}", f"{values}.", parts)


def _mark(mark: Mark, x: Axis, y: Axis, on_front: bool, label: float | None) -> str:
    """`label` is the height of the mark's name; None where only the file's fragment makes it show."""
    at, up = x(mark.pres.value), y(mark.spec.value)
    flags = {"control": mark.control, "on": on_front, "labelled": label is not None}
    classes = " ".join(["entry", *(name for name, wanted in flags.items() if wanted)])
    parts = [f"<title>{escape(_values(mark))}</title>"]
    if mark.spec.low is not None and mark.spec.high is not None:
        parts.append(_line("ci", at, y(mark.spec.low), at, y(mark.spec.high)))
    if mark.pres.low is not None and mark.pres.high is not None:
        parts.append(_line("ci", x(mark.pres.low), up, x(mark.pres.high), up))
    height = up if label is None else label
    moved = abs(height - up) > 6
    if moved:
        parts.append(_line("leader", at, up, at + 14, height))
    parts.append(f'<circle class="dot" cx="{at}" cy="{up}" r="4.5"/>')
    # A name beside its own dot sits above the line of the interval.
    parts.append(_text(at + (16 if moved else 7), height + (4 if moved else -5), mark.name, "", "start"))
    return f'<g class="{classes}" id="c{mark.digest}">{"".join(parts)}</g>'


def _values(mark: Mark) -> str:
    return f"{mark.name}: specificity {number(mark.spec.value)}, preservation {number(mark.pres.value)}"


def _stairs(best: Sequence[Mark], x: Axis, y: Axis) -> str:
    points: list[str] = []
    for place, mark in enumerate(best):
        if place:
            points.append(f"{x(mark.pres.value)},{y(best[place - 1].spec.value)}")
        points.append(f"{x(mark.pres.value)},{y(mark.spec.value)}")
    return f'<polyline class="front" points="{" ".join(points)}"/>' if len(points) > 1 else ""


def _label_heights(marks: Sequence[Mark], x: Axis, y: Axis) -> dict[str, float]:
    """Heights of the names, each moved down until it covers no other name."""
    heights: dict[str, float] = {}
    placed: list[tuple[float, float, float]] = []
    for mark in sorted(marks, key=lambda mark: (-mark.spec.value, -mark.pres.value, mark.digest)):
        start, height = x(mark.pres.value), y(mark.spec.value)
        end = start + 24 + 6.6 * len(mark.name)
        blocked = sorted(up for first, last, up in placed if first < end and start < last)
        for up in blocked:
            if abs(up - height) < 13:
                height = up + 13
        placed.append((start, end, height))
        heights[mark.digest] = height
    return heights


def _line(shade: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{shade}" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>'


def _text(x: float, y: float, text: str, shade: str, anchor: str) -> str:
    named = f' class="{shade}"' if shade else ""
    return f'<text{named} x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text, quote=False)}</text>'


def _file(width: float, height: float, title: str, description: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}"><title>{escape(title)}</title><desc>{escape(description)}</desc>'
        f"<style>{_style()}</style>{''.join(parts)}</svg>\n"
    )
