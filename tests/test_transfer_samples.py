"""Units identified on a few items of one benchmark, tested on another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from e2e_content import BENCHMARK, Bench, suite_file, write_protocol
from e2e_transfer import OTHERS, REORDERED, jobs, transfer_content

from affectbench.record import Record, cell_id
from affectbench.selector import Selection
from affectbench.site_identification import budget_curves
from affectbench.site_summary import summary_of
from affectbench.site_transfer import transfer_board

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def more(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return transfer_content(bench, tmp_path_factory.mktemp("transfer"))


class TestSamples:
    """Units that were identified on a few items, and what they are steered by, go the same way."""

    @pytest.fixture(scope="class")
    def sampled(
        self, bench: Bench, more: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> tuple[Path, dict[tuple[str, str, int | None, int], Record]]:
        arms = {
            "suppress": {"operation": "project", "doses": [0]},
            "amplify": {"operation": "add", "doses": [1], "relative": True, "targeting": ["two_pass"]},
        }
        write_protocol(more, name="steer", arms=arms)
        suite_file(
            more, "sampled", "steer", tasks={"text": [BENCHMARK, OTHERS]}, controls=None,
            identification={"items": [2, "all"], "draws": 2, "transfer": True},
        )  # fmt: skip
        output = tmp_path_factory.mktemp("sampled")
        records, _ = bench.run(jobs(bench, more, "sampled"), output, more=[more])
        found = {}
        for each in records:
            cell, origin = each.cell, each.cell.identification
            items, draw = (origin.items, origin.draw) if origin is not None else (None, 0)
            found[cell.origin, cell.task, items, draw] = each
        assert len(found) == len(records)
        return output, found

    def test_each_draw_is_a_cell_on_each_pair(self, sampled: tuple[Path, dict[Any, Record]]) -> None:
        names = (BENCHMARK, OTHERS)
        draws = [(None, 0), (2, 0), (2, 1)]
        assert set(sampled[1]) == {(a, b, *draw) for a in names for b in names for draw in draws}
        assert all(each.status in ("ok", "collapsed") for each in sampled[1].values())

    def test_units_vectors_and_doses_are_those_of_the_same_draw(
        self, sampled: tuple[Path, dict[Any, Record]]
    ) -> None:
        output, found = sampled
        for draw in (0, 1):
            home, moved = found[BENCHMARK, BENCHMARK, 2, draw], found[BENCHMARK, OTHERS, 2, draw]
            one, other = (
                Selection.load(output / "selections" / f"{cell_id(each.cell)}.safetensors")
                for each in (home, moved)
            )
            assert one.vectors is not None
            assert other.vectors is not None
            for place, label in enumerate(REORDERED):
                at = one.labels.index(label)
                assert other.units[place].tolist() == one.units[at].tolist()
                assert other.vectors[place].tolist() == one.vectors[at].tolist()
            assert moved.cost.identification_items == 6
            assert moved.operating is not None
            assert home.operating is not None
            assert moved.operating.amplify_dose == home.operating.amplify_dose
        digests = {
            each.hashes.selection for (a, b, _, _), each in found.items() if (a, b) == (BENCHMARK, OTHERS)
        }
        assert len(digests) == 3

    def test_the_ratio_is_to_the_same_number_of_items_of_the_tested_benchmark(
        self, sampled: tuple[Path, dict[Any, Record]]
    ) -> None:
        found = sampled[1]
        for draw in (0, 1):
            moved, own = found[BENCHMARK, OTHERS, 2, draw], found[OTHERS, OTHERS, 2, draw]
            assert moved.transfer is not None
            assert moved.transfer.answers == own.hashes.predictions

    def test_the_site_has_curves_of_transferred_draws_and_grids_of_all_items(
        self, sampled: tuple[Path, dict[Any, Record]]
    ) -> None:
        records = [summary_of(each) for each in sampled[1].values()]
        curves = budget_curves(records)
        assert [curve.title.count("units from") for curve in curves] == [0, 1, 1, 0]
        assert all(
            [(row.name, len(row.records)) for row in curve.rows] == [("2", 2), ("all", 1)] for curve in curves
        )
        (model,) = transfer_board(records)
        (grid,) = model.grids
        assert len(grid.pairs) == 4
