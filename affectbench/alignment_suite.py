"""What an alignment suite says: which models and selectors are put beside which controls on one task."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from affectbench.task_file import TaskFile
from affectbench.task_parts import Count, Name, Seed

Study = Literal["alignment", "intervention", "recovery", "nulls"]


class AlignmentSuite(TaskFile):
    """One alignment task over several models and selectors; `align` runs it.

    `models` are those of the task unless some are named; a card with `shuffled` or `untrained` weights is
    a control. `selectors` name emotion units of each model, which are switched off; `controls` are selectors
    that know nothing of emotions. Beside each stand `draws` sets of random units of the same layers, and as
    many that are as loud.
    """

    digest_without: ClassVar[frozenset[str]] = frozenset({"models", "selectors", "controls", "studies"})

    kind: Literal["alignment-suite"]
    task: Name
    models: tuple[Name, ...] = ()
    studies: Annotated[tuple[Study, ...], Field(min_length=1)] = ("alignment", "intervention")
    selectors: Annotated[tuple[Name, ...], Field(min_length=1)]
    controls: tuple[Name, ...] = ()
    draws: Count = 20
    seed: Seed = 0
