"""Flow over layers against scipy, scikit-learn, brute force and planted features."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

from affectbench.errors import ScoreError
from affectbench.flow import (
    Flow,
    Sample,
    change_points,
    counterparts,
    flow_of,
    jaccard_of_pairs,
    kruskal_wallis,
    macro_f1,
    phases_explain,
    probe_confusion,
    read_layer,
    separating_share,
    standardised,
    top_features,
)

EMOTIONS = 4


class TestTopFeatures:
    def test_the_largest_means_are_taken_and_ties_go_to_the_lower_number(self) -> None:
        assert top_features([0.1, 0.5, 0.5, 0.0, 0.9], 2).tolist() == [1, 4]

    def test_a_feature_that_is_never_active_is_never_taken(self) -> None:
        assert top_features([0.0, 0.2, 0.0], 3).tolist() == [1]


class TestOverlap:
    def test_jaccard_by_number_is_that_of_scikit_learn(self) -> None:
        rng = np.random.default_rng(0)
        one, other = (np.sort(rng.choice(50, size=20, replace=False)) for _ in range(2))
        flags = [np.isin(np.arange(50), each) for each in (one, other)]
        found = jaccard_of_pairs(np.where(np.isin(one, other), one, -1), len(other))
        assert found == pytest.approx(jaccard_score(*flags))
        assert np.isnan(jaccard_of_pairs(np.array([], dtype=int), 0))

    def test_counterparts_are_found_again_after_a_shuffle_and_a_change_of_length(self) -> None:
        rng = np.random.default_rng(1)
        below = rng.normal(size=(12, 64))
        order = rng.permutation(12)
        above = np.concatenate([3.0 * below[order[:8]], rng.normal(size=(5, 64))])
        found = counterparts(below, above, 0.7)
        expected = [int(np.flatnonzero(order[:8] == row)[0]) if row in order[:8] else -1 for row in range(12)]
        assert found.tolist() == expected

    def test_a_direction_has_one_counterpart_at_most(self) -> None:
        below = np.array([[1.0, 0.0], [1.0, 0.1]])
        assert counterparts(below, np.array([[1.0, 0.0]]), 0.7).tolist() == [0, -1]
        assert counterparts(below, np.empty((0, 2)), 0.7).tolist() == [-1, -1]

    def test_opposite_directions_are_none(self) -> None:
        assert counterparts(np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0]]), 0.7).tolist() == [-1]


class TestSeparating:
    def test_p_values_are_those_of_scipy_with_many_ties(self) -> None:
        rng = np.random.default_rng(2)
        gold = rng.integers(0, EMOTIONS, 90)
        z = np.maximum(0, rng.normal(size=(90, 700)) - 0.8 + 0.6 * (gold[:, None] == 1))
        found = kruskal_wallis(z, gold)
        for column in (0, 17, 511, 512, 699):
            groups = [z[gold == emotion, column] for emotion in range(EMOTIONS)]
            assert found[column] == pytest.approx(scipy_stats.kruskal(*groups).pvalue)

    def test_a_constant_feature_separates_nothing_and_is_no_part_of_the_correction(self) -> None:
        rng = np.random.default_rng(3)
        gold = np.repeat(np.arange(EMOTIONS), 20)
        z = np.zeros((80, 1000))
        z[:, 0] = 0.1 * rng.normal(size=80) + 0.15 * (gold == 0)
        assert np.isnan(kruskal_wallis(z, gold)[1:]).all()
        p = kruskal_wallis(z, gold)[0]
        assert 0.05 / 1000 < p < 0.05
        assert separating_share(z, gold) == pytest.approx(1 / 1000)
        assert separating_share(np.zeros((80, 3)), gold) == 0.0

    def test_noise_is_seldom_found_and_planted_features_are(self) -> None:
        rng = np.random.default_rng(4)
        gold = np.repeat(np.arange(EMOTIONS), 30)
        z = rng.exponential(size=(120, 200))
        assert separating_share(z, gold) <= 0.01
        z[:, :50] += 2.0 * (gold[:, None] == np.arange(50) % EMOTIONS)
        assert separating_share(z, gold) == pytest.approx(0.25, abs=0.02)

    def test_one_emotion_alone_is_an_error(self) -> None:
        with pytest.raises(ScoreError, match="one emotion"):
            kruskal_wallis(np.ones((4, 1)), np.zeros(4))


class TestProbe:
    def test_macro_f1_is_that_of_scikit_learn(self) -> None:
        rng = np.random.default_rng(5)
        gold, answers = rng.integers(0, EMOTIONS, 60), rng.integers(0, EMOTIONS, 60)
        counts = confusion_matrix(gold, answers)
        assert macro_f1(counts) == pytest.approx(f1_score(gold, answers, average="macro"))
        stacked = macro_f1(np.stack([counts, 2 * counts]))
        assert stacked[0] == pytest.approx(stacked[1])

    def test_a_label_that_never_occurs_is_left_out(self) -> None:
        assert macro_f1([[3, 0, 0], [0, 2, 0], [0, 0, 0]]) == pytest.approx(1.0)
        assert np.isnan(macro_f1(np.zeros((2, 2))))

    def test_confusions_by_cluster_are_those_of_a_probe_fitted_by_hand(self) -> None:
        rng = np.random.default_rng(6)
        gold, truth = rng.integers(0, 3, 80), rng.integers(0, 3, 40)
        z, unseen = rng.exponential(size=(80, 6)), rng.exponential(size=(40, 6))
        z[:, :3] += gold[:, None] == np.arange(3)
        unseen[:, :3] += truth[:, None] == np.arange(3)
        z[:, 5] = unseen[:, 5] = 1.0
        clusters = [f"c{place % 5}" for place in range(40)]
        found = probe_confusion((z, gold), (unseen, truth, clusters), 3)
        spread = z[:, :5].std(axis=0)
        probe = LogisticRegression(C=1.0, max_iter=1000).fit(z[:, :5] / spread, gold)
        answers = probe.predict(unseen[:, :5] / spread)
        assert found.sum(axis=0).tolist() == confusion_matrix(truth, answers, labels=range(3)).tolist()
        first = [place for place in range(40) if place % 5 == 0]
        own = confusion_matrix(truth[first], answers[first], labels=range(3))
        assert found[0].tolist() == own.tolist()

    def test_features_that_say_nothing_give_the_most_frequent_emotion(self) -> None:
        gold = np.array([1, 1, 0])
        found = probe_confusion((np.zeros((3, 2)), gold), (np.zeros((3, 2)), gold, ["a", "b", "c"]), 2)
        assert found.sum(axis=0).tolist() == [[0, 1], [0, 2]]


class TestChangePoints:
    def test_they_are_those_of_brute_force(self) -> None:
        rng = np.random.default_rng(7)
        curves = rng.normal(size=(3, 9))
        curves[0, 0] = np.nan
        scaled = standardised(curves)

        def cost(first: int, second: int) -> float:
            total = 0.0
            for curve in scaled:
                for piece in (curve[:first], curve[first:second], curve[second:]):
                    known = piece[np.isfinite(piece)]
                    total += ((known - known.mean()) ** 2).sum() if known.size else 0.0
            return total

        best = min(combinations(range(1, 9), 2), key=lambda pair: cost(*pair))
        assert change_points(curves) == best

    def test_steps_are_found_exactly_whatever_their_size_and_sign(self) -> None:
        layers = np.arange(12)
        curves = [
            np.where(layers < 4, 5.0, np.where(layers < 9, 2.0, 1.0)),
            np.where(layers < 4, 0.0, np.where(layers < 9, 1e-3, 2e-3)),
            np.full(12, 0.3),
        ]
        assert change_points(curves) == (4, 9)

    def test_a_curve_without_a_change_gives_the_first_pair_and_two_layers_are_an_error(self) -> None:
        assert change_points(np.zeros((3, 5))) == (1, 2)
        with pytest.raises(ScoreError, match="three layers"):
            change_points(np.zeros((3, 2)))

    def test_standardised_curves_have_mean_0_and_deviation_1(self) -> None:
        values = np.array([[1.0, 2.0, np.nan, 4.0], [7.0, 7.0, 7.0, 7.0]])
        found = standardised(values)
        assert np.nanmean(found[0]) == pytest.approx(0)
        assert np.nanstd(found[0]) == pytest.approx(1)
        assert np.isnan(found[0, 2])
        assert found[1].tolist() == [0.0] * 4


class TestPhases:
    def test_the_share_is_one_minus_what_is_left_around_the_pieces(self) -> None:
        curves = np.random.default_rng(8).normal(size=(3, 7))
        scaled = standardised(curves)
        pieces = np.split(scaled, change_points(curves), axis=1)
        left = sum(((piece - piece.mean(axis=1, keepdims=True)) ** 2).sum() for piece in pieces)
        share, p = phases_explain(curves, seed=0)
        assert share == pytest.approx(1 - left / (scaled**2).sum())
        assert 0 < p <= 1

    def test_steps_are_explained_wholly_and_noise_is_no_surprise(self) -> None:
        layers = np.arange(12)
        steps = np.stack([np.where(layers < 4, 5.0, np.where(layers < 9, 2.0, 1.0))] * 2)
        assert phases_explain(steps, seed=0) == (pytest.approx(1.0), pytest.approx(1 / 1000))
        rng = np.random.default_rng(9)
        found = [phases_explain(rng.normal(size=(3, 12)), seed=0, orders=99)[1] for _ in range(100)]
        assert np.mean(np.array(found) <= 0.1) == pytest.approx(0.1, abs=0.08)

    def test_few_layers_are_tried_in_every_order(self) -> None:
        """Three pieces explain 0, 0, 1, 2 wholly in every order in which the zeros are neighbours."""
        values = [0.0, 0.0, 1.0, 2.0]
        whole = [
            order for order in permutations(values) if any(order[k] == order[k + 1] == 0 for k in range(3))
        ]
        assert phases_explain([values], seed=0) == (pytest.approx(1.0), pytest.approx(len(whole) / 24))

    def test_constant_curves_have_no_phases(self) -> None:
        assert phases_explain(np.ones((3, 6)), seed=0) == (0.0, 1.0)


def planted(begin: int, layers: int, seed: int) -> list[np.ndarray]:
    """Activations (items, features) by layer: words that last a third of the way, meanings from there on, and
    a feature for each emotion, active only for its own items from layer `begin` on."""
    rng = np.random.default_rng(seed)
    gold = np.tile(np.arange(EMOTIONS), 40)
    found = []
    for layer in range(layers):
        z = np.zeros((160, 120))
        early = layer < begin // 2
        active = slice(20, 70) if early else slice(70, 120)
        z[:, active] = rng.exponential(size=(160, 50)) * (rng.random((160, 50)) < 0.7)
        if layer >= begin:
            z[:, :EMOTIONS] = (
                5 * (gold[:, None] == np.arange(EMOTIONS)) * rng.uniform(0.5, 1, (160, EMOTIONS))
            )
        found.append(z)
    return found


class TestPlanted:
    def flow(self, begin: int, layers: int = 12, draws: int = 30, decoder: bool = False) -> Flow:
        gold = np.tile(np.arange(EMOTIONS), 40)
        clusters = tuple(f"c{place // 4}" for place in range(160))
        sample, other = Sample(gold, clusters), Sample(gold, tuple(f"t{c}" for c in clusters))
        seen, unseen = planted(begin, layers, 0), planted(begin, layers, 1)
        rng = np.random.default_rng(3)
        shared = rng.normal(size=(120, 64))
        readings = []
        for z, held_out in zip(seen, unseen, strict=True):
            order = rng.permutation(120) if decoder else np.arange(120)
            readings.append(
                read_layer(
                    z[:, order], sample, (held_out[:, order], other), EMOTIONS,
                    shared[order] if decoder else None, draws=draws, seed=0, top=20,
                )
            )  # fmt: skip
        return flow_of(readings, least_cosine=0.7 if decoder else None, seed=0)

    @pytest.mark.parametrize("begin", [6, 8, 10])
    def test_the_last_phase_begins_where_emotions_do(self, begin: int) -> None:
        found = self.flow(begin)
        assert abs(found.boundaries[1] - begin) <= 1
        low, high = found.interval(1)
        assert low - 1 <= begin <= high + 1
        assert found.p < 0.05
        assert found.curves[2, -1] > 0.95
        assert found.curves[2, 0] < 0.5
        assert found.curves[1, :begin].max() < found.curves[1, begin:].min()

    def test_numbers_that_differ_by_layer_are_matched_by_what_features_write(self) -> None:
        by_number, by_direction = self.flow(8, draws=0), self.flow(8, draws=0, decoder=True)
        assert by_direction.curves == pytest.approx(by_number.curves, nan_ok=True)

    def test_the_probes_interval_holds_its_value(self) -> None:
        found = self.flow(6)
        low, high = found.probe_interval
        assert (low <= found.curves[2] + 1e-12).all()
        assert (high >= found.curves[2] - 1e-12).all()

    def test_equal_seeds_give_equal_flows(self) -> None:
        one, other = self.flow(6, draws=5), self.flow(6, draws=5)
        assert np.array_equal(one.resampled, other.resampled)

    def test_two_layers_are_an_error(self) -> None:
        with pytest.raises(ScoreError, match="three layers"):
            self.flow(1, layers=2, draws=0)


def test_resamples_hold_whole_clusters_and_begin_with_the_items_themselves() -> None:
    sample = Sample(np.arange(6) % 2, ("a", "a", "b", "b", "b", "c"))
    first, *others = sample.resamples(20, 0)
    assert first.tolist() == list(range(6))
    names = np.array(sample.clusters)
    for rows in others:
        sizes = {name: (names[rows] == name).sum() for name in "abc"}
        assert sizes["a"] % 2 == 0
        assert sizes["b"] % 3 == 0
        assert sizes["a"] // 2 + sizes["b"] // 3 + sizes["c"] == 3
