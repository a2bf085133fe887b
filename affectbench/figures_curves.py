"""A statistic against a setting (items, share of units): one line a series, with its intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from affectbench.figures_parts import CHARACTER, Axis, apart, svg, text_at
from affectbench.score_models import Estimate
from affectbench.site_format import interval, number

COLOURS = 8


@dataclass(frozen=True)
class Series:
    """One line: an estimate for each setting, None where there is none."""

    name: str
    values: Sequence[Estimate | None]


def setting_curve(name: str, title: str, axis: str, settings: Sequence[str], series: Sequence[Series]) -> str:
    """Specificity by setting; settings stand at equal distances, in the order given."""
    room = 16 + CHARACTER * max(len(each.name) for each in series)
    height, left, step = 300.0, 44.0, max(64.0, 420.0 / len(settings))
    right = left + step * (len(settings) - 1) + 24
    y = Axis(*_ends(series), height - 46, 14)
    parts = []
    for tick in y.ticks():
        shade = "base" if tick == 0 else "grid"
        parts.append(f'<line class="{shade}" x1="{left:g}" y1="{y(tick)}" x2="{right:g}" y2="{y(tick)}"/>')
        parts.append(text_at(left - 6, y(tick) + 4, number(tick, 2), "tick", "end"))
    places = [left + 12 + step * place for place in range(len(settings))]
    for place, setting in zip(places, settings, strict=True):
        parts.append(text_at(place, height - 28, setting, "tick", "middle"))
    parts.append(text_at((left + right) / 2, height - 6, axis, "axis", "middle"))
    drawn = [each for each in series if any(each.values)]
    heights = apart([y(next(v for v in reversed(each.values) if v).value) for each in drawn], 13)
    for number_of, (each, end) in enumerate(zip(drawn, heights, strict=True)):
        shade = f"e{number_of % COLOURS}"
        shift = 3.0 * (number_of - (len(drawn) - 1) / 2)
        parts += _line(each, [place + shift for place in places], y, f"thin {shade}")
        parts.append(text_at(right + 6, end + 4, each.name, f"end {shade}", "start"))
    told = "; ".join(
        f"{each.name}: "
        + ", ".join(
            f"{setting} {number(value.value, 2)} {interval(value, 2)}"
            for setting, value in zip(settings, each.values, strict=True)
            if value
        )
        for each in drawn
    )
    return svg(name, right + room, height, title, f"{told}.", parts)


def _line(series: Series, places: Sequence[float], y: Axis, shade: str) -> list[str]:
    """The line through the values, and an upright one for each interval."""
    known = [(x, value) for x, value in zip(places, series.values, strict=True) if value]
    points = " ".join(f"{x:g},{y(value.value)}" for x, value in known)
    parts = [f'<polyline class="{shade}" points="{points}"/>']
    for x, value in known:
        low = value.value if value.low is None else value.low
        high = value.value if value.high is None else value.high
        parts.append(f'<polyline class="{shade}" points="{x:g},{y(low)} {x:g},{y(high)}"/>')
    return parts


def _ends(series: Sequence[Series]) -> tuple[float, float]:
    """The lowest and the highest value to be shown, 0 and 0.1 among them."""
    ends = [0.0, 0.1]
    for value in (value for each in series for value in each.values if value):
        ends += [end for end in (value.value, value.low, value.high) if end is not None]
    return min(ends), max(ends)
