"""What a benchmark, an intervention protocol, a suite and a model card say: YAML read into frozen objects.

Every object knows the file it came from and has a `digest`: 16 hex of the sha256 of everything in it that
can change a number, the files it names included. Prose (title, description, licence, ...) is left out,
so that correcting a spelling mistake does not make results incomparable.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from affectbench.alignment_suite import AlignmentSuite
from affectbench.alignment_task import AlignmentTask
from affectbench.benchmark import Benchmark, ExpressionBenchmark, RecognitionBenchmark
from affectbench.judge_card import JudgeCard
from affectbench.model_card import ModelCard, Placing
from affectbench.sae_card import SaeCard
from affectbench.sites import DAMAGES, MODULE
from affectbench.task_file import TaskFile
from affectbench.task_parts import (
    SPLITS,
    Count,
    FileItems,
    Frozen,
    Name,
    Number,
    Positions,
    Seed,
    SplitName,
)
from affectbench.yaml_loading import INCLUDE, Document, TaskFileError, build, load_document, reject, suggest

__all__ = [
    "SPLITS",
    "Benchmark",
    "ExpressionBenchmark",
    "InterventionProtocol",
    "JudgeCard",
    "ModelCard",
    "Placing",
    "RecognitionBenchmark",
    "SaeCard",
    "SplitName",
    "Suite",
    "TaskFileError",
]


class Statistics(Frozen):
    """Where and on which identification items activations are measured.

    `correct`: only items that the untouched model answers correctly. `correct_or_all`: all items where some
    emotion has fewer than `minimum_items` correct ones, and the record is flagged. `minimum_items`: fewer
    usable items of any emotion make a cell `insufficient`.
    """

    positions: Positions
    items: Literal["correct", "all", "correct_or_all"]
    minimum_items: Count = 20


class SuppressArm(Frozen):
    """Scale by factors below 1 (0 deactivates), replace by the mean (its only dose is 0), or take out all but
    the dose's share of what units have along their vectors. At the site `module`, scaling by 0 puts the
    base's weights back; zero, noise and shuffle damage weights, and negate takes from the base what the
    adaptation added, at the only dose 0."""

    operation: Literal["scale", "mean", "project", "zero", "noise", "shuffle", "negate"]
    doses: Annotated[tuple[Annotated[Number, Field(ge=0, lt=1)], ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _doses_fit(self) -> SuppressArm:
        if self.operation not in ("scale", "project") and self.doses != (0.0,):
            reject("doses", f"operation {self.operation} replaces what is there: its only dose is 0")
        _distinct_doses(self.doses)
        return self


class AmplifyArm(Frozen):
    """Scale by factors above 1, or add doses above 0 of the units' vectors: those of the selection, else what
    an emotion's units do more than over all emotions. `relative`: times the root mean square of the residual
    vector (or of the layer's activations) that they are added to. At the site `module`, `scale` multiplies
    what an adaptation changed; `add` puts it, or a part of it, into the base.

    `targeting`: ways to amplify without knowing an item's emotion, run beside the ordinary ones. two_pass:
    the units of the emotion answered without intervention; mix: all units, each emotion's by its share of the
    gain; union: all units by the whole gain.
    """

    operation: Literal["scale", "add"]
    doses: Annotated[tuple[Annotated[Number, Field(gt=0)], ...], Field(min_length=1)]
    relative: bool = Field(default=False, exclude_if=lambda value: not value)
    targeting: tuple[Literal["two_pass", "mix", "union"], ...] = Field(
        default=(), exclude_if=lambda value: not value
    )

    @model_validator(mode="after")
    def _doses_fit(self) -> AmplifyArm:
        for place, dose in enumerate(self.doses):
            if self.operation == "scale" and dose <= 1:
                reject(("doses", place), f"operation scale amplifies by factors above 1, not by {dose:g}")
        if self.relative and self.operation != "add":
            reject("relative", "only what operation add adds can be relative")
        _distinct_doses(self.doses)
        return self


def _distinct_doses(doses: tuple[float, ...]) -> None:
    if len(set(doses)) != len(doses):
        reject("doses", "a dose is listed twice")


Arm = Literal["suppress", "amplify"]


class Arms(Frozen):
    """The two directions every claim is tested in."""

    suppress: SuppressArm
    amplify: AmplifyArm


class Controls(Frozen):
    """`random_draws`: sets of random units, matched in count and layer histogram. `answer_words`: whether the
    same answers are also demanded for a reason without emotion; unsaid, it is in mode ``sound`` only."""

    random_draws: Annotated[int, Field(strict=True, ge=0)]
    answer_words: Annotated[bool, Field(strict=True)] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )


class InterventionProtocol(TaskFile):
    """What is done to the selected units. A dose is the factor g of a scaling, where 1 would change nothing,
    or how much is added.

    `mode`: ``paper`` reproduces what was published, defects included; ``sound`` is how we would do it.
    """

    kind: Literal["intervention"]
    mode: Literal["sound", "paper"] = "sound"
    citation: str = ""
    site: Literal["gate", "neuron", "head", "component", "attention", "residual", "feature", "module"]
    positions: Positions
    statistics: Statistics
    fractions: Annotated[tuple[Annotated[Number, Field(gt=0, lt=1)], ...], Field(min_length=1)]
    arms: Arms
    controls: Controls

    @model_validator(mode="after")
    def _site_fits(self) -> InterventionProtocol:
        suppress, on_weights = self.arms.suppress.operation, self.site == MODULE
        allowed = ("scale", *DAMAGES) if on_weights else ("scale", "mean", "project")
        if suppress not in allowed:
            reject("arms", f"site {self.site}: the operation of suppress is one of {', '.join(allowed)}")
        if self.transfers and (suppress == "scale" or self.arms.amplify.relative):
            reject("arms", "site module: what is added to the base is a change, which is not there to scale")
        if on_weights and self.positions != "all":
            reject("positions", "site module: weights act at all positions")
        return self

    @property
    def transfers(self) -> bool:
        """Whether an adaptation's changes are put into the base."""
        return self.site == MODULE and self.arms.amplify.operation == "add"

    @property
    def needs_vectors(self) -> bool:
        """Whether vectors are added to units, or taken out along a direction."""
        if self.site == MODULE:
            return False
        return self.arms.amplify.operation == "add" or self.arms.suppress.operation == "project"

    def alpha(self, arm: Arm, dose: float) -> float:
        """How far a dose is from doing nothing: the x axis of steering strength."""
        return dose if getattr(self.arms, arm).operation == "add" else abs(dose - 1.0)

    @property
    def asks_answer_words(self) -> bool:
        """Whether cells get the answer-word control."""
        asked = self.controls.answer_words
        return self.mode == "sound" if asked is None else asked


class Identifying(Frozen):
    """Where units are identified, beside all of the identification split of the tested benchmark.

    `transfer`: units identified on each of a model's tasks are tested on all others that share at least two
    labels with it. `items`: units are also identified on so many usable items of each emotion (`all`: the
    ordinary way, which is always run), chosen at random `draws` times. Both: units of each draw are tested
    on the other tasks too.
    """

    transfer: bool = False
    items: tuple[Count | Literal["all"], ...] = ()
    draws: Annotated[int, Field(strict=True, ge=1, le=100)] = 1

    @property
    def budgets(self) -> tuple[int, ...]:
        """The numbers of items, ascending."""
        return tuple(sorted({count for count in self.items if not isinstance(count, str)}))


ORDINARY = Identifying()


Rate = Annotated[Number, Field(gt=0)]


class Adapting(Frozen):
    """Adaptations of a `base` to a `task`, and to a `control` task without emotion: all module types and
    single ones. `rank` 0 trains the weights themselves; the best of `rates` is chosen on validation items;
    `seeds` adaptations of each kind, each of `steps` updates of `batch` items."""

    base: Name
    task: Name
    control: Name | None = None
    rank: Annotated[int, Field(strict=True, ge=0)] = 8
    rates: Annotated[tuple[Rate, ...], Field(min_length=1)] = (0.001, 0.003)
    seeds: Annotated[int, Field(strict=True, ge=1)] = 3
    steps: Annotated[int, Field(strict=True, ge=1)] = 80
    batch: Annotated[int, Field(strict=True, ge=1)] = 16


class Suite(TaskFile):
    """A grid of cells. `tasks` maps a model's name, or a modality, to benchmarks; the name wins.

    `analyses` are made once of each model on each of its benchmarks, after the cells. `adaptation`: what is
    adapted beside them, module type by module type, and compared (the analyses ``module-...``).
    """

    kind: Literal["suite"]
    models: Annotated[tuple[Name, ...], Field(min_length=1)]
    tasks: dict[Name, tuple[Name, ...]]
    selectors: Annotated[tuple[Name, ...], Field(min_length=1)]
    controls: tuple[Name, ...] = ()
    interventions: Annotated[tuple[Name, ...], Field(min_length=1)]
    analyses: tuple[Name, ...] = Field(default=(), exclude_if=lambda value: not value)
    adaptation: Adapting | None = Field(default=None, exclude_if=lambda value: value is None)
    seed: Seed = 0
    identification: Identifying = Field(default=ORDINARY, exclude_if=lambda value: value == ORDINARY)

    @field_validator("tasks", mode="before")
    @classmethod
    def _one_or_many(cls, tasks: Any) -> Any:
        if not isinstance(tasks, Mapping):
            return tasks
        return {key: [value] if isinstance(value, str) else value for key, value in tasks.items()}

    def tasks_for(self, card: ModelCard) -> tuple[str, ...]:
        """Names of the benchmarks that `card` runs. Raises `TaskFileError` where there are none."""
        for key in (card.name, card.modality):
            if key in self.tasks:
                return self.tasks[key]
        raise TaskFileError(
            f"suite {self.name}: tasks: nothing for model {card.name}",
            hint=f"add a line `{card.modality}: BENCHMARK`",
        )


KINDS: dict[str, type[TaskFile]] = {
    "benchmark": RecognitionBenchmark,
    "expression": ExpressionBenchmark,
    "intervention": InterventionProtocol,
    "suite": Suite,
    "model": ModelCard,
    "sae": SaeCard,
    "judge": JudgeCard,
    "alignment": AlignmentTask,
    "alignment-suite": AlignmentSuite,
}
K = TypeVar("K", bound=TaskFile)


def load_file(path: Path | str) -> TaskFile:
    """Read one YAML of any kind. Raises `TaskFileError` naming file, line, key and what was expected."""
    document = load_document(Path(path))
    kind = document.data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        found = f"found {kind!r}{suggest(kind, KINDS)}" if "kind" in document.data else "it is missing"
        raise TaskFileError(f"{document.mark(('kind',))}: kind: expected one of {', '.join(KINDS)}; {found}")
    task = build(KINDS[kind], document)
    if task.name != document.path.stem:
        raise TaskFileError(
            f"{document.mark(('name',))}: name: {task.name!r} is not the file's name {document.path.stem!r}",
            hint="rename one of them",
        )
    task._path = document.path
    task._files = _resolve_files(task, document)
    return task


def load_as(path: Path | str, cls: type[K]) -> K:
    """Read one YAML that must be of kind `cls`."""
    task = load_file(path)
    if not isinstance(task, cls):
        wanted = " or ".join(repr(kind) for kind, known in KINDS.items() if issubclass(known, cls))
        found = next(kind for kind, known in KINDS.items() if isinstance(task, known))
        raise TaskFileError(f"{path}: kind: expected {wanted}, found {found!r}")
    return task


def _resolve_files(task: TaskFile, document: Document) -> dict[str, Path]:
    """Files shipped beside a benchmark, each relative to the YAML that names it."""
    if not isinstance(task, Benchmark):
        return {}
    found: list[tuple[tuple[str, ...], Any]] = [(("preservation", "neutral"), task.preservation.neutral)]
    if task.preservation.capability.kind == "multiple_choice":
        found.append((("preservation", "capability", "source"), task.preservation.capability.source))
    places = [((*place, "path"), items.path) for place, items in found if isinstance(items, FileItems)]
    if isinstance(task, ExpressionBenchmark) and task.data is None:
        places += [(("source", "files", part), name) for part, name in task.source.files.items()]
    return {name: _beside(document, place, name) for place, name in places}


def _beside(document: Document, place: tuple[str, ...], name: str) -> Path:
    """The file of that name, relative to the YAML in which it is written."""
    mark = document.mark(place)
    path = Path(os.path.normpath(mark.path.parent / name))
    if not path.is_file():
        siblings = [file.name for file in path.parent.glob("*")]
        key = ".".join(place)
        raise TaskFileError(f"{mark}: {key}: there is no file {path}{suggest(path.name, siblings)}")
    return path


def write_task_schemas(folder: Path) -> list[Path]:
    """Write the JSON Schema of every kind, for editors. Returns the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, cls in KINDS.items():
        schema = cls.model_json_schema()
        required = schema.pop("required")
        schema["properties"][INCLUDE] = {
            "description": "another YAML, or several, relative to this file, that this one is laid over",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        }
        schema["anyOf"] = [{"required": [INCLUDE]}, {"required": required}]
        path = folder / f"{kind}.schema.json"
        path.write_text(json.dumps(schema, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        written.append(path)
    return written
