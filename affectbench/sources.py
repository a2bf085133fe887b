"""Where the items of a benchmark come from: a generator, tables, the hub, named files, lines of text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from affectbench.task_parts import SPLITS, Column, Frozen, Number, PerSplit, Seed, SplitName, Text
from affectbench.yaml_loading import reject, suggest

CELL = re.compile(r"\{([^{}]+)\}")
"""A column or field in a template of the source, such as ``dia{Dialogue_ID}``."""
TABLE_NAME = "file"
"""In a template: the stem of the table's own file, or the split of a hub data set."""
NO_LABEL = "none"
"""The raw label of a row whose label columns are all off."""


class GeneratorSource(Frozen):
    """Items made by a generator of `affectbench.generators`, the same on every machine.

    `label` names the field of a generated item that holds its raw label.
    """

    reader: Literal["generator"]
    module: Literal["narratives", "speech", "errands", "needs"]
    seed: Seed
    per_emotion: PerSplit
    label: Text = "label"


class Columns(Frozen):
    """Which columns of a table hold what: names where the table has a header, positions from 0 where not.

    A name may be a template that joins cells, such as ``{file}/dia{Dialogue_ID}.flac``; ``{file}`` is the
    stem of the table's file. `label` may list columns that are 0 or 1 each: the raw labels of a row are the
    names of those that are on, or ``none``. Without `id` an item is named after its file and row; without
    `cluster` every row is a cluster. `split` holds what `split_values` of the source maps to splits.
    `fields` are further columns, for placeholders of the prompt.
    """

    label: Column | Annotated[tuple[Text, ...], Field(min_length=2)]
    text: Column | None = None
    audio: Column | None = None
    id: Column | None = None
    cluster: Column | None = None
    split: Column | None = None
    fields: dict[str, Column] = Field(default_factory=dict)

    later = frozenset({"split"})

    def used(self) -> Iterator[int | str]:
        """Every column in use; those that a template joins, one by one."""
        for column in (self.text, self.audio, self.id, self.cluster, self.split, *self.fields.values()):
            if isinstance(column, str) and CELL.search(column):
                yield from (name for name in CELL.findall(column) if name != TABLE_NAME)
            elif column is not None:
                yield column
        if isinstance(self.label, tuple):
            yield from self.label
        else:
            yield self.label

    @model_validator(mode="after")
    def _has_content(self) -> Columns:
        if self.text is None and self.audio is None:
            reject("", "neither a text nor an audio column is named")
        return self


class RowSource(Frozen):
    """What the readers of rows share.

    A label cell may list several labels, separated by `separator`. `keep`: rows stay only where the cell of
    each column matches its regular expression as a whole; the others are counted as dropped. `replace`: what
    is replaced in the text, in this order. `split_values`: the split of each value of the column `split`;
    null drops the row.
    """

    columns: Columns
    separator: Annotated[str, Field(min_length=1, max_length=3)] = ","
    keep: dict[str, Text] = Field(default_factory=dict)
    replace: dict[Text, str] = Field(default_factory=dict)
    split_values: dict[str, SplitName | None] = Field(default_factory=dict)

    later = frozenset({"keep", "replace", "split_values"})

    @field_validator("keep")
    @classmethod
    def _compiles(cls, keep: dict[str, str]) -> dict[str, str]:
        for column, pattern in keep.items():
            _compiled(pattern, column)
        return keep

    def parts(self) -> tuple[str, dict[str, str]]:
        """The key that names the source's parts, and those parts: ``all``, or one for each split."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its parts are")

    @model_validator(mode="after")
    def _splits_agree(self) -> RowSource:
        key, parts = self.parts()
        if set(parts) not in ({"all"}, set(SPLITS)):
            found = ", ".join(parts) or "nothing"
            reject(key, f"expected `all`, or {', '.join(SPLITS)}; found {found}")
        if (self.columns.split is None) != (not self.split_values):
            reject("split_values", "give both: columns.split, and here the split of each of its values")
        if self.split_values and set(parts) != {"all"}:
            reject(key, "expected `all`, for a column says which split a row belongs to")
        return self

    @property
    def gives_splits(self) -> bool:
        return self.columns.split is not None or "all" not in self.parts()[1]


class TableSource(RowSource):
    """Items in rows of tsv, csv, jsonl or parquet files below the benchmark's data folder.

    `files` is ``{all: ...}``, or one file for each split. A tsv has no quoting; a csv has the usual one;
    `delimiter` replaces the tab or the comma. `label_names` is a text file with one label a line, where the
    rows hold positions in it (from 0).
    """

    reader: Literal["table"]
    format: Literal["tsv", "csv", "jsonl", "parquet"]
    files: dict[Literal["all", "identification", "validation", "test"], Text]
    header: bool = True
    label_names: Text | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None

    later = RowSource.later | {"delimiter"}

    def parts(self) -> tuple[str, dict[str, str]]:
        return "files", {str(part): file for part, file in self.files.items()}

    @model_validator(mode="after")
    def _consistent(self) -> TableSource:
        positional = not self.header and self.format in ("tsv", "csv")
        for column in (*self.columns.used(), *self.keep):
            if isinstance(column, int) != positional:
                what = "a position (0, 1, ...), for there is no header" if positional else "a column name"
                reject("columns", f"expected {what}, found {column!r}")
        if self.delimiter is not None and self.format not in ("tsv", "csv"):
            reject("delimiter", f"a {self.format} file has none")
        return self


class HubSource(RowSource):
    """Items in a data set of the Hugging Face hub, read through the `datasets` library.

    `path`, `name` (the configuration) and `revision` (a commit, so that it stays the same) are those of
    `load_dataset`. Where the benchmark's data folder exists, that copy of the repository is read instead.
    `splits` is ``{all: train}``, or a split of the data set for each of ours. Class labels are named.
    """

    reader: Literal["hub"]
    path: Text
    name: Text | None = None
    revision: Text | None = None
    splits: dict[Literal["all", "identification", "validation", "test"], Text]

    def parts(self) -> tuple[str, dict[str, str]]:
        return "splits", {str(part): split for part, split in self.splits.items()}

    @model_validator(mode="after")
    def _named(self) -> HubSource:
        for column in self.columns.used():
            if isinstance(column, int):
                reject("columns", f"expected a column name, found {column!r}")
        return self


class FolderSource(Frozen):
    """Audio files found by glob below the benchmark's data folder, described by their names.

    `pattern` is a regular expression that must match the whole file name, or the whole path below the data
    folder (with ``/``) where the pattern has a ``/``. Its named groups become the item's fields. The group
    `label` is required.
    """

    reader: Literal["folder"]
    files: Annotated[tuple[Text, ...], Field(min_length=1)]
    pattern: Text

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        return _with_label(pattern)

    @property
    def of_paths(self) -> bool:
        """Whether the pattern is one of paths, not of file names."""
        return "/" in self.pattern


class LinesSource(Frozen):
    """Items in lines of text files found by glob below the benchmark's data folder.

    `pattern` is a regular expression; a line that it matches as a whole is an item, other lines are passed
    over. Its named groups become the item's fields; the groups `label` and `id` are required. `fields` adds
    fields that join others, such as ``{session}{sex}``. `audio` is the path of the sound below the data
    folder, `text` the text, as such templates too.
    """

    reader: Literal["lines"]
    files: Annotated[tuple[Text, ...], Field(min_length=1)]
    pattern: Text
    fields: dict[str, Text] = Field(default_factory=dict)
    audio: Text | None = None
    text: Text | None = None

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        if "(?P<id>" not in pattern:
            reject("", "has no group (?P<id>...)")
        return _with_label(pattern)

    @model_validator(mode="after")
    def _known_fields(self) -> LinesSource:
        known = set(re.compile(self.pattern).groupindex)
        templates = [*(("fields", key) for key in self.fields), ("audio",), ("text",)]
        for place in templates:
            template = self.fields[place[1]] if len(place) == 2 else getattr(self, place[0])
            for name in CELL.findall(template or ""):
                if name not in known:
                    reject(place, f"the pattern has no group {name!r}{suggest(name, known)}")
        return self


def _compiled(pattern: str, key: str = "") -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        reject(key, f"not a regular expression: {error}")


def _with_label(pattern: str) -> str:
    groups = _compiled(pattern).groupindex
    if "label" not in groups:
        reject("", f"has no group (?P<label>...); its groups: {', '.join(groups) or 'none'}")
    return pattern


Source = Annotated[
    GeneratorSource | TableSource | HubSource | FolderSource | LinesSource, Field(discriminator="reader")
]


class ScenarioSource(Frozen):
    """Scenarios of expression in JSON lines (see `affectbench.scenarios`).

    `files` are relative to the benchmark's data folder, or to its YAML where it names none: ``{all: ...}``,
    where each line names its split, or a file for identification and one for test. `held_out` is the share
    of the identification scenarios that serves as validation, chosen by a hash of their names.
    """

    reader: Literal["scenarios"]
    files: dict[Literal["all", "identification", "validation", "test"], Text]
    held_out: Annotated[Number, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _splits_agree(self) -> ScenarioSource:
        given = {str(part) for part in self.files}
        wanted: list[set[str]] = (
            [{"all"}, {*SPLITS}] if self.held_out is None else [{"identification", "test"}]
        )
        if given not in wanted:
            found = ", ".join(sorted(given)) or "nothing"
            expected = " or ".join(", ".join(sorted(each)) for each in wanted)
            reject("files", f"expected {expected}; found {found}")
        return self
