"""What a cell gives, apart from the engine that runs it: who keeps results need not load torch."""

from __future__ import annotations

from dataclasses import dataclass

from affectbench.outcomes import Outcomes
from affectbench.record import Record
from affectbench.replies import Replies
from affectbench.selector import Selection


@dataclass(frozen=True)
class CellResult:
    """A finished cell: its record, and what it was made from where it got that far; `replies` of a task of
    expression."""

    record: Record
    outcomes: dict[str, Outcomes]
    selection: Selection | None
    replies: Replies | None = None
