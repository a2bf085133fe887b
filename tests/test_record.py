"""Records and their store: what goes in comes out, and what is not right does not go in."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from example_records import example_outcomes, example_record, example_store, failed
from pydantic import ValidationError

from affectbench import store as store_module
from affectbench.errors import RecordError
from affectbench.outcomes import ERROR, UNPARSED
from affectbench.record import Record, canonical_json, cell_id, hash_of
from affectbench.record_rows import rows
from affectbench.score import score_outcomes
from affectbench.store import Store, read_record, write_atomically, write_schemas

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def record() -> Record:
    return example_record()


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)


# Record


def test_record_survives_its_own_json(record):
    assert Record.model_validate_json(record.canonical()) == record
    assert json.loads(record.canonical())["cell"]["targeting"] == "all_items"


def test_equal_runs_give_equal_records(record):
    assert example_record().canonical() == record.canonical()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_numbers_cannot_enter(record, bad):
    content = record.model_dump()
    content["scores"]["doses"][0]["spec"]["value"] = bad
    with pytest.raises(ValidationError, match="finite"):
        Record.model_validate(content)
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"x": bad})


def test_unknown_keys_and_changes_are_refused(record):
    with pytest.raises(ValidationError, match="Extra inputs"):
        Record.model_validate(record.model_dump() | {"rank": 1})
    with pytest.raises(ValidationError, match="frozen"):
        record.status = "error"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": None}, "needs a selection, scores and a headline"),
        ({"status": "collapsed"}, "needs a reason"),
        ({"status": "collapsed", "reason": "it answers fear"}, "must not have an aggregate"),
        ({"schema_version": 2}, "Input should be 1"),
    ],
)
def test_contradictory_records_are_refused(record, change, message):
    with pytest.raises(ValidationError, match=message):
        Record.model_validate(record.model_dump() | change)


def test_hash_covers_results_but_not_cost_or_provenance(record):
    content = record.model_dump()
    content["cost"]["wall_s"] += 1
    content["provenance"]["started"] = "later"
    assert Record.model_validate(content).content_hash() == record.hashes.record
    content["flags"] = ["touched"]
    assert Record.model_validate(content).content_hash() != record.hashes.record


def test_a_record_from_before_a_field_was_added_is_still_good(store, record):
    content = json.loads(record.canonical())
    del content["scores"]["baseline"]["uar_interval"]
    content["hashes"]["record"] = hash_of(content)
    path = store.record_path(record.cell)
    write_atomically(path, canonical_json(content).encode())
    assert read_record(path).scores.baseline.uar_interval is None
    content["scores"]["baseline"]["accuracy"] = 0.99
    write_atomically(path, canonical_json(content).encode())
    assert "does not match its hash" in read_record(path).reason


def test_cell_ids_are_safe_readable_and_distinct(record):
    odd = record.cell.model_copy(
        update={"model": "org/Model 7B:é\\..", "selector": "../up", "fraction": 0.0001}
    )
    name = cell_id(odd)
    assert name.isascii()
    assert not set(name) & set("/\\: ")
    assert not name.startswith(".")
    assert cell_id(record.cell).startswith("reference-text__reference-text__mad__gain__f0.01__s0__")
    assert cell_id(odd) != cell_id(odd.model_copy(update={"model": "org/Model 7B:e\\.."}))
    assert cell_id(odd) != cell_id(odd.model_copy(update={"targeting": "oracle"}))
    assert len(cell_id(odd.model_copy(update={"model": "m" * 400}))) < 200


def test_rows_carry_each_condition_and_mark_the_operating_one(record):
    table = rows(record)
    assert [(r["arm"], r["dose"]) for r in table] == [(d.arm, d.dose) for d in record.scores.doses]
    assert table[0]["spec"] == record.scores.doses[0].spec.value
    assert [r["dose"] for r in table if r["operating"]] == [0.0, record.operating.amplify_dose]
    assert table[1]["pres"] == record.preservation[1].pres.value
    empty = rows(failed(record, "error", "it broke"))
    assert len(empty) == 1
    assert empty[0]["spec"] is None
    assert empty[0]["status"] == "error"
    assert set(empty[0]) == set(table[0])


def test_exported_schema_is_current_and_accepts_records(record, tmp_path):
    import jsonschema

    (path,) = write_schemas(tmp_path)
    assert path.read_text() == (ROOT / "leaderboard" / "schema" / path.name).read_text()
    schema = json.loads(path.read_text())
    jsonschema.validate(json.loads(record.canonical()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(record.canonical()) | {"rank": 1}, schema)


def test_importing_records_and_scores_is_light():
    code = (
        "import sys, affectbench.record, affectbench.store, affectbench.score, affectbench.operating;"
        "heavy = {'torch', 'transformers', 'scipy', 'sklearn', 'pandas', 'pyarrow'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# Store


def test_store_gives_back_what_was_written(tmp_path):
    store = example_store(tmp_path)
    records, damaged = store.read_all()
    assert len(records) == 32
    assert damaged == []
    assert sorted({r.status for r in records}) == ["error", "insufficient", "ok"]


def test_empty_or_missing_store_holds_nothing(tmp_path):
    assert Store(tmp_path / "nowhere").read_all() == ([], [])


def test_writing_seals_and_replaces(store, record):
    unsealed = record.model_copy(update={"hashes": record.hashes.model_copy(update={"record": ""})})
    path = store.write(unsealed)
    assert read_record(path) == record
    store.write(record.model_copy(update={"flags": ["again"]}))
    assert [r.flags for r in store.read_all()[0]] == [["again"]]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (
            lambda text: text.replace('"status": "ok"', '"status": "fine"', 1),
            "does not fit the schema: scores.status",
        ),
        (lambda text: text.replace('"seed": 0', '"seed": 1'), "edited by hand or damaged"),
        (lambda text: text[: len(text) // 2], "not valid JSON"),
        (lambda text: "", "not valid JSON"),
        (lambda text: text.replace('"fraction"', '"share"'), "does not fit the schema: cell.fraction"),
        (lambda text: text.replace('"wall_s": 12.5', '"wall_s": NaN'), "cost.wall_s"),
    ],
)
def test_damaged_files_are_named_with_a_reason_and_spare_the_others(store, record, spoil, reason):
    path = store.write(record)
    store.write(example_record(selector="cas"))
    path.write_text(spoil(path.read_text()))
    records, damaged = store.read_all()
    assert [r.cell.selector for r in records] == ["cas"]
    assert [d.path for d in damaged] == [path]
    assert reason in damaged[0].reason
    assert store.finished(record.cell, record.hashes) is None


def test_binary_garbage_and_misplaced_files_are_damage(store, record):
    path = store.write(record)
    path.rename(path.with_name("renamed.json"))
    path.write_bytes(b"\xff\xfe\x00")
    reasons = {d.path.name: d.reason for d in store.read_all()[1]}
    assert "misplaced" in reasons["renamed.json"]
    assert "cannot be read" in reasons[path.name]


def test_finished_cells_are_found_only_at_equal_hashes(store, record):
    assert store.finished(record.cell, record.hashes) is None
    store.write(record)
    assert store.finished(record.cell, record.hashes) == record
    unknown = record.hashes.model_copy(update={"selection": "", "record": ""})
    assert store.finished(record.cell, unknown) == record
    for name in ("task", "protocol", "selector", "selection", "model"):
        changed = record.hashes.model_copy(update={name: "0" * 16})
        assert store.finished(record.cell, changed) is None
    assert store.finished(record.cell.model_copy(update={"seed": 1}), record.hashes) is None


def test_failed_cells_are_run_again_and_insufficient_ones_are_not(store, record):
    store.write(failed(record, "error", "out of memory"))
    assert store.finished(record.cell, record.hashes) is None
    store.write(failed(record, "insufficient", "one cluster"))
    assert store.finished(record.cell, record.hashes) is not None


def test_a_write_that_fails_half_way_leaves_the_old_record(store, record):
    path = store.write(record)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(RecordError, match=r"cannot write .*File too large.*free space"):
            store.write(record.model_copy(update={"flags": ["new"]}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_interrupted_write_leaves_the_old_record(store, record, monkeypatch):
    path = store.write(record)
    before = path.read_bytes()

    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(store_module.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.write(record.model_copy(update={"flags": ["new"]}))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def _write_often(root, record):
    for _ in range(20):
        Store(root).write(record)


def test_processes_that_write_the_same_cell_never_mix(tmp_path, record):
    context = multiprocessing.get_context("fork")
    versions = [record.model_copy(update={"flags": [name]}) for name in ("a", "b")]
    writers = [context.Process(target=_write_often, args=(tmp_path, version)) for version in versions]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert Store(tmp_path).read_all()[1] == []
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert len(os.listdir(tmp_path / "records")) == 1


# Predictions


def test_predictions_come_back_and_score_the_same(store, record):
    outcomes = example_outcomes(seed=3)
    codes = outcomes.conditions[0].predictions
    codes[0, 0], codes[1, 1] = UNPARSED, ERROR
    store.write_predictions(record.cell, {"validation": example_outcomes(seed=4), "test": outcomes})
    back = store.read_predictions(record.cell)
    assert list(back) == ["validation", "test"]
    assert [c.name for c in back["test"].conditions] == [c.name for c in outcomes.conditions]
    assert (back["test"].conditions[0].predictions == codes).all()
    assert (back["test"].conditions[2].draws == outcomes.conditions[2].draws).all()
    again = score_outcomes(back["test"], seed=0, bootstrap_draws=200)
    assert again == score_outcomes(outcomes, seed=0, bootstrap_draws=200)


def test_predictions_keep_integer_clusters_missing_margins_and_no_draws(store, record):
    from dataclasses import replace

    outcomes = example_outcomes(n_draws=0)
    bare = replace(
        outcomes,
        clusters=np.arange(140) % 30,
        base_margin=np.full((140, 7), np.nan),
        conditions=tuple(replace(c, margin=np.full((7, 140), np.nan)) for c in outcomes.conditions),
    )
    store.write_predictions(record.cell, {"test": bare})
    back = store.read_predictions(record.cell)["test"]
    assert back.conditions[0].draws.shape == (0, 140)
    assert np.isnan(back.base_margin).all()
    assert score_outcomes(back, seed=0, bootstrap_draws=200) == score_outcomes(
        bare, seed=0, bootstrap_draws=200
    )


def test_predictions_are_plain_columns_for_other_tools(store, record):
    import pandas as pd

    path = store.write_predictions(record.cell, {"test": example_outcomes()})
    frame = pd.read_parquet(path)
    assert len(frame) == 140 * (7 + 4 * (7 + 20))
    assert set(frame["condition"]) == {"base", "suppress", "amplify"}
    aimed = frame[(frame["condition"] == "suppress") & (frame["target"] == "fear") & (frame["gold"] == 2)]
    base = frame[(frame["condition"] == "base") & (frame["target"] == "fear") & (frame["gold"] == 2)]
    effect = (aimed["prediction"] == 2).mean() - (base["prediction"] == 2).mean()
    dose = score_outcomes(example_outcomes(), seed=0, bootstrap_draws=100).doses[0]
    assert effect == pytest.approx(dose.effect_matrix[2][2])


def test_missing_or_damaged_predictions_are_named(store, record):
    import pyarrow.parquet as pq

    with pytest.raises(RecordError, match="run the cell first"):
        store.read_predictions(record.cell)
    path = store.write_predictions(record.cell, {"test": example_outcomes()})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecordError, match=path.name):
        store.read_predictions(record.cell)
    path.write_bytes(whole)
    pq.write_table(pq.read_table(path)[:-1], path)
    with pytest.raises(RecordError, match="missing or repeated"):
        store.read_predictions(record.cell)
