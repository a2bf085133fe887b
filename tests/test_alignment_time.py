"""Grids, lags, windows, nulls, consensus and tests over subjects."""

import numpy as np
import pytest

from affectbench.alignment import group, nulls
from affectbench.alignment.consensus import consensus
from affectbench.alignment.grid import (
    Window,
    cells,
    epochs,
    interval_means,
    lag_grid,
    sliding_windows,
    stretched,
    token_means,
)
from affectbench.alignment.metrics import measure
from affectbench.alignment.rdm import rdm
from affectbench.errors import AffectbenchError


class TestGrid:
    def test_interval_means_are_exact_integrals(self) -> None:
        rng = np.random.default_rng(0)
        signal = rng.normal(size=(3, 500))
        found = interval_means(signal, 100.0, 0.314, 20, 12.5)
        fine = np.repeat(signal, 1000, axis=1)
        for cell in range(20):
            low, high = (round((0.314 + (cell + side) / 12.5) * 100_000) for side in (0, 1))
            assert found[cell] == pytest.approx(fine[:, low:high].mean(axis=1), abs=1e-9)

    def test_times_outside_the_signal_are_an_error_that_names_the_likely_cause(self) -> None:
        with pytest.raises(AffectbenchError, match="outside the signal") as caught:
            interval_means(np.zeros((2, 100)), 100.0, 0.5, 10, 12.5)
        assert "time of the recording" in (caught.value.hint or "")

    def test_token_means_weigh_by_shared_time(self) -> None:
        spans = np.array([[0.0, 0.16], [0.16, 0.32]])
        found = token_means(np.array([[1.0], [3.0]]), spans, 0.0, 4, 12.5)
        assert found.ravel() == pytest.approx([1, 1, 3, 3])
        assert token_means(np.array([[1.0], [3.0]]), spans, 0.12, 1, 12.5)[0, 0] == pytest.approx(2.0)

    def test_a_cell_without_a_token_takes_the_nearest(self) -> None:
        spans = np.array([[0.0, 0.04], [0.3, 0.34]])
        found = token_means(np.array([[1.0], [3.0]]), spans, 0.0, 4, 12.5)
        assert found.ravel() == pytest.approx([1, 1, 3, 3])

    def test_tokens_and_signals_that_say_the_same_agree(self) -> None:
        values = np.random.default_rng(1).normal(size=(50, 2))
        spans = np.stack([np.arange(50), np.arange(1, 51)], axis=1) * 0.04
        signal = np.repeat(values, 4, axis=0).T
        assert token_means(values, spans, 0.1, 12, 12.5) == pytest.approx(
            interval_means(signal, 100.0, 0.1, 12, 12.5)
        )

    def test_stretching_interpolates_between_middles(self) -> None:
        ramp = np.arange(10.0)[None]
        assert stretched(ramp, 5).ravel() == pytest.approx([0.5, 2.5, 4.5, 6.5, 8.5])
        assert stretched(ramp, 10).ravel() == pytest.approx(ramp.ravel())

    def test_lags_windows_and_cells(self) -> None:
        assert lag_grid() == pytest.approx(np.arange(0, 0.601, 0.05))
        windows = sliding_windows(0.6)
        assert [w.start for w in windows] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35])
        assert (windows[5].name, windows[-1].end) == ("250-500 ms", pytest.approx(0.6))
        assert (cells(1.6, 12.5), cells(1.599, 12.5)) == (20, 19)

    def test_epochs_keep_what_lies_inside(self) -> None:
        signal = np.arange(100.0)[None]
        means, kept = epochs(signal, 100.0, [0.1, 0.7, 0.9], Window("w", 0.1, 0.3))
        assert kept.tolist() == [True, True, False]
        assert means.ravel() == pytest.approx([29.5, 89.5])


class TestNulls:
    def test_reordering_a_condensed_vector_is_reordering_the_series(self) -> None:
        series = np.random.default_rng(0).normal(size=(11, 4))
        for draw in (nulls.any_order, nulls.shifted_order, nulls.block_order):
            order = draw(11, np.random.default_rng(3))
            assert sorted(order) == list(range(11))
            assert nulls.reordered(rdm(series), order) == pytest.approx(rdm(series[order]))

    def test_randomised_phases_keep_the_spectra(self) -> None:
        series = np.cumsum(np.random.default_rng(0).normal(size=(40, 3)), axis=0)
        found = nulls.phases_randomised(series, np.random.default_rng(1))
        assert np.abs(found - series).max() > 1
        for one, other in (
            (series, found),
            (series[:39], nulls.phases_randomised(series[:39], np.random.default_rng(1))),
        ):
            a, b = np.fft.rfft(one, axis=0), np.fft.rfft(other, axis=0)
            assert np.abs(a) == pytest.approx(np.abs(b))
            assert a[:, 0] * a[:, 1].conj() == pytest.approx(b[:, 0] * b[:, 1].conj())

    def test_p_values_count_the_observed_one_in(self) -> None:
        assert nulls.p_value(3.0, [1.0, 2.0, 3.0, 4.0]) == pytest.approx(3 / 5)
        assert nulls.p_value(9.0, np.zeros(199)) == pytest.approx(1 / 200)
        assert np.isnan(nulls.p_value(float("nan"), [1.0]))


class TestConsensus:
    def test_the_combiners_on_three_pairs_and_one(self) -> None:
        high, low = np.array(0.83), np.array(0.05)
        for combiner in ("geometric", "min", "mean"):
            assert consensus(high, high, high, combiner) == pytest.approx(0.83**2)
        assert consensus(high, low, low) == pytest.approx((0.83**2 * 0.05**4) ** (1 / 3))
        assert consensus(high, low, low, "min") == pytest.approx(0.0025)
        assert consensus(high, low, low, "mean") == pytest.approx((0.83**2 + 2 * 0.0025) / 3)

    def test_disagreement_is_zero_and_what_is_undefined_stays_so(self) -> None:
        found = consensus(
            np.array([0.8, -0.1, np.nan]), np.array([0.7, 0.9, 0.5]), np.array([-0.2, 0.5, 0.5])
        )
        assert found[:2].tolist() == [0.0, 0.0]
        assert np.isnan(found[2])


class TestGroup:
    def test_effects_that_are_there_are_found_and_others_are_not(self) -> None:
        rng = np.random.default_rng(0)
        effects = rng.normal(size=(12, 3, 2))
        effects[:, 1, 0] += 3
        for correction in ("fdr", "max_t"):
            found = group.over_subjects(effects, correction=correction)
            assert found.corrected[1, 0] < 0.01
            assert (np.delete(found.corrected.ravel(), 2) > 0.05).all()
            assert (found.corrected >= found.p - 1e-12).all()
        effects[0, 2, 1] = np.nan
        assert np.isnan(group.over_subjects(effects).p[2, 1])
        with pytest.raises(AffectbenchError, match="needs two"):
            group.over_subjects(effects[:1])

    def test_the_interval_is_that_of_the_mean(self) -> None:
        effects = np.random.default_rng(1).normal(2.0, 1.0, size=(200, 1))
        value, low, high = group.interval(effects, seed=0)[:, 0]
        assert value == pytest.approx(effects.mean())
        assert high - low == pytest.approx(2 * 1.96 * effects.std() / np.sqrt(200), rel=0.15)

    def test_noise_ceiling_of_rsatoolbox(self) -> None:
        rsatoolbox = pytest.importorskip("rsatoolbox")
        from rsatoolbox.inference import boot_noise_ceiling

        rng = np.random.default_rng(2)
        shared = rng.normal(size=(12, 5))
        series = [shared + rng.normal(size=(12, 5)) for _ in range(6)]
        lower, upper = group.noise_ceiling(
            [measure("rsa_pearson", "paper").side(s, "correlation") for s in series]
        )
        data = rsatoolbox.rdm.RDMs(
            np.stack([rdm(s) for s in series]), rdm_descriptors={"subject": list(range(6))}
        )
        theirs = boot_noise_ceiling(data, method="corr", rdm_descriptor="subject")
        assert (lower.mean(), upper.mean()) == pytest.approx(theirs, abs=1e-9)
        assert (lower < upper).all()

    def test_a_cross_validated_peak_has_no_height_on_noise(self) -> None:
        rng = np.random.default_rng(3)
        heights = [group.peak(rng.normal(size=(10, 30)))[1].mean() for _ in range(200)]
        assert abs(np.mean(heights)) < 0.08
        assert np.mean([rng.normal(size=(10, 30)).mean(axis=0).max() for _ in range(200)]) > 0.5
        curves = rng.normal(size=(10, 30)) + 5 * (np.arange(30) == 7)
        assert (group.peak(curves)[0] == 7).all()

    def test_concordance(self) -> None:
        assert group.kendall_w([[1, 2, 3, 4]] * 5) == pytest.approx(1.0)
        assert group.kendall_w([[1, 2, 3], [3, 2, 1]]) == pytest.approx(0.0)
        # Siegel and Castellan's formula, by its relation to the mean Spearman correlation of all pairs.
        scores = np.random.default_rng(4).normal(size=(4, 6))
        from scipy.stats import spearmanr

        mean = (spearmanr(scores.T).statistic.sum() - 4) / 12
        assert group.kendall_w(scores) == pytest.approx((mean * 3 + 1) / 4)
        assert np.isnan(group.kendall_w([[1.0, 2.0]]))

    def test_measures_that_rank_models_in_opposite_ways_say_so(self) -> None:
        models = np.arange(6.0)
        scores = np.stack([[models, 2 * models, -models]] * 8) + np.random.default_rng(5).normal(
            0, 0.1, (8, 3, 6)
        )
        value, low, high = group.rank_agreement(scores, seed=0)
        assert value[0, 1] == pytest.approx(1.0)
        assert value[0, 2] == pytest.approx(-1.0)
        assert (low <= value).all()
        assert (value <= high).all()
