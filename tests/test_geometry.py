"""Geometry of directions against loops, leave-one-out by hand and planted separation."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from affectbench.errors import ScoreError
from affectbench.geometry import (
    neighbour_means,
    onset,
    separation,
    similarity_intervals,
    similarity_of_emotions,
    similarity_of_sites,
    without_groups,
)

EMOTIONS, SITES, WIDTH = 4, 6, 16


def items(begin: int = 3, strength: float = 1.0, n: int = 120, seed: int = 0):
    """Vectors (N, S, d) whose emotions differ from site `begin` on, gold and clusters of four."""
    rng = np.random.default_rng(seed)
    gold = np.tile(np.arange(EMOTIONS), n // EMOTIONS)
    centres = rng.normal(size=(EMOTIONS, WIDTH))
    vectors = rng.normal(size=(n, SITES, WIDTH))
    vectors[:, begin:] += strength * centres[gold][:, None]
    return vectors, gold, np.arange(n) // 4


def plainly(vectors: np.ndarray, gold: np.ndarray) -> float:
    """epsilon^2 of (N, d) by its definition."""
    total = ((vectors - vectors.mean(axis=0)) ** 2).sum()
    between = sum(
        (gold == e).sum() * ((vectors[gold == e].mean(axis=0) - vectors.mean(axis=0)) ** 2).sum()
        for e in np.unique(gold)
    )
    n, groups = len(gold), len(np.unique(gold))
    return 1 - (1 - between / total) * (n - 1) / (n - groups)


class TestSimilarity:
    def test_of_emotions_it_is_scikit_learns_cosine(self) -> None:
        directions = np.random.default_rng(1).normal(size=(EMOTIONS, SITES, WIDTH))
        found = similarity_of_emotions(directions)
        for site in range(SITES):
            assert found[site] == pytest.approx(cosine_similarity(directions[:, site]))

    def test_of_sites_it_is_the_mean_over_emotions(self) -> None:
        directions = np.random.default_rng(2).normal(size=(EMOTIONS, SITES, WIDTH))
        expected = np.mean([cosine_similarity(own) for own in directions], axis=0)
        assert similarity_of_sites(directions) == pytest.approx(expected)

    def test_a_direction_of_zeros_is_like_none(self) -> None:
        directions = np.zeros((2, 2, 3))
        directions[0, :, 0] = 1
        assert similarity_of_emotions(directions)[0].tolist() == [[1, 0], [0, 0]]

    def test_neighbours_within_a_layer_and_between_layers(self) -> None:
        similarity = np.zeros((4, 4))
        similarity[0, 1] = similarity[1, 0] = 0.9  # Attention and MLP of layer 0.
        similarity[1, 2] = similarity[2, 1] = 0.3  # MLP of layer 0, attention of layer 1.
        similarity[2, 3] = similarity[3, 2] = 0.7
        off, within, onwards = neighbour_means(similarity, 2)
        assert off == pytest.approx(2 * 1.9 / 12)
        assert (within, onwards) == (pytest.approx(0.8), pytest.approx(0.3))
        assert np.isnan(neighbour_means(np.ones((1, 1)), 1)).all()


class TestSeparation:
    def test_values_are_those_of_the_definition(self) -> None:
        vectors, gold, clusters = items()
        found = separation(vectors, gold, clusters, draws=0, seed=0)
        assert found.values == pytest.approx([plainly(vectors[:, site], gold) for site in range(SITES)])

    def test_intervals_are_those_of_leaving_clusters_out_one_by_one(self) -> None:
        from scipy.stats import t as student

        vectors, gold, clusters = items(n=40)
        found = separation(vectors, gold, clusters, draws=0, seed=0)
        left = np.array([plainly(vectors[clusters != c, 4], gold[clusters != c]) for c in range(10)])
        spread = np.sqrt(9 / 10 * ((left - left.mean()) ** 2).sum())
        assert found.high[4] - found.values[4] == pytest.approx(student.ppf(0.975, 9) * spread)
        assert found.values[4] - found.low[4] == pytest.approx(student.ppf(0.975, 9) * spread)

    def test_emotions_that_do_not_differ_are_at_0_on_average_and_inside_the_interval(self) -> None:
        values, inside = [], []
        for seed in range(60):
            vectors, gold, clusters = items(begin=SITES, seed=seed)
            found = separation(vectors[:, :1], gold, clusters, draws=0, seed=0)
            values.append(found.values[0])
            inside.append(found.low[0] <= 0 <= found.high[0])
        assert abs(np.mean(values)) < 0.002
        assert np.mean(inside) > 0.8

    def test_what_a_context_adds_is_taken_out_and_chance_is_still_0(self) -> None:
        """Groups of one item an emotion, whose contexts differ far more than emotions do."""
        values, inside = [], []
        for seed in range(60):
            vectors, gold, clusters = items(begin=SITES, n=80, seed=seed)
            contexts = 20 * np.random.default_rng(seed).normal(size=(20, 1, WIDTH))
            centred = without_groups((vectors + contexts[clusters])[:, :1], gold, clusters)
            assert centred is not None
            assert centred[clusters == 3].mean(axis=0) == pytest.approx(0, abs=1e-12)
            found = separation(centred, gold, clusters, draws=0, seed=0, grouped=True)
            values.append(found.values[0])
            inside.append(found.low[0] <= 0 <= found.high[0])
        assert abs(np.mean(values)) < 0.003
        assert np.mean(inside) > 0.8
        vectors, gold, clusters = items(begin=3, n=80)
        moved = vectors + 20 * np.random.default_rng(0).normal(size=(20, 1, WIDTH))[clusters]
        hidden = separation(moved, gold, clusters, draws=0, seed=0)
        seen = separation(
            without_groups(moved, gold, clusters), gold, clusters, draws=0, seed=0, grouped=True
        )
        assert hidden.values[4] < 0.05
        assert seen.values[4] == pytest.approx(plainly(vectors[:, 4], gold), abs=0.12)

    def test_groups_that_lack_an_emotion_are_left_as_they_are(self) -> None:
        vectors, gold, clusters = items(n=40)
        assert without_groups(vectors[1:], gold[1:], clusters[1:]) is None

    @pytest.mark.parametrize("begin", [1, 3, 5])
    def test_the_onset_is_where_it_was_planted(self, begin: int) -> None:
        vectors, gold, clusters = items(begin=begin)
        found = separation(vectors, gold, clusters, draws=50, seed=0)
        assert found.onset == begin
        assert found.onset_low <= begin <= found.onset_high

    def test_equal_items_separate_wholly_and_equal_vectors_not_at_all(self) -> None:
        gold = np.tile(np.arange(2), 6)
        vectors = np.stack([gold, np.ones(12)], axis=1)[..., None].astype(float)
        found = separation(vectors, gold, np.arange(12) // 2, draws=5, seed=0)
        assert found.values[0] == pytest.approx(1)
        assert found.values[1] <= 0
        assert np.isfinite(found.high).all()

    def test_one_emotion_or_one_cluster_is_an_error(self) -> None:
        with pytest.raises(ScoreError, match="two emotions"):
            separation(np.ones((4, 1, 2)), np.zeros(4), np.arange(4), draws=0, seed=0)
        with pytest.raises(ScoreError, match="two clusters"):
            separation(np.ones((4, 1, 2)), np.arange(4), np.zeros(4), draws=0, seed=0)

    def test_half_of_the_largest_value_is_reached_first(self) -> None:
        assert onset(np.array([0.1, 0.3, 0.55, 1.0, 0.2])) == 2
        assert onset(np.array([-0.2, -0.1])) == 1


class TestIntervals:
    def test_they_hold_the_cosines_and_narrow_with_more_items(self) -> None:
        widths = []
        for n in (40, 400):
            vectors, gold, clusters = items(begin=0, n=n, strength=0.7)
            means = np.stack([vectors[gold == e, 0].mean(axis=0) for e in range(EMOTIONS)])
            cosines = cosine_similarity(means - means.mean(axis=0))
            low, high = similarity_intervals(vectors[:, 0], gold, clusters, draws=300, seed=0)
            off = ~np.eye(EMOTIONS, dtype=bool)
            assert ((low <= cosines + 1e-9) & (cosines <= high + 1e-9))[off].mean() > 0.8
            assert np.allclose(low[~off], 1)
            widths.append((high - low)[off].mean())
        assert widths[1] < 0.6 * widths[0]
