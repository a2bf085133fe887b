"""Timing that can be trusted: CPU time, sides taken in turn, medians and the range of the ratio."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from affectbench.errors import AffectbenchError

Clock = Callable[[], float]


class BenchmarkError(AffectbenchError):
    """A comparison whose sides do not agree, or that cannot be made: its time would mean nothing."""


@dataclass(frozen=True)
class Result:
    """One comparison.

    `ours` and `other` are medians over the repeats, in `unit`; `ratio` is the median of other / ours, taken
    repeat by repeat, and `spread` its smallest and largest value. Above 1 means that ours is smaller.
    """

    name: str
    ours: float
    other: float
    ratio: float
    spread: tuple[float, float]
    unit: str

    def as_json(self) -> dict[str, Any]:
        """Plain data, rounded to five significant digits."""
        return {
            key: [_rounded(each) for each in value] if key == "spread" else _rounded(value)
            for key, value in asdict(self).items()
        }


@dataclass
class Settings:
    """How much to do: `quick` for a look in seconds, `full` for the whole quick start, else in between."""

    quick: bool = False
    full: bool = False
    repeats: int = 3

    def say(self, text: str) -> None:
        """A line of progress on stderr."""
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Report:
    """What a benchmark found, and what it left out and why."""

    results: list[Result]
    skipped: tuple[str, ...] = ()


def cpu_seconds() -> float:
    """User and system time of all threads of this process, in seconds. Nothing here starts another one."""
    return time.process_time()


def timed(call: Callable[[], object], clock: Clock = cpu_seconds) -> float:
    """Seconds on `clock` that `call` takes; garbage of earlier calls is collected first and not counted."""
    gc.collect()
    started = clock()
    call()
    return clock() - started


def in_turn(
    sides: Mapping[str, Callable[[], object]], repeats: int, clock: Clock = cpu_seconds
) -> dict[str, list[float]]:
    """Seconds of each side, `repeats` times A, B, C, A, B, C, ..., so that a slow spell hits all alike."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    gc.collect()
    gc.freeze()  # What is alive already need not be looked through before every call.
    try:
        for _ in range(repeats):
            for name, call in sides.items():
                found[name].append(timed(call, clock))
    finally:
        gc.unfreeze()
    return found


def compared(name: str, ours: list[float], other: list[float], unit: str) -> Result:
    """The comparison of two series that were taken in turn."""
    ratios = [theirs / mine for mine, theirs in zip(ours, other, strict=True)]
    return Result(
        name=name,
        ours=statistics.median(ours),
        other=statistics.median(other),
        ratio=statistics.median(ratios),
        spread=(min(ratios), max(ratios)),
        unit=unit,
    )


def agree(condition: bool, what: str) -> None:
    """Raises `BenchmarkError` where the two sides of a comparison do not give the same."""
    if not condition:
        raise BenchmarkError(
            f"the sides of a comparison disagree: {what}",
            hint="this is a defect of the engine or of the benchmark; no time is reported",
        )


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value
