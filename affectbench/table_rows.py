"""Rows of tsv, csv, jsonl and parquet files, each as a mapping from column to cell."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from affectbench.examples import DatasetError
from affectbench.sources import TableSource
from affectbench.yaml_loading import suggest

Cells = Mapping[int | str, Any]


def table_rows(source: TableSource, path: Path) -> Iterator[tuple[int, Cells]]:
    """Rows of a table with their line numbers (parquet: row numbers), from 1. Raises `DatasetError`."""
    if source.format == "parquet":
        return _parquet_rows(source, path)
    return json_rows(path) if source.format == "jsonl" else _csv_rows(source, path)


def _parquet_rows(source: TableSource, path: Path) -> Iterator[tuple[int, Cells]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{path}: cannot be read as parquet: {error}") from error
    present = set(table.schema_arrow.names)
    wanted = list(dict.fromkeys(str(column) for column in (*source.columns.used(), *source.keep)))
    for column in wanted:
        if column not in present:
            raise DatasetError(f"{path}: there is no column {column!r}{suggest(column, present)}")
    number = 0
    for batch in table.iter_batches(columns=wanted):
        for cells in batch.to_pylist():
            number += 1
            yield number, cells


def json_rows(path: Path) -> Iterator[tuple[int, Cells]]:
    """Objects of a JSON lines file with their line numbers. Raises `DatasetError` naming file and line."""
    for number, line in lines_of(path):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except json.JSONDecodeError as error:
            raise DatasetError(f"{path}:{number}: not JSON: {error.msg}") from error
        if not isinstance(cells, dict):
            raise DatasetError(f"{path}:{number}: expected a JSON object")
        yield number, cells


def lines_of(path: Path, errors: Literal["strict", "replace"] = "strict") -> Iterator[tuple[int, str]]:
    """Lines of a text file with their numbers, from 1.

    Raises `DatasetError` where it is not UTF-8, unless `errors` has such characters replaced.
    """
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8", errors)
            except UnicodeDecodeError as error:
                raise DatasetError(
                    f"{path}:{number}: not UTF-8 text: {error.reason}", hint="save the file as UTF-8"
                ) from error


def _csv_rows(source: TableSource, path: Path) -> Iterator[tuple[int, Cells]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        if source.format == "tsv":
            reader = csv.reader(stream, delimiter=source.delimiter or "\t", quoting=csv.QUOTE_NONE)
        else:
            reader = csv.reader(stream, delimiter=source.delimiter or ",")
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
