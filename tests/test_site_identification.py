"""Curves by items and by share of units, and whether other items, seeds and benchmarks bring units back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from example_records import example_record, failed, renamed, with_spec

from affectbench.figures_curves import Series, setting_curve
from affectbench.leaderboard import build_site
from affectbench.overlap import listed_units
from affectbench.record import Identification, Record
from affectbench.score_models import Estimate
from affectbench.site_identification import (
    budget_curves,
    fraction_curves,
    identified_board,
    overlap_of,
)
from affectbench.site_summary import Summary, summary_of


def sampled(record: Record, items: int, draw: int = 0) -> Record:
    return renamed(record, identification=Identification(items=items, draw=draw)).sealed()


def units(record: Record, sets: list[range]) -> Record:
    """The record with these units, one set an emotion."""
    assert record.selection is not None
    info = record.selection.model_copy(
        update={"units": [listed_units(own) for own in sets], "units_per_emotion": [len(own) for own in sets]}
    )
    return record.model_copy(update={"selection": info})


def summaries(records: list[Record]) -> list[Summary]:
    return [summary_of(record) for record in records]


def budget_records() -> list[Record]:
    full = units(with_spec(example_record(), 0.4, 0.5, 0.6), [range(10)] * 7)
    few = units(with_spec(sampled(full, 5), 0.0, 0.1, 0.2), [range(5, 15)] * 7)
    other = units(with_spec(sampled(full, 5, 1), 0.1, 0.3, 0.4), [range(10)] * 7)
    return [full, few, other]


class TestBudgets:
    def test_draws_are_averaged_and_compared_with_all_items(self) -> None:
        (curve,) = budget_curves(summaries(budget_records()))
        few, full = curve.rows
        assert (few.name, full.name) == ("5", "all")
        assert few.spec is not None
        assert few.spec.value == pytest.approx(0.2)
        assert (few.spec.low, few.spec.high) == (pytest.approx(0.05), pytest.approx(0.3))
        assert few.overlap == pytest.approx((5 / 15 + 1) / 2)
        assert few.between == pytest.approx(5 / 15)
        assert full.overlap is None

    def test_settings_are_in_the_order_of_numbers_with_all_last(self) -> None:
        records = [*budget_records(), *(sampled(example_record(), n) for n in (100, 25))]
        (curve,) = budget_curves(summaries(records))
        assert [row.name for row in curve.rows] == ["5", "25", "100", "all"]

    def test_a_draw_without_a_score_leaves_no_mean(self) -> None:
        full, few, other = budget_records()
        records = [full, few, failed(other, "insufficient", "too few")]
        (curve,) = budget_curves(summaries(records))
        assert curve.rows[0].spec is None

    def test_records_of_other_tasks_models_and_seeds_stay_apart(self) -> None:
        others = [example_record(model="small-text"), example_record(seed=1)]
        (curve,) = budget_curves(summaries([*budget_records(), *others]))
        assert all(record.cell.model == "reference-text" for row in curve.rows for record in row.records)


class TestFractions:
    def test_a_curve_where_there_are_several_shares_of_units(self) -> None:
        records = [renamed(example_record(), fraction=share) for share in (0.001, 0.005, 0.01)]
        (curve,) = fraction_curves(summaries(records))
        assert [row.name for row in curve.rows] == ["0.1", "0.5", "1"]
        assert fraction_curves(summaries(records[:1])) == []


class TestAgreement:
    def test_overlap_is_over_shared_labels_by_name(self) -> None:
        one = units(example_record(), [range(10 * k, 10 * k + 10) for k in range(7)])
        other = one.model_copy(
            update={
                "task": one.task.model_copy(update={"labels": [one.task.labels[k] for k in (3, 0)]}),
            }
        )
        swapped = units(other, [range(30, 40), range(5)])
        found = overlap_of(summary_of(one), summary_of(swapped))
        assert found is not None
        assert found[0] == 2
        assert found[1] == pytest.approx((1.0 + 0.5) / 2)

    def test_seeds_and_benchmarks_are_pairs_and_other_things_are_not(self) -> None:
        records = [
            example_record(),
            example_record(seed=1),
            example_record(task="letters"),
            example_record(selector="cas"),
            example_record(model="small-text"),
            *budget_records()[1:],
        ]
        found = identified_board(summaries(records))
        assert [(row.kind, row.selector) for row in found.agreements] == [
            ("benchmarks", "mad"),
            ("seeds", "mad"),
        ] or [(row.kind, row.selector) for row in found.agreements] == [
            ("seeds", "mad"),
            ("benchmarks", "mad"),
        ]
        assert found.n_pairs == 2
        assert len(found.layers) == 1

    def test_the_same_units_overlap_whole(self) -> None:
        one, other = example_record(), example_record(seed=1)
        found = overlap_of(summary_of(one), summary_of(one))
        assert found is not None
        assert found[1] == pytest.approx(1.0)
        assert other.selection != one.selection


class TestFigure:
    def test_lines_and_intervals_are_where_their_values_are(self) -> None:
        values = [Estimate(value=0.0, low=-0.1, high=0.1), None, Estimate(value=1.0, low=0.9, high=1.1)]
        drawn = setting_curve("name", "Title", "items", ["5", "10", "all"], [Series("mad", values)])
        assert drawn.count("<polyline") == 3
        assert "mad: 5 0.00" in drawn
        assert "all 1.00" in drawn
        ys = [float(pair.split(",")[1]) for pair in drawn.split('points="')[1].split('"')[0].split()]
        assert np.diff(ys)[0] < 0  # Upwards.


class TestPage:
    def test_it_shows_curves_and_agreement(self, tmp_path: Path) -> None:
        records = [*budget_records(), example_record(seed=1)]
        build_site(records, tmp_path / "site")
        page = (tmp_path / "site" / "identification.html").read_text()
        assert page.count("<svg") == 2
        for title in ("By number of items", "Do the same units come back?"):
            assert title in page

    def test_a_site_with_nothing_to_compare_says_what_to_run(self, tmp_path: Path) -> None:
        build_site([example_record()], tmp_path / "site")
        page = (tmp_path / "site" / "identification.html").read_text()
        assert "Nothing to compare yet" in page
        assert "run identification-budget" in page

    def test_a_method_shows_its_curves(self, tmp_path: Path) -> None:
        records = [renamed(example_record(), fraction=share) for share in (0.001, 0.005)]
        build_site(records, tmp_path / "site")
        assert "By share of units" in (tmp_path / "site" / "methods" / "mad.html").read_text()

    def test_the_order_of_records_changes_nothing(self, tmp_path: Path) -> None:
        records = [*budget_records(), example_record(seed=1)]
        build_site(records, tmp_path / "one")
        build_site(records[::-1], tmp_path / "other")
        one, other = ((tmp_path / name / "identification.html").read_bytes() for name in ("one", "other"))
        assert one == other
