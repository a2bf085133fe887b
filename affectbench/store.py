"""The folder that holds results: records and predictions, written whole or not at all, checked when read."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from affectbench.errors import RecordError
from affectbench.outcomes import Outcomes
from affectbench.record import Cell, Hashes, Record, canonical_json, cell_id, hash_of
from affectbench.replies import Replies

CACHE_VARIABLE = "AFFECTBENCH_CACHE"


class Damaged(NamedTuple):
    """A file that cannot be trusted, and why."""

    path: Path
    reason: str


class Store:
    """Results under one folder: `records/*.json`, `predictions/*.parquet`, `selections/` and
    `replies/*.parquet`.

    A cell's files bear its `cell_id`. Several processes may write to one store at a time.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.records = self.root / "records"
        self.predictions = self.root / "predictions"
        self.selections = self.root / "selections"

    def prepare(self) -> None:
        """Make the folder. Raises `RecordError` where that is not possible, before anything is computed."""
        try:
            self.records.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordError(
                f"cannot write results to {self.root}: {error.strerror or error}",
                hint="choose another folder with --output",
            ) from error

    def record_path(self, cell: Cell) -> Path:
        """Where this cell's record is or would be."""
        return self.records / f"{cell_id(cell)}.json"

    def replies_path(self, cell: Cell) -> Path:
        """Where the judged texts of a cell are or would be, if its task is one of expression."""
        return self.root / "replies" / f"{cell_id(cell)}.parquet"

    def predictions_path(self, cell: Cell) -> Path:
        """Where this cell's predictions are or would be."""
        return self.predictions / f"{cell_id(cell)}.parquet"

    def write(self, record: Record) -> Path:
        """Seal a record with its content hash and write it, in place of an older one of the same cell.

        Raises:
            RecordError: the file cannot be written; an older one is then still there, untouched.
        """
        path = self.record_path(record.cell)
        write_atomically(path, record.sealed().canonical().encode())
        return path

    def read_all(self) -> tuple[list[Record], list[Damaged]]:
        """All records, by file name, and all files in their folder that are not to be trusted."""
        records: list[Record] = []
        damaged: list[Damaged] = []
        for path in sorted(self.records.glob("*.json")):
            found = read_record(path)
            if isinstance(found, Damaged):
                damaged.append(found)
            else:
                records.append(found)
        return records, damaged

    def finished(self, cell: Cell, hashes: Hashes) -> Record | None:
        """The stored record of this cell, if it need not be run again.

        That is: intact, not an error, and made from the same task, protocol, selector and model, with units
        from the same benchmark. The selection's hash is compared where the given one is not empty (it is
        unknown before selecting).
        """
        path = self.record_path(cell)
        found = read_record(path) if path.exists() else None
        if not isinstance(found, Record) or found.status == "error":
            return None
        wanted = hashes.model_dump(
            exclude={"record", "predictions", "replies"} | (set() if hashes.selection else {"selection"})
        )
        return found if all(getattr(found.hashes, name) == value for name, value in wanted.items()) else None

    def write_predictions(self, cell: Cell, outcomes: Mapping[str, Outcomes]) -> Path:
        """Write the predictions of a cell, one `Outcomes` a split."""
        from affectbench.predictions import to_parquet

        path = self.predictions_path(cell)
        write_atomically(path, to_parquet(outcomes))
        return path

    def write_replies(self, cell: Cell, replies: Replies) -> Path:
        """Write the judged texts of a cell."""
        path = self.replies_path(cell)
        write_atomically(path, replies.to_parquet())
        return path

    def read_predictions(self, cell: Cell) -> dict[str, Outcomes]:
        """Read the predictions of a cell back, by split.

        Raises:
            RecordError: no such file, or one that is damaged or incomplete.
        """
        from affectbench.predictions import from_parquet

        path = self.predictions_path(cell)
        if not path.exists():
            raise RecordError(f"no predictions are stored at {path}", hint="run the cell first")
        return from_parquet(path)


def read_record(path: Path) -> Record | Damaged:
    """Read one record, or say in a sentence why it cannot be trusted."""
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        return Damaged(path, f"cannot be read: {error}")
    record = parse_record(path, text)
    if isinstance(record, Record) and path.stem != cell_id(record.cell):
        return Damaged(path, f"misplaced: this cell's file name is {cell_id(record.cell)}.json")
    return record


def parse_record(path: Path, text: str) -> Record | Damaged:
    """The record in `text`, which came from `path`, or why it cannot be trusted."""
    try:
        record = Record.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "json_invalid":
            return Damaged(path, f"not valid JSON: {first['msg']}")
        where = ".".join(map(str, first["loc"])) or "record"
        return Damaged(path, f"does not fit the schema: {where}: {first['msg']}")
    # Of the file's own JSON: a record of an earlier version lacks what was added to the schema since.
    if record.hashes.record != hash_of(json.loads(text)):
        return Damaged(path, "its content does not match its hash: edited by hand or damaged")
    return record


def set_aside(path: Path) -> Path:
    """Move a damaged file to a name beside it that nothing reads; returns where it is then.

    Raises:
        RecordError: the folder cannot be written.
    """
    aside = path.with_name(f"{path.name}.damaged")
    try:
        os.replace(path, aside)
    except FileNotFoundError:  # Another process was quicker.
        pass
    except OSError as error:
        raise RecordError(
            f"{path} is damaged and cannot be set aside: {error.strerror or error}",
            hint="make the folder writable, or choose another with --output",
        ) from error
    return aside


def cache_folder(kind: str) -> Path:
    """Where what costs time or money is kept for later runs: `kind` in $AFFECTBENCH_CACHE, or in the user's
    cache. Whatever is there may be removed."""
    named = os.environ.get(CACHE_VARIABLE)
    return (Path(named) if named else Path.home() / ".cache" / "affectbench") / kind


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file so that any reader, at any moment, sees the old content or the new, never a part.

    Without `durable`, that holds through a kill but not through a power failure, and nothing waits for the
    disk.

    Raises:
        RecordError: the file cannot be written, e.g. on a full disk; nothing partial is left behind.
    """
    partial = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise RecordError(
            f"cannot write {path}: {error.strerror or error}",
            hint="free space or choose another results folder; what was written before is intact",
        ) from error
    finally:
        with suppress(OSError):  # The folder itself may be missing, or no folder.
            partial.unlink()


def write_schemas(folder: Path) -> list[Path]:
    """Export the record's JSON Schema for validators outside Python."""
    path = folder / "record.schema.json"
    write_atomically(path, canonical_json(Record.model_json_schema()).encode())
    return [path]
