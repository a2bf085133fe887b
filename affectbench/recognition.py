"""Recognition before and after amplifying untold of an item's emotion, over draws of identification items.

Of each way of amplifying, at the dose chosen on validation: accuracy and macro-F1 on test items without
intervention and under it, and what is left of the language model under the same hook. Where units were found
on a few items, several times, the mean over these draws and its standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from affectbench.site_format import general
from affectbench.site_summary import Recognised, Summary

LEVEL = 0.05


@dataclass(frozen=True)
class Spread:
    """A mean over draws and their standard deviation (n - 1), None for a single one."""

    mean: float
    sd: float | None

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if self.sd is None else f"{self.mean:.3f} ± {self.sd:.3f}"


@dataclass(frozen=True)
class Improvement:
    """One way of amplifying with one method's units, over its draws of `items` items an emotion (None: all).

    `better` and `worse`: draws whose interval of the change of macro-F1 lies above, or below, 0. `beyond`:
    draws with p <= 0.05 against random units in the same place. `lost`: draws without a result.
    """

    records: Sequence[Summary]
    targeting: str
    items: int | None
    accuracy_before: Spread
    accuracy: Spread
    macro_f1_before: Spread
    macro_f1: Spread
    change: Spread
    pres: Spread | None
    better: int
    worse: int
    beyond: int
    lost: int
    doses: Sequence[float]

    @property
    def record(self) -> Summary:
        """The first draw's."""
        return self.records[0]


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of at least one value."""
    return Spread(mean(values), stdev(values) if len(values) > 1 else None)


def improvements(records: Sequence[Summary]) -> list[Improvement]:
    """One for each method, model, task, benchmark and number of items of identification, and way of
    amplifying; methods before controls."""
    groups: dict[tuple[Any, ...], list[Summary]] = {}
    for record in records:
        cell, hashes, origin = record.cell, record.hashes, record.cell.identification
        items = origin.items if origin is not None else None
        key = (
            *(record.model.instrument, cell.model, hashes.model, cell.task, hashes.task),
            *(
                cell.origin,
                record.control,
                cell.selector,
                hashes.selector,
                cell.intervention,
                hashes.protocol,
            ),
            *(cell.fraction, cell.seed, items is None, items or 0),
        )
        groups.setdefault(key, []).append(record)
    found = []
    for _, own in sorted(groups.items(), key=lambda group: group[0]):
        ways = sorted({each.targeting for record in own for each in record.recognition})
        found += [_improvement(own, way) for way in ways]
    return found


def _improvement(records: Sequence[Summary], targeting: str) -> Improvement:
    pairs = [
        (record, each) for record in records for each in record.recognition if each.targeting == targeting
    ]
    every = [each for _, each in pairs]
    origin = records[0].cell.identification

    def over(value: Callable[[Recognised], float]) -> Spread:
        return spread([value(each) for each in every])

    changes = [each.recognition.macro_f1_change for each in every]
    kept = [each.pres.value for each in every if each.pres is not None]
    return Improvement(
        records=[record for record, _ in pairs],
        targeting=targeting,
        items=origin.items if origin is not None else None,
        accuracy_before=over(lambda each: each.recognition.accuracy_before),
        accuracy=over(lambda each: each.recognition.accuracy_after),
        macro_f1_before=over(lambda each: each.recognition.macro_f1_before),
        macro_f1=over(lambda each: each.recognition.macro_f1_after),
        change=over(lambda each: each.recognition.macro_f1_change.value),
        pres=spread(kept) if kept and len(kept) == len(every) else None,
        better=sum(change.low is not None and change.low > 0 for change in changes),
        worse=sum(change.high is not None and change.high < 0 for change in changes),
        beyond=sum(each.p_random is not None and each.p_random <= LEVEL for each in every),
        lost=len(records) - len(every),
        doses=sorted({each.dose for each in every}),
    )


def recognition_rows(records: Sequence[Summary]) -> list[dict[str, Any]]:
    """One row for each improvement. Values are text, numbers, or a `Spread`."""
    return [
        {
            "model": each.record.cell.model,
            "task": each.record.cell.task,
            "identified on": each.record.cell.origin,
            "selector": each.record.cell.selector,
            "protocol": each.record.cell.intervention,
            "control": each.record.control,
            "items": "all" if each.items is None else str(each.items),
            "draws": len(each.records),
            "rule": each.targeting,
            "doses": ", ".join(map(general, each.doses)),
            "accuracy before": each.accuracy_before,
            "accuracy": each.accuracy,
            "macro-F1 before": each.macro_f1_before,
            "macro-F1": each.macro_f1,
            "change": each.change,
            "better": each.better,
            "worse": each.worse,
            "beyond random": each.beyond,
            "preservation": each.pres,
        }
        for each in improvements(records)
    ]


def flat_recognition(row: dict[str, Any]) -> dict[str, Any]:
    """A row for programs: two columns for each spread."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Spread) or (value is None and name == "preservation"):
            found |= {name: value and value.mean, f"{name} sd": value and value.sd}
        else:
            found[name] = value
    return found


def shown_recognition(row: dict[str, Any]) -> dict[str, str]:
    """A row for people; `control` is left to the caller."""
    return {name: "–" if value is None else str(value) for name, value in row.items() if name != "control"}
