"""How far the entries of one comparison select the same units, from the units that their records list."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from affectbench.overlap import comparable, parse_units
from affectbench.site_data import Group
from affectbench.site_summary import Summary
from affectbench.sites import FloatArray

NEAREST = 10
"""Overlaps shown on an entry's page: the largest ones."""
COLUMNS = 4096
"""Units that are counted at a time, so that memory stays small."""
MATRIX = 16
"""Rows of the table of a comparison: the first of its board, controls included."""


@dataclass(frozen=True)
class Overlaps:
    """Overlaps of all entries of a group that selected units, in the board's order.

    `jaccard` and `chance` (records, records) are means over the emotions in which one of the two has units:
    shared units over all units of either, and what random units of the same number would give. NaN where no
    emotion has any.
    """

    records: list[Summary]
    jaccard: FloatArray
    chance: FloatArray

    def nearest(self, place: int) -> list[int]:
        """Places of the others that overlap most with the entry at `place`, largest first."""
        row = np.nan_to_num(self.jaccard[place], nan=-1.0)
        row[place] = -1.0
        order = np.argsort(-row, kind="stable")[:NEAREST]
        return [int(other) for other in order if row[other] >= 0]

    def matrix(self) -> tuple[list[Summary], list[list[float | None]]]:
        """The board's first entries and their overlaps with each other; None on the diagonal."""
        shown = self.records[:MATRIX]
        rows = self.jaccard[: len(shown), : len(shown)]
        return shown, [
            [None if i == j or np.isnan(value) else float(value) for j, value in enumerate(row)]
            for i, row in enumerate(rows)
        ]


def overlaps(group: Group) -> Overlaps:
    """The overlaps of a group. Its rows share model and task, so that units and emotions are the same."""
    records = [row.record for row in group.rows if row.record.selection]
    n = len(records)
    shared, chance, counted = (np.zeros((n, n)) for _ in range(3))
    units = group.record.model.n_layers * group.record.model.width
    for emotion in range(len(group.record.task.labels)):
        sizes = np.array(
            [r.selection.units_per_emotion[emotion] for r in records if r.selection], dtype=float
        )
        both = _shared_units(records, emotion)
        own = np.diag(both)
        either = own[:, None] + own[None, :] - both
        shared += np.divide(both, either, out=np.zeros_like(both), where=either > 0)
        expected = sizes[:, None] * sizes[None, :] / units
        total = sizes[:, None] + sizes[None, :] - expected
        chance += np.divide(expected, total, out=np.zeros_like(total), where=total > 0)
        counted += either > 0
    with np.errstate(invalid="ignore"):
        return Overlaps(records, shared / np.where(counted, counted, np.nan), chance / np.maximum(counted, 1))


def _shared_units(records: list[Summary], emotion: int) -> FloatArray:
    """Numbers of shared units (records, records) where all lists are complete; own ones on the diagonal."""
    parts = [record.selection for record in records if record.selection]
    lists = [(parse_units(part.units[emotion]), part.units_per_emotion[emotion]) for part in parts]
    sets = comparable(lists)
    holders = np.repeat(np.arange(len(sets)), [len(units) for units in sets])
    units = np.fromiter((unit for own in sets for unit in own), dtype=np.int64, count=len(holders))
    _, columns = np.unique(units, return_inverse=True)
    both = np.zeros((len(sets), len(sets)))
    for first in range(0, int(columns.max(initial=-1)) + 1, COLUMNS):
        inside = (columns >= first) & (columns < first + COLUMNS)
        held = np.zeros((len(sets), COLUMNS), dtype=np.float32)
        held[holders[inside], columns[inside] - first] = 1
        both += held @ held.T
    return both
