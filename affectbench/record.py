"""The result record: one JSON document a cell, with all it takes to judge, compare and repeat the result."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from affectbench.expression_models import Expression
from affectbench.score_models import (
    AnswerWords,
    Arm,
    Calibration,
    Estimate,
    ModuleFindings,
    PreservationScore,
    Scores,
    TransferRatio,
    Untold,
    WordConfound,
)

Status = Literal["ok", "insufficient", "error", "collapsed"]
Split = Literal["identification", "validation", "test"]


class Part(BaseModel):
    """Base of a record's parts: immutable, no unknown keys, no NaN and no infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class Identification(Part):
    """Where units were identified, if not on all of the identification split of the tested benchmark.

    On that of benchmark `task`, on at most `items` usable items of each emotion, or both. Items are chosen at
    random: draws of one number differ in the items, and a larger budget of the same draw holds those of a
    smaller one.
    """

    task: str = Field(default="", exclude_if=lambda value: not value)
    items: int | None = Field(default=None, ge=1, exclude_if=lambda value: value is None)
    draw: int = Field(default=0, ge=0, exclude_if=lambda value: value == 0)

    @model_validator(mode="after")
    def _some_way(self) -> Identification:
        if not self.task and self.items is None:
            raise ValueError("units are identified on another task, or on a number of items")
        return self

    @property
    def at_home(self) -> Identification | None:
        """The same on the benchmark that is tested; None for all of its items."""
        return self.model_copy(update={"task": ""}) if self.items is not None else None

    def __str__(self) -> str:
        sampled = f"{self.items} items an emotion, draw {self.draw}" if self.items is not None else ""
        return f"from {', '.join(filter(None, (self.task, sampled)))}"


class Cell(Part):
    """The identity of a result: what was run, by name.

    Without `identification`, units were identified on all of the identification split of `task`.
    """

    model: str
    task: str
    selector: str
    intervention: str
    fraction: float = Field(gt=0, le=1)
    seed: int
    site: str
    positions: str
    targeting: Literal["all_items", "two_pass", "union", "oracle"] = "all_items"
    identification: Identification | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def identified(self) -> str:
        """How units were identified, in words; empty where that is the ordinary way."""
        return "" if self.identification is None else str(self.identification)

    @property
    def origin(self) -> str:
        """The benchmark that units were identified on."""
        return self.task if self.identification is None else self.identification.task or self.task


class Hashes(Part):
    """The same identity by content. Two records compare only where task and protocol hashes match.

    `answer_words` is of the prompts of that control, empty where the protocol asks for none. `dictionary` is
    of the SAEs whose features are the units, empty at other sites. `predictions` seals the answers that the
    scores were made of, `replies` the judged texts of a task of expression, `record` all that the scores say.
    `identification` is the task hash of the benchmark that units were identified on, if it is another one.
    """

    task: str
    protocol: str
    selector: str
    selection: str
    model: str
    answer_words: str = Field(default="", exclude_if=lambda value: not value)
    dictionary: str = Field(default="", exclude_if=lambda value: not value)
    predictions: str = ""
    replies: str = Field(default="", exclude_if=lambda value: not value)
    record: str = ""
    identification: str = Field(default="", exclude_if=lambda value: not value)


class ModelInfo(Part):
    """The model that was measured; `instrument` marks one built to calibrate the benchmark, never ranked.

    `version` is its card's.
    """

    id: str
    version: int = 1
    family: str
    revision: str
    modality: Literal["text", "audio"]
    dtype: str
    device: str
    n_layers: int
    width: int
    n_parameters: int
    instrument: bool = False
    instrument_note: str = ""


class TaskInfo(Part):
    """The benchmark, with the size of each split in items and in clusters; `n_failed` items were unusable.

    `labels` are those that are scored: of a transferred selection, the labels of both benchmarks. `readout`
    is how answers are read (`labels`, `letters`, ...), empty in records from before it was kept.
    """

    id: str
    version: int
    title: str
    modality: Literal["text", "audio"]
    labels: list[str]
    metric: str
    readout: str = Field(default="", exclude_if=lambda value: not value)
    n_items: dict[Split, int]
    n_clusters: dict[Split, int]
    n_failed: int = 0
    chance: float


class SelectionInfo(Part):
    """The selected units: an emotion's row of `layer_histogram` counts its units by layer.

    `units` lists them by emotion as flat indices, separated by spaces: all of a set of up to
    `affectbench.overlap.LISTED`, of a larger one a sample that still tells how far two sets overlap.
    """

    units_per_emotion: list[int]
    units: list[str]
    layer_histogram: list[list[int]]
    ties: str


class ValidationPoint(Part):
    """One condition on the validation split: what the operating dose is chosen from."""

    arm: Arm
    dose: float
    spec: float
    pres: float | None
    collapsed: bool


class Operating(Part):
    """The doses chosen on validation; None where an arm has no dose worth reporting.

    `recognition_doses` are those of each way to amplify untold of an item's emotion, by macro-F1.
    """

    suppress_dose: float | None
    amplify_dose: float | None
    reason: str
    recognition_doses: dict[Untold, float] = Field(default={}, exclude_if=lambda value: not value)


class Headline(Part):
    """The three axes at the operating doses, on the test split. Significance is that of the suppress arm.

    `pres` is the lower of the two arms'; `agg` the harmonic mean of `spec`, `strength` and `pres`.
    """

    spec: Estimate
    spec_amplify: Estimate | None
    strength: Estimate | None
    pres: Estimate | None
    agg: Estimate | None
    p: float | None
    p_random: float | None
    significant: bool


class Cost(Part):
    """What the cell took. Shared work is counted in each cell that used it."""

    wall_s: float
    cpu_s: float
    forward_passes: int
    items_forwarded: int
    identification_items: int
    halvings: int
    """How often memory ran out and a batch was halved."""
    peak_memory_mib: float


def now_iso() -> str:
    """The time in UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())


class Provenance(Part):
    """Where, when and with which versions the cell was run; times are ISO 8601 with an offset."""

    affectbench: str
    python: str
    torch: str
    transformers: str
    lm_eval: str
    numpy: str
    platform: str
    threads: int
    batch_size: int
    seed: int
    command: str
    started: str
    finished: str


class Record(Part):
    """One cell's result. `control` marks rows that show what nothing looks like (random, shuffled labels).

    `evidence` names the statistics that the selector ranked units by; empty where it read none.
    `protocol_version` is that of the intervention protocol, as the task's and the model's are in their parts.
    `answer_words` are the scores of the control that demands the same answers for another reason, and
    `word_confound` compares them with the task's; None where the protocol asks for none. `transfer` compares
    units from another benchmark with those of the tested one; None for others, and before both are there.
    `modules` is of cells of the site `module` alone.
    """

    schema_version: Literal[1] = 1
    cell: Cell
    status: Status
    reason: str = ""
    flags: list[str] = []
    control: bool = False
    evidence: list[str] = []
    protocol_version: int = 1
    hashes: Hashes
    model: ModelInfo
    task: TaskInfo
    selection: SelectionInfo | None = None
    scores: Scores | None = None
    validation: list[ValidationPoint] = []
    operating: Operating | None = None
    preservation: list[PreservationScore] = []
    headline: Headline | None = None
    word_confound: WordConfound | None = Field(default=None, exclude_if=lambda value: value is None)
    answer_words: AnswerWords | None = Field(default=None, exclude_if=lambda value: value is None)
    transfer: TransferRatio | None = Field(default=None, exclude_if=lambda value: value is None)
    calibration: Calibration | None = None
    expression: Expression | None = Field(default=None, exclude_if=lambda value: value is None)
    modules: ModuleFindings | None = Field(default=None, exclude_if=lambda value: value is None)
    cost: Cost
    provenance: Provenance

    @model_validator(mode="after")
    def _consistent(self) -> Record:
        if self.status == "ok" and None in (self.selection, self.scores, self.headline):
            raise ValueError("a record with status 'ok' needs a selection, scores and a headline")
        if self.status == "ok" and self.scores is not None and self.scores.status != "ok":
            raise ValueError(f"a record with status 'ok' holds scores that are {self.scores.status!r}")
        if self.status != "ok" and not self.reason:
            raise ValueError(f"a record with status {self.status!r} needs a reason")
        if self.status != "ok" and self.headline is not None and self.headline.agg is not None:
            raise ValueError(f"a record with status {self.status!r} must not have an aggregate")
        if self.scores is not None and self.scores.labels != self.task.labels:
            raise ValueError("the labels of the scores are not the labels of the task")
        return self

    def canonical(self) -> str:
        """The record as it is stored: sorted keys, one space of indent, shortest exact floats."""
        return canonical_json(self.model_dump(mode="json"))

    def sealed(self) -> Record:
        """This record with `hashes.record` filled in."""
        hashes = self.hashes.model_copy(update={"record": self.content_hash()})
        return self.model_copy(update={"hashes": hashes})

    def content_hash(self) -> str:
        """SHA-256 (64 hex) of all but this hash itself and the parts that differ between two equal runs.

        Those are cost and provenance. A stored hash that differs means an edit by hand or damage.
        """
        return hash_of(self.model_dump(mode="json"))


def hash_of(content: Mapping[str, Any]) -> str:
    """A record's `content_hash` from its JSON, read or to be written."""
    kept = {name: value for name, value in content.items() if name not in ("cost", "provenance")}
    kept["hashes"] = {name: value for name, value in content["hashes"].items() if name != "record"}
    # Without an indent, which Python's encoder would write four times slower.
    text = json.dumps(kept, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """JSON text that depends on the value alone. Raises ValueError for NaN and infinity."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def cell_id(cell: Cell) -> str:
    """A readable name for a cell that is safe in file names and ends in 8 hex of the identity's hash."""
    digest = hashlib.sha256(canonical_json(cell.model_dump(mode="json")).encode()).hexdigest()[:8]
    readable = "__".join(map(file_part, (cell.model, cell.task, cell.selector, *protocol_parts(cell))))
    return f"{readable[:150]}__{digest}"


def protocol_parts(cell: Cell) -> tuple[str, ...]:
    """What follows the selector in a cell's name."""
    parts = (cell.intervention, f"f{cell.fraction:g}", f"s{cell.seed}")
    return (*parts, cell.identified) if cell.identification else parts


def file_part(text: str) -> str:
    """One name within a cell's name, safe in file names."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")
