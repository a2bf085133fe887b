"""The page of an entry shows what replies express: numbers, matrices and texts, of its record alone."""

from __future__ import annotations

from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from e2e_content import CUES

from affectbench.record import Record, cell_id
from affectbench.site_expression import reply_panels
from affectbench.store import Store


@pytest.fixture(scope="module")
def record(written: Path) -> Record:
    return next(each for each in Store(written).read_all()[0] if each.cell.selector == "magnitude")


def test_each_condition_has_a_panel_with_its_matrix(record: Record) -> None:
    assert record.expression is not None
    panels = reply_panels(record.expression, list(CUES))
    assert [panel.name for panel in panels] == [
        "told to, nothing edited",
        "not told to, nothing edited",
        "told to, its units suppressed (dose 0)",
        "not told to, units amplified (dose 1)",
        "not told to, units amplified (dose 2)",
    ]
    for panel in panels:
        assert panel.matrix.count("<svg") == 1
        assert all(label in panel.matrix for label in (*CUES, "none"))
    assert reply_panels(None, list(CUES)) == []


def test_the_page_tells_numbers_and_texts(
    written: Path, record: Record, tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, _ = run_cli("leaderboard", "--results", written, "--output", tmp_path / "site")
    assert code == 0
    page = unescape((tmp_path / "site" / "entries" / f"{cell_id(record.cell)}.html").read_text())
    assert "What the replies express" in page
    found = record.expression
    assert found is not None
    assert found.prompting.accuracy is not None
    assert f"{found.prompting.accuracy.value:.3f}" in page
    assert "<b>toy-judge</b>" in page
    told = {(e.prompt, e.condition, e.dose, e.target) for e in found.examples}
    assert len(told) == len(found.examples) == 3 + 1 + 3 + 2 * 3
    assert all(example.text in page for example in found.examples)


def test_entries_of_recognition_have_no_such_section(
    done: Path, tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]]
) -> None:
    run_cli("leaderboard", "--results", done, "--output", tmp_path / "site")
    pages = list((tmp_path / "site" / "entries").glob("*.html"))
    assert pages
    assert not any("What the replies express" in page.read_text() for page in pages)
