"""The same units under several readouts, side by side: label words, lettered options, answer words.

Records belong together where model, protocol and units are the same by content. So units identified on one
task and tested on another that asks the same in letters (a suite with `transfer`) stand in one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from affectbench.record import Record
from affectbench.score_models import Estimate

CONTROL, RATIO = "answer words", "word confound"


def readout_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """One row for each set of units: model, selector, where it was identified, and its specificity (suppress
    arm, operating dose) on each task, on the answer-word control of the first, and the ratio of these two.

    A task that units were not tested on, or on which they have no score, is None.
    """
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        if record.headline is not None and record.selection is not None:
            cell, hashes = record.cell, record.hashes
            key = (cell.model, cell.selector, cell.intervention, cell.fraction, cell.seed, cell.origin)
            groups.setdefault((*key, hashes.model, hashes.protocol, hashes.selection), []).append(record)
    tasks = sorted({record.cell.task for own in groups.values() for record in own})
    return [_row(own, tasks) for _, own in sorted(groups.items(), key=lambda group: group[0])]


def _row(own: Sequence[Record], tasks: Sequence[str]) -> dict[str, Any]:
    home = next((record for record in own if record.cell.identification is None), own[0])
    specs = {record.cell.task: record.headline.spec for record in own if record.headline is not None}
    words = home.answer_words.doses if home.answer_words is not None else []
    return {
        "model": home.cell.model,
        "selector": home.cell.selector,
        "identified on": home.cell.origin,
        "control": home.control,
        **{task: specs.get(task) for task in tasks},
        CONTROL: next((dose.spec for dose in words if dose.arm == "suppress"), None),
        RATIO: home.word_confound.suppress if home.word_confound is not None else None,
    }


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row for programs: three columns for each estimate."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if name in ("model", "selector", "identified on", "control"):
            found[name] = value
            continue
        known = value if isinstance(value, Estimate) else None
        found |= {name: known and known.value, f"{name} low": known and known.low}
        found[f"{name} high"] = known and known.high
    return found


def shown(row: dict[str, Any]) -> dict[str, str]:
    """A row for people: estimates with their intervals; `control` is left to the caller."""
    return {name: _shown(value) for name, value in row.items() if name != "control"}


def _shown(value: Any) -> str:
    if not isinstance(value, Estimate):
        return "–" if value is None else str(value)
    if value.low is None or value.high is None:
        return f"{value.value:.2f}"
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"
