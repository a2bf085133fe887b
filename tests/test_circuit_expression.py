"""Circuits and directions where replies are judged: found on elicited prompts, tried on plain ones."""

from __future__ import annotations

from typing import Any

import pytest
from e2e_content import Bench, write_protocol
from e2e_expression import MODEL, TASK

from affectbench.plan import job_of_names
from affectbench.record import Record
from affectbench.score_models import DoseScore

STATISTICS = {"positions": "answer", "items": "correct", "minimum_items": 5}
PROTOCOLS: dict[str, dict[str, Any]] = {
    "modulation": {
        "site": "component",
        "fractions": [0.25],
        "arms": {
            "suppress": {"operation": "mean", "doses": [0]},
            "amplify": {"operation": "add", "doses": [1, 2, 4]},
        },
    },
    "steering": {
        "site": "residual",
        "fractions": [0.5],
        "arms": {
            "suppress": {"operation": "project", "doses": [0]},
            "amplify": {"operation": "add", "relative": True, "doses": [4, 8]},
        },
    },
}
SELECTORS = ["circuit", "circuit_shuffled", "circuit_other", "direction", "direction_shuffled"]


@pytest.fixture(scope="module")
def records(writer: Bench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    folder = tmp_path_factory.mktemp("circuits")
    for name, content in PROTOCOLS.items():
        write_protocol(folder, name=name, positions="answer", statistics=STATISTICS, **content)
    job = job_of_names(writer.registry(folder), MODEL, TASK, SELECTORS, list(PROTOCOLS), 0)
    found, log = writer.run(job, folder / "out", more=[folder])
    assert [record.reason for record in found if record.status == "error"] == [], log.notes
    return {record.cell.selector: record for record in found}


def amplified(record: Record) -> list[DoseScore]:
    assert record.scores is not None
    return [dose for dose in record.scores.doses if dose.arm == "amplify"]


@pytest.mark.parametrize("name", ["circuit", "direction"])
def test_what_is_found_makes_plain_replies_express_the_emotion(records: dict[str, Record], name: str) -> None:
    doses = amplified(records[name])
    assert max(dose.trs.value for dose in doses) > 0.5
    assert max(dose.spec.value for dose in doses) > 0.5
    for dose in doses:
        assert dose.random is not None
        assert dose.random.trs_mean < 0.3
    assert records[name].expression is not None


@pytest.mark.parametrize(("name", "real"), [("circuit_shuffled", "circuit"), ("circuit_other", "circuit"),
                                            ("direction_shuffled", "direction")])  # fmt: skip
def test_controls_express_less(records: dict[str, Record], name: str, real: str) -> None:
    best = max(dose.spec.value for dose in amplified(records[name]))
    assert best < max(dose.spec.value for dose in amplified(records[real])) - 0.2
