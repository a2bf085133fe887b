"""The readouts board: which units are on it, what stands beside what, and what a page without any says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from example_records import example_record, readout_records, renamed, transfer_records

from affectbench.leaderboard import build_site
from affectbench.record import Record, cell_id
from affectbench.score_models import Estimate
from affectbench.site_format import interval, number
from affectbench.site_readouts import Table, readouts_board
from affectbench.site_summary import summary_of


def board(*records: Record) -> list[Table]:
    return readouts_board([summary_of(record) for record in records])


def with_confound(record: Record, low: float, value: float, high: float) -> Record:
    assert record.word_confound is not None
    ratio = Estimate(value=value, low=low, high=high)
    changed = record.word_confound.model_copy(update={"suppress": ratio})
    return record.model_copy(update={"word_confound": changed})


class TestBoard:
    def test_words_letters_and_answer_words_stand_in_one_row(self) -> None:
        home, away = readout_records()
        (table,) = board(home, away)
        assert [(column.task, column.readout) for column in table.columns] == [
            ("stories", "label words"), ("letters", "lettered options")
        ]  # fmt: skip
        (row,) = table.rows
        assert home.headline is not None
        assert away.headline is not None
        assert home.answer_words is not None
        shown = [row.units.spec("stories"), row.units.spec("letters"), row.units.home.words]
        control = home.answer_words.doses[0]
        assert control.arm == "suppress"
        assert shown == [home.headline.spec, away.headline.spec, control.spec]
        assert [each.value for each in [*row.specs, row.words] if each] == [
            each.value for each in shown if each
        ]
        assert row.confound == home.word_confound.suppress  # type: ignore[union-attr]
        assert row.links == [cell_id(home.cell), cell_id(away.cell)]

    def test_it_is_the_units_that_count_and_not_their_names(self) -> None:
        """A selection made anew under letters is another row, of units under one readout."""
        home, away = readout_records()
        other = example_record("small-text", "mad", task="letters")
        task = other.task.model_copy(update={"readout": "letters"})
        assert board(home, other.model_copy(update={"task": task})) == []
        (table,) = board(home, away, other.model_copy(update={"task": task}))
        assert len(table.rows) == 1

    def test_tasks_of_one_readout_or_of_none_that_is_known_are_no_comparison(self) -> None:
        assert board(*transfer_records()) == []
        home, away = readout_records()
        task = away.task.model_copy(update={"readout": "labels"})
        assert board(home, away.model_copy(update={"task": task})) == []

    def test_methods_come_before_controls_and_protocols_have_tables_of_their_own(self) -> None:
        records = [record for name in ("random", "mad", "lap") for record in readout_records(name)]
        (table,) = board(*records)
        assert [row.units.home.cell.selector for row in table.rows] == ["lap", "mad", "random"]
        other = [
            record.model_copy(
                update={
                    "cell": record.cell.model_copy(update={"intervention": "mean-gain"}),
                    "hashes": record.hashes.model_copy(update={"protocol": "f" * 16}),
                }
            )
            for record in readout_records("cas")
        ]
        first, second = board(*records, *other)
        assert len(first.rows) + len(second.rows) == 4

    @pytest.mark.parametrize(("low", "high"), [(0.51, True), (0.49, False)])
    def test_a_high_confound_is_marked(self, low: float, high: bool) -> None:
        home, away = readout_records()
        (table,) = board(with_confound(home, low, 0.8, 1.1), away)
        assert table.rows[0].high == high


class TestPage:
    def test_it_shows_each_number_and_links_to_its_entry(self, tmp_path: Path) -> None:
        home, away = readout_records()
        site = build_site([with_confound(home, 0.6, 0.9, 1.2), away], tmp_path / "site")
        page = (site.index.parent / "readouts.html").read_text(encoding="utf-8")
        for record in (home, away):
            assert record.headline is not None
            spec = record.headline.spec
            link = f'href="entries/{cell_id(record.cell)}.html"'
            assert re.search(rf"{re.escape(link)}[^>]*>{re.escape(number(spec.value))}</a>", page)
            assert interval(spec) in page
        assert f'{number(0.9, 2)} <span class="ci">[{number(0.6, 2)}, {number(1.2, 2)}]</span>' in page
        assert page.count('<span class="badge flag">word</span>') == 2  # In the rules, and in the row.
        assert 'href="readouts.html"' in site.index.read_text(encoding="utf-8")

    def test_names_that_hold_markup_are_shown_as_text(self, tmp_path: Path) -> None:
        evil = "<img src=x onerror=y>"
        records = [renamed(record, selector=evil, intervention=evil) for record in readout_records()]
        build_site(records, tmp_path / "site")
        page = (tmp_path / "site" / "readouts.html").read_text(encoding="utf-8")
        assert "<img" not in page
        assert page.count("&lt;img src=x onerror=y&gt;") >= 3

    def test_a_site_without_such_units_says_what_to_run(self, tmp_path: Path) -> None:
        build_site([example_record()], tmp_path / "site")
        page = (tmp_path / "site" / "readouts.html").read_text(encoding="utf-8")
        assert "No units under two readouts yet" in page
        assert "run readouts" in page

    def test_the_same_records_in_another_order_give_the_same_page(self, tmp_path: Path) -> None:
        records = [record for name in ("mad", "lap") for record in readout_records(name)]
        build_site(records, tmp_path / "one")
        build_site(records[::-1], tmp_path / "other")
        one, other = ((tmp_path / name / "readouts.html").read_bytes() for name in ("one", "other"))
        assert one == other
