"""What an alignment takes on paper: counts, packing, and the command that prints them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from e2e_content import Outcome, run_cli  # noqa: F401

from affectbench.alignment import cost
from affectbench.alignment.cost import Bench, Plan, Sizes, Step
from affectbench.alignment.hearing_cost import SAMPLE_TOKENS, SAMPLE_WIDTH, TOWER, OnPaper, hearer
from affectbench.alignment.planning import packed
from affectbench.alignment.scoring import reference
from affectbench.alignment.series import Timing
from affectbench.errors import AffectbenchError
from affectbench.registry import Registry

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "SAMPLE_WIDTH", 64)


class Counting:
    """A clock by which each call takes a second, and which keeps what was timed."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, function: Callable[[], object]) -> float:
        function()
        self.calls += 1
        return 1.0


class Hearing:
    """A model that takes a tenth of the length of a sound."""

    weights, basis = 1000.0, "made up"

    def seconds(self, sound: float, clock: Callable[[Callable[[], object]], float]) -> float:
        return 0.1 * sound * clock(lambda: None)


def bench(sizes: Sizes, clock: Callable[[Callable[[], object]], float] | None = None) -> Bench:
    task = Registry(installed=False).alignment("reference-eeg")
    return Bench(task, sizes, clock or Counting(), [Hearing()])


@pytest.mark.parametrize("text", ["", "12x33", "12x33x84x0", "axbxcxd", "1x2x3x4x5", "1x-2x3x4"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(AffectbenchError, match="is no size"):
        Sizes.read(text)


def test_too_few_sentences_for_a_mismatch_are_refused() -> None:
    with pytest.raises(AffectbenchError, match="8 sentences"):
        Sizes.read("1x2x8x3")


def test_a_size_is_read() -> None:
    assert Sizes.read("12x33x84X32") == Sizes(12, 33, 84, 32)


class TestBench:
    def test_pieces_last_as_long_as_alices(self) -> None:
        lengths = bench(Sizes(1, 2, 84, 3)).lengths
        assert len(lengths) == 84
        seconds = np.array(lengths) / 12.5
        assert np.quantile(seconds, [0.1, 0.5, 0.9]) == pytest.approx([2.4, 6.1, 13.6], abs=0.25)
        assert seconds.min() >= 1.9
        assert (seconds == seconds.max()).sum() >= 9  # So that each has eight others that last as long.

    def test_mismatches_are_as_many_as_the_comparison_has(self) -> None:
        """Against what `reference` holds for pieces of these lengths."""
        made = bench(Sizes(1, 2, 20, 1))
        timing = Timing(12.5, np.zeros(1), tuple(made.lengths))
        for most in (5, 199):
            assert made.others(most) == [len(timing.mismatched(piece, most, 0)) for piece in range(20)]

    def test_calls_for_the_states_are_those_that_a_reference_makes(self) -> None:
        made, points = bench(Sizes(1, 2, 16, 3)), 3
        timing = Timing(12.5, np.zeros(1), tuple(made.lengths))
        states = [np.random.default_rng(n).normal(size=(points, n, 4)) for n in made.lengths]
        for one in made.measures[:2]:
            calls = []

            def side(series: np.ndarray, _distance: str, calls: list[int] = calls) -> np.ndarray:
                calls.append(len(series))
                return np.zeros(1)

            shown = replace(one, side=side if one.side else None, half=side if one.half else None)
            reference(shown, states, timing, seed=0)
            assert made.prepared(one, 4, [points * (1 + n) for n in made.others(199)]) == len(calls)

    def test_what_needs_both_series_is_joined_at_every_lag_layer_and_mismatch(self) -> None:
        made = bench(Sizes(1, 2, 30, 4))
        expected = sum(13 * 4 * (1 + n) for n in made.others(5)) * 2  # tau-b and information.
        assert made.joined() == pytest.approx(expected)

    def test_a_slower_machine_takes_longer_in_proportion(self) -> None:
        sizes = Sizes(2, 3, 12, 2)
        one = bench(sizes, lambda function: 1.0).plan()
        other = bench(sizes, lambda function: 3.0).plan()
        assert other.cpu_s == pytest.approx(3 * one.cpu_s)
        assert other.shared_bytes == one.shared_bytes

    def test_memory_of_the_references_is_that_of_the_arrays(self) -> None:
        made = bench(Sizes(1, 2, 12, 3))
        pairs = sum(n * (n - 1) // 2 for n in made.lengths)
        # Five inner products, match and mean mismatch; tau-b, match and five mismatches.
        words = 12 * 25
        assert made.plan().shared_bytes == ((5 * 2 + 6) * pairs + words * (words - 1) / 2) * 3 * 8

    def test_every_piece_is_heard_once_by_every_model(self) -> None:
        made = bench(Sizes(3, 2, 12, 4))
        assert made.hearing() == pytest.approx(0.1 * sum(made.lengths) / 12.5)
        (step,) = [each for each in made.plan().steps if "hears" in each.name]
        assert (step.count, step.who) == (3, "threads")

    def test_models_that_fit_into_memory_share_what_depends_on_the_eeg_alone(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = bench(Sizes(5, 3, 12, 4))
        for fitting, groups in ((0.5, 5), (2.1, 3), (9, 1)):
            monkeypatch.setattr(cost, "quarter_of_memory", lambda fitting=fitting: fitting * made.model_bytes)
            plan = made.plan()
            counts = {step.name: step.count for step in plan.steps}
            assert plan.groups == groups
            assert counts["words: windows and electrodes of EEG"] == 3 * groups
            assert counts["pieces: a recording, cleaned"] == 3 * groups
            assert counts["words: EEG and states"] == 15
            assert plan.shared_bytes == min(5, max(1, int(fitting))) * made.model_bytes

    def test_what_takes_long_is_timed_twice_at_most(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now, calls = [0.0], []
        monkeypatch.setattr(cost.time, "process_time", lambda: now[0])

        def slow() -> None:
            calls.append(1)
            now[0] += 60.0

        assert cost.cpu_time(slow) == 60.0
        assert len(calls) == 2


class TestHearing:
    def test_operations_are_those_of_the_products(self) -> None:
        """Against the weights of one layer, counted by hand: q, k, v, o and an MLP of three."""
        model = OnPaper("m", layers=2, hidden=8, intermediate=20, parameters=100)
        layer = 4 * 8 * 8 + 3 * 8 * 20
        assert model.operations(4.0) == 2 * (25 * 4) * 2 * layer + TOWER
        second = model.operations(31.0) - model.operations(30.0)  # A second, and another window.
        assert second == 2 * 25 * 2 * layer + TOWER
        assert model.weights == 200
        speed = 2.0 * SAMPLE_TOKENS * SAMPLE_WIDTH**2
        assert model.seconds(4.0, lambda work: 0.5) == pytest.approx(model.operations(4.0) / speed / 2)

    def test_a_model_whose_weights_are_here_is_timed(self) -> None:
        found = hearer(Registry(installed=False), "reference-audio", "cpu")
        clock = Counting()
        assert found.seconds(2.0, clock) == 1.0
        assert clock.calls == 1
        assert "reference-audio, timed" in found.basis
        longer, shorter = (found.seconds(seconds, cost.cpu_time) for seconds in (15.0, 1.0))
        assert longer > shorter > 0
        assert found.weights == sum(each.numel() * 4 for each in found.engine.model.network.parameters())

    def test_a_model_that_is_not_here_is_counted_by_its_card(self) -> None:
        found = hearer(Registry(installed=False), "qwen2-audio-7b", "cpu")
        assert (found.layers, found.hidden, found.intermediate) == (32, 4096, 11008)
        assert found.weights == 2 * 8397094912
        assert "operations of qwen2-audio-7b" in found.basis

    def test_a_card_without_sizes_is_refused(self, tmp_path: Path) -> None:
        card = yaml.safe_load((ROOT / "models/qwen2-audio-7b.yaml").read_text())
        (tmp_path / "models").mkdir()
        (tmp_path / "models/bare.yaml").write_text(yaml.safe_dump(card | {"name": "bare", "sizes": {}}))
        with pytest.raises(AffectbenchError, match="bare: its weights are not here"):
            hearer(Registry((tmp_path,), installed=False), "bare", "cpu")


class TestPacking:
    STEPS = (Step("a", 50.0, 4, "alone"), Step("t", 40.0, 2, "threads"), Step("b", 30.0, 66, "words"),
             Step("c", 10.0, 66, "pieces"))  # fmt: skip
    PLAN = Plan(Sizes(2, 33, 84, 33), 2, STEPS, 3e9, 0.0, 1e9, 5e8)

    def test_subjects_are_spread_in_rounds_after_what_is_done_before(self) -> None:
        assert self.PLAN.before_s(1) == 200 + 80
        assert self.PLAN.before_s(16) == 200 + 80 / 8
        assert (self.PLAN.task_s("words"), self.PLAN.task_s("pieces")) == (30, 10)
        assert self.PLAN.cpu_s == 200 + 80 + 1980 + 660
        # 33 subjects on 16 cores: 32 in two rounds, one in a third, while others do the shorter part.
        assert self.PLAN.wall_s(16) == 210 + 2 * (2 * 30 + 30)
        assert self.PLAN.wall_s(33) == 200 + 80 / 16.5 + 2 * (30 + 10)
        assert self.PLAN.wall_s(1) == self.PLAN.cpu_s
        assert self.PLAN.memory(16) == 1e9 + 16 * 5e8
        assert self.PLAN.memory(2) == 3e9  # A model that hears needs more.

    def test_fewer_groups_share_more(self) -> None:
        one = replace(self.PLAN, groups=1)
        assert one.task_s("words") == 60
        assert one.wall_s(16) == self.PLAN.wall_s(16)

    def test_it_is_said_whether_that_fits_a_day(self) -> None:
        assert "it fits a day" in packed(self.PLAN, 16)[1]
        slow = replace(self.PLAN, steps=(Step("b", 3e4, 66, "words"),))
        assert "it does not fit a day" in packed(slow, 16)[1]


def test_the_command_prints_a_plan_and_runs_nothing(
    run_cli: Callable[..., Outcome],  # noqa: F811
    tmp_path: Path,
) -> None:
    ask = ("align", "reference-eeg-units", "--plan", "2x4x12x3", "--cores", 4, "--output", tmp_path / "out")
    code, said, complaint = run_cli(*ask)
    assert code == 0, complaint
    assert "2 models x 4 subjects x 12 sentences x 3 layers" in said
    assert "it fits a day" in said
    assert "a model hears all pieces" in said
    assert "operations of a model of the paper (2 layers x 4,096" in said
    assert not (tmp_path / "out").exists()
    code, _, complaint = run_cli("align", "reference-eeg", "--plan", "many")
    assert code != 0
    assert "is no size" in complaint
