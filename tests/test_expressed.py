"""Told to, steered or neither, side by side: on the site and in a terminal, from records alone."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest

from affectbench.expressed import MEASURES, Way, expressed
from affectbench.record import Record, cell_id
from affectbench.site_expressed import expressed_board
from affectbench.site_summary import summary_of
from affectbench.store import Store

Outcome = tuple[int, str, str]


@pytest.fixture(scope="module")
def records(written: Path) -> list[Record]:
    return Store(written).read_all()[0]


@pytest.fixture(scope="module")
def ways(records: list[Record]) -> list[Way]:
    (found,) = expressed([summary_of(record) for record in records])
    return found


class TestRows:
    def test_baselines_come_first_then_methods_then_controls(
        self, ways: list[Way], records: list[Record]
    ) -> None:
        assert [way.method for way in ways[:2]] == ["prompt", "plain"]
        assert [way.baseline for way in ways] == [True, True] + [False] * len(records)
        assert [way.control for way in ways] == sorted(way.control for way in ways)
        assert not any(way.control for way in ways[:2])

    def test_numbers_are_those_of_the_records(self, ways: list[Way], records: list[Record]) -> None:
        by_id = {cell_id(record.cell): record for record in records}
        for way in ways[2:]:
            record = by_id[way.record.id]
            assert record.expression is not None
            assert record.operating is not None
            chosen = record.operating.amplify_dose
            steered = {
                each.dose: each for each in record.expression.conditions if each.condition == "amplify"
            }
            assert dict(way.by_dose) == {dose: each.accuracy.value for dose, each in steered.items()}
            assert (way.score is None) == (chosen is None)
            if chosen is not None:
                assert way.measures()["expressed"] == steered[chosen].accuracy
        told = records[0].expression
        assert told is not None
        assert ways[0].measures()["expressed"] == told.prompting.accuracy
        assert ways[1].measures()["expressed"] is None, "nothing was aimed at"

    def test_other_judges_and_other_models_are_other_tables(self, records: list[Record]) -> None:
        one = summary_of(records[0])
        for part in ("task", "model"):
            other = one.model_copy(update={"hashes": one.hashes.model_copy(update={part: "f" * 16})})
            assert [len(table) for table in expressed([one, other])] == [3, 3]

    def test_a_dose_that_breaks_the_text_leaves_a_row_with_its_reason(self, records: list[Record]) -> None:
        summary = summary_of(records[0])
        assert summary.replies is not None
        broken = summary.model_copy(
            update={
                "replies": summary.replies.model_copy(update={"amplified": None}),
                "reason": "all collapse",
            }
        )
        (*_, way) = expressed([broken])[0]
        assert way.measures() == dict.fromkeys(MEASURES)
        assert way.why == "all collapse"

    def test_records_of_recognition_are_no_rows(self, done: Path) -> None:
        assert expressed([summary_of(record) for record in Store(done).read_all()[0]]) == []


class TestPage:
    def test_it_shows_every_way_with_intervals(
        self, written: Path, records: list[Record], tmp_path: Path, run_cli: Callable[..., Outcome]
    ) -> None:
        assert run_cli("leaderboard", "--results", written, "--output", tmp_path / "site")[0] == 0
        page = unescape((tmp_path / "site" / "expression.html").read_text(encoding="utf-8"))
        (table,) = expressed_board([summary_of(record) for record in records])
        for row in table.rows:
            assert row.name in page
            if row.expressed is not None:
                assert f"{row.expressed.text}</span>" in page
                assert row.expressed.interval in page
        for record in records:
            assert f"entries/{cell_id(record.cell)}.html" in page
        assert 'href="expression.html"' in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")

    def test_without_replies_it_says_what_to_run(
        self, done: Path, tmp_path: Path, run_cli: Callable[..., Outcome]
    ) -> None:
        run_cli("leaderboard", "--results", done, "--output", tmp_path / "site")
        page = (tmp_path / "site" / "expression.html").read_text(encoding="utf-8")
        assert "No judged replies yet" in page
        assert "run emotion-circuits" in page


class TestTable:
    def test_formats_agree(self, written: Path, ways: list[Way], run_cli: Callable[..., Outcome]) -> None:
        code, printed, _ = run_cli("table", written, "--expression", "--format", "json")
        rows = json.loads(printed)
        assert (code, len(rows)) == (0, len(ways))
        assert [row["method"] for row in rows] == [way.method for way in ways]
        first = ways[0].measures()["expressed"]
        assert first is not None
        assert (rows[0]["expressed"], rows[0]["expressed low"]) == (first.value, first.low)
        assert rows[1]["expressed"] is None
        _, printed, _ = run_cli("table", written, "--expression", "--format", "csv")
        assert [row["method"] for row in csv.DictReader(io.StringIO(printed))] == [w.method for w in ways]
        for form in ("text", "md"):
            assert "prompt" in run_cli("table", written, "--expression", "--format", form)[1]

    def test_results_without_replies_are_an_error_that_says_what_to_run(
        self, done: Path, run_cli: Callable[..., Outcome]
    ) -> None:
        code, _, err = run_cli("table", done, "--expression")
        assert code == 1
        assert "no cell" in err
        assert "run emotion-circuits" in err
