"""How far two selections agree, from the small list of units that a record carries.

A list holds all units of an emotion, or the `LISTED` of them with the smallest hashes where there are more: a
bottom-k sketch (Beyer et al. 2007, "On synopses for distinct-value estimation"). Below the smallest last hash
of two such lists both are complete, so that the overlap there estimates the overlap of the sets. With m units
below it the standard error is sqrt(J (1 - J) / m), at most 0.03 for m = 256; whole lists give it exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

LISTED = 256
"""Units listed for each emotion. Sets up to this size are listed whole."""

MASK = (1 << 64) - 1


def unit_hash(unit: int) -> int:
    """A fixed 64-bit mix of a unit's index (splitmix64, Steele et al. 2014), the same on every machine."""
    mixed = (unit + 0x9E3779B97F4A7C15) & MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
    return mixed ^ (mixed >> 31)


def listed_units(units: Iterable[int]) -> str:
    """The units a record lists for one emotion: flat indices, ascending, separated by spaces."""
    kept = sorted({int(unit) for unit in units}, key=unit_hash)[:LISTED]
    return " ".join(map(str, sorted(kept)))


def parse_units(text: str) -> list[int]:
    """The inverse of `listed_units`."""
    return list(map(int, text.split()))


def comparable(lists: Sequence[tuple[Sequence[int], int]]) -> list[frozenset[int]]:
    """Lists cut to the hashes below which all of them are complete.

    Args:
        lists: for each selection its listed units, and how many units it has in all.
    """
    ends = [max(map(unit_hash, units)) for units, total in lists if len(units) < total]
    if not ends:
        return [frozenset(units) for units, _ in lists]
    return [frozenset(unit for unit in units if unit_hash(unit) <= min(ends)) for units, _ in lists]


def jaccard(one: frozenset[int], other: frozenset[int]) -> float | None:
    """Shared units over all units of either set; None where both are empty."""
    either = len(one | other)
    return len(one & other) / either if either else None


def by_chance(one: int, other: int, units: int) -> float:
    """The overlap expected of two random sets of these sizes among `units` units (ratio of means)."""
    shared = one * other / units
    return shared / (one + other - shared) if one + other else 0.0
