"""Claimed records: what is compared with a run of one's own, and what a forged one is found out by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from e2e_content import Bench
from submissions import members, tampered, verified, zipped

from affectbench.outcomes import Condition, Outcomes
from affectbench.record import Record, cell_id
from affectbench.submission_archive import staged
from affectbench.verify import changed_share


def test_an_invented_score_is_found_out(bench: Bench, packed: Path, tmp_path: Path) -> None:
    def better(content: dict[str, Any]) -> None:
        content["headline"]["spec"]["value"] += 0.3

    found = verified(bench, tampered(packed, tmp_path / "x.zip", better), tmp_path / "out")
    assert found.decision == "reject"
    assert "headline.spec claimed" in found.reasons[0]
    assert [each.name for each in found.cells[0].differences] == ["headline.spec"]


def test_a_small_difference_is_accepted_with_a_note(bench: Bench, packed: Path, tmp_path: Path) -> None:
    def nearly(content: dict[str, Any]) -> None:
        content["headline"]["spec"]["value"] += 0.01

    found = verified(bench, tampered(packed, tmp_path / "x.zip", nearly), tmp_path / "out")
    (cell,) = found.cells
    assert (found.decision, cell.result) == ("accept_with_note", "close")
    assert cell.reason == "claimed on an equal machine with equal versions"


def test_another_machine_is_named(bench: Bench, packed: Path, tmp_path: Path) -> None:
    def elsewhere(content: dict[str, Any]) -> None:
        content["headline"]["spec"]["value"] += 0.01
        content["provenance"]["torch"] = "2.99"

    found = verified(bench, tampered(packed, tmp_path / "x.zip", elsewhere), tmp_path / "out")
    assert found.cells[0].reason.startswith("torch 2.99 → ")


def test_a_claim_for_other_units_is_found_out(bench: Bench, packed: Path, tmp_path: Path) -> None:
    def other(content: dict[str, Any]) -> None:
        content["hashes"]["selection"] = "0" * 16

    found = verified(bench, tampered(packed, tmp_path / "x.zip", other), tmp_path / "out")
    assert "claimed for another selection" in found.reasons[0]


def test_a_record_edited_by_hand_is_found_out(bench: Bench, packed: Path, tmp_path: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["headline"]["pres"]["value"] = 1.0

    found = verified(bench, tampered(packed, tmp_path / "x.zip", edit, seal=False), tmp_path / "out")
    assert "does not match its hash" in found.reasons[0]


def test_a_claimed_nan_is_found_out(bench: Bench, packed: Path, tmp_path: Path) -> None:
    def nan(content: dict[str, Any]) -> None:
        content["headline"]["spec"]["value"] = float("nan")

    found = verified(bench, tampered(packed, tmp_path / "x.zip", nan, seal=False), tmp_path / "out")
    assert found.decision == "reject"
    assert "headline.spec.value" in found.reasons[0]


def test_a_claim_for_another_cell_is_found_out(bench: Bench, packed: Path, tmp_path: Path) -> None:
    with staged(packed) as unpacked:
        found = members(unpacked.root)
    (name,) = [name for name in found if name.endswith(".json")]
    record = Record.model_validate_json(found.pop(name))
    moved = record.model_copy(update={"cell": record.cell.model_copy(update={"task": "elsewhere"})}).sealed()
    found[f"results/records/{cell_id(moved.cell)}.json"] = moved.canonical().encode()
    outcome = verified(bench, zipped(tmp_path / "x.zip", found), tmp_path / "out")
    assert outcome.decision == "reject"
    assert {each.result for each in outcome.cells} == {"unclaimed", "unknown"}


def test_the_share_of_changed_answers() -> None:
    def outcomes(*answers: int) -> Outcomes:
        rows = np.array([answers, [0, 0, 1, 1]])
        condition = Condition("suppress", 0.0, 1.0, rows, np.zeros((2, 4)), rows[:0])
        gold, names = np.array([0, 0, 1, 1]), np.array(list("abcd"))
        return Outcomes(("x", "y"), names, gold, names, gold, np.zeros((4, 2)), (condition,))

    assert changed_share({"test": outcomes(0, 0, 1, 1)}, {"test": outcomes(0, 1, 1, 0)}) == 2 / 8
    assert changed_share({"test": outcomes(0, 0, 1, 1)}, {}) is None


def test_predictions_that_are_a_bomb_are_not_read(bench: Bench, packed: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with staged(packed) as unpacked:
        found = members(unpacked.root)
    (name,) = [name for name in found if name.endswith(".parquet")]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": np.zeros(5_000_000)}), sink)
    found[name] = sink.getvalue().to_pybytes()
    (record,) = [each for each in found if each.endswith(".json")]
    content = json.loads(found[record])
    content["hashes"]["predictions"] = "0" * 16
    found[record] = Record.model_validate(content).sealed().canonical().encode()
    outcome = verified(bench, zipped(tmp_path / "x.zip", found), tmp_path / "out")
    assert outcome.cells[0].changed_answers is None
