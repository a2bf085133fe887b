"""Scenarios for expression: one neutral situation in the first person, and three ways it may end.

A file has one JSON object a line: ``theme``, ``scenario``, ``event`` with the keys ``positive``, ``neutral``
and ``negative``, ``skeleton_id`` (a name), and in our own file ``split``. It is the layout of the authors of
arXiv 2510.11328; our own file, `tasks/data/scenarios.jsonl`, was written for this project.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from affectbench.content import builtin_root
from affectbench.examples import DatasetError
from affectbench.table_rows import json_rows
from affectbench.task_parts import SplitName, Text

Valence = Literal["positive", "neutral", "negative"]
VALENCES: Final[tuple[Valence, ...]] = ("positive", "neutral", "negative")
EMOTIONS: Final = ("anger", "sadness", "happiness", "fear", "surprise", "disgust")
"""The six emotions of the paper, in its order."""


@dataclass(frozen=True)
class Scenario:
    """A situation, the event that follows for each valence, and the split it belongs to, if its file says."""

    id: str
    theme: str
    text: str
    events: Mapping[Valence, str]
    split: SplitName | None = None


class _Events(BaseModel):
    model_config = ConfigDict(extra="forbid")

    positive: Text
    neutral: Text
    negative: Text


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid")

    theme: Text
    scenario: Text
    event: _Events
    skeleton_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    split: SplitName | None = None


def read_scenarios(path: Path) -> list[Scenario]:
    """All scenarios of a file, in its order.

    Raises `DatasetError` naming file, line and key; a name or a scenario that comes twice is an error too.
    """
    found: list[Scenario] = []
    seen: dict[str, str] = {}
    for number, row in json_rows(path):
        where = f"{path}:{number}"
        scenario = _scenario(where, row)
        for value in (scenario.id, scenario.text.strip().lower()):
            if value in seen:
                raise DatasetError(f"{where}: {value!r} is already in {seen[value]}")
            seen[value] = where
        found.append(scenario)
    if not found:
        raise DatasetError(f"{path}: there is no scenario in it")
    return found


def own_scenarios() -> list[Scenario]:
    """The project's own set: 8 themes x 20 scenarios; 10, 4 and 6 of a theme are in the three splits."""
    return read_scenarios(builtin_root() / "tasks" / "data" / "scenarios.jsonl")


def _scenario(where: str, row: Mapping[Any, Any]) -> Scenario:
    try:
        read = _Row.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise DatasetError(
            f"{where}: {place}: {first['msg']}",
            hint="a line has theme, scenario, event (positive, neutral, negative), skeleton_id, maybe split",
        ) from error
    events: dict[Valence, str] = {valence: getattr(read.event, valence) for valence in VALENCES}
    return Scenario(read.skeleton_id, read.theme, read.scenario, events, read.split)
