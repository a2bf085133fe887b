"""The analysis record: what is found of a model beside the cells (flows over layers, geometry, agreement).

One JSON document an analysis, in the folder `analyses/` of a results folder, sealed by its content's hash and
made of parts that the site can draw: curves, matrices, maps, tables and findings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, model_validator

from affectbench.errors import RecordError
from affectbench.record import Part, canonical_json, file_part, hash_of
from affectbench.score_models import Estimate
from affectbench.store import Damaged, write_atomically

FOLDER = "analyses"
"""Where the analyses of a results folder lie."""
Numbers = list[float | None]
Settings = dict[str, str | bool | int | float | list[str] | list[int] | list[float] | None]
Word = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=80)]
"""A name that is safe as the id of a part of a page."""


def numbers(values: npt.ArrayLike) -> Numbers:
    """A one-dimensional array as a record holds it: what is not finite becomes None."""
    array = np.asarray(values, dtype=np.float64)
    return [float(value) if np.isfinite(value) else None for value in array.ravel()]


def grid(values: npt.ArrayLike) -> list[Numbers]:
    """A two-dimensional array, row by row, as a record holds it; see `numbers`."""
    return [numbers(row) for row in np.asarray(values, dtype=np.float64)]


class Series(Part):
    """One line of a curve: a value at each x, with the ends of its interval where there is one."""

    label: str
    values: Numbers
    low: Numbers = Field(default=[])
    high: Numbers = Field(default=[])


class Mark(Part):
    """A place on the x axis worth a line, such as a change point, with its interval."""

    label: str
    x: float
    low: float | None = None
    high: float | None = None


class Named(Part):
    """A part with a name that no other part of its analysis has."""

    name: Word


class Curve(Named):
    """Several series over one ascending x. Units stand in the labels of the axes; `reference` is a value to
    compare with, such as chance."""

    title: str
    x_label: str
    y_label: str
    x: list[float] = Field(min_length=1)
    series: list[Series] = Field(min_length=1)
    marks: list[Mark] = Field(default=[])
    reference: float | None = None
    reference_label: str = ""
    note: str = ""

    @model_validator(mode="after")
    def _fits(self) -> Curve:
        if any(second <= first for first, second in zip(self.x, self.x[1:], strict=False)):
            raise ValueError(f"curve {self.name}: x must ascend")
        for each in self.series:
            for key in ("values", "low", "high"):
                found = len(getattr(each, key))
                if found != len(self.x) and (found or key == "values"):
                    raise ValueError(
                        f"curve {self.name}: series {each.label}: {found} {key} for {len(self.x)} x"
                    )
            if bool(each.low) != bool(each.high):
                raise ValueError(f"curve {self.name}: series {each.label}: an interval has two ends")
        _distinct(f"curve {self.name}: series", (each.label for each in self.series))
        return self


class Matrix(Named):
    """Values by row and column, with intervals of the same shape where there are any.

    `scale`: values that diverge from 0, or that grow from 0. Values compare within one matrix.
    """

    title: str
    row_label: str = ""
    column_label: str = ""
    rows: list[str] = Field(min_length=1)
    columns: list[str] = Field(min_length=1)
    values: list[Numbers]
    low: list[Numbers] = Field(default=[])
    high: list[Numbers] = Field(default=[])
    scale: Literal["diverging", "sequential"] = "sequential"
    note: str = ""

    @model_validator(mode="after")
    def _fits(self) -> Matrix:
        for key in ("values", "low", "high"):
            found: list[Numbers] = getattr(self, key)
            whole = len(found) == len(self.rows) and all(len(row) == len(self.columns) for row in found)
            if not whole and (found or key == "values"):
                raise ValueError(f"matrix {self.name}: {key}: not {len(self.rows)} x {len(self.columns)}")
        if bool(self.low) != bool(self.high):
            raise ValueError(f"matrix {self.name}: an interval has two ends")
        _distinct(f"matrix {self.name}: rows", self.rows)
        _distinct(f"matrix {self.name}: columns", self.columns)
        return self


class Topography(Named):
    """Values at places of a head seen from above, one head a panel; only `panels` x `points` values.

    `x` and `y` in head radii: the nose at (0, 1), the right ear at (1, 0).
    """

    title: str
    points: list[str] = Field(min_length=1)
    x: list[float]
    y: list[float]
    panels: list[str] = Field(min_length=1)
    values: list[Numbers]
    scale: Literal["diverging", "sequential"] = "diverging"
    note: str = ""

    @model_validator(mode="after")
    def _fits(self) -> Topography:
        if not len(self.points) == len(self.x) == len(self.y):
            raise ValueError(f"map {self.name}: each point needs x and y")
        if len(self.values) != len(self.panels) or any(len(row) != len(self.points) for row in self.values):
            raise ValueError(f"map {self.name}: values: not {len(self.panels)} x {len(self.points)}")
        _distinct(f"map {self.name}: points", self.points)
        _distinct(f"map {self.name}: panels", self.panels)
        return self


Value = str | int | float | Estimate | None


class Column(Part):
    """A column of a table; `digits` are the places after the point of its numbers."""

    name: str
    digits: int = Field(default=3, ge=0, le=9)


class Table(Named):
    """Rows of texts, numbers and estimates; the first column names the row."""

    title: str
    columns: list[Column] = Field(min_length=1)
    rows: list[list[Value]]
    note: str = ""

    @model_validator(mode="after")
    def _fits(self) -> Table:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.name}: {len(row)} values for {len(self.columns)} columns")
        _distinct(f"table {self.name}: columns", (column.name for column in self.columns))
        return self


class Finding(Named):
    """One result in a sentence, with its number. `p` as the sentence says; None where nothing was tested."""

    text: str
    value: Estimate | None = None
    p: float | None = Field(default=None, ge=0, le=1)


class AnalysisHashes(Part):
    """What an analysis follows from, by content.

    `inputs`: hashes by what they are of (`task`, `model`, `dictionary`, `recordings`, ...); `code`: of the
    source that computes it; `record` seals all that the analysis says.
    """

    inputs: dict[Word, str]
    code: str
    record: str = ""


class AnalysisCost(Part):
    """What it took. `forward_passes` are those of this analysis alone."""

    wall_s: float = Field(ge=0)
    cpu_s: float = Field(ge=0)
    forward_passes: int = Field(default=0, ge=0)
    peak_memory_mib: float = Field(default=0, ge=0)


class AnalysisProvenance(Part):
    """Where, when and with which library versions it was run; times are ISO 8601 with an offset."""

    affectbench: str
    python: str
    platform: str
    threads: int
    versions: dict[str, str]
    command: str
    started: str
    finished: str


class Analysis(Part):
    """One analysis. `kind` says what was asked, `name` is its file's; a `model` or `task` is empty where the
    analysis is over several or none.

    `settings` are those that can change a number; `n` counts what it was made of (items, clusters, ...);
    `instrument` marks a model built to calibrate the benchmark. Names of parts are distinct.
    """

    schema_version: Literal[1] = 1
    kind: Word
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=160)
    title: str
    description: str = ""
    model: str = ""
    task: str = ""
    instrument: bool = False
    settings: Settings = Field(default={})
    n: dict[str, int]
    seed: int
    findings: list[Finding] = Field(default=[])
    curves: list[Curve] = Field(default=[])
    matrices: list[Matrix] = Field(default=[])
    maps: list[Topography] = Field(default=[])
    tables: list[Table] = Field(default=[])
    notes: list[str] = Field(default=[])
    hashes: AnalysisHashes
    cost: AnalysisCost
    provenance: AnalysisProvenance

    @model_validator(mode="after")
    def _parts_differ(self) -> Analysis:
        parts = (*self.findings, *self.curves, *self.matrices, *self.maps, *self.tables)
        _distinct(f"analysis {self.name}: parts", (part.name for part in parts))
        if not parts:
            raise ValueError(
                f"analysis {self.name}: it says nothing: no finding, curve, matrix, map or table"
            )
        return self

    def content_hash(self) -> str:
        """SHA-256 (64 hex) of all but this hash itself, `cost` and `provenance`."""
        return hash_of(self.model_dump(mode="json"))

    def sealed(self) -> Analysis:
        """This analysis with `hashes.record` filled in."""
        hashes = self.hashes.model_copy(update={"record": self.content_hash()})
        return self.model_copy(update={"hashes": hashes})

    def canonical(self) -> str:
        """The analysis as it is stored."""
        return canonical_json(self.model_dump(mode="json"))


def _distinct(what: str, names: Iterable[str]) -> None:
    found = list(names)
    for name in found:
        if found.count(name) > 1:
            raise ValueError(f"{what}: {name!r} is there twice")


def analysis_name(kind: str, *names: str, seed: int) -> str:
    """A readable file name for an analysis of these (model, task, ...), which ends in 8 hex of their hash."""
    digest = hashlib.sha256(canonical_json([kind, *names, seed]).encode()).hexdigest()[:8]
    readable = "__".join((kind, *(file_part(name) for name in names if name), f"s{seed}"))
    return f"{readable[:140]}__{digest}"


class AnalysisStore:
    """The analyses of a results folder. Several processes may write to one at a time."""

    def __init__(self, root: Path | str) -> None:
        self.folder = Path(root) / FOLDER

    def path(self, name: str) -> Path:
        """Where the analysis of that name is or would be."""
        return self.folder / f"{name}.json"

    def write(self, analysis: Analysis) -> Path:
        """Seal an analysis and write it, in place of an older one of its name.

        Raises:
            RecordError: the file cannot be written; an older one is then still there, untouched.
        """
        path = self.path(analysis.name)
        write_atomically(path, analysis.sealed().canonical().encode())
        return path

    def read_all(self) -> tuple[list[Analysis], list[Damaged]]:
        """All analyses, by file name, and all files in their folder that are not to be trusted."""
        found = [read_analysis(path) for path in sorted(self.folder.glob("*.json"))]
        return (
            [each for each in found if isinstance(each, Analysis)],
            [each for each in found if isinstance(each, Damaged)],
        )

    def finished(self, name: str, hashes: AnalysisHashes, settings: Mapping[str, Any]) -> Analysis | None:
        """The stored analysis of that name, if it is intact and was made from the same inputs by the same
        code with the same settings."""
        path = self.path(name)
        found = read_analysis(path) if path.exists() else None
        if not isinstance(found, Analysis) or found.settings != dict(settings):
            return None
        same = (found.hashes.inputs, found.hashes.code) == (hashes.inputs, hashes.code)
        return found if same else None


def read_analysis(path: Path) -> Analysis | Damaged:
    """Read one analysis, or say in a sentence why it cannot be trusted."""
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        return Damaged(path, f"cannot be read: {error}")
    try:
        found = Analysis.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "json_invalid":
            return Damaged(path, f"not valid JSON: {first['msg']}")
        where = ".".join(map(str, first["loc"])) or "analysis"
        return Damaged(path, f"does not fit the schema: {where}: {first['msg']}")
    if found.hashes.record != hash_of(json.loads(text)):
        return Damaged(path, "its content does not match its hash: edited by hand or damaged")
    if path.stem != found.name:
        return Damaged(path, f"misplaced: its file name is {found.name}.json")
    return found


def analyses_of(folders: Iterable[Path]) -> tuple[list[Analysis], list[Damaged]]:
    """All analyses of results folders in the order of their names, and files that are none.

    Raises:
        RecordError: two folders hold different analyses of one name.
    """
    found: dict[str, Analysis] = {}
    damaged: list[Damaged] = []
    for folder in folders:
        analyses, bad = AnalysisStore(folder).read_all()
        damaged += bad
        for each in analyses:
            other = found.setdefault(each.name, each)
            if other.hashes.record != each.hashes.record:
                raise RecordError(
                    f"two analyses are called {each.name}, the second in {folder}",
                    hint="keep one of them, or build the site from one folder",
                )
    return [found[name] for name in sorted(found)], damaged


def write_analysis_schema(folder: Path) -> list[Path]:
    """Write the JSON Schema of an analysis, for validators."""
    path = folder / "analysis.schema.json"
    write_atomically(path, canonical_json(Analysis.model_json_schema()).encode())
    return [path]
