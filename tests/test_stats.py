"""Statistics against published values, scipy, and plain loops."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from affectbench import stats
from affectbench.errors import ScoreError

SCORES = [1, 1, 0, 0, 1, 0]
CLUSTERS = list("aabbcc")
DIFFERENCES = [0.1, 0.2, -0.05, 0.3, 0.15]


def test_standard_errors_of_a_worked_example():
    assert stats.standard_error(SCORES) == pytest.approx(0.223607, abs=1e-6)
    assert stats.clustered_se(SCORES, CLUSTERS, "A") == pytest.approx(0.252763, abs=1e-6)
    assert stats.clustered_se(SCORES, CLUSTERS, "B") == pytest.approx(0.288675, abs=1e-6)


def test_variant_a_equals_its_double_sum_over_pairs():
    rng = np.random.default_rng(0)
    scores, clusters = rng.random(40), rng.integers(0, 9, 40)
    mean, n = scores.mean(), 40
    pairs = sum(
        (scores[i] - mean) * (scores[j] - mean)
        for i, j in itertools.permutations(range(n), 2)
        if clusters[i] == clusters[j]
    )
    expected = np.sqrt(scores.std(ddof=1) ** 2 / n + pairs / n**2)
    assert stats.clustered_se(scores, clusters, "A") == pytest.approx(expected)


def test_one_item_a_cluster_makes_variant_b_the_naive_error():
    scores = np.random.default_rng(1).random(30)
    assert stats.clustered_se(scores, range(30)) == pytest.approx(stats.standard_error(scores))


def test_errors_are_undefined_rather_than_zero_where_there_is_nothing_to_compare():
    assert stats.standard_error([1.0]) is None
    assert stats.clustered_se([1, 0, 1], ["a", "a", "a"]) is None
    assert stats.paired_test([0.5, 0.5], ["a", "a"]).p is None
    assert stats.paired_test([0.5, 0.5, 0.5]).t is None


def test_paired_test_of_a_worked_example_and_against_scipy():
    from scipy.stats import ttest_1samp

    found = stats.paired_test(DIFFERENCES)
    assert found.mean == pytest.approx(0.14)
    assert found.se == pytest.approx(0.057879, abs=1e-6)
    assert found.t == pytest.approx(2.418832, abs=1e-6)
    assert found.p == pytest.approx(0.072855, abs=1e-6)
    assert found.df == 4
    assert found.p == pytest.approx(ttest_1samp(DIFFERENCES, 0).pvalue)


def test_sign_flip_is_exact_on_few_clusters():
    assert stats.sign_flip(DIFFERENCES, draws=10_000, seed=0) == pytest.approx([0.125])


def test_sign_flip_matches_scipy_permutation_test():
    from scipy.stats import permutation_test

    values = np.random.default_rng(3).normal(0.4, 1, 10)
    expected = permutation_test((values,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
    assert stats.sign_flip(values, draws=2000, seed=0)[0] == pytest.approx(expected)


def test_drawn_sign_flips_approach_the_exact_p_and_are_never_zero():
    values = np.random.default_rng(4).normal(0.5, 1, (12, 3))
    exact = stats.sign_flip(values, draws=2**12, seed=0)
    assert stats.sign_flip(values, draws=4000, seed=0) == pytest.approx(exact, abs=0.02)
    assert stats.sign_flip(np.ones(60), draws=99, seed=0) == pytest.approx([1 / 100])
    assert stats.sign_flip(np.zeros((60, 1)), draws=99, seed=0) == [1.0]


def test_sign_flip_rejects_a_true_null_at_its_level():
    table = np.random.default_rng(5).normal(size=(30, 2000))
    rejected = (stats.sign_flip(table, draws=999, seed=1) < 0.05).mean()
    assert 0.03 < rejected < 0.07


def test_max_t_by_enumeration_and_between_raw_and_bonferroni():
    table = np.random.default_rng(6).normal(0.5, 1, (8, 3))
    scaled = table / np.sqrt((table**2).sum(axis=0))
    signs = np.array(list(itertools.product([-1, 1], repeat=8)))
    largest = np.abs(signs @ scaled).max(axis=1)
    expected = [(largest >= abs(t) - 1e-9).mean() for t in scaled.sum(axis=0)]
    found = stats.max_t(table, draws=1000, seed=0)
    assert found == pytest.approx(expected)
    raw = stats.sign_flip(table, draws=1000, seed=0)
    assert (found >= raw - 1e-12).all()
    assert stats.max_t(np.zeros((5, 2)), draws=100, seed=0) == pytest.approx([1, 1])


def test_corrections_of_a_worked_example_and_against_scipy():
    from scipy.stats import false_discovery_control

    p = [0.01, 0.04, 0.03, 0.005]
    assert stats.holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.benjamini_hochberg(p) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    many = np.random.default_rng(7).random(50) ** 3
    assert stats.benjamini_hochberg(many) == pytest.approx(false_discovery_control(many))


def test_bootstrap_equals_a_plain_loop_over_the_same_resamples():
    table = np.random.default_rng(8).integers(0, 5, (6, 3))
    found = stats.bootstrap(table, lambda sums: sums, draws=50, seed=9)
    drawn = np.random.default_rng([9, 0]).integers(0, 6, size=(50, 6))
    assert found == pytest.approx(np.array([sum(table[c] for c in row) for row in drawn]))


def test_bootstrap_spread_is_the_clustered_standard_error():
    rng = np.random.default_rng(10)
    clusters = np.repeat(np.arange(50), 6)
    scores = rng.normal(size=300) + rng.normal(size=50)[clusters]
    table = np.stack([np.bincount(clusters, weights=scores), np.bincount(clusters)], axis=1)
    means = stats.bootstrap(table, lambda sums: sums[:, :1] / sums[:, 1:], draws=4000, seed=0)
    assert means.std() == pytest.approx(stats.clustered_se(scores, clusters), rel=0.05)


def test_bootstrap_does_not_depend_on_chunks(monkeypatch):
    table = np.random.default_rng(11).integers(0, 9, (40, 4))
    whole = stats.bootstrap(table, lambda sums: sums, draws=300, seed=2)
    monkeypatch.setattr(stats, "CHUNK_ELEMENTS", 40 * 7)
    assert (stats.bootstrap(table, lambda sums: sums, draws=300, seed=2) == whole).all()


def test_float32_is_used_only_where_it_is_exact():
    table = np.array([[2**23 + 1], [1], [2**23 + 3]])
    found = stats.bootstrap(table, lambda sums: sums, draws=200, seed=0)
    drawn = np.random.default_rng([0, 0]).integers(0, 3, size=(200, 3))
    assert (found[:, 0] == table[drawn, 0].sum(axis=1)).all()


def test_line_and_area_of_worked_examples():
    slope, intercept = stats.line([-2, -1, 0, 1, 2], [-0.9, -0.3, 0.1, 0.2, 0.9])
    assert (slope, intercept) == (pytest.approx(0.41), pytest.approx(0))
    alpha, shift = [0, 0.25, 0.5, 1, 2], [0, 0.05, 0.10, 0.18, 0.25]
    assert stats.trapezoid(alpha, shift) / 2 == pytest.approx(0.155)
    slope, intercept = stats.line(alpha, shift)
    assert (slope, intercept) == (pytest.approx(0.123), pytest.approx(0.02375))
    sizes = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]
    faithfulness = np.array([0, 0.05, 0.1, 0.2, 0.35, 0.6, 0.8, 0.9, 0.98, 1])
    assert stats.trapezoid(sizes, faithfulness) == pytest.approx(0.915, abs=5e-4)
    assert stats.trapezoid(sizes, abs(1 - faithfulness)) == pytest.approx(0.084, abs=5e-4)


def test_non_finite_or_mismatched_input_is_named():
    with pytest.raises(ScoreError, match="item 1 is not"):
        stats.standard_error([1.0, float("nan")])
    with pytest.raises(ScoreError, match="one cluster an item"):
        stats.clustered_se([1, 0], ["a"])
    with pytest.raises(ScoreError, match="between 0 and 1"):
        stats.holm([0.1, 1.2])
    with pytest.raises(ScoreError, match="finite contributions"):
        stats.sign_flip([[np.inf, 1.0]], draws=10, seed=0)


@pytest.mark.slow
def test_ten_thousand_resamples_of_two_thousand_clusters_take_about_a_second():
    table = np.random.default_rng(0).integers(0, 2, (2000, 70))
    start = time.process_time()
    stats.bootstrap(table, lambda sums: sums, draws=10_000, seed=0)
    assert time.process_time() - start < 3
