"""Records for other tools: CSV, Parquet, and the schema of Every Eval Ever."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from e2e_content import Outcome
from example_records import example_store

from affectbench.errors import AffectbenchError
from affectbench.export import export, flat_rows
from affectbench.record import Record, cell_id
from affectbench.store import Store

SCHEMA = json.loads((Path(__file__).parent / "every_eval_ever" / "eval.schema.json").read_text())
PLACE = re.compile(
    r"data/affectbench/[a-z]+/[a-z-]+/[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\.json"
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 models x 8 selectors; two cells without scores."""
    return example_store(tmp_path_factory.mktemp("results")).root


@pytest.fixture(scope="module")
def records(results: Path) -> list[Record]:
    return Store(results).read_all()[0]


def documents(records: list[Record], output: Path) -> dict[str, dict[str, Any]]:
    written = export(records, "eee", output, organization="Us")
    return {path.relative_to(output).as_posix(): json.loads(path.read_text()) for path in written}


def test_every_document_fits_the_interchange_schema(records: list[Record], tmp_path: Path) -> None:
    found = documents(records, tmp_path)
    assert len(found) == 4, "one a model and task"
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    for place, document in found.items():
        jsonschema.validate(document, SCHEMA, cls=jsonschema.Draft7Validator)
        assert PLACE.fullmatch(place)
        assert place.split("/")[3] == document["model_info"]["name"]
        assert document["schema_version"] == SCHEMA["version"]


def test_the_schema_would_find_a_mistake(records: list[Record], tmp_path: Path) -> None:
    document = next(iter(documents(records, tmp_path).values()))
    document["evaluation_results"][0]["metric_config"].pop("max_score")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA, cls=jsonschema.Draft7Validator)


def test_numbers_and_intervals_are_those_of_the_records(records: list[Record], tmp_path: Path) -> None:
    results: dict[str, dict[str, Any]] = {}
    for document in documents(records, tmp_path).values():
        for result in document["evaluation_results"]:
            assert result["evaluation_result_id"] not in results
            results[result["evaluation_result_id"]] = result
    scored = [record for record in records if record.headline is not None]
    assert len(scored) == len(records) - 2
    for record in scored:
        head = record.headline
        assert head is not None
        found = results[f"{cell_id(record.cell)}.specificity"]
        assert found["score_details"]["score"] == head.spec.value
        interval = found["score_details"]["uncertainty"]["confidence_interval"]
        assert (interval["lower"], interval["upper"]) == (head.spec.low, head.spec.high)
        assert found["score_details"]["details"]["selector"] == record.cell.selector
        assert found["score_details"]["details"]["control"] == str(record.control).lower()
        assert (f"{cell_id(record.cell)}.aggregate" in results) == (head.agg is not None)
    for result in results.values():
        config, score = result["metric_config"], result["score_details"]["score"]
        assert config["min_score"] <= score <= config["max_score"]
        assert math.isfinite(score)


def test_the_same_records_give_the_same_files(records: list[Record], tmp_path: Path) -> None:
    assert documents(records, tmp_path / "a") == documents(records[::-1], tmp_path / "b")


def test_csv_has_every_condition_and_says_why_one_is_missing(records: list[Record], tmp_path: Path) -> None:
    (path,) = export(records, "csv", tmp_path / "x.csv", organization="")
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert len(rows) == 30 * 4 + 2
    first = flat_rows(records)[0]
    assert {key: value for key, value in rows[0].items() if value} == {
        key: str(value) for key, value in first.items() if value not in (None, "")
    }
    assert {row["status"] for row in rows} == {"ok", "error", "insufficient"}


def test_a_spreadsheet_takes_nothing_for_a_formula(records: list[Record], tmp_path: Path) -> None:
    cell = records[0].cell.model_copy(update={"selector": "=HYPERLINK(1)"})
    (path,) = export(
        [records[0].model_copy(update={"cell": cell})], "csv", tmp_path / "x.csv", organization=""
    )
    assert {row["selector"] for row in csv.DictReader(path.open())} == {"'=HYPERLINK(1)"}


def test_parquet_has_the_same_rows_with_types(records: list[Record], tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    (path,) = export(records, "parquet", tmp_path / "x.parquet", organization="")
    table = pq.read_table(path)
    assert table.to_pylist() == flat_rows(records)
    assert str(table.schema.field("spec").type) == "double"
    assert str(table.schema.field("significant").type) == "bool"


def test_an_unknown_format_is_refused(records: list[Record], tmp_path: Path) -> None:
    with pytest.raises(AffectbenchError, match="did you mean 'parquet'"):
        export(records, "parket", tmp_path / "x", organization="")


def test_the_command(
    results: Path, tmp_path: Path, run_cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, _ = run_cli("export", results)
    assert status == 0
    assert out.strip() == f"export/{results.name}.csv"
    status, out, _ = run_cli("export", results, "--format", "eee", "--output", "interchange")
    assert status == 0
    assert all(PLACE.search(line) for line in out.splitlines())
    assert run_cli("export", tmp_path)[0] == 1
