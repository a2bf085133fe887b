"""Numbers as the site shows them, and the positions of interval bars. Pure functions on values."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from affectbench.score_models import Estimate, Interval

MISSING = "–"


def number(value: float | None, digits: int = 3) -> str:
    """A fixed-point number with a true minus sign; an en dash for a missing one, never `-0.000`."""
    if value is None:
        return MISSING
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "\N{MINUS SIGN}")


def general(value: float | None) -> str:
    """A dose, a fraction or a count in its shortest form."""
    return MISSING if value is None else f"{value:g}".replace("-", "\N{MINUS SIGN}")


def shortened(value: float | None) -> str:
    """A number in the room of a figure's field: two places, or three digits where it is large or tiny."""
    if value is None:
        return MISSING
    plain = value == 0 or 0.005 <= abs(value) < 100
    return number(value, 2) if plain else f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def measured(value: float | None) -> str:
    """A difference or its bound, to two digits."""
    return MISSING if value is None else f"{value:.2g}".replace("-", "\N{MINUS SIGN}")


def thousands(value: int) -> str:
    """A count with narrow spaces between groups of three digits."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def p_value(value: float | None) -> str:
    """A p value to three places; below that only the bound."""
    if value is None:
        return MISSING
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def interval(estimate: Estimate | Interval | None, digits: int = 3) -> str:
    """`[low, high]`, or a plain statement that there is no interval."""
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return "no interval"
    return f"[{number(estimate.low, digits)}, {number(estimate.high, digits)}]"


def thousandths(value: float | None) -> int | None:
    """A value as shown to three places, as a whole number: what the tables' script gets."""
    return None if value is None else round(float(f"{value:.3f}") * 1000)


def slug(name: str) -> str:
    """A name as a file name: itself where that is safe, else cleaned and told apart by 8 hex of its hash."""
    if re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,80}", name):
        return name
    cleaned = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60]
    return f"{cleaned}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def spread(values: Iterable[float | None], digits: int = 3) -> str:
    """One number where all values agree as shown, else their range; never a mean over unlike records."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return MISSING
    low, high = number(known[0], digits), number(known[-1], digits)
    return low if low == high else f"{low} to {high}"


@dataclass(frozen=True)
class Scale:
    """A linear axis shared by the bars of one column, so that their lengths compare."""

    low: float
    high: float

    def percent(self, value: float) -> float:
        """The position of a value in per cent of the axis, clipped to its ends."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, share)), 1)


def shared_scale(estimates: Iterable[Estimate | None], *, least: float = 0.1) -> Scale:
    """An axis that holds 0 and every interval, at least `least` wide on the positive side."""
    ends = [0.0, least]
    for estimate in estimates:
        if estimate is not None:
            ends += [end for end in (estimate.value, estimate.low, estimate.high) if end is not None]
    return Scale(min(ends), max(ends))


@dataclass(frozen=True)
class Bar:
    """An estimate with the positions of its interval bar in per cent; `width` is 0 without an interval."""

    value: float
    text: str
    interval: str
    at: float
    start: float
    width: float
    zero: float


def bar(estimate: Estimate | None, scale: Scale) -> Bar | None:
    """The bar of an estimate on a shared axis; None for a missing estimate."""
    if estimate is None:
        return None
    low = estimate.value if estimate.low is None else estimate.low
    high = estimate.value if estimate.high is None else estimate.high
    start = scale.percent(low)
    return Bar(
        value=estimate.value,
        text=number(estimate.value),
        interval=interval(estimate),
        at=scale.percent(estimate.value),
        start=start,
        width=round(scale.percent(high) - start, 1),
        zero=scale.percent(0.0),
    )
