"""What a conformance run found of a model: one JSON document, written by the command, read by the site."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from affectbench.errors import AffectbenchError
from affectbench.record import Part, canonical_json
from affectbench.store import write_atomically

FOLDER = "conformance"
"""Where the reports of a results folder lie, in it or beside it."""
Status = Literal["passed", "failed", "skipped"]


class Outcome(Part):
    """One check. `value` is what was measured, worst case, and passes up to `tolerance`; both are None for
    checks that measure nothing. `reason` says why it failed or was skipped, or what was seen."""

    id: str
    title: str
    status: Status
    reason: str = ""
    value: float | None = None
    tolerance: float | None = None
    seconds: float = Field(ge=0)


class Conformance(Part):
    """All checks of one model, and what they ran on.

    `instance`: a `tiny` one with random weights, or the `checkpoint` itself, whose content hash is `weights`.
    `architecture` is the class of transformers; `family_source` is the hash of the family's file; `card` is
    the card's own. `n_layers` and `width` are None where the wrapper does not find its sites.
    `peak_memory_mib` is of the device where it counts, else of the process.
    """

    schema_version: Literal[1] = 1
    model: str
    version: int
    card: str
    family: str
    family_source: str
    architecture: str
    instance: Literal["tiny", "checkpoint"]
    weights: str
    seed: int
    dtype: str
    device: str
    hardware: str
    versions: dict[str, str]
    n_layers: int | None
    width: int | None
    n_parameters: int
    date: str
    seconds: float = Field(ge=0)
    peak_memory_mib: float = Field(ge=0)
    checks: list[Outcome]

    def count(self, status: Status) -> int:
        return sum(check.status == status for check in self.checks)

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return self.count("failed") == 0

    def as_json(self) -> str:
        return canonical_json(self.model_dump(mode="json"))


def read_report(path: Path) -> Conformance:
    """Raises `AffectbenchError` for a file that is no report."""
    try:
        return Conformance.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        problem = str(error).splitlines()[0]
        raise AffectbenchError(
            f"{path} is no conformance report: {problem}", hint="write it again: harness.py verify-model"
        ) from error


def write_conformance_schema(folder: Path) -> list[Path]:
    """Write the JSON Schema of a report, for validators."""
    path = folder / "conformance.schema.json"
    write_atomically(path, canonical_json(Conformance.model_json_schema()).encode())
    return [path]
