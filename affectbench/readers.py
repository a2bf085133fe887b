"""Readers of benchmark sources: generators, tables and folders of sound files, all as `RawItem`s."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from affectbench.examples import DatasetError, Waveform
from affectbench.task import SPLITS, Benchmark, SplitName
from affectbench.task_parts import FolderSource, GeneratorSource, TableSource
from affectbench.yaml_loading import suggest

NOT_FIELDS = frozenset({"id", "text", "cluster"})


@dataclass(frozen=True)
class RawItem:
    """An item as its source has it. `labels` are raw labels; `where` is its file, with its row if any."""

    id: str
    split: SplitName | None
    labels: tuple[str, ...]
    text: str | None
    audio: Any
    cluster: str
    fields: Mapping[str, str]
    where: str


def read_items(benchmark: Benchmark, root: Path) -> Iterator[RawItem]:
    """All items of the benchmark's source; `root` is its data folder. Raises `DatasetError`."""
    source = benchmark.source
    if isinstance(source, GeneratorSource):
        return _generated(source)
    if isinstance(source, TableSource):
        return _table(benchmark, source, root)
    return _folder(benchmark, source, root)


def _generated(source: GeneratorSource) -> Iterator[RawItem]:
    from affectbench.generators import narratives, speech

    for split in SPLITS:
        n = getattr(source.per_emotion, split)
        if source.module == "narratives":
            rows: list[Any] = list(narratives.examples(split, n, source.seed))
        else:
            rows = list(speech.examples(split, n, source.seed))
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
            yield RawItem(
                row["id"],
                split,
                (str(row[source.label]),),
                row.get("text"),
                audio,
                row["cluster"],
                fields,
                where,
            )


def _synthesised(row: Any) -> Waveform:
    from affectbench.generators import speech

    return speech.synthesise(row)


def _folder(benchmark: Benchmark, source: FolderSource, root: Path) -> Iterator[RawItem]:
    paths = sorted({path for glob in source.files for path in root.glob(glob) if path.is_file()})
    if not paths:
        raise DatasetError(
            f"benchmark {benchmark.name}: no file in {root} matches {', '.join(source.files)}",
            hint="put the sound files there, under their original names",
        )
    pattern = re.compile(source.pattern)
    for path in paths:
        match = pattern.fullmatch(path.name)
        if match is None:
            raise DatasetError(
                f"{path}: the file name does not match the benchmark's pattern {source.pattern}",
                hint="rename or remove it, or narrow `source.files`",
            )
        fields = {key: value for key, value in match.groupdict().items() if value is not None}
        labels = (fields.pop("label"),)
        yield RawItem(path.stem, None, labels, None, path, fields[benchmark.cluster], fields, str(path))


def _table(benchmark: Benchmark, source: TableSource, root: Path) -> Iterator[RawItem]:
    names = _label_names(source, root)
    for part, file in source.files.items():
        path = root / file
        if not path.is_file():
            siblings = [sibling.name for sibling in root.iterdir()]
            raise DatasetError(
                f"benchmark {benchmark.name}: there is no file {path}{suggest(file, siblings)}",
                hint=f"put the {part} rows there, or change source.files.{part}",
            )
        split = None if part == "all" else part
        for row, cells in _rows(source, path):
            yield _row_item(source, root, split, path, row, cells, names)


def _row_item(
    source: TableSource,
    root: Path,
    split: SplitName | None,
    path: Path,
    row: int,
    cells: Mapping[int | str, Any],
    names: list[str] | None,
) -> RawItem:
    where = f"{path}:{row}"
    columns = source.columns

    def cell(role: str, column: int | str) -> Any:
        if column not in cells or cells[column] is None:
            problem = f"{where}: no value for column {column!r}, which holds the {role}"
            near = "" if column in cells else suggest(column, map(str, cells))
            hint = f"columns: {', '.join(map(str, cells))}{near}"
            raise DatasetError(problem, hint=hint)
        return cells[column]

    text = None if columns.text is None else str(cell("text", columns.text)).strip()
    audio = None if columns.audio is None else root / str(cell("audio", columns.audio))
    identity = f"{path.stem}-{row:07d}" if columns.id is None else str(cell("id", columns.id))
    cluster = identity if columns.cluster is None else str(cell("cluster", columns.cluster))
    fields = {name: str(cell(name, column)) for name, column in columns.fields.items()}
    labels = _raw_labels(cell("label", columns.label), source.separator)
    if names is not None:
        labels = tuple(_named(label, names, where) for label in labels)
    if not labels:
        raise DatasetError(f"{where}: the label is empty", hint="every row needs a label")
    return RawItem(identity, split, labels, text, audio, cluster, fields, where)


def _raw_labels(value: Any, separator: str) -> tuple[str, ...]:
    parts = value if isinstance(value, (list, tuple)) else str(value).split(separator)
    return tuple(str(part).strip() for part in parts if str(part).strip())


def _label_names(source: TableSource, root: Path) -> list[str] | None:
    if source.label_names is None:
        return None
    path = root / source.label_names
    if not path.is_file():
        raise DatasetError(f"there is no file {path}", hint="source.label_names lists the labels, one a line")
    return [line.strip() for _, line in _lines(path) if line.strip()]


def _named(label: str, names: list[str], where: str) -> str:
    if not label.isdecimal() or int(label) >= len(names):
        raise DatasetError(
            f"{where}: label {label!r} is no position in the {len(names)} label names (from 0)"
        )
    return names[int(label)]


def _rows(source: TableSource, path: Path) -> Iterator[tuple[int, Mapping[int | str, Any]]]:
    """Rows of a table with their line numbers (parquet: row numbers), from 1."""
    if source.format == "parquet":
        return _parquet_rows(source, path)
    return json_rows(path) if source.format == "jsonl" else _csv_rows(source, path)


def _parquet_rows(source: TableSource, path: Path) -> Iterator[tuple[int, Mapping[int | str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{path}: cannot be read as parquet: {error}") from error
    present = set(table.schema_arrow.names)
    wanted = [str(column) for column in source.columns.named.values()]
    for column in wanted:
        if column not in present:
            raise DatasetError(f"{path}: there is no column {column!r}{suggest(column, present)}")
    number = 0
    for batch in table.iter_batches(columns=wanted):
        for cells in batch.to_pylist():
            number += 1
            yield number, cells


def json_rows(path: Path) -> Iterator[tuple[int, Mapping[int | str, Any]]]:
    """Objects of a JSON lines file with their line numbers. Raises `DatasetError` naming file and line."""
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except json.JSONDecodeError as error:
            raise DatasetError(f"{path}:{number}: not JSON: {error.msg}") from error
        if not isinstance(cells, dict):
            raise DatasetError(f"{path}:{number}: expected a JSON object")
        yield number, cells


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a text file with their numbers, from 1. Raises `DatasetError` where it is not UTF-8."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DatasetError(
                    f"{path}:{number}: not UTF-8 text: {error.reason}", hint="save the file as UTF-8"
                ) from error


def _csv_rows(source: TableSource, path: Path) -> Iterator[tuple[int, Mapping[int | str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        if source.format == "tsv":
            reader = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        else:
            reader = csv.reader(stream)
        try:
            header: list[str] | None = next(reader, []) if source.header else None
            for cells in reader:
                if cells:
                    keys: Any = range(len(cells)) if header is None else header
                    yield reader.line_num, dict(zip(keys, cells, strict=False))
        except (csv.Error, UnicodeDecodeError) as error:
            raise DatasetError(
                f"{path}:{reader.line_num + 1}: cannot be read as {source.format}: {error}",
                hint="save the file as UTF-8",
            ) from error
