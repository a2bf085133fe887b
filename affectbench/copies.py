"""Whether a submission's units are somebody else's: its selections beside those that are published."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from affectbench.overlap import comparable, jaccard, parse_units
from affectbench.record import Part, Record, cell_id

COPY = 0.95
"""From this share of common units on, in whatever order, a selection is taken for a copy."""


class Overlap(Part):
    """How much of one cell's selection a published one has; `share` is the mean over emotions."""

    cell: str
    original: str
    selector: str
    share: float

    @property
    def copied(self) -> bool:
        return self.share >= COPY


def common_share(one: Record, other: Record) -> float:
    """Mean over emotions of the common units' share of the larger set; 1 for the same sets in any order.

    Estimated as `affectbench.overlap` says where sets are large; 0 for other models, tasks or sites.
    Emotions without units on both sides are left out.
    """
    if one.hashes.selection == other.hashes.selection:
        return 1.0
    known = [
        (
            each.cell.model,
            each.cell.task,
            each.cell.site,
            each.task.labels,
            each.model.n_layers,
            each.model.width,
        )
        for each in (one, other)
    ]
    if known[0] != known[1] or one.selection is None or other.selection is None:
        return 0.0
    shares = []
    for place in range(len(one.task.labels)):
        sizes = [each.units_per_emotion[place] for each in (one.selection, other.selection)]
        lists = [parse_units(each.units[place]) for each in (one.selection, other.selection)]
        found = jaccard(*comparable(list(zip(lists, sizes, strict=True))))
        if found is not None:  # J = shared / (a + b - shared), solved for shared.
            shares.append(found * sum(sizes) / (1 + found) / max(sizes))
    return mean(shares) if shares else 0.0


def overlaps(records: Sequence[Record], published: Sequence[Record]) -> list[Overlap]:
    """For each record the nearest published selection, and every one that it copies; nearest first.

    Published cells of the same model, task and origin of units are compared. A method's own cells are no
    originals.
    """
    found: list[Overlap] = []
    for record in records:
        near = [
            Overlap(
                cell=cell_id(record.cell),
                original=cell_id(other.cell),
                selector=other.cell.selector,
                share=common_share(record, other),
            )
            for other in published
            if other.cell.selector != record.cell.selector
            and (other.cell.model, other.cell.task) == (record.cell.model, record.cell.task)
            and other.cell.identification == record.cell.identification
            and record.hashes.selection
            and other.hashes.selection
        ]
        near.sort(key=lambda each: (-each.share, each.original))
        found += near[:1] + [each for each in near[1:] if each.copied]
    return found
