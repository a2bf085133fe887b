"""Amplifying without a gold label: what each rule does, that none can peek, and how it is scored."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e_content import CUES, MODEL, PROTOCOL, Bench, write_protocol
from example_records import GRID, LABELS, example_outcomes, example_record

from affectbench.errors import ScoreError
from affectbench.injection import Injection, by_answer, rotated, shares
from affectbench.intervention import Edit, Intervention, scale
from affectbench.label_free import label_free_scores
from affectbench.leaderboard import build_site
from affectbench.outcomes import Outcomes, Steered, content_digest
from affectbench.placement import Options, Placement
from affectbench.plan import job_of_names
from affectbench.predictions import from_parquet, to_parquet
from affectbench.record import Record
from affectbench.run import Run
from affectbench.score import score_outcomes
from affectbench.session import Session
from affectbench.store import Store
from affectbench.targets import Dosing, Target, Units

ALL = ["two_pass", "mix", "union"]
EACH = f"{PROTOCOL}-free"
AMPLIFY = {"operation": "scale", "doses": [2, 4], "targeting": ALL}
ARMS = {"suppress": {"operation": "scale", "doses": [0]}, "amplify": AMPLIFY}


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Protocols with label-free targeting: sound and as published."""
    root = tmp_path_factory.mktemp("free")
    write_protocol(root, name=EACH, arms=ARMS)
    write_protocol(root, name=f"{EACH}-paper", arms=ARMS, mode="paper")
    return root


@pytest.fixture(scope="module")
def run(bench: Bench, more: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record]]:
    output = tmp_path_factory.mktemp("out")
    jobs = [bench.job("magnitude", more=[more], protocol=name) for name in (EACH, f"{EACH}-paper", PROTOCOL)]
    records = [record for job in jobs for record in bench.run(job, output, more=[more])[0]]
    return output, records


@pytest.fixture(scope="module")
def session(bench: Bench, more: Path, tmp_path_factory: pytest.TempPathFactory) -> Session:
    job = job_of_names(bench.registry(more), MODEL, None, ["magnitude"], [EACH], 0)
    options = Options(tmp_path_factory.mktemp("placed"), data=bench.root / "data")
    order = next(Run(bench.registry(more), options, _Silent()).orders([job]))
    return Placement(bench.registry(more), order, options, lambda _text: None).session


class _Silent:
    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_args, **_options: None


def sets_and_draws(session: Session) -> tuple[list[Any], list[Any]]:
    units = session.model.shape.units
    rng = np.random.default_rng(4)  # Two of the sets share units, as selections do.
    return [np.sort(rng.choice(units, 6, replace=False)) for _ in CUES], [
        np.sort(rng.choice(units, 6, replace=False)) for _ in range(4)
    ]


def targets(session: Session, sets: list[Any]) -> list[Target]:
    return [(Units("gate", session.model.shape, units),) for units in sets]


def steered(bench: Bench, more: Path, session: Session, mode: str, **changes: Any) -> dict[str, Steered]:
    """What an injection gives at dose 3, by targeting; `changes` are of the items."""
    protocol = bench.registry(more).intervention(EACH if mode == "sound" else f"{EACH}-paper")
    items = replace(session.items("test"), **changes)
    sets, draws = sets_and_draws(session)
    shape = session.model.shape
    packed = [scale(protocol.site, shape, units, 3.0) for units in (*sets, *draws)]
    codes = session.engine.predict(items, session.readout, packed).codes
    found = Injection(session.engine, items, session.readout, Dosing(protocol, {})).steered(
        3.0, targets(session, sets), targets(session, draws), codes[: len(sets)], codes[len(sets) :]
    )
    return {each.targeting: each for each in found}


class TestRules:
    def test_two_pass_takes_the_answer_under_the_units_of_the_first_answer(self) -> None:
        answers = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2]])
        base = np.array([2, 0, -1, 1])
        assert by_answer(base, answers).tolist() == [2, 0, -1, 1]
        assert by_answer(np.array([1, 1, 0, -2]), answers[::-1]).tolist() == [1, 1, 2, -2]

    def test_shares_are_equal_as_published_and_the_answers_probabilities_else(self) -> None:
        chances = np.array([[0.7, 0.2, 0.1], [0.2, 0.2, 0.6]])
        scores = np.log(chances).astype(np.float32) - 3.0
        np.testing.assert_allclose(shares(scores, "sound"), chances, rtol=1e-5)
        np.testing.assert_allclose(shares(scores, "paper"), np.full((2, 3), 1 / 3))
        scores[1] = np.nan
        np.testing.assert_allclose(shares(scores, "sound")[1], np.full(3, 1 / 3))

    def test_controls_put_draws_in_the_places_of_emotions(self) -> None:
        draws = [np.array([place]) for place in range(4)]
        found = [[int(each[0]) for each in control] for control in rotated(draws, 3)]
        assert found == [[0, 1, 2], [1, 2, 3], [2, 3, 0], [3, 0, 1]]
        assert rotated(draws, 5) == []

    @pytest.mark.parametrize("mode", ["sound", "paper"])
    def test_mix_and_union_against_one_edit_an_item(
        self, bench: Bench, more: Path, session: Session, mode: str
    ) -> None:
        """The oracle builds the gains of each item by hand and answers it alone."""
        found = steered(bench, more, session, mode)
        items, shape = session.items("test"), session.model.shape
        sets, _ = sets_and_draws(session)
        base = session.engine.predict(items, session.readout, [scale("gate", shape, sets[0], 1.0)]).scores[0]
        union = scale("gate", shape, np.unique(np.concatenate(sets)), 3.0)
        expected = session.engine.predict(items, session.readout, [union]).codes[0]
        assert found["union"].answers.tolist() == expected.tolist()
        for place in range(0, len(items), 7):
            weight = (
                np.exp(base[place] - np.logaddexp.reduce(base[place])) if mode == "sound" else [1 / 3] * 3
            )
            gains = np.ones(shape.units)
            for units, share in zip(sets, weight, strict=True):
                for unit in units:
                    gains[unit] += 2.0 * float(share)
            alone = replace(
                items, items=items.items[place : place + 1], gold=items.gold[place : place + 1],
                clusters=items.clusters[place : place + 1],
            )  # fmt: skip
            every = Edit("gate", shape, np.arange(shape.units), "scale", gains)
            one = session.engine.predict(alone, session.readout, [Intervention((every,))]).codes[0, 0]
            assert found["mix"].answers[place] == one

    @pytest.mark.parametrize("mode", ["sound", "paper"])
    def test_no_rule_sees_a_gold_label(self, bench: Bench, more: Path, session: Session, mode: str) -> None:
        """With other labels on the same items, not an answer changes."""
        gold = session.items("test").gold
        other = np.roll(gold, 1)
        assert (other != gold).any()
        true, false = (steered(bench, more, session, mode, gold=labels) for labels in (gold, other))
        for name in ALL:
            assert (true[name].answers == false[name].answers).all()
            assert (true[name].draws == false[name].draws).all()

    def test_two_pass_costs_nothing(self, bench: Bench, more: Path, session: Session) -> None:
        steered(bench, more, session, "sound")
        before = session.engine.cost.forward_passes
        protocol = bench.registry(more).intervention(EACH)
        amplify = protocol.arms.amplify.model_copy(update={"targeting": ("two_pass",)})
        arms = protocol.arms.model_copy(update={"amplify": amplify})
        lean = protocol.model_copy(update={"arms": arms})
        items = session.items("test")
        sets, draws = sets_and_draws(session)
        codes = np.zeros((len(sets), len(items)), dtype=np.int8)
        drawn = np.zeros((len(draws), len(items)), dtype=np.int8)
        found = Injection(session.engine, items, session.readout, Dosing(lean, {})).steered(
            3.0, targets(session, sets), targets(session, draws), codes, drawn
        )
        assert [each.targeting for each in found] == ["two_pass"]
        assert session.engine.cost.forward_passes == before


def with_steered(outcomes: Outcomes) -> Outcomes:
    """Example outcomes whose amplify conditions have label-free answers."""
    rng = np.random.default_rng(9)
    n = len(outcomes.items)
    conditions = []
    for each in outcomes.conditions:
        right = np.where(rng.random(n) < 0.9, outcomes.gold, outcomes.base)
        draws = np.where(rng.random((20, n)) < 0.05, rng.integers(0, 7, (20, n)), outcomes.base)
        ways = tuple(Steered(name, right, draws) for name in ("two_pass", "union"))
        conditions.append(replace(each, steered=ways if each.arm == "amplify" else ()))
    return replace(outcomes, conditions=tuple(conditions))


class TestScores:
    def test_changes_against_a_plain_loop(self) -> None:
        outcomes = with_steered(example_outcomes())
        condition = outcomes.conditions[1]
        found = {each.targeting: each for each in label_free_scores(outcomes, condition, 0, 500)}
        for name, answers in [
            ("two_pass", condition.steered[0].answers),
            ("oracle", condition.predictions[outcomes.gold, np.arange(len(outcomes.gold))]),
        ]:
            recalls = [
                np.mean(answers[outcomes.gold == e] == e) - np.mean(outcomes.base[outcomes.gold == e] == e)
                for e in range(7)
            ]
            right = np.mean(answers == outcomes.gold) - np.mean(outcomes.base == outcomes.gold)
            assert found[name].uar_change.value == pytest.approx(np.mean(recalls))
            assert found[name].accuracy_change.value == pytest.approx(right)
            low, high = found[name].uar_change.low, found[name].uar_change.high
            assert low is not None
            assert high is not None
            assert low < np.mean(recalls) < high

    def test_macro_f1_is_that_of_scikit_learn(self) -> None:
        from sklearn.metrics import f1_score

        outcomes = with_steered(example_outcomes())
        found = label_free_scores(outcomes, outcomes.conditions[1], 0, 500)[0].recognition
        assert found is not None
        answers, gold = outcomes.conditions[1].steered[0].answers, outcomes.gold
        before, after = (
            f1_score(gold, each, labels=range(7), average="macro", zero_division=0)
            for each in (outcomes.base, answers)
        )
        assert found.macro_f1_before == pytest.approx(before)
        assert found.macro_f1_after == pytest.approx(after)
        assert found.accuracy_after == pytest.approx(np.mean(answers == gold))
        change = found.macro_f1_change
        assert change.value == pytest.approx(after - before)
        assert change.low is not None
        assert change.high is not None
        assert change.low < after - before < change.high
        unanswered = np.where(np.arange(len(gold)) % 5 == 0, -2, outcomes.base).astype(outcomes.base.dtype)
        blank = replace(outcomes, base=unanswered)
        found = label_free_scores(blank, outcomes.conditions[1], 0, 500)[0].recognition
        assert found is not None
        expected = f1_score(gold, unanswered, labels=range(7), average="macro", zero_division=0)
        assert found.macro_f1_before == pytest.approx(expected)

    def test_a_rule_that_helps_stands_out_from_random_units(self) -> None:
        outcomes = with_steered(example_outcomes())
        found = label_free_scores(outcomes, outcomes.conditions[1], 0, 500)[0]
        assert found.p_random == pytest.approx(1 / 21)
        assert found.random_mean is not None
        assert found.random_mean < found.uar_change.value

    def test_only_amplify_conditions_of_protocols_that_ask_have_them(self) -> None:
        scores = score_outcomes(with_steered(example_outcomes()), seed=0, bootstrap_draws=200)
        assert [bool(dose.label_free) for dose in scores.doses] == [arm == "amplify" for arm, _ in GRID]
        plain = score_outcomes(example_outcomes(), seed=0, bootstrap_draws=200)
        assert "label_free" not in plain.doses[1].model_dump(mode="json")
        assert "label_free" in scores.doses[1].model_dump(mode="json")

    def test_answers_come_back_from_a_file_and_are_sealed(self, tmp_path: Path) -> None:
        outcomes = with_steered(example_outcomes())
        path = tmp_path / "answers.parquet"
        path.write_bytes(to_parquet({"test": outcomes}))
        found = from_parquet(path)
        assert content_digest(found) == content_digest({"test": outcomes})
        assert content_digest(found) != content_digest({"test": example_outcomes()})
        first, second = found["test"].conditions[1].steered, outcomes.ordered().conditions[1].steered
        for one, other in itertools.zip_longest(first, second):
            assert one.targeting == other.targeting
            assert (one.answers == other.answers).all()
            assert (one.draws == other.draws).all()

    def test_answers_of_the_wrong_shape_are_refused(self) -> None:
        outcomes = example_outcomes()
        short = Steered("mix", np.zeros(3, dtype=int), np.zeros((0, 3), dtype=int))
        with pytest.raises(ScoreError, match="mix has shape"):
            replace(outcomes, conditions=(replace(outcomes.conditions[1], steered=(short,)),))


class TestCell:
    def test_a_record_carries_every_targeting_and_the_oracle(self, run: tuple[Path, list[Record]]) -> None:
        for record in run[1][:2]:
            assert record.scores is not None
            for dose in record.scores.doses:
                names = [each.targeting for each in dose.label_free]
                assert names == ([*ALL, "oracle"] if dose.arm == "amplify" else [])
                assert all(each.n_draws == 6 for each in dose.label_free)

    def test_other_protocols_and_the_other_numbers_are_untouched(
        self, run: tuple[Path, list[Record]]
    ) -> None:
        free, _, plain = run[1]
        assert free.scores is not None
        assert plain.scores is not None
        assert [dose.spec for dose in free.scores.doses] == [dose.spec for dose in plain.scores.doses]
        assert not any(dose.label_free for dose in plain.scores.doses)
        assert free.headline == plain.headline

    def test_the_oracle_is_the_diagonal_of_the_effect_matrix(self, run: tuple[Path, list[Record]]) -> None:
        scores = run[1][0].scores
        assert scores is not None
        dose = scores.doses[-1]
        assert dose.label_free[-1].targeting == "oracle"
        assert dose.label_free[-1].uar_change.value == pytest.approx(np.trace(dose.effect_matrix) / 3)

    def test_scoring_again_gives_the_same(self, run: tuple[Path, list[Record]]) -> None:
        record = run[1][0]
        outcomes = Store(run[0]).read_predictions(record.cell)
        assert record.scores == score_outcomes(outcomes["test"], seed=record.cell.seed)

    def test_the_entry_page_shows_them_and_names_the_upper_bound(self, tmp_path: Path) -> None:
        record = example_record()
        scores = score_outcomes(with_steered(example_outcomes()), seed=0, bootstrap_draws=200)
        changed = record.model_copy(update={"scores": scores.model_copy(update={"labels": list(LABELS)})})
        site = build_site([changed, example_record(selector="cas")], tmp_path / "site")
        pages = {path.name: path.read_text() for path in site.entries.values()}
        (page,) = [text for name, text in pages.items() if "__mad__" in name]
        assert "Without the label" in page
        assert "upper bound" in page
        (other,) = [text for name, text in pages.items() if "__cas__" in name]
        assert "Without the label" not in other
