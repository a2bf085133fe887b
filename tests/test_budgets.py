"""Units identified on few items: which items are taken, that selectors see no others, what a record says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e_content import (
    CUES,
    PROTOCOL,
    Bench,
    contents,
    suite_file,
    write_selector,
)

from affectbench.errors import AffectbenchError
from affectbench.plan import jobs_of_suite
from affectbench.record import Identification, Record, cell_id
from affectbench.session import Session
from affectbench.site_data import groups
from affectbench.site_summary import summary_of
from affectbench.task import load_file

pytestmark = pytest.mark.usefixtures("one_thread")

SPY = """
import json, pathlib
path = pathlib.Path({path!r})
seen = json.loads(path.read_text()) if path.exists() else []
seen.append([list(study.items.ids), study.evidence.items.tolist()])
path.write_text(json.dumps(seen))
"""
IDENTIFICATION = {"items": [2, 4, "all"], "draws": 2}


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("budgets")
    write_selector(root, "spy", SPY.format(path=str(root / "seen.json")))
    suite(root, "curve", IDENTIFICATION)
    return root


def suite(root: Path, name: str, identification: dict[str, Any]) -> Path:
    return suite_file(
        root, name, PROTOCOL, selectors=["magnitude", "spy"], controls=None, identification=identification
    )


@pytest.fixture(scope="module")
def curve(bench: Bench, more: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record]]:
    output = tmp_path_factory.mktemp("curve")
    records, _ = bench.run(jobs_of_suite(bench.registry(more), "curve", None), output, more=[more])
    return output, records


def of(records: list[Record], selector: str, items: int | None, draw: int = 0) -> Record:
    wanted = None if items is None else Identification(items=items, draw=draw)
    return next(r for r in records if (r.cell.selector, r.cell.identification) == (selector, wanted))


def seen(more: Path, budget: int | None) -> list[tuple[list[str], list[int]]]:
    """Items and counts that the spy was shown, for each of its calls with this budget."""
    told = json.loads((more / "seen.json").read_text())
    whole = max(sum(counts) for _, counts in told)
    wanted = whole if budget is None else budget * len(CUES)
    return [(ids, counts) for ids, counts in told if sum(counts) == wanted]


class TestPlan:
    def test_every_budget_and_draw_is_a_cell_beside_the_ordinary_one(self, bench: Bench, more: Path) -> None:
        (job,) = jobs_of_suite(bench.registry(more), "curve", None)
        assert job.size == 2 * (1 + 2 * 2)
        assert job.origins[0] is None

    def test_all_is_the_ordinary_cell(self, bench: Bench, more: Path) -> None:
        suite(more, "whole", {"items": ["all"]})
        (job,) = jobs_of_suite(bench.registry(more), "whole", None)
        assert job.origins == (None,)

    @pytest.mark.parametrize("wrong", [{"items": [0]}, {"items": ["some"]}, {"draws": 0}, {"itmes": [3]}])
    def test_what_makes_no_sense_is_refused_with_its_place(
        self, tmp_path: Path, wrong: dict[str, Any]
    ) -> None:
        with pytest.raises(AffectbenchError, match="identification"):
            load_file(suite(tmp_path, "odd", wrong))

    def test_a_budget_may_be_another_task_s_and_one_of_both_is_said(self) -> None:
        both = Identification(task="other", items=5, draw=2)
        assert str(both) == "from other, 5 items an emotion, draw 2"
        assert both.at_home == Identification(items=5, draw=2)
        assert Identification(task="other").at_home is None
        with pytest.raises(ValueError, match="another task, or on a number"):
            Identification()


class TestSamples:
    def test_a_budget_counts_so_many_items_of_each_emotion(
        self, more: Path, curve: tuple[Path, list[Record]]
    ) -> None:
        for budget in (2, 4):
            calls = seen(more, budget)
            assert len(calls) == 2
            assert all(counts == [budget] * len(CUES) for _, counts in calls)

    def test_selectors_see_the_items_of_the_budget_and_no_others(
        self, more: Path, curve: tuple[Path, list[Record]]
    ) -> None:
        for budget in (2, 4):
            assert all(len(ids) == budget * len(CUES) for ids, _ in seen(more, budget))

    def test_budgets_of_one_draw_are_nested_and_draws_differ(
        self, more: Path, curve: tuple[Path, list[Record]]
    ) -> None:
        small = [set(ids) for ids, _ in seen(more, 2)]
        large = [set(ids) for ids, _ in seen(more, 4)]
        assert small[0] != small[1]
        assert sum(few <= many for few in small for many in large) >= 2
        assert all(any(few <= many for many in large) for few in small)

    def test_the_evidence_is_that_of_the_sampled_items_alone(
        self, bench: Bench, more: Path, tmp_path: Path
    ) -> None:
        """Against a pass over a split that holds nothing else."""
        from affectbench.evidence import EvidencePass
        from affectbench.placement import Options, Placement
        from affectbench.run import Run

        jobs = jobs_of_suite(bench.registry(more), "curve", None)
        options = Options(tmp_path, data=bench.root / "data")
        order = next(Run(bench.registry(more), options, _Silent()).orders(jobs))  # type: ignore[arg-type]
        session: Session = Placement(bench.registry(more), order, options, lambda _: None).session
        key = frozenset({("gate", "answer", "mean")})
        sample = Identification(items=2)
        found = session.collect(key, correct_only=False, seed=0, progress=None, sample=sample)
        alone = EvidencePass(session.engine, found.items, session.readout, key, correct_only=False).run()
        assert found.counted[:3].tolist() == [2, 2, 2]
        assert (found.evidence("gate", "answer").mean == alone.evidence("gate", "answer").mean).all()
        whole = session.collect(key, correct_only=False, seed=0, progress=None)
        assert (whole.evidence("gate", "answer").mean != alone.evidence("gate", "answer").mean).any()


class _Silent:
    def __getattr__(self, _name: str) -> Any:
        return lambda *_args, **_options: None


class TestRecords:
    def test_every_cell_is_scored_and_says_how_many_items_it_used(
        self, curve: tuple[Path, list[Record]]
    ) -> None:
        assert len(curve[1]) == 10
        for budget, items in [(2, 6), (4, 12), (None, 24)]:
            record = of(curve[1], "magnitude", budget)
            assert record.status in ("ok", "collapsed")
            assert record.cost.identification_items == items

    def test_the_ordinary_cell_is_what_it_is_without_budgets(
        self, bench: Bench, more: Path, curve: tuple[Path, list[Record]], tmp_path: Path
    ) -> None:
        records, _ = bench.run(bench.job("magnitude", more=[more]), tmp_path, more=[more])
        same = of(curve[1], "magnitude", None)
        assert cell_id(records[0].cell) == cell_id(same.cell)
        assert contents(tmp_path)[cell_id(same.cell)] == contents(curve[0])[cell_id(same.cell)]

    def test_a_budget_does_not_depend_on_what_other_budgets_there_are(
        self, bench: Bench, more: Path, curve: tuple[Path, list[Record]], tmp_path: Path
    ) -> None:
        suite(more, "single", {"items": [4]})
        jobs = jobs_of_suite(bench.registry(more), "single", None)
        bench.run(jobs, tmp_path, more=[more])
        name = cell_id(of(curve[1], "magnitude", 4).cell)
        assert contents(tmp_path)[name] == contents(curve[0])[name]

    def test_more_items_than_there_are_is_flagged(self, bench: Bench, more: Path, tmp_path: Path) -> None:
        suite(more, "large", {"items": [50]})
        records, _ = bench.run(jobs_of_suite(bench.registry(more), "large", None), tmp_path, more=[more])
        large, whole = of(records, "magnitude", 50), of(records, "magnitude", None)
        assert large.flags == ["fewer_items_than_asked_for"]
        assert large.hashes.selection == whole.hashes.selection

    def test_budgets_are_never_ranked_with_the_ordinary_rows(self, curve: tuple[Path, list[Record]]) -> None:
        found = groups([summary_of(record) for record in curve[1]])
        assert len(found) == 5
        assert all(len(group.rows) == 2 for group in found)

    def test_finished_cells_are_skipped_and_a_lost_one_comes_back(
        self, bench: Bench, more: Path, curve: tuple[Path, list[Record]]
    ) -> None:
        """With the same units and scores; last bits may depend on what else was packed with it."""
        lost = of(curve[1], "magnitude", 2, 1)
        (curve[0] / "records" / f"{cell_id(lost.cell)}.json").unlink()
        jobs = jobs_of_suite(bench.registry(more), "curve", None)
        records, log = bench.run(jobs, curve[0], more=[more])
        assert (log.ran, len(log.skipped)) == (["magnitude"], 9)
        again = of(records, "magnitude", 2, 1)
        assert again.hashes.selection == lost.hashes.selection
        assert again.scores is not None
        assert lost.scores is not None
        assert again.scores.doses[0].effect_matrix == lost.scores.doses[0].effect_matrix

    def test_chance_of_the_draw_is_not_the_seed_of_the_cell(self, curve: tuple[Path, list[Record]]) -> None:
        one, other = (of(curve[1], "magnitude", 2, draw) for draw in (0, 1))
        assert one.cell.seed == other.cell.seed
        assert one.hashes.selection != other.hashes.selection
        assert np.isfinite(one.cost.identification_items)
