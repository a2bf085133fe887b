"""What an alignment takes on paper: counts, packing, and the command that prints them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from e2e_content import Outcome, run_cli  # noqa: F401

from affectbench.alignment import cost
from affectbench.alignment.cost import Bench, Plan, Sizes, Step
from affectbench.alignment.planning import packed
from affectbench.alignment.scoring import reference
from affectbench.alignment.series import Timing
from affectbench.errors import AffectbenchError
from affectbench.registry import Registry


class Counting:
    """A clock by which each call takes a second, and which keeps what was timed."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, function: Callable[[], object]) -> float:
        function()
        self.calls += 1
        return 1.0


def bench(sizes: Sizes, clock: Callable[[Callable[[], object]], float] | None = None) -> Bench:
    return Bench(Registry(installed=False).alignment("reference-eeg"), sizes, clock or Counting())


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


class TestPacking:
    PLAN = Plan(Sizes(2, 33, 84, 33), (Step("a", 50.0, 4, False), Step("b", 30.0, 66, True)), 1e9, 5e8)

    def test_subjects_are_spread_in_rounds_after_what_is_done_before(self) -> None:
        assert self.PLAN.before_s == 100
        assert self.PLAN.task_s == 30
        assert self.PLAN.cpu_s == 200 + 1980
        assert self.PLAN.wall_s(16) == 2 * (100 + 3 * 30)  # 33 subjects on 16 cores: three rounds.
        assert self.PLAN.wall_s(33) == self.PLAN.wall_s(100) == 2 * (100 + 30)
        assert self.PLAN.wall_s(1) == self.PLAN.cpu_s
        assert self.PLAN.memory(16) == 1e9 + 16 * 5e8

    def test_it_is_said_whether_that_fits_a_day(self) -> None:
        assert "it fits a day" in packed(self.PLAN, 16)[1]
        slow = Plan(self.PLAN.sizes, (Step("b", 3e4, 66, True),), 0, 0)
        assert "it does not fit a day" in packed(slow, 16)[1]


def test_the_command_prints_a_plan_and_runs_nothing(
    run_cli: Callable[..., Outcome],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cost, "SAMPLE_WIDTH", 64)
    ask = ("align", "reference-eeg-units", "--plan", "2x4x12x3", "--cores", 4, "--output", tmp_path / "out")
    code, said, complaint = run_cli(*ask)
    assert code == 0, complaint
    assert "2 models x 4 subjects x 12 sentences x 3 layers" in said
    assert "it fits a day" in said
    assert not (tmp_path / "out").exists()
    code, _, complaint = run_cli("align", "reference-eeg", "--plan", "many")
    assert code != 0
    assert "is no size" in complaint
