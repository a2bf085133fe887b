"""The parts a benchmark file is made of: where items come from, how they are split, asked and read."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from affectbench.yaml_loading import reject, suggest

SplitName = Literal["identification", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("identification", "validation", "test")
Positions = Literal["all", "content", "audio", "answer"]
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=80)]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(strict=True, ge=1)]
Seed = Annotated[int, Field(strict=True, ge=0)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Column = Annotated[int, Field(strict=True, ge=0)] | Text
PLACEHOLDER = re.compile(r"\{([a-z_][a-z0-9_]*)\}")


class Frozen(BaseModel):
    """Base of all that is read from YAML: immutable; an unknown key is an error with a suggestion."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    known = ", ".join(cls.model_fields)
                    reject(str(key), f"unknown key{suggest(key, cls.model_fields)} (known keys: {known})")
        return data


class PerSplit(Frozen):
    """One count for each split."""

    identification: Count
    validation: Count
    test: Count


class GeneratorSource(Frozen):
    """Items made by a generator of `affectbench.generators`, the same on every machine.

    `label` names the field of a generated item that holds its raw label.
    """

    reader: Literal["generator"]
    module: Literal["narratives", "speech"]
    seed: Seed
    per_emotion: PerSplit
    label: Text = "label"


class Columns(Frozen):
    """Which columns of a table hold what: names where the table has a header, positions from 0 where not.

    Without `id` an item is named after its file and row; without `cluster` every row is a cluster.
    `fields` are further columns, for placeholders of the prompt.
    """

    label: Column
    text: Column | None = None
    audio: Column | None = None
    id: Column | None = None
    cluster: Column | None = None
    fields: dict[str, Column] = Field(default_factory=dict)

    @property
    def named(self) -> dict[str, int | str]:
        """Every column in use, by its role; fields under their own names."""
        roles = {role: getattr(self, role) for role in ("label", "text", "audio", "id", "cluster")}
        return {role: column for role, column in roles.items() if column is not None} | self.fields

    @model_validator(mode="after")
    def _has_content(self) -> Columns:
        if self.text is None and self.audio is None:
            reject("", "neither a text nor an audio column is named")
        return self


class TableSource(Frozen):
    """Items in rows of tsv, csv, jsonl or parquet files below the benchmark's data folder.

    `files` is ``{all: ...}``, or one file for each split. A tsv has no quoting; a csv has the usual one.
    `label_names` is a text file with one label a line, where the rows hold positions in it (from 0). A
    label cell may list several, separated by `separator`.
    """

    reader: Literal["table"]
    format: Literal["tsv", "csv", "jsonl", "parquet"]
    files: dict[Literal["all", "identification", "validation", "test"], Text]
    columns: Columns
    header: bool = True
    label_names: Text | None = None
    separator: Annotated[str, Field(min_length=1, max_length=3)] = ","

    @model_validator(mode="after")
    def _consistent(self) -> TableSource:
        if set(self.files) not in ({"all"}, set(SPLITS)):
            found = ", ".join(self.files) or "nothing"
            reject("files", f"expected `all`, or {', '.join(SPLITS)}; found {found}")
        positional = not self.header and self.format in ("tsv", "csv")
        for column in self.columns.named.values():
            if isinstance(column, int) != positional:
                what = "a position (0, 1, ...), for there is no header" if positional else "a column name"
                reject("columns", f"expected {what}, found {column!r}")
        return self


class FolderSource(Frozen):
    """Audio files found by glob below the benchmark's data folder, described by their names.

    `pattern` is a regular expression that must match the whole file name; its named groups become the
    item's fields. The group `label` is required.
    """

    reader: Literal["folder"]
    files: Annotated[tuple[Text, ...], Field(min_length=1)]
    pattern: Text

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groupindex
        except re.error as error:
            reject("", f"not a regular expression: {error}")
        if "label" not in groups:
            reject("", f"has no group (?P<label>...); its groups: {', '.join(groups) or 'none'}")
        return pattern


Source = Annotated[GeneratorSource | TableSource | FolderSource, Field(discriminator="reader")]


class GivenSplit(Frozen):
    """The source says which split an item belongs to."""

    by: Literal["given"]


class ClusterLists(Frozen):
    """Clusters of each split, by name."""

    identification: Annotated[tuple[Text, ...], Field(min_length=1)]
    validation: Annotated[tuple[Text, ...], Field(min_length=1)]
    test: Annotated[tuple[Text, ...], Field(min_length=1)]


class Fractions(Frozen):
    """Share of the clusters in each split; they sum to 1."""

    identification: Annotated[Number, Field(gt=0, lt=1)]
    validation: Annotated[Number, Field(gt=0, lt=1)]
    test: Annotated[Number, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def _sum(self) -> Fractions:
        if abs(self.identification + self.validation + self.test - 1) > 1e-6:
            reject("", "the three fractions must sum to 1")
        return self


class ClusterSplit(Frozen):
    """Whole clusters go to a split: listed by name, or shared out by a hash of `seed` and their name."""

    by: Literal["cluster"]
    clusters: ClusterLists | None = None
    fractions: Fractions | None = None
    seed: Seed = 0

    @model_validator(mode="after")
    def _one_rule(self) -> ClusterSplit:
        if (self.clusters is None) == (self.fractions is None):
            reject("", "give either `clusters` (lists of names) or `fractions`")
        if self.clusters is not None:
            seen: dict[str, str] = {}
            for split in SPLITS:
                for cluster in getattr(self.clusters, split):
                    if cluster in seen:
                        reject("clusters", f"cluster {cluster!r} is in {seen[cluster]} and in {split}")
                    seen[cluster] = split
        return self


Split = Annotated[GivenSplit | ClusterSplit, Field(discriminator="by")]


class Limits(Frozen):
    """Most items of each label in each split; null for all. A hash of the item id decides which."""

    identification: Count | None = None
    validation: Count | None = None
    test: Count | None = None


class LabelsReadout(Frozen):
    """The answer is the label whose verbaliser is likeliest at the answer position."""

    kind: Literal["labels"]
    verbalisers: dict[str, Text] = Field(default_factory=dict)


class LettersReadout(Frozen):
    """The answer is a lettered option; ``{options}`` of the prompt lists them.

    Their order is drawn for each item. `verbalisers` are the words shown after the letters.
    """

    kind: Literal["letters"]
    verbalisers: dict[str, Text] = Field(default_factory=dict)


class GenerateReadout(Frozen):
    """The answer is parsed from greedily generated text."""

    kind: Literal["generate"]
    verbalisers: dict[str, Text] = Field(default_factory=dict)
    max_new_tokens: Count = 20


Readout = Annotated[LabelsReadout | LettersReadout | GenerateReadout, Field(discriminator="kind")]


class GeneratedItems(Frozen):
    """The first `n` items of a generator."""

    reader: Literal["generator"]
    module: Literal["narratives", "speech"]
    n: Count
    seed: Seed


class FileItems(Frozen):
    """JSON lines in a file whose path is relative to the benchmark; `n` takes the first ones only."""

    reader: Literal["file"]
    path: Text
    n: Count | None = None


Items = Annotated[GeneratedItems | FileItems, Field(discriminator="reader")]


class ChoiceCapability(Frozen):
    """Multiple-choice items, scored by the log-likelihood of each choice."""

    kind: Literal["multiple_choice"]
    source: Items


class BenchmarkCapability(Frozen):
    """The test split of another benchmark."""

    kind: Literal["benchmark"]
    task: Name


Capability = Annotated[ChoiceCapability | BenchmarkCapability, Field(discriminator="kind")]


class Preservation(Frozen):
    """What must survive an intervention: neutral text, a capability, answers to open prompts."""

    neutral: Items
    capability: Capability
    prompts: Annotated[tuple[Text, ...], Field(min_length=1)]
    max_new_tokens: Count = 40
