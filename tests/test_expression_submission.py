"""Submitting units for a task of expression: replies are written and judged anew, whatever was claimed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from e2e_content import Bench, suite_file, write_yaml
from e2e_expression import MODEL, PROTOCOL, TASK
from submissions import FILE, card, selection, submitted, tampered, verified

from affectbench.published import published_numbers
from affectbench.sites import SiteShape
from affectbench.store import Store

UNITS = ((0, 4, 7, 11), (10, 12, 18, 26), (70, 80, 90, 100))


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("suites")
    suite_file(root, "toy-expression", PROTOCOL, models=[MODEL], tasks={"text": TASK})
    return root


@pytest.fixture(scope="module")
def packed(writer: Bench, suites: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("honest")
    named = [{"model": MODEL, "task": TASK, "file": FILE}]
    source = root / "mine"
    write_yaml(source / "submission.yaml", card(suite="toy-expression", selections=named))
    selection(*UNITS, site="neuron", shape=SiteShape(2, 64)).save(source / FILE)
    return submitted(writer, source, root / "out", suites)


def test_an_honest_submission_is_accepted_with_its_own_replies(
    writer: Bench, suites: Path, packed: Path, tmp_path: Path
) -> None:
    found = verified(writer, packed, tmp_path / "out", suites)
    (cell,) = found.cells
    assert cell.result == "same", cell.differences
    assert found.decision in ("accept", "accept_with_note"), found.reasons
    (record,) = Store(tmp_path / "out").read_all()[0]
    assert record.expression is not None
    assert Store(tmp_path / "out").replies_path(record.cell).is_file()
    told = published_numbers(record)
    assert record.expression.prompting.accuracy is not None
    assert told["elicited replies, base.accuracy"] == record.expression.prompting.accuracy.value


@pytest.mark.parametrize("part", ["prompting", "plain", "conditions"])
def test_invented_replies_are_found_out(
    writer: Bench, suites: Path, packed: Path, tmp_path: Path, part: str
) -> None:
    def better(content: dict[str, Any]) -> None:
        found = content["expression"][part]
        found = found[-1] if part == "conditions" else found
        found["topicality"]["value"] = 0.987
        if found["accuracy"] is not None:
            found["accuracy"]["value"] = 1 - found["accuracy"]["value"] / 2

    forged = tampered(packed, tmp_path / "x.zip", better)
    found = verified(writer, forged, tmp_path / "out", suites)
    assert found.decision == ("accept_with_note" if part == "plain" else "reject")
    assert any(each.name.endswith(".topicality") for each in found.cells[0].differences)
