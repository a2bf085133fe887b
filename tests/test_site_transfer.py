"""The transfer board: which records make a grid, what is compared, and what a page without any says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from example_records import example_record, failed, transfer_records, transferred, with_spec

from affectbench.leaderboard import build_site
from affectbench.record import Record
from affectbench.site_data import groups
from affectbench.site_overall import overall
from affectbench.site_summary import summary_of
from affectbench.site_transfer import Pair, specificity, transfer_board


def pairs(records: list[Record]) -> dict[tuple[str, str], Pair]:
    (model,) = transfer_board([summary_of(record) for record in records])
    (grid,) = model.grids
    return {(pair.source, pair.record.cell.task): pair for pair in grid.pairs}


class TestBoard:
    def test_records_of_one_method_and_protocol_make_one_grid(self) -> None:
        found = pairs(transfer_records())
        names = ("letters", "stories")
        assert set(found) == {(one, other) for one in names for other in names}
        assert found["letters", "letters"].own
        assert not found["letters", "stories"].own

    def test_methods_have_grids_of_their_own_and_ordinary_records_alone_have_none(self) -> None:
        records = [*transfer_records("mad"), *transfer_records("cas"), example_record("small-audio", "mad")]
        (model,) = transfer_board([summary_of(record) for record in records])
        assert [grid.selector for grid in model.grids] == ["cas", "mad"]
        assert transfer_board([summary_of(example_record())]) == []

    def test_the_ratio_is_to_units_identified_on_the_tested_benchmark(self) -> None:
        one, other, onto_one, onto_other = transfer_records()
        matrix = np.full((7, 7), -0.1)
        np.fill_diagonal(matrix, -0.5)  # Specificity 0.4.
        own = with_spec(with_effects(one, matrix), 0.3, 0.4, 0.5)
        moved = with_spec(onto_one, 0.05, 0.1, 0.15)
        found = pairs([own, other, moved, onto_other])
        ratio = found["letters", "stories"].ratio
        assert ratio is not None
        assert (ratio.value, ratio.low) == (pytest.approx(0.25), None)
        assert found["stories", "stories"].ratio is None

    def test_no_ratio_where_the_own_effect_is_not_significant_or_of_another_task(self) -> None:
        one, other, onto_one, onto_other = transfer_records()
        weak = with_spec(one, -0.1, 0.1, 0.2, significant=False)
        assert pairs([weak, other, onto_one, onto_other])["letters", "stories"].ratio is None
        hashes = one.hashes.model_copy(update={"task": "0" * 16})
        changed = one.model_copy(update={"hashes": hashes})
        assert pairs([changed, other, onto_one, onto_other])["letters", "stories"].ratio is None

    def test_a_missing_or_failed_field_leaves_a_gap_and_no_number(self) -> None:
        one, other, onto_one, _ = transfer_records()
        found = pairs([one, other, failed(onto_one, "insufficient", "no units from letters: too few")])
        assert ("stories", "letters") not in found
        assert found["letters", "stories"].ratio is None

    def test_specificity_of_some_labels_against_the_definition(self) -> None:
        matrix = np.random.default_rng(1).normal(size=(5, 5))
        places = [3, 0, 4]
        part = matrix[np.ix_(places, places)]
        off = part[~np.eye(3, dtype=bool)].mean()
        assert specificity(matrix.tolist(), places) == pytest.approx(off - np.trace(part) / 3)

    def test_specificity_over_all_labels_is_that_of_the_headline(self) -> None:
        found = summary_of(example_record())
        assert found.headline is not None
        assert specificity(found.effects, range(7)) == pytest.approx(found.headline.spec.value)


class TestBoards:
    def test_transferred_rows_are_in_no_mean_and_rank_among_themselves(self) -> None:
        records = transfer_records()
        found = groups([summary_of(record) for record in records])
        assert [len(group.rows) for group in found] == [1, 1, 1, 1]
        assert sum(group.record.cell.identification is not None for group in found) == 2

    def test_the_overall_board_is_the_same_with_and_without_them(self, tmp_path: Path) -> None:
        records = transfer_records()
        build_site(records, tmp_path / "with")
        build_site(records[:2], tmp_path / "without")
        ordinary = overall(groups([summary_of(record) for record in records[:2]]))
        assert ordinary.standings[0].n_scored == 2
        for name in ("with", "without"):
            page = (tmp_path / name / "index.html").read_text()
            assert "<td>2 of 2</td>" in page


class TestPage:
    def test_it_holds_each_pair_with_its_numbers_and_links(self, tmp_path: Path) -> None:
        records = transfer_records()
        site = build_site(records, tmp_path / "site")
        page = (tmp_path / "site" / "transfer.html").read_text()
        for path in site.entries.values():
            assert f"entries/{path.name}" in page
        assert page.count("<svg") == 1
        assert "Ratio" in page

    def test_a_site_without_transfer_says_what_to_run(self, tmp_path: Path) -> None:
        build_site([example_record()], tmp_path / "site")
        page = (tmp_path / "site" / "transfer.html").read_text()
        assert "No transfer results yet" in page
        assert "run transfer" in page

    def test_the_same_records_in_another_order_give_the_same_page(self, tmp_path: Path) -> None:
        records = transfer_records()
        build_site(records, tmp_path / "one")
        build_site(records[::-1], tmp_path / "other")
        one, other = ((tmp_path / name / "transfer.html").read_bytes() for name in ("one", "other"))
        assert one == other

    def test_units_of_another_task_are_named_on_the_entry(self, tmp_path: Path) -> None:
        one, other, *_ = transfer_records()
        site = build_site([transferred(one, other)], tmp_path / "site")
        (path,) = site.entries.values()
        assert "units from letters" in path.read_text()


def with_effects(record: Record, matrix: np.ndarray) -> Record:
    """The record with this effect matrix at every dose."""
    assert record.scores is not None
    doses = [dose.model_copy(update={"effect_matrix": matrix.tolist()}) for dose in record.scores.doses]
    return record.model_copy(update={"scores": record.scores.model_copy(update={"doses": doses})})
