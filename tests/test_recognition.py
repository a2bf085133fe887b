"""Recognition after amplifying untold: doses chosen on validation, what the same hook keeps, draws."""

from __future__ import annotations

import csv
import io
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e_content import Bench, suite_file, write_protocol
from example_records import example_outcomes, example_record, renamed
from sklearn.metrics import f1_score

from affectbench.leaderboard import build_site
from affectbench.operating import recognition_doses
from affectbench.outcomes import Condition, Outcomes, Steered
from affectbench.plan import jobs_of_suite
from affectbench.recognition import Spread, improvements, recognition_rows, spread
from affectbench.record import Identification, Record
from affectbench.score_models import Estimate, PreservationScore, Recognition
from affectbench.site_summary import Recognised, Summary, summary_of
from affectbench.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")
ARMS: dict[str, Any] = {
    "suppress": {"operation": "scale", "doses": [0]},
    "amplify": {"operation": "scale", "doses": [2, 4], "targeting": ["two_pass", "union", "mix"]},
}


def conditions(right: dict[float, dict[str, float]]) -> Outcomes:
    """Example outcomes with amplify doses under which so large a share of the answers is right, by rule."""
    plain, rng = example_outcomes(), np.random.default_rng(1)
    n, none = len(plain.items), np.zeros((0, len(plain.items)), dtype=int)
    one = plain.conditions[1]

    def condition(dose: float, ways: dict[str, float]) -> Condition:
        steered = [
            Steered(name, np.where(rng.random(n) < share, plain.gold, (plain.gold + 1) % 7), none)
            for name, share in ways.items()
        ]
        return replace(one, dose=dose, alpha=dose, steered=tuple(steered))

    return replace(plain, conditions=tuple(condition(*each) for each in right.items()))


def kept(dose: float, value: float | None, targeting: str | None = None) -> PreservationScore:
    found = next(each for each in example_record().preservation if each.arm == "amplify")
    pres = None if value is None else Estimate(value=value)
    return found.model_copy(update={"dose": dose, "pres": pres, "targeting": targeting})


class TestDoses:
    def test_the_dose_of_largest_macro_f1_that_preserves(self) -> None:
        outcomes = conditions({1: {"two_pass": 0.5}, 2: {"two_pass": 0.9}, 4: {"two_pass": 0.7}})
        assert recognition_doses(outcomes, [kept(dose, 1.0) for dose in (1, 2, 4)]) == {"two_pass": 2}
        scores = [kept(1, 1.0), kept(2, 0.89), kept(4, 0.9)]
        assert recognition_doses(outcomes, scores) == {"two_pass": 4}

    def test_where_none_preserves_the_one_that_preserves_most(self) -> None:
        outcomes = conditions({1: {"two_pass": 0.5}, 2: {"two_pass": 0.9}})
        assert recognition_doses(outcomes, [kept(1, 0.6), kept(2, 0.5)]) == {"two_pass": 1}

    def test_each_rule_has_its_own_and_is_barred_by_its_own_hook(self) -> None:
        outcomes = conditions({1: {"two_pass": 0.9, "union": 0.5}, 2: {"two_pass": 0.5, "union": 0.9}})
        scores = [kept(1, 1.0), kept(2, 1.0), kept(1, 1.0, "union"), kept(2, 1.0, "union")]
        assert recognition_doses(outcomes, scores) == {"two_pass": 1, "union": 2}
        scores[3] = kept(2, 0.3, "union")
        assert recognition_doses(outcomes, scores) == {"two_pass": 1, "union": 1}

    def test_of_equal_doses_the_smaller_and_what_was_not_measured_bars_nothing(self) -> None:
        outcomes = conditions({1: {"two_pass": 1.0}, 2: {"two_pass": 1.0}})
        assert recognition_doses(outcomes, [kept(1, None), kept(2, None)]) == {"two_pass": 1}
        assert recognition_doses(outcomes, []) == {"two_pass": 1}

    def test_none_where_nothing_was_amplified_untold(self) -> None:
        assert recognition_doses(example_outcomes(), []) == {}


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("untold")
    write_protocol(root, name="untold", arms=ARMS)
    suite_file(root, "draws", "untold", controls=None, identification={"items": [2, "all"], "draws": 3})
    return root


@pytest.fixture(scope="module")
def run(bench: Bench, more: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record]]:
    output = tmp_path_factory.mktemp("out")
    jobs = jobs_of_suite(bench.registry(more), "draws", None)
    return output, bench.run(jobs, output, more=[more])[0]


class TestCells:
    def test_doses_follow_from_validation_answers_alone(self, run: tuple[Path, list[Record]]) -> None:
        for record in run[1]:
            found = Store(run[0]).read_predictions(record.cell)["validation"]
            assert record.operating is not None
            assert record.operating.recognition_doses == recognition_doses(found, record.preservation)
            assert set(record.operating.recognition_doses) == {"two_pass", "union", "mix"}

    def test_what_is_kept_is_measured_where_all_are_amplified_at_once(
        self, run: tuple[Path, list[Record]]
    ) -> None:
        for record in run[1]:
            at_once = [(each.arm, each.dose) for each in record.preservation if each.targeting == "union"]
            assert at_once == [("amplify", 2), ("amplify", 4)]
            counts = {each.targeting: each.counts.interventions for each in record.preservation}
            assert counts == {None: 3, "union": 1}

    def test_macro_f1_of_the_summary_is_that_of_the_answers(self, run: tuple[Path, list[Record]]) -> None:
        for record in run[1]:
            found = Store(run[0]).read_predictions(record.cell)["test"]
            for each in summary_of(record).recognition:
                (condition,) = [c for c in found.conditions if (c.arm, c.dose) == ("amplify", each.dose)]
                (way,) = [way for way in condition.steered if way.targeting == each.targeting]
                expected = f1_score(
                    found.gold, way.answers, labels=range(3), average="macro", zero_division=0
                )
                assert each.recognition.macro_f1_after == pytest.approx(expected)
                assert (each.pres is None) == (each.targeting == "mix")

    def test_draws_are_one_row_beside_all_items(self, run: tuple[Path, list[Record]], run_cli: Any) -> None:
        code, out, _ = run_cli("table", run[0], "--recognition", "--format", "csv")
        assert code == 0
        rows = list(csv.DictReader(io.StringIO(out)))
        assert [(row["items"], row["draws"], row["rule"]) for row in rows] == [
            (items, draws, rule)
            for items, draws in (("2", "3"), ("all", "1")) for rule in ("mix", "two_pass", "union")
        ]  # fmt: skip
        own = [summary_of(record) for record in run[1] if record.cell.identification is not None]
        values = [
            each.recognition.macro_f1_after
            for summary in own for each in summary.recognition if each.targeting == "two_pass"
        ]  # fmt: skip
        assert float(rows[1]["macro-F1"]) == pytest.approx(statistics.mean(values))
        assert float(rows[1]["macro-F1 sd"]) == pytest.approx(statistics.stdev(values))
        assert rows[4]["macro-F1 sd"] == ""
        for form in ("text", "md", "json"):
            assert run_cli("table", run[0], "--recognition", "--format", form)[0] == 0

    def test_scoring_again_keeps_them(self, run: tuple[Path, list[Record]], run_cli: Any) -> None:
        code, out, _ = run_cli("score", "--results", run[0])
        assert code == 0
        assert "4 records scored again, 0 changed" in out


def recognised(change: tuple[float, float, float], p: float = 0.02, pres: float | None = 1.0) -> Recognised:
    low, value, high = change
    estimate = Estimate(value=value, low=low, high=high)
    return Recognised(
        targeting="two_pass", dose=1, p_random=p, pres=None if pres is None else Estimate(value=pres),
        recognition=Recognition(
            accuracy_before=0.5, accuracy_after=0.5 + value, macro_f1_before=0.4, macro_f1_after=0.4 + value,
            macro_f1_change=estimate,
        ),
    )  # fmt: skip


def draw(number: int, *found: Recognised) -> Summary:
    record = renamed(example_record(), identification=Identification(items=5, draw=number))
    return summary_of(record).model_copy(update={"recognition": list(found)})


class TestRows:
    def test_mean_sd_and_counts_over_draws(self) -> None:
        changes = [(0.1, 0.2, 0.3), (-0.1, 0.0, 0.1), (-0.3, -0.2, -0.1)]
        draws = [
            draw(place, recognised(each, p))
            for place, (each, p) in enumerate(zip(changes, (0.02, 0.05, 0.4), strict=True))
        ]
        (found,) = improvements([*draws, draw(3)])
        assert (found.items, len(found.records), found.lost) == (5, 3, 1)
        assert found.macro_f1 == Spread(pytest.approx(0.4), pytest.approx(0.2))
        assert found.accuracy == Spread(pytest.approx(0.5), pytest.approx(0.2))
        assert (found.better, found.worse, found.beyond) == (1, 1, 2)
        assert found.pres == Spread(1.0, 0.0)

    def test_preservation_is_told_only_where_every_draw_has_it(self) -> None:
        (found,) = improvements([draw(0, recognised((0, 0, 0))), draw(1, recognised((0, 0, 0), pres=None))])
        assert found.pres is None

    def test_one_draw_has_no_deviation(self) -> None:
        assert spread([0.5]) == Spread(0.5, None)
        assert str(spread([0.5])) == "0.500"

    def test_versions_and_benchmarks_of_identification_are_not_mixed(self) -> None:
        one, other = draw(0, recognised((0, 0, 0))), draw(1, recognised((0, 0, 0)))
        hashes = other.hashes.model_copy(update={"selector": "0" * 16})
        assert len(recognition_rows([one, other.model_copy(update={"hashes": hashes})])) == 2
        cell = other.cell.model_copy(update={"identification": Identification(task="letters", items=5)})
        assert len(recognition_rows([one, other.model_copy(update={"cell": cell})])) == 2


class TestPage:
    def test_it_shows_the_draws_of_a_run(self, run: tuple[Path, list[Record]], tmp_path: Path) -> None:
        build_site(run[1], tmp_path / "site")
        page = (tmp_path / "site" / "recognition.html").read_text(encoding="utf-8")
        assert page.count("<td>two_pass</td>") == 2
        assert 'href="recognition.html"' in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")

    def test_without_any_it_says_how_to_get_some(self, tmp_path: Path, run_cli: Any) -> None:
        build_site([example_record()], tmp_path / "site")
        assert "run sae-steering" in (tmp_path / "site" / "recognition.html").read_text(encoding="utf-8")
        Store(tmp_path / "out").prepare()
        Store(tmp_path / "out").write(example_record())
        code, _, said = run_cli("table", tmp_path / "out", "--recognition")
        assert code == 1
        assert "amplified untold" in said
