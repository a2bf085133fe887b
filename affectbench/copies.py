"""Whether a submission's units are somebody else's: its selections beside those that are published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from affectbench.errors import AffectbenchError
from affectbench.record import Part, Record, cell_id
from affectbench.selector import Selection
from affectbench.store import Store

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


def common_share(one: Selection, other: Selection) -> float:
    """Mean over emotions of the common units' share of the larger set; 1 for the same sets in any order.

    0 for selections of another site, shape or label list. Emotions without units on both sides are left out.
    """
    if (one.site, one.shape, one.labels) != (other.site, other.shape, other.labels):
        return 0.0
    shares = [
        np.intersect1d(mine, theirs).size / max(mine.size, theirs.size)
        for mine, theirs in zip(one.units, other.units, strict=True)
        if max(mine.size, theirs.size)
    ]
    return float(np.mean(shares)) if shares else 0.0


def overlaps(records: Sequence[Record], store: Store, published: Store) -> list[Overlap]:
    """The nearest published selection for each cell, and every one that is a copy.

    `store` holds the selections of `records`. Published cells of the same model and task are compared; where
    a published selection's file is missing, its hash alone is. A method's own cells are no originals.
    """
    known = [record for record in published.read_all()[0] if record.hashes.selection]
    loaded = {cell_id(record.cell): _selection(published, record) for record in known}
    found: list[Overlap] = []
    for record in records:
        own = _selection(store, record)
        if own is None:
            continue
        near = []
        for other in known:
            same = (other.cell.model, other.cell.task) == (record.cell.model, record.cell.task)
            if not same or other.cell.selector == record.cell.selector:
                continue
            theirs = loaded[cell_id(other.cell)]
            share = float(other.hashes.selection == own.digest)
            if theirs is not None and not share:
                share = common_share(own, theirs)
            near.append(
                Overlap(
                    cell=cell_id(record.cell),
                    original=cell_id(other.cell),
                    selector=other.cell.selector,
                    share=share,
                )
            )
        near.sort(key=lambda each: (-each.share, each.original))
        found += near[:1] + [each for each in near[1:] if each.copied]
    return found


def selection_path(root: Path, record: Record) -> Path:
    """Where the selection of a record is kept below a results folder."""
    return root / "selections" / f"{cell_id(record.cell)}.safetensors"


def _selection(store: Store, record: Record) -> Selection | None:
    """A cell's stored selection; None where it is missing or damaged, which the gates report."""
    path = selection_path(store.root, record)
    try:
        return Selection.load(path) if path.is_file() else None
    except AffectbenchError:
        return None
