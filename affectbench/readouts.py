"""The same units under several readouts, side by side: label words, lettered options, answer words.

Records belong together where model, protocol and units are the same by content. So units identified on one
task and tested on another that asks the same in letters (a suite with `transfer`) stand in one row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from affectbench.score_models import Estimate
from affectbench.site_summary import Summary

CONTROL, RATIO = "answer words", "word confound"
TEXTS = ("model", "selector", "identified on", "control")
"""Columns of `readout_rows` that are no estimates."""


@dataclass(frozen=True)
class SameUnits:
    """One set of units: `home`, where they were identified if that is there, and what they do to each task.

    Specificity is that of the suppress arm at the operating dose.
    """

    home: Summary
    by_task: Mapping[str, Summary]

    def spec(self, task: str) -> Estimate | None:
        """Specificity on a task; None where these units were not tested on it."""
        found = self.by_task.get(task)
        return found.headline.spec if found is not None and found.headline is not None else None

    @property
    def confound(self) -> Estimate | None:
        """Specificity on the answer-word control of `home` over that on its task."""
        return self.home.word_confound.suppress if self.home.word_confound is not None else None

    @property
    def readouts(self) -> frozenset[str]:
        """How the tasks that they were tested on take their answers, as far as records say."""
        return frozenset(record.task.readout for record in self.by_task.values()) - {""}


def same_units(records: Sequence[Summary]) -> list[SameUnits]:
    """Each set of units that has a score, ordered by model, selector, protocol and where it is from."""
    groups: dict[tuple[Any, ...], list[Summary]] = {}
    for record in records:
        if record.headline is not None and record.selection is not None:
            cell, hashes = record.cell, record.hashes
            key = (cell.model, cell.selector, cell.intervention, cell.fraction, cell.seed, cell.origin)
            groups.setdefault((*key, hashes.model, hashes.protocol, hashes.selection), []).append(record)
    found = []
    for _, own in sorted(groups.items(), key=lambda group: group[0]):
        home = next((record for record in own if record.cell.origin == record.cell.task), own[0])
        found.append(SameUnits(home, {record.cell.task: record for record in own}))
    return found


def readout_rows(records: Sequence[Summary]) -> list[dict[str, Any]]:
    """One row for each set of units: model, selector, where it was identified, and its specificity (suppress
    arm, operating dose) on each task, on the answer-word control of the first, and the ratio of these two.

    A task that units were not tested on, or on which they have no score, is None.
    """
    every = same_units(records)
    tasks = sorted({task for units in every for task in units.by_task})
    return [
        {
            "model": units.home.cell.model,
            "selector": units.home.cell.selector,
            "identified on": units.home.cell.origin,
            "control": units.home.control,
            **{task: units.spec(task) for task in tasks},
            CONTROL: units.home.words,
            RATIO: units.confound,
        }
        for units in every
    ]
