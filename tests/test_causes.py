"""Shared and specific features, and causal effects by emotion and phase, against values by hand."""

from __future__ import annotations

import numpy as np
import pytest

from affectbench.causes import (
    Causes,
    causal_features,
    gini,
    kinds_of,
    matched_strengths,
    shared_and_specific,
    strengths,
)
from affectbench.errors import ScoreError


class TestKinds:
    def test_the_golden_toy(self) -> None:
        """sae.md section 8: top-2 lists {1, 2}, {2, 3}, {2, 4}."""
        assert kinds_of([[1, 2], [2, 3], [2, 4]]) == ([2], [[1], [3], [4]])
        means = np.zeros((3, 5))
        means[0, [1, 2]] = means[1, [2, 3]] = means[2, [2, 4]] = 1
        assert shared_and_specific(means, 2) == ([2], [[1], [3], [4]])

    def test_shared_means_all_emotions_but_one_at_least(self) -> None:
        lists = [[0, 1, 7], [0, 1], [0, 1], [0]]
        assert kinds_of(lists).shared == [0, 1]
        assert kinds_of(lists).specific == [[7], [], [], []]

    def test_two_emotions_share_what_both_have(self) -> None:
        assert kinds_of([[1, 2], [2]]) == ([2], [[1], []])

    def test_features_that_are_never_active_are_neither(self) -> None:
        assert shared_and_specific(np.zeros((3, 5)), 2) == ([], [[], [], []])


class TestGini:
    def test_against_the_mean_absolute_difference(self) -> None:
        values = np.random.default_rng(0).exponential(size=23)
        expected = np.abs(values[:, None] - values).mean() / (2 * values.mean())
        assert gini(values) == pytest.approx(expected)

    def test_its_ends(self) -> None:
        assert gini([2.0, 2.0, 2.0]) == pytest.approx(0)
        assert gini([0.0, 0.0, 0.0, 1.0]) == pytest.approx(3 / 4)
        assert gini([]) is None
        assert gini([0.0, 0.0]) is None
        with pytest.raises(ScoreError, match="at least 0"):
            gini([-1.0, 2.0])


def causes(effects: np.ndarray, layers: list[int], bar: float = 0.1) -> Causes:
    n, k = effects.shape
    clusters = tuple(f"c{place // 2}" for place in range(n))
    return Causes(np.array(layers), np.arange(k), effects, clusters, np.full(k, bar))


def noisy(means: list[float], n: int, seed: int = 0, scale: float = 0.2) -> np.ndarray:
    return np.array(means) + scale * np.random.default_rng(seed).normal(size=(n, len(means)))


class TestCausal:
    def test_an_effect_must_be_sure_and_beyond_random_features(self) -> None:
        found = causal_features(causes(noisy([1.0, 0.0, 0.08, -1.0], 200), [0, 1, 2, 3]), draws=500, seed=0)
        assert found.causal.tolist() == [True, False, False, False]
        assert found.low[2] > 0, "the third is sure, but random features do as much"

    def test_its_interval_has_the_width_of_the_clusters_standard_error(self) -> None:
        rng = np.random.default_rng(1)
        shared = np.repeat(rng.normal(size=100), 2)[:, None]  # Both items of a cluster agree wholly.
        found = causal_features(causes(shared, [0]), draws=4000, seed=0)
        width = (found.high - found.low)[0]
        assert width == pytest.approx(2 * 1.96 * shared[::2].std() / 10, rel=0.08)

    def test_one_cluster_says_nothing_for_sure(self) -> None:
        one = Causes(np.zeros(1, int), np.zeros(1, int), np.ones((3, 1)), ("a",) * 3, np.zeros(1))
        found = causal_features(one, draws=10, seed=0)
        assert not found.causal.any()
        assert np.isnan(found.low).all()


class TestStrengths:
    def test_counts_sums_and_gini_by_phase(self) -> None:
        own = causes(noisy([1.0, 3.0, 2.0, 0.0, 0.5], 80), [0, 1, 4, 4, 5])
        found = causal_features(own, draws=300, seed=0)
        first, second, third = strengths(own, found, (2, 5), 6)
        assert (first.number, second.number, third.number) == (2, 1, 1)
        assert first.total == pytest.approx(found.effect[:2].sum())
        assert first.gini == pytest.approx(gini(found.effect[:2]))
        assert second.gini == pytest.approx(0)

    def test_a_phase_without_causal_features_has_no_gini(self) -> None:
        own = causes(noisy([1.0], 40), [0])
        found = causal_features(own, draws=100, seed=0)
        assert strengths(own, found, (1, 2), 3)[2] == (0, 0.0, None)

    def test_matched_numbers_take_from_an_emotion_what_more_items_gave_it(self) -> None:
        """Weak effects that 400 items make sure, and 20 do not."""
        weak = [0.25] * 30
        many = causes(noisy(weak, 400, scale=1.0), [0] * 30)
        few = causes(noisy(weak, 20, seed=1, scale=1.0), [0] * 30)
        full = [
            strengths(each, causal_features(each, draws=300, seed=0), (1, 2), 3)[0].number
            for each in (many, few)
        ]
        n, matched = matched_strengths([many, few], (1, 2), 3, repeats=8, draws=300, seed=0)
        assert n == 20
        assert full[0] > 3 * full[1]
        assert matched[0][0].number < 2 * max(1.0, matched[1][0].number) + 4
        assert matched[1][0].number == full[1], "the smallest emotion is taken as it is"
