"""Readers of benchmark sources: generators, tables, the hub, named files, lines; all give `RawItem`s."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from affectbench.audio_io import Waveform
from affectbench.examples import DatasetError
from affectbench.scenarios import VALENCES, read_scenarios
from affectbench.sources import (
    CELL,
    NO_LABEL,
    TABLE_NAME,
    FolderSource,
    GeneratorSource,
    HubSource,
    LinesSource,
    RowSource,
    ScenarioSource,
    TableSource,
)
from affectbench.table_rows import Cells, lines_of, table_rows
from affectbench.task import SPLITS, Benchmark, SplitName
from affectbench.yaml_loading import suggest

NOT_FIELDS = frozenset({"id", "text", "cluster"})
ON, OFF = ("1", "1.0", "true"), ("0", "0.0", "false", "")


@dataclass(frozen=True)
class RawItem:
    """An item as its source has it. `labels` are raw labels; `where` is its file, with its row if any.

    `left_out`: why the source leaves it out on purpose; None for an item that stays. `group`: what it shares
    with the items that a limit keeps or leaves together with it; its id where it stands alone.
    """

    id: str
    split: SplitName | None
    labels: tuple[str, ...]
    text: str | None
    audio: Path | Callable[[], Waveform] | None
    cluster: str
    fields: Mapping[str, str]
    where: str
    left_out: str | None = None
    group: str = ""


def read_items(benchmark: Benchmark, root: Path | None) -> Iterator[RawItem]:
    """All items of the benchmark's source. Raises `DatasetError`.

    `root` is its data folder; None for a generator, for scenarios beside the benchmark, and for the hub where
    no local copy is to be read.
    """
    source = benchmark.source
    if isinstance(source, GeneratorSource):
        return _generated(source)
    if isinstance(source, ScenarioSource):
        return _scenarios(benchmark, source, root)
    if isinstance(source, HubSource):
        return _hub(source, root)
    assert root is not None
    if isinstance(source, TableSource):
        return _table(benchmark, source, root)
    return (
        _lines(benchmark, source, root)
        if isinstance(source, LinesSource)
        else _folder(benchmark, source, root)
    )


def _generated(source: GeneratorSource) -> Iterator[RawItem]:
    from affectbench import errands, needs
    from affectbench.generators import narratives, speech

    made: dict[str, Callable[[str, int, int], Sequence[Any]]] = {
        "narratives": narratives.examples,
        "speech": speech.examples,
        "errands": errands.examples,
        "needs": needs.examples,
    }
    for split in SPLITS:
        rows: list[Any] = list(made[source.module](split, getattr(source.per_emotion, split), source.seed))
        for row in rows:
            if source.label not in row:
                near = suggest(source.label, row)
                raise DatasetError(
                    f"generator {source.module}: items have no field {source.label!r}{near}",
                    hint="name one of its fields as `source.label`",
                )
            scalars = {key: str(value) for key, value in row.items() if isinstance(value, (str, int, float))}
            fields = {key: value for key, value in scalars.items() if key not in NOT_FIELDS | {source.label}}
            audio = partial(_synthesised, row) if source.module == "speech" else None
            where = f"generator {source.module}"
            label = (str(row[source.label]),)
            yield RawItem(row["id"], split, label, row.get("text"), audio, row["cluster"], fields, where)


def _scenarios(benchmark: Benchmark, source: ScenarioSource, root: Path | None) -> Iterator[RawItem]:
    """An item for each scenario, outcome and emotion; those of one scenario and outcome are a group."""
    for part, name in source.files.items():
        path = benchmark.file(name) if root is None else root / name
        if not path.is_file():
            raise DatasetError(f"benchmark {benchmark.name}: there is no file {path}")
        scenarios = read_scenarios(path)
        order = sorted(scenarios, key=lambda each: hashlib.sha256(each.id.encode()).digest())
        kept_back = {each.id for each in order[: round((source.held_out or 0) * len(order))]}
        for each in scenarios:
            split = each.split if part == "all" else part
            if part == "identification" and each.id in kept_back:
                split = "validation"
            if split is None:
                raise DatasetError(f"{path}: scenario {each.id} has no split", hint="add the key `split`")
            for valence in VALENCES:
                pair, event = f"{each.id}__{valence}", each.events[valence]
                text = f"{each.text}\n{event}"
                fields = {"scenario": each.text, "event": event, "theme": each.theme, "valence": valence}
                for label in benchmark.labels:
                    identity = f"{pair}__{label}"
                    yield RawItem(
                        identity, split, (label,), text, None, each.id, fields, str(path), None, pair
                    )


def _synthesised(row: Any) -> Waveform:
    from affectbench.generators import speech

    return speech.synthesise(row)


def _found(benchmark: Benchmark, globs: tuple[str, ...], root: Path, what: str) -> list[Path]:
    paths = sorted({path for glob in globs for path in root.glob(glob) if path.is_file()})
    if not paths:
        raise DatasetError(
            f"benchmark {benchmark.name}: no file in {root} matches {', '.join(globs)}",
            hint=f"put the {what} there, under their original names",
        )
    return paths


def _folder(benchmark: Benchmark, source: FolderSource, root: Path) -> Iterator[RawItem]:
    pattern = re.compile(source.pattern)
    for path in _found(benchmark, source.files, root, "sound files"):
        below = path.relative_to(root)
        match = pattern.fullmatch(below.as_posix() if source.of_paths else path.name)
        if match is None:
            what = "path" if source.of_paths else "file name"
            raise DatasetError(
                f"{path}: the {what} does not match the benchmark's pattern {source.pattern}",
                hint="rename or remove it, or narrow `source.files`",
            )
        fields = {key: value for key, value in match.groupdict().items() if value is not None}
        labels = (fields.pop("label"),)
        identity = below.with_suffix("").as_posix() if source.of_paths else path.stem
        yield RawItem(identity, None, labels, None, path, fields[benchmark.cluster], fields, str(path))


def _lines(benchmark: Benchmark, source: LinesSource, root: Path) -> Iterator[RawItem]:
    pattern = re.compile(source.pattern)
    for path in _found(benchmark, source.files, root, "label files"):
        items = 0
        for number, line in lines_of(path, errors="replace"):
            match = pattern.fullmatch(line.rstrip("\r\n"))
            if match is None:
                continue
            items += 1
            groups = {key: value for key, value in match.groupdict().items() if value is not None}
            more = {name: _filled(template, groups) for name, template in source.fields.items()}
            audio = None if source.audio is None else root / _filled(source.audio, groups)
            text = None if source.text is None else _filled(source.text, groups).strip()
            labels, identity = (groups.pop("label"),), groups.pop("id")
            fields = groups | more
            cluster, where = fields[benchmark.cluster], f"{path}:{number}"
            yield RawItem(identity, None, labels, text, audio, cluster, fields, where)
        if not items:
            raise DatasetError(
                f"{path}: no line matches the benchmark's pattern {source.pattern}",
                hint="is this a label file of the corpus? if not, narrow `source.files`",
            )


def _filled(template: str, values: Mapping[str, str]) -> str:
    return CELL.sub(lambda match: values[match.group(1)], template)


def _table(benchmark: Benchmark, source: TableSource, root: Path) -> Iterator[RawItem]:
    names = _label_names(source, root)
    for part, file in source.files.items():
        path = root / file
        if not path.is_file():
            siblings = [sibling.name for sibling in path.parent.glob("*")]
            raise DatasetError(
                f"benchmark {benchmark.name}: there is no file {path}{suggest(path.name, siblings)}",
                hint=f"put the {part} rows there, or change source.files.{part}",
            )
        split = None if part == "all" else part
        for number, cells in table_rows(source, path):
            row = _Row(source, cells, f"{path}:{number}", path.stem)
            yield row.item(f"{path.stem}-{number:07d}", split, root, names)


def _hub(source: HubSource, root: Path | None) -> Iterator[RawItem]:
    from affectbench.hub_rows import hub_rows

    for part, split in source.splits.items():
        for number, cells in hub_rows(source, split, root):
            row = _Row(source, cells, f"{source.path}, split {split}, row {number}", split)
            yield row.item(f"{split}-{number:07d}", None if part == "all" else part, root, None)


@dataclass(frozen=True)
class _Row:
    """One row of a table or data set, on its way to an item."""

    source: RowSource
    cells: Cells
    where: str
    table: str

    def item(self, name: str, split: SplitName | None, root: Path | None, names: list[str] | None) -> RawItem:
        """The item; `name` is its id where no column holds one, `names` the labels that cells point to."""
        columns, left_out = self.source.columns, self._left_out()
        if columns.split is not None and left_out is None:
            split, left_out = self._split(columns.split)
        if left_out is not None:
            return RawItem(name, split, (), None, None, name, {}, self.where, left_out)
        text = None if columns.text is None else self._text(columns.text)
        audio = None if columns.audio is None else self._audio(columns.audio, root)
        identity = name if columns.id is None else self._cell("id", columns.id)
        cluster = identity if columns.cluster is None else self._cell("cluster", columns.cluster)
        fields = {key: self._cell(key, column) for key, column in columns.fields.items()}
        return RawItem(identity, split, self._labels(names), text, audio, cluster, fields, self.where)

    def _raw(self, role: str, column: int | str) -> Any:
        if column not in self.cells or self.cells[column] is None:
            problem = f"{self.where}: no value for column {column!r}, which holds the {role}"
            near = "" if column in self.cells else suggest(column, map(str, self.cells))
            raise DatasetError(problem, hint=f"columns: {', '.join(map(str, self.cells))}{near}")
        return self.cells[column]

    def _cell(self, role: str, column: int | str) -> str:
        if not isinstance(column, str) or CELL.search(column) is None:
            return str(self._raw(role, column))
        known = {TABLE_NAME: self.table}
        return CELL.sub(lambda match: known.get(match[1]) or str(self._raw(role, match[1])), column)

    def _text(self, column: int | str) -> str:
        text = self._cell("text", column)
        for old, new in self.source.replace.items():
            text = text.replace(old, new)
        return text.strip()

    def _audio(self, column: int | str, root: Path | None) -> Path | Callable[[], Waveform]:
        cell = self.cells.get(column)
        return cell if callable(cell) else (root or Path()) / self._cell("audio", column)

    def _left_out(self) -> str | None:
        for column, pattern in self.source.keep.items():
            known = column in self.cells and self.cells[column] is None
            cell = "" if known else str(self._raw("rule in `keep`", column))
            if re.fullmatch(pattern, cell, re.DOTALL) is None:
                return f"`keep` for {column}"
        return None

    def _split(self, column: int | str) -> tuple[SplitName | None, str | None]:
        value, known = self._cell("split", column), self.source.split_values
        if value not in known:
            raise DatasetError(
                f"{self.where}: the split {value!r} is not known{suggest(value, known)}",
                hint=f"known: {', '.join(known)}; add it to source.split_values, with null to drop it",
            )
        split = known[value]
        return split, None if split is not None else f"split {value}"

    def _labels(self, names: list[str] | None) -> tuple[str, ...]:
        column = self.source.columns.label
        if isinstance(column, tuple):
            return tuple(name for name in column if self._is_on(name)) or (NO_LABEL,)
        value = self._raw("label", column)
        parts = value if isinstance(value, (list, tuple)) else str(value).split(self.source.separator)
        labels = tuple(str(part).strip() for part in parts if str(part).strip())
        if names is not None:
            labels = tuple(_named(label, names, self.where) for label in labels)
        if not labels:
            raise DatasetError(f"{self.where}: the label is empty", hint="every row needs a label")
        return labels

    def _is_on(self, column: str) -> bool:
        value = str(self._raw("label", column)).strip().lower()
        if value not in ON + OFF:
            raise DatasetError(f"{self.where}: column {column!r} should be 0 or 1, found {value!r}")
        return value in ON


def _label_names(source: TableSource, root: Path) -> list[str] | None:
    if source.label_names is None:
        return None
    path = root / source.label_names
    if not path.is_file():
        raise DatasetError(f"there is no file {path}", hint="source.label_names lists the labels, one a line")
    return [line.strip() for _, line in lines_of(path) if line.strip()]


def _named(label: str, names: list[str], where: str) -> str:
    if not label.isdecimal() or int(label) >= len(names):
        raise DatasetError(
            f"{where}: label {label!r} is no position in the {len(names)} label names (from 0)"
        )
    return names[int(label)]
