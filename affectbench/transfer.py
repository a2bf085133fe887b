"""Transfer: units identified on one benchmark, tested on another.

Once both are there, a transferred result is set beside that of units from the tested benchmark itself.

What a cell takes over comes from the finished cell of the same model, selector, protocol, fraction, seed and
sample of items on the benchmark of identification: its units, by label name, what they are steered by, and
its operating doses. So no label of the tested benchmark enters a transferred claim before its test, and units
are selected once for all benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from affectbench.errors import AffectbenchError, RecordError, ScoreError
from affectbench.plan import Job, shared_labels
from affectbench.record import Cell, Hashes, Identification, Operating, Record, cell_id
from affectbench.score_models import TransferRatio
from affectbench.store import Damaged, Store, read_record
from affectbench.task import InterventionProtocol
from affectbench.transfer_score import transfer_ratio

if TYPE_CHECKING:
    from affectbench.selector import Selection

SHARED = ("model", "protocol", "selector")
"""What a cell has in common with the one that its units are from, by content."""


@dataclass(frozen=True)
class Carried:
    """What a cell takes over from the one that identified its units on another benchmark.

    `selection` holds the labels of both benchmarks, in the order of the tested one; it is None where there
    are no units, and `reason` says why (`error`: for a reason that may go away). `items` is how many items
    the units were identified on.
    """

    selection: Selection | None
    operating: Operating
    items: int
    reason: str = ""
    error: bool = False


@dataclass(frozen=True)
class PlannedCell:
    """A cell before anything is loaded: what its names stand for, the hashes known by then, and what it
    takes over where its units were identified on another benchmark."""

    cell: Cell
    protocol: InterventionProtocol
    hashes: Hashes
    carried: Carried | None = None


def home(cell: Cell) -> Cell:
    """The cell that identified the units of a transferred one."""
    return cell.model_copy(update={"task": cell.origin, "identification": _sample(cell)})


def _sample(cell: Cell) -> Identification | None:
    return cell.identification.at_home if cell.identification is not None else None


def with_carried(
    planned: PlannedCell, job: Job, store: Store, known: Callable[[str], Record | None]
) -> PlannedCell:
    """A planned cell with what it takes over, where it is transferred; `known` finds records of this run."""
    if planned.cell.origin == planned.cell.task:
        return planned
    source = home(planned.cell)
    record = known(cell_id(source)) or _stored(store.record_path(source))
    labels = next(
        shared_labels(each, job.benchmark) for each in job.identified_on if each.name == source.task
    )
    carried = _carried(source, record, store, labels, planned.hashes)
    hashes = planned.hashes.model_copy(
        update={
            "identification": record.hashes.task if record is not None else "",
            "selection": carried.selection.digest if carried.selection is not None else "",
        }
    )
    return replace(planned, carried=carried, hashes=hashes)


def with_ratio(record: Record, store: Store, known: Callable[[str], Record | None]) -> Record:
    """A transferred cell's record, compared with the result of the tested benchmark's own units.

    The same object for other records, and where its ratio is to the result that there is now. `known` finds
    records of this run; others are read from the store.
    """
    if record.cell.origin == record.cell.task or record.scores is None:
        return record
    at_home = record.cell.model_copy(update={"identification": _sample(record.cell)})
    own = known(cell_id(at_home)) or _stored(store.record_path(at_home))
    answers = own.hashes.predictions if own is not None else ""
    if record.transfer is not None and record.transfer.answers == answers:
        return record
    found = _ratio(record, own, store).model_copy(update={"answers": answers})
    return record.model_copy(update={"transfer": found})


def _ratio(record: Record, own: Record | None, store: Store) -> TransferRatio:
    if own is None or own.headline is None or own.operating is None:
        return TransferRatio(reason="no result of units that were identified on the tested benchmark")
    if any(
        getattr(own.hashes, name) != getattr(record.hashes, name) for name in ("task", "model", "protocol")
    ):
        return TransferRatio(reason="the result of the tested benchmark's own units is of another version")
    if record.status != "ok" or own.status != "ok" or record.scores is None or record.operating is None:
        return TransferRatio(reason="a dose of one of the two results collapses the answers")
    if not own.headline.significant:
        return TransferRatio(reason="the tested benchmark's own units have no significant effect there")
    doses = record.operating.suppress_dose, own.operating.suppress_dose
    if doses[0] is None or doses[1] is None:
        return TransferRatio(reason="the suppress arm has no operating dose")
    try:
        moved, own_answers = (store.read_predictions(each.cell)["test"] for each in (record, own))
        seed, draws = record.scores.seed, record.scores.bootstrap_draws
        return transfer_ratio(moved, own_answers, (doses[0], doses[1]), seed=seed, draws=draws)
    except (RecordError, ScoreError) as error:
        return TransferRatio(reason=error.message)


def _stored(path: Path) -> Record | None:
    found = read_record(path) if path.exists() else None
    return None if isinstance(found, Damaged) else found


def _carried(
    source: Cell, record: Record | None, store: Store, labels: tuple[str, ...], hashes: Hashes
) -> Carried:
    from affectbench.selector import Selection

    nothing = Operating(suppress_dose=None, amplify_dose=None, reason="no units were identified")
    if record is None or record.status == "error":
        why = "that cell was not run" if record is None else record.reason
        return Carried(None, nothing, 0, f"no units from {source.task}: {why}", error=True)
    other = [name for name in SHARED if getattr(record.hashes, name) != getattr(hashes, name)]
    if other:
        why = f"that result is of another version of its {' and '.join(other)}"
        return Carried(None, nothing, 0, f"no units from {source.task}: {why}", error=True)
    if record.selection is None or record.operating is None:
        return Carried(None, nothing, 0, f"no units from {source.task}: {record.reason}")
    path = store.selections / f"{cell_id(source)}.safetensors"
    try:
        found = Selection.load(path)
    except AffectbenchError as error:
        return Carried(None, nothing, 0, f"no units from {source.task}: {error.message}", error=True)
    operating = record.operating.model_copy(
        update={"reason": f"chosen on {source.task}: {record.operating.reason}"}
    )
    return Carried(of_labels(found, labels), operating, record.cost.identification_items)


def of_labels(selection: Selection, labels: tuple[str, ...]) -> Selection:
    """The units of a selection for these labels, in this order; none for a label that it does not have.

    Scores are left out: they rank units on another benchmark than the one they would be read with.
    """
    own = dict(zip(selection.labels, selection.units, strict=True))
    units = tuple(own.get(label, np.empty(0, dtype=np.int64)) for label in labels)
    vectors = None
    if selection.vectors is not None:
        rows = dict(zip(selection.labels, selection.vectors, strict=True))
        vectors = tuple(rows.get(label, np.empty(0)) for label in labels)
    return replace(selection, labels=labels, units=units, scores=None, items=(), vectors=vectors)
