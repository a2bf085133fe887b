"""Records for other tools: flat rows as CSV and Parquet, and the interchange schema of Every Eval Ever.

The interchange format is https://github.com/evaleval/every_eval_ever (schema 0.3.0, MIT): one JSON document a
model and task, laid out as its datastore wants it, `data/affectbench/DEVELOPER/MODEL/UUID.json`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from affectbench.errors import AffectbenchError
from affectbench.record import Record, canonical_json, cell_id, file_part
from affectbench.record_rows import rows
from affectbench.score_models import Estimate
from affectbench.store import write_atomically
from affectbench.yaml_loading import suggest

FORMATS = ("csv", "parquet", "eee")
EEE_VERSION = "0.3.0"
COLLECTION = "affectbench"


@dataclass(frozen=True)
class Metric:
    """One published number as the interchange schema describes it."""

    name: str
    description: str
    least: float
    most: float


METRICS = {
    "specificity": Metric("specificity", "Suppressed: recall the target loses beyond the others", -1, 1),
    "specificity_amplify": Metric(
        "specificity", "Amplified: recall the target wins beyond the others", -1, 1
    ),
    "strength": Metric("steering strength", "Target-rate shift, averaged over the doses", -1, 1),
    "preservation": Metric("preservation", "What is left of the language model", 0, 1),
    "aggregate": Metric("aggregate", "Harmonic mean of specificity, strength, preservation", 0, 1),
}


def export(records: Sequence[Record], form: str, output: Path, *, organization: str) -> list[Path]:
    """Write records in one of FORMATS; returns the files written.

    `output` is a file for csv and parquet, a folder for eee. Records without a score are rows with a status
    in the first two, and are left out of the last. Raises `AffectbenchError` for another format.
    """
    if form == "csv":
        return [_written(output, _as_csv(records))]
    if form == "parquet":
        return [_written(output, _as_parquet(records))]
    if form == "eee":
        return _write_eee(records, output, organization)
    raise AffectbenchError(f"format {form!r} is not known{suggest(form, FORMATS)}", hint=", ".join(FORMATS))


def flat_rows(records: Iterable[Record]) -> list[dict[str, Any]]:
    """One row a condition, with the cell's id and the hashes that say what compares with what."""
    return [
        {"cell_id": cell_id(record.cell), **row, **_hashes(record)}
        for record in sorted(records, key=lambda each: cell_id(each.cell))
        for row in rows(record)
    ]


def _hashes(record: Record) -> dict[str, str]:
    return {f"{name}_hash": value for name, value in record.hashes.model_dump().items()}


def _written(path: Path, content: bytes) -> Path:
    write_atomically(path, content)
    return path


def _as_csv(records: Sequence[Record]) -> bytes:
    import csv

    found = flat_rows(records)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(found[0]) if found else ["cell_id"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _safe(value) for key, value in row.items()} for row in found)
    return stream.getvalue().encode()


def _safe(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula; missing values are empty."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t"):
        return f"'{value}"
    return "" if value is None else value


def _as_parquet(records: Sequence[Record]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(flat_rows(records)), sink, compression="zstd")
    return sink.getvalue()


def _write_eee(records: Sequence[Record], folder: Path, organization: str) -> list[Path]:
    groups: dict[tuple[str, str, str, str], list[Record]] = {}
    for record in records:
        if record.headline is not None:
            key = (record.model.id, record.task.id, record.hashes.model, record.hashes.task)
            groups.setdefault(key, []).append(record)
    written = []
    for key in sorted(groups):
        found = sorted(groups[key], key=lambda each: cell_id(each.cell))
        document = eee_document(found, organization)
        # The same records give the same name; the form of a version-4 UUID is what the datastore asks for.
        name = UUID(bytes=hashlib.sha256(canonical_json(document).encode()).digest()[:16], version=4)
        place = folder / "data" / COLLECTION / _developer(found[0]) / found[0].model.id / f"{name}.json"
        written.append(_written(place, canonical_json(document).encode()))
    return written


def eee_document(records: Sequence[Record], organization: str) -> dict[str, Any]:
    """One evaluation log of Every Eval Ever: all scored cells of one model on one task."""
    first = records[0]
    finished = max(records, key=lambda record: _seconds(record.provenance.finished)).provenance
    model_id = f"{_developer(first)}/{first.model.id}"
    stamp = _seconds(finished.finished)
    versions = sorted({record.provenance.affectbench for record in records})
    return {
        "schema_version": EEE_VERSION,
        "evaluation_id": f"{COLLECTION}.{first.task.id}/{model_id}/{stamp}",
        "evaluation_timestamp": finished.finished,
        "retrieved_timestamp": stamp,
        "source_metadata": {
            "source_name": "affectbench",
            "source_type": "evaluation_run",
            "source_organization_name": organization,
            "evaluator_relationship": "first_party" if first.model.instrument else "third_party",
        },
        "eval_library": {
            "name": "affectbench",
            "version": versions[-1],
            "additional_details": {
                name: str(getattr(finished, name)) for name in ("python", "torch", "transformers", "platform")
            },
        },
        "model_info": {
            "name": first.model.id,
            "id": model_id,
            "developer": _developer(first),
            "inference_engine": {"name": "transformers", "version": finished.transformers},
            "additional_details": {
                "deployment_type": "self_deployed",
                "model_availability": "open_weights" if first.model.instrument else "unknown",
                "family": first.model.family,
                "revision": first.model.revision or "unknown",
                "dtype": first.model.dtype,
                "weights_hash": first.hashes.model,
                "calibration_instrument": str(first.model.instrument).lower(),
            },
        },
        "evaluation_results": [result for record in records for result in _results(record)],
    }


def _results(record: Record) -> Iterator[dict[str, Any]]:
    head = record.headline
    if head is None:
        return
    values: dict[str, Estimate | None] = {
        "specificity": head.spec,
        "specificity_amplify": head.spec_amplify,
        "strength": head.strength,
        "preservation": head.pres,
        "aggregate": head.agg,
    }
    for key, value in values.items():
        if value is not None:
            yield _result(record, key, value)


def _result(record: Record, key: str, value: Estimate) -> dict[str, Any]:
    metric, task = METRICS[key], record.task
    return {
        "evaluation_result_id": f"{cell_id(record.cell)}.{key}",
        "evaluation_name": ".".join(filter(None, (COLLECTION, task.id, file_part(record.cell.identified)))),
        "evaluation_timestamp": record.provenance.finished,
        "source_data": {
            "dataset_name": task.id,
            "source_type": "other",
            "additional_details": {
                "title": task.title,
                "version": str(task.version),
                "task_hash": record.hashes.task,
                "split": "test",
            },
        },
        "metric_config": {
            "evaluation_description": metric.description,
            "metric_id": f"{COLLECTION}.{key}",
            "metric_name": metric.name,
            "metric_kind": "causal_effect",
            "metric_unit": "proportion",
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": metric.least,
            "max_score": metric.most,
        },
        "score_details": {
            "score": value.value,
            "details": _details(record),
            **_uncertainty(record, key, value),
        },
        "generation_config": {"generation_args": {"execution_command": record.provenance.command}},
    }


def _details(record: Record) -> dict[str, str]:
    """What was intervened on; every value is text, as the schema wants it."""
    cell = record.cell
    found = {
        "selector": cell.selector,
        "control": record.control,
        "intervention": cell.intervention,
        "protocol_hash": record.hashes.protocol,
        "selection_hash": record.hashes.selection,
        "record_hash": record.hashes.record,
        "site": cell.site,
        "positions": cell.positions,
        "fraction": cell.fraction,
        "seed": cell.seed,
        "status": record.status,
        "significant": record.headline is not None and record.headline.significant,
    }
    if cell.identification is not None:
        found["identified"] = cell.identified
    if record.hashes.identification:
        found["identification_hash"] = record.hashes.identification
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in found.items()
    }


SAMPLES = "neutral documents, capability items and open prompts, each for itself"
RESAMPLED = {"preservation": SAMPLES, "aggregate": f"clusters of test items, and over {SAMPLES}"}


def _uncertainty(record: Record, key: str, value: Estimate) -> dict[str, Any]:
    if value.low is None or value.high is None or record.scores is None:
        return {}
    found: dict[str, Any] = {
        "confidence_interval": {
            "lower": value.low,
            "upper": value.high,
            "confidence_level": 0.95,
            "method": f"percentiles of a bootstrap over {RESAMPLED.get(key, 'clusters')}",
        },
        "num_bootstrap_samples": record.scores.bootstrap_draws,
    }
    if key not in RESAMPLED:
        found["num_samples"] = record.scores.baseline.n_items
    if value.se is not None:
        found["standard_error"] = {"value": value.se, "method": "bootstrap"}
    return {"uncertainty": found}


def _developer(record: Record) -> str:
    """Who made the model, as far as a record knows: ours for the instruments."""
    return COLLECTION if record.model.instrument else "unknown"


def _seconds(moment: str) -> str:
    return str(int(datetime.fromisoformat(moment).timestamp()))
