"""What cells of modules tell beyond their axes: sizes, and necessity beside a control task."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from example_records import example_outcomes, example_record
from test_module_edit import moved, put
from test_modules import FULL_SHARES, QWEN, qwen
from test_preservation import DOCS, TEXTS
from tiny_models import tiny_qwen2

from affectbench.engine import Engine
from affectbench.errors import ScoreError
from affectbench.intervention import scale
from affectbench.leaderboard import build_site
from affectbench.model import Model
from affectbench.module_cell import module_findings, sizes_of
from affectbench.module_edit import FullWeights
from affectbench.module_site import AdaptedModules
from affectbench.module_types import members, modules_of
from affectbench.outcomes import ADAPTED, Outcomes
from affectbench.preservation import Capability, Preserver
from affectbench.preservation_score import PreservationOutcomes, score_preservation
from affectbench.record import Record
from affectbench.record_rows import rows
from affectbench.score import score_outcomes
from affectbench.score_models import ModuleFindings, PreservationScore
from affectbench.selector import Selection
from affectbench.site_board import cells_board
from affectbench.site_data import groups
from affectbench.site_format import number
from affectbench.site_summary import summary_of
from affectbench.sites import MODULE, SiteShape
from affectbench.tables import as_markdown

SHAPE = SiteShape(3, 4, parameters=(10, 10, 5, 20))
SIZES = ModuleFindings(parameters=[10], share=[0.1], adapter_share=None, necessity=[])


@pytest.mark.parametrize("size", QWEN)
def test_shares_of_qwen_are_those_of_the_protocol(size: str) -> None:
    dims, gate, everything, attention = QWEN[size]
    modules = qwen(*dims)
    ranks = {piece.parameter: 16 for piece in modules.pieces}
    site = AdaptedModules(cast(Model, None), modules, FullWeights({}, ""), ranks=ranks)
    for kind, lora in (("gate", gate / everything), ("attn", attention)):
        own = [site.types.index(each) for each in members(kind)]
        units = np.concatenate([layer * 7 + np.array(own) for layer in range(modules.layers)])
        selection = Selection(MODULE, site.shape, ("anger", "joy"), (units, units[:0]))
        found = sizes_of(selection, site.adapter_parameters)
        assert found.adapter_share == pytest.approx([lora, 0], abs=5e-5)
        assert found.parameters == [modules.parameters(members(kind)), 0]
    assert site.adapter_parameters is not None
    assert int(site.adapter_parameters.sum()) == everything
    assert modules.share(["gate"]) == pytest.approx(FULL_SHARES[size], abs=5e-5)


def test_a_model_without_an_adapter_has_no_share_of_one() -> None:
    selection = Selection(MODULE, SHAPE, ("anger", "joy"), (np.array([0, 7]), np.array([2])))
    found = sizes_of(selection, None)
    assert (found.parameters, found.adapter_share) == ([30, 5], None)
    assert found.share == pytest.approx([30 / 135, 5 / 135])


def kept(random: np.ndarray | None, rate: float = 0.6) -> tuple[list[PreservationScore], np.ndarray]:
    """Preservation at the suppress dose, with its capability answers (2, items): base, and under damage."""
    rng = np.random.default_rng(3)
    base, now = (rng.random(60) < 0.9).astype(int), (rng.random((7, 60)) < rate).astype(int)
    measured = PreservationOutcomes(
        arm="suppress", dose=0.0, kl=np.ones((7, 4)), nll=np.ones((7, 4)), nll_base=np.ones(4),
        n_tokens=np.ones(4), n_bytes=np.ones(4), capability=now, capability_base=np.tile(base, (7, 1)),
        capability_task="choices", degenerate=np.zeros((7, 2), int), degenerate_base=np.zeros((7, 2), int),
        capability_random=random,
    )  # fmt: skip
    return score_preservation([measured], seed=0, bootstrap_draws=100), np.stack([base, now.mean(axis=0)])


def uar(outcomes: Outcomes, answers: np.ndarray) -> float:
    return float(np.mean([(answers[outcomes.gold == e] == e).mean() for e in range(len(outcomes.labels))]))


@pytest.fixture(scope="module")
def outcomes() -> Outcomes:
    return example_outcomes(0.5)


class TestNecessity:
    def test_it_is_the_drop_of_uar_less_the_drop_of_the_capability(self, outcomes: Outcomes) -> None:
        scores, answers = kept(None)
        (found,) = module_findings(SIZES, {"test": outcomes}, scores, seed=0).necessity
        change = score_outcomes(outcomes, seed=0).doses[0].uar_change
        assert found.task.value == pytest.approx(-change.value)
        assert (found.task.low, found.task.high) == pytest.approx((-change.high, -change.low))
        control = answers[0].mean() - answers[1].mean()
        assert found.control is not None
        assert found.difference is not None
        assert found.control.value == pytest.approx(control)
        assert found.difference.value == pytest.approx(-change.value - control)
        assert found.random is None

    def test_its_interval_resamples_both_samples(self, outcomes: Outcomes) -> None:
        scores, answers = kept(None)
        (found,) = module_findings(SIZES, {"test": outcomes}, scores, seed=0).necessity
        assert found.difference is not None
        rng, drawn = np.random.default_rng(9), []
        hits = (outcomes.conditions[0].predictions == outcomes.gold).mean(axis=0)
        before, clusters = outcomes.base == outcomes.gold, np.unique(outcomes.clusters)
        for _ in range(3000):
            places = np.concatenate(
                [np.flatnonzero(outcomes.clusters == each) for each in rng.choice(clusters, len(clusters))]
            )
            gold = outcomes.gold[places]
            recall = [(before - hits)[places][gold == e].mean() for e in range(len(outcomes.labels))]
            items = rng.integers(60, size=60)
            drawn.append(np.mean(recall) - (answers[0] - answers[1])[items].mean())
        low, high = np.quantile(drawn, [0.025, 0.975])
        assert (found.difference.low, found.difference.high) == pytest.approx((low, high), abs=0.01)
        assert found.task.se is not None
        assert found.difference.se is not None
        assert found.difference.se > 1.1 * found.task.se

    def test_random_modules_are_asked_the_same(self, outcomes: Outcomes) -> None:
        random = (np.random.default_rng(5).random((20, 60)) < 0.8).astype(int)
        scores, answers = kept(random)
        (found,) = module_findings(SIZES, {"test": outcomes}, scores, seed=0).necessity
        base = uar(outcomes, outcomes.base)
        each = [
            base - uar(outcomes, drawn) - (answers[0].mean() - random[place].mean())
            for place, drawn in enumerate(outcomes.conditions[0].draws)
        ]
        assert found.random is not None
        assert found.difference is not None
        assert found.random.difference.value == pytest.approx(np.mean(each))
        assert found.random.difference.low is not None
        assert found.random.difference.low < np.mean(each) < (found.random.difference.high or 0)
        assert found.random.task - found.random.control == pytest.approx(np.mean(each))
        above = sum(value >= found.difference.value for value in each)
        assert found.random.p == pytest.approx((above + 1) / 21)

    def test_answers_under_random_modules_that_are_of_other_items_are_refused(self) -> None:
        with pytest.raises(ScoreError, match=r"\(20, 59\) answers under random units, for \(60,\) items"):
            kept(np.zeros((20, 59), int))

    def test_without_items_of_a_label_there_is_none(self, outcomes: Outcomes) -> None:
        few = np.flatnonzero(outcomes.gold != 2)
        left = replace(
            outcomes, items=outcomes.items[few], gold=outcomes.gold[few], clusters=outcomes.clusters[few],
            base=outcomes.base[few], base_margin=outcomes.base_margin[few],
            conditions=tuple(each.items_at(few) for each in outcomes.conditions),
        )  # fmt: skip
        assert module_findings(SIZES, {"test": left}, kept(None)[0], seed=0).necessity == []


class TestRecovery:
    def adapted(self, outcomes: Outcomes, answers: np.ndarray) -> dict[str, Outcomes]:
        unknown = np.full_like(outcomes.base_margin, np.nan)
        return {
            "test": outcomes,
            ADAPTED: replace(outcomes, base=answers, base_margin=unknown, conditions=()),
        }

    def test_it_is_the_share_of_what_the_adaptation_gained(self, outcomes: Outcomes) -> None:
        rng = np.random.default_rng(4)
        right = np.where(rng.random(len(outcomes.gold)) < 0.95, outcomes.gold, outcomes.base)
        found = module_findings(SIZES, self.adapted(outcomes, right), kept(None)[0], seed=0)
        base, whole = uar(outcomes, outcomes.base), uar(outcomes, right)
        assert found.adapted_uar is not None
        assert found.adapted_uar.value == pytest.approx(whole)
        assert found.necessity == [], "the base has nothing to damage"
        amplified = [each for each in outcomes.conditions if each.arm == "amplify"]
        for each, condition in zip(found.recovery, amplified, strict=True):
            shares = [(uar(outcomes, row) - base) / (whole - base) for row in condition.predictions]
            drawn = [(uar(outcomes, row) - base) / (whole - base) for row in condition.draws]
            assert each.share is not None
            assert each.random is not None
            assert (each.dose, each.n_draws) == (condition.dose, 20)
            assert each.share.value == pytest.approx(np.mean(shares))
            assert each.random.value == pytest.approx(np.mean(drawn))
            assert each.p == pytest.approx((sum(r >= np.mean(shares) for r in drawn) + 1) / 21)
            assert each.share.low is not None
            assert each.share.low < each.share.value < (each.share.high or 0)

    def test_all_is_one_and_none_is_nothing(self, outcomes: Outcomes) -> None:
        answers = {1.0: outcomes.gold, 0.0: outcomes.base}
        for share, given in answers.items():
            own, drawn = np.tile(given, (7, 1)), np.tile(given, (20, 1))
            conditions = tuple(replace(each, predictions=own, draws=drawn) for each in outcomes.conditions)
            test = replace(outcomes, conditions=conditions)
            found = module_findings(SIZES, self.adapted(test, outcomes.gold), kept(None)[0], seed=0)
            for each in found.recovery:
                for estimate in (each.share, each.random):
                    assert estimate is not None
                    assert (estimate.value, estimate.low, estimate.high) == (share, share, share)

    def test_a_single_cluster_tells_of_no_gain(self, outcomes: Outcomes) -> None:
        one = replace(outcomes, clusters=np.full(len(outcomes.gold), "all"))
        found = module_findings(SIZES, self.adapted(one, outcomes.gold), kept(None)[0], seed=0)
        assert all(each.share is None and "too few clusters" in each.reason for each in found.recovery)

    def test_it_is_left_out_where_the_adaptation_gained_too_little(self, outcomes: Outcomes) -> None:
        found = module_findings(SIZES, self.adapted(outcomes, outcomes.base), kept(None)[0], seed=0)
        for each in found.recovery:
            assert (each.share, each.random, each.p) == (None, None, None)
            assert each.reason == "the adaptation gains 0.000, less than 2 standard errors of 0.000"

    def test_the_order_of_items_does_not_matter(self, outcomes: Outcomes) -> None:
        given = self.adapted(outcomes, outcomes.gold)
        turned = {name: each.ordered() for name, each in given.items()}
        places = np.random.default_rng(0).permutation(len(outcomes.gold))
        for name, each in given.items():
            turned[name] = replace(
                each, items=each.items[places], gold=each.gold[places], clusters=each.clusters[places],
                base=each.base[places], base_margin=each.base_margin[places],
                conditions=tuple(condition.items_at(places) for condition in each.conditions),
            )  # fmt: skip
        one, other = (module_findings(SIZES, each, kept(None)[0], seed=0) for each in (given, turned))
        assert one == other


def test_the_capability_under_random_units_is_that_under_any_edit() -> None:
    model = tiny_qwen2()
    weights = moved(model, [piece.parameter for piece in modules_of(model).pieces])
    base = {name: model.network.get_parameter(name).detach().clone() for name in weights.tensors}
    undo = put(model, weights)
    try:
        model.adaptation = AdaptedModules(model, modules_of(model), FullWeights(base, "the base"))
        shape = model.site_shape(MODULE)
        prompts = [model.open_prompt("prompt", "the dog was")]
        preserver = Preserver(Engine(model), TEXTS, Capability("choices", docs=DOCS), prompts, 2)
        edits = [scale(MODULE, shape, np.array([unit]), 0.0) for unit in (0, 4, 9)]
        own, other = ("suppress", 0.0, edits), ("amplify", 2.0, edits[:1])
        plain, _ = preserver.measure([own, other], 0)
        again, without = preserver.measure([own, other], 0, {("suppress", 0.0): edits})
    finally:
        model.adaptation = None
        undo()
    assert again.counts.random_correct == plain.counts.correct
    assert sum(map(int, again.counts.random_totals.split())) == sum(map(int, plain.counts.correct.split()))
    assert len(again.counts.random_totals.split()) == 3
    assert without.counts.random_totals == plain.counts.random_totals == ""


@pytest.fixture(scope="module")
def record(outcomes: Outcomes) -> Record:
    """A record of modules, made from an ordinary one."""
    scores, _ = kept((np.random.default_rng(5).random((20, 60)) < 0.8).astype(int))
    selection = Selection(MODULE, SHAPE, outcomes.labels, (np.array([0, 4, 8]),) * 7)
    found = module_findings(sizes_of(selection, np.arange(12) + 1), {"test": outcomes}, scores, seed=0)
    plain = example_record("small-text", "mad")
    cell = plain.cell.model_copy(update={"site": MODULE})
    return plain.model_copy(update={"cell": cell, "modules": found}).sealed()


@pytest.fixture(scope="module")
def transferred(record: Record, outcomes: Outcomes) -> Record:
    """The record as that of modules put into the base."""
    given = {"test": outcomes, ADAPTED: replace(outcomes, base=outcomes.gold, conditions=())}
    assert record.modules is not None
    found = module_findings(record.modules, given, kept(None)[0], seed=0)
    return record.model_copy(update={"modules": found}).sealed()


class TestShown:
    def test_recovery_is_shown_where_modules_are_put_into_the_base(
        self, record: Record, transferred: Record, tmp_path: Any
    ) -> None:
        assert transferred.modules is not None
        assert transferred.operating is not None
        dose = transferred.operating.amplify_dose
        own = next(each for each in transferred.modules.recovery if each.dose == dose)
        assert own.share is not None
        (row,) = (each for each in rows(transferred) if (each["arm"], each["dose"]) == ("amplify", dose))
        assert (row["recovery"], row["recovery_p_random"]) == (own.share.value, own.p)
        board = cells_board(groups([summary_of(transferred)]))
        (column,) = (each for each in board.columns if each.title == "Recovery")
        assert column.data["v"] == [round(1000 * own.share.value)]
        without = cells_board(groups([summary_of(record)]))
        assert "Recovery" not in [each.title for each in without.columns]
        build_site([transferred], tmp_path / "site")
        (page,) = (tmp_path / "site/entries").glob("*.html")
        assert number(own.share.value) in page.read_text(encoding="utf-8").partition("Recovery R")[2]

    def test_a_table_has_sizes_and_necessity(self, record: Record) -> None:
        found = {(row["arm"], row["dose"]): row for row in rows(record)}
        suppress, amplify = found["suppress", 0.0], found["amplify", 2.0]
        assert record.modules is not None
        own = record.modules.necessity[0]
        assert own.difference is not None
        assert own.random is not None
        assert suppress["necessity"] == own.difference.value
        assert suppress["necessity_random"] == own.random.difference.value
        assert suppress["necessity_task"] - suppress["necessity_control"] == pytest.approx(
            own.difference.value
        )
        assert amplify["necessity"] is None
        assert suppress["module_share"] == pytest.approx(30 / 135)
        assert suppress["adapter_share"] == pytest.approx((1 + 5 + 9) / 78)
        assert suppress["module_parameters"] == 30
        plain = rows(example_record("small-text", "mad"))[0]
        assert plain.keys() == suppress.keys()
        assert plain["module_share"] is None

    def test_people_see_what_only_modules_have_where_it_is_there(self, record: Record) -> None:
        plain = rows(example_record("small-text", "mad"))
        assert "necessity" not in as_markdown(plain)
        head, *_ = as_markdown([*plain, *rows(record)]).splitlines()
        assert "module_share | necessity | status" in head
        (line,) = (each for each in as_markdown(rows(record)).splitlines() if "| suppress |" in each)
        assert record.modules is not None
        own = record.modules.necessity[0].difference
        assert own is not None
        assert f"| 0.22 | {own.value:.2f} | ok |" in line

    def test_a_board_of_modules_has_their_columns_and_others_have_not(self, record: Record) -> None:
        def columns(*shown: Record) -> dict[str, Any]:
            board = cells_board(groups([summary_of(each) for each in shown]))
            return {column.title: column.data["v"] for column in board.columns if "v" in column.data}

        assert record.modules is not None
        own = record.modules.necessity[0].difference
        assert own is not None
        assert columns(record)["Necessity"] == [round(1000 * own.value)]
        assert columns(record)["Weights, %"] == [round(100_000 * 30 / 135)]
        assert "Necessity" not in columns(example_record("small-text", "mad"))

    def test_its_page_tells_of_both_tasks(self, record: Record, tmp_path: Any) -> None:
        build_site([record], tmp_path / "site")
        (page,) = (tmp_path / "site/entries").glob("*.html")
        text = page.read_text(encoding="utf-8")
        assert "30 weights, 22.2 % of those of all modules, and 19.2 % of the adapter’s" in text
        assert "20 random draws" in text
        assert f"out of {record.model.n_layers}" not in text
