"""The analysis of causal features by emotion and phase: parts by hand, and all of it on a shipped model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from affectbench.analyses import ANALYSES, Asked, Content
from affectbench.analysing import attach_features
from affectbench.analysis import Matrix, Table
from affectbench.causes import Causes, causal_features, gini
from affectbench.dataset import load_benchmark
from affectbench.feature_effects import (
    Effects,
    analyse,
    findings,
    matrices,
    recovered,
    strength_table,
    strongest,
)
from affectbench.feature_flow import flow_of_reading, read
from affectbench.placement import Options, Order, Placement
from affectbench.plan import job_of_names
from affectbench.registry import Registry
from affectbench.score_models import Estimate
from affectbench.session import Session

LAYERS = (0, 2, 5)


def effects_of(means: list[list[float]], layers: list[int], n: int = 30) -> Effects:
    """Two emotions, features with these mean effects in these layers; phases begin at layers 2 and 5 of 6."""
    rng = np.random.default_rng(0)
    causes = []
    for own in means:
        noise = 0.01 * rng.normal(size=(n, len(own)))
        clusters = tuple(f"c{place}" for place in range(n))
        bar = np.full(len(own), 0.05)
        causes.append(
            Causes(np.array(layers), 10 + np.arange(len(own)), np.array(own) + noise, clusters, bar)
        )
    found = [causal_features(each, draws=200, seed=0) for each in causes]
    return Effects(("joy", "fear"), causes, found, (2, 5), LAYERS, 6)


@pytest.fixture
def effects() -> Effects:
    return effects_of([[1.0, 0.5, 0.0, 2.0], [0.2, 0.0, 0.0, 0.0]], [0, 0, 2, 5])


def rows(table: Table) -> dict[str, list]:
    return {str(row[0]): list(row[1:]) for row in table.rows}


class TestParts:
    def test_tables_hold_number_sum_and_gini_of_each_phase(self, effects: Effects) -> None:
        table = strength_table("t", "t", effects, effects.strengths(), [30, 30])
        joy, fear = rows(table)["joy"], rows(table)["fear"]
        own = effects.found[0].effect
        assert joy == [
            30, 2, pytest.approx(own[:2].sum()), pytest.approx(gini(own[:2])), 0, 0.0, None,
            1, pytest.approx(own[3]), 0.0,
        ]  # fmt: skip
        assert fear[:2] == [30, 1]
        assert [column.name for column in table.columns[2:5]] == ["1: features", "1: effect", "1: Gini"]
        assert "Phases: first layers 0 to 1; second layers 2 to 4; third layers 5 to 5." in table.note

    def test_matrices_count_and_sum_by_layer_with_features(self, effects: Effects) -> None:
        count, total = matrices(effects)
        assert count.columns == ["0", "2", "5"]
        assert count.values == [[2, 0, 1], [1, 0, 0]]
        assert total.values[0][0] == pytest.approx(1.5, abs=0.02)
        assert total.values[0][2] == pytest.approx(2.0, abs=0.02)

    def test_findings_name_the_extremes_and_the_share_of_the_last_phase(self, effects: Effects) -> None:
        found = {each.name: each for each in findings(effects, effects.strengths())}
        assert found["number"].text == "Causal features: most for joy (3), least for fear (1)"
        assert "most for joy (3.50), least for fear (0.20)" in found["total"].text
        assert found["last-phase"].value.value == pytest.approx(2.0 / 3.7, abs=0.01)
        nothing = effects_of([[0.0], [0.0]], [0])
        assert "last-phase" not in {each.name for each in findings(nothing, nothing.strengths())}

    def test_the_strongest_come_first_and_are_causal(self, effects: Effects) -> None:
        found = strongest(effects, 2).rows
        assert [row[:3] for row in found] == [["joy", 5, 13], ["joy", 0, 10], ["fear", 0, 10]]
        assert isinstance(found[0][3], Estimate)
        assert found[0][3].low < found[0][3].value < found[0][3].high
        assert found[0][4] == 0.05


class TestPlanted:
    """Two emotions, 20 features a layer; traced were features 10 to 13, in layers 0, 0, 2 and 5."""

    def test_planted_features_against_decoys_by_hand(self, effects: Effects) -> None:
        at = [10, 11, 2 * 20 + 12, 5 * 20 + 13]  # Effects of joy: 1, 0.5, 0 and 2.
        truth = {
            "planted": {"joy": [at[3], at[1]], "fear": [at[0]]},
            "decoys": {"joy": [at[2], at[0], 7], "fear": [8]},
        }
        ((finding, table),) = recovered(effects, truth, 20)
        joy = rows(table)["joy"]
        # Against decoys with 1, 0 and no effect at all: 2 beats three, 0.5 beats two.
        assert joy[:5] == [2, 2, 3, 1, pytest.approx(5 / 6)]
        assert joy[5] == pytest.approx((118 + 117) / (2 * 118))
        assert joy[6] == pytest.approx(1 / 2)
        assert rows(table)["fear"][:5] == [1, 1, 1, 0, 1.0]
        assert finding.value is not None
        assert finding.value.value == pytest.approx((5 / 6 + 1) / 2)

    def test_nothing_is_said_where_nothing_was_planted(self, effects: Effects) -> None:
        assert recovered(effects, None, 20) == []


SETTINGS = ANALYSES["feature-effects"].settings | {
    "candidates": 6, "items": 6, "effect_draws": 100, "matched_repeats": 2
}  # fmt: skip


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A shipped model with its shipped autoencoders."""
    registry = Registry(installed=False)
    job = job_of_names(registry, "reference-text", "reference-narratives", (), (), 0)
    options = Options(tmp_path_factory.mktemp("out"), limit=8)
    dataset = load_benchmark(job.benchmark, None, 8)
    placement = Placement(registry, Order(job, dataset, (), ()), options, lambda _text: None)
    attach_features(placement)
    return placement.session


@pytest.fixture(scope="module")
def told() -> list[int]:
    """What the analysis said of its progress."""
    return []


@pytest.fixture(scope="module")
def content(session: Session, told: list[int]) -> Content:
    return analyse(Asked(session, 0, SETTINGS, told.append))


class TestShipped:
    def test_phases_are_those_of_the_flow(self, session: Session, content: Content) -> None:
        flow = flow_of_reading(read(Asked(session, 0, SETTINGS))["all"], Asked(session, 0, SETTINGS))
        first, second = flow.boundaries
        assert f"first layers 0 to {first - 1}; " in content.tables[0].note
        assert f"third layers {second} to 3." in content.tables[0].note

    def test_numbers_of_tables_matrices_and_the_list_agree(self, content: Content) -> None:
        table, matched = content.tables[:2]
        count: Matrix = content.matrices[0]
        for label, layers in zip(count.rows, count.values, strict=True):
            assert sum(rows(table)[label][1::3]) == sum(layers) <= 6
        assert {row[0] for row in rows(matched).values()} == {content.n["matched_items"]}
        assert content.n["ablated_features"] == 7 * 6

    def test_parts_have_names_of_their_own_and_planted_features_are_among_them(
        self, content: Content
    ) -> None:
        names = [part.name for part in (*content.findings, *content.matrices, *content.tables)]
        assert len(set(names)) == len(names)
        assert {"planted", "planted-auroc"} <= set(names)

    def test_the_same_seed_gives_the_same(self, session: Session, content: Content) -> None:
        assert analyse(Asked(session, 0, SETTINGS)) == content

    def test_it_tells_of_answers_as_they_are_done(self, content: Content, told: list[int]) -> None:
        assert len(told) > 10
        assert sum(told) > 7 * 6 * 7 * 6, "each candidate on each item"


@pytest.mark.slow
def test_one_command_makes_both_analyses_of_features(tmp_path: Path, run_cli) -> None:
    names = ("feature-flow", "feature-effects")
    line = ("analyse", *names, "--model", "reference-text", "--limit", 12, "--threads", 1, "-o", tmp_path)
    code, said, error = run_cli(*line)
    assert code == 0, error
    assert "the third phase begins at layer" in said
    assert "Causal features: most for" in said
