"""What a regression check compares: a folder of results, or one small file that a team can commit.

The file is Parquet, one row a cell: the record as JSON, and of its predictions what the paired tests need: on
the test split the answers without intervention, at the operating suppress dose and at every amplify dose, and
those of the answer-word control. Margins and random draws stay in the results folder.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from affectbench.errors import RecordError
from affectbench.outcomes import ANSWER_WORDS, Condition, Outcomes, content_digest
from affectbench.record import Record, cell_id
from affectbench.store import Damaged, Store, parse_record, write_atomically

SUFFIX = ".parquet"
META = b"affectbench_baseline"
VERSION = 2
READ = (1, VERSION)
"""Version 1 lacks the column `answer_words`."""
ANSWERS = ("items", "clusters", "gold", "base", "conditions")
HINT = "restore the file, or write a new baseline with --update"


@dataclass(frozen=True)
class Results:
    """Records, and how to get a record's answers: of `test` and, where it was asked, of the answer-word
    control; empty where none are stored."""

    name: str
    records: tuple[Record, ...]
    answers: Callable[[Record], Mapping[str, Outcomes]]


def read_results(path: Path) -> Results:
    """Results from a folder that `run` wrote, or from a baseline file.

    Raises:
        RecordError: nothing is there, or something in it is damaged.
    """
    if path.is_dir():
        found = of_folder(path)
    elif path.is_file():
        found = _of_file(path)
    else:
        raise RecordError(
            f"there is no baseline at {path}",
            hint="write one with --update, or give the folder of an earlier run",
        )
    if not found.records:
        raise RecordError(f"{path} holds no records", hint="run a suite first, or write one with --update")
    return found


def of_folder(folder: Path, records: Sequence[Record] | None = None) -> Results:
    """Results of a folder; `records` where only some of them are meant, such as those of one suite."""
    store = Store(folder)
    if records is None:
        if not store.records.is_dir():
            raise RecordError(
                f"{folder} holds no records", hint="give the folder that `run --output` wrote, or --suite"
            )
        records, damaged = store.read_all()
        if damaged:
            listed = "\n".join(f"{each.path}: {each.reason}" for each in damaged)
            raise RecordError(
                f"{len(damaged)} damaged records:\n{listed}", hint="run these cells again, or restore them"
            )

    def answers(record: Record) -> Mapping[str, Outcomes]:
        if not record.hashes.predictions or not store.predictions_path(record.cell).exists():
            return {}
        found = store.read_predictions(record.cell)
        if content_digest(found) != record.hashes.predictions:
            raise RecordError(
                f"{store.predictions_path(record.cell)}: these are not the answers of its record",
                hint="run the cell again",
            )
        return {split: found[split] for split in ("test", ANSWER_WORDS) if split in found}

    return Results(str(folder), tuple(records), answers)


def write_baseline(path: Path, results: Results) -> int:
    """Write results as one file; returns its size in bytes.

    Raises:
        RecordError: a cell ended in an error (a check against it would always hold), or there is no cell.
    """
    broken = [record for record in results.records if record.status == "error"]
    if broken or not results.records:
        raise RecordError(
            f"no baseline written: {broken[0].cell.selector}: {broken[0].reason}"
            if broken
            else f"no baseline written: {results.name} holds no records",
            hint="a baseline needs cells that ran",
        )
    content = _to_parquet(results)
    write_atomically(path, content)
    return len(content)


def _to_parquet(results: Results) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [_row(record, results.answers(record)) for record in results.records]
    rows.sort(key=lambda row: row["cell"])
    codes, text = pa.list_(pa.int16()), pa.list_(pa.string())
    condition = pa.struct(
        [
            *(("arm", pa.string()), ("dose", pa.float64()), ("alpha", pa.float64())),
            *(("answers", codes), ("base", codes)),
        ]
    )
    answers = list(zip(ANSWERS, (text, text, codes, codes, pa.list_(condition)), strict=True))
    columns = [("cell", pa.string()), ("record", pa.string()), *answers, (ANSWER_WORDS, pa.struct(answers))]
    seal = json.dumps({"version": VERSION, "sha256": _seal(rows)}).encode()
    schema = pa.schema(columns, metadata={META: seal})
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), sink, compression="zstd", compression_level=12)
    return sink.getvalue()


def _row(record: Record, answers: Mapping[str, Outcomes]) -> dict[str, Any]:
    row: dict[str, Any] = {"cell": cell_id(record.cell), "record": record.sealed().canonical()}
    row |= _columns(answers["test"], record) if answers else dict.fromkeys(ANSWERS)
    words = answers.get(ANSWER_WORDS)
    return row | {ANSWER_WORDS: None if words is None else _columns(words, record)}


def _columns(answers: Outcomes, record: Record) -> dict[str, Any]:
    kept = _reduced(answers, record)
    conditions = [
        {
            "arm": c.arm,
            "dose": c.dose,
            "alpha": c.alpha,
            "answers": c.predictions.ravel().tolist(),
            "base": None if c.base is None else c.base.tolist(),
        }
        for c in kept.conditions
    ]
    columns = (kept.items, kept.clusters, kept.gold, kept.base)
    return dict(zip(ANSWERS, [*(column.tolist() for column in columns), conditions], strict=True))


def _reduced(answers: Outcomes, record: Record) -> Outcomes:
    """The part of a cell's answers that its headline is made of."""
    operating = record.operating.suppress_dose if record.operating else None
    ordered = answers.ordered()
    n_items = len(ordered.items)
    return replace(
        ordered,
        base_margin=np.full(ordered.base_margin.shape, np.nan),
        conditions=tuple(
            replace(c, margin=np.full(c.margin.shape, np.nan), draws=np.empty((0, n_items), dtype=np.int16))
            for c in ordered.conditions
            if c.arm == "amplify" or c.dose == operating
        ),
    )


def _of_file(path: Path) -> Results:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        seal = json.loads((table.schema.metadata or {})[META])
        rows: dict[str, dict[str, Any]] = {row["cell"]: row for row in table.to_pylist()}
        if seal["version"] not in READ:
            raise ValueError(f"its format has version {seal['version']}, this program reads {VERSION}")
        if _seal(rows.values()) != seal["sha256"]:
            raise ValueError("its content does not match its checksum")
        records = tuple(_record(path, row) for row in rows.values())
    except KeyError as error:
        raise RecordError(f"{path} is not a baseline: it lacks {error}", hint=HINT) from error
    except (OSError, pa.ArrowException, TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RecordError(f"the baseline {path} is damaged: {reason}", hint=HINT) from error

    def answers(record: Record) -> Mapping[str, Outcomes]:
        row = rows[cell_id(record.cell)]
        kept = {"test": row, ANSWER_WORDS: row.get(ANSWER_WORDS)}
        return {split: _outcomes(record, own) for split, own in kept.items() if own and own["items"]}

    return Results(str(path), records, answers)


def _seal(rows: Any) -> str:
    """sha256 over all rows, in the order of their cells."""
    digest = hashlib.sha256()
    for row in sorted(rows, key=lambda each: str(each["cell"])):
        digest.update(json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()


def _record(path: Path, row: dict[str, Any]) -> Record:
    found = parse_record(path, row["record"])
    if isinstance(found, Damaged):
        raise ValueError(f"{row['cell']}: {found.reason}")
    return found


def _outcomes(record: Record, row: dict[str, Any]) -> Outcomes:
    labels, n_items = tuple(record.task.labels), len(row["items"])
    shape = (len(labels), n_items)
    return Outcomes(
        labels=labels,
        items=np.array(row["items"]),
        gold=np.array(row["gold"], dtype=np.int16),
        clusters=np.array(row["clusters"]),
        base=np.array(row["base"], dtype=np.int16),
        base_margin=np.full((n_items, len(labels)), np.nan),
        conditions=tuple(
            Condition(
                arm=c["arm"],
                dose=c["dose"],
                alpha=c["alpha"],
                predictions=np.array(c["answers"], dtype=np.int16).reshape(shape),
                margin=np.full(shape, np.nan),
                draws=np.empty((0, n_items), dtype=np.int16),
                base=None if c.get("base") is None else np.array(c["base"], dtype=np.int16),
            )
            for c in row["conditions"]
        ),
    )
