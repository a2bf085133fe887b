"""Acoustics of speech, the weak guess of affect from them, and how large a contrast is."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import ttest_ind

from affectbench.alignment import contrasts
from affectbench.alignment.acoustics import frames, gridded_acoustics, weak_affect
from affectbench.alignment.contrasts import hedges_g
from affectbench.alignment.metrics import MEASURES
from affectbench.alignment.study_alignment import Found
from affectbench.audio_io import SAMPLE_RATE


def voice(hertz: float, seconds: float = 1.0, loud: float = 0.2, glide: float = 0.0) -> np.ndarray:
    """Harmonics of a pitch that glides by so many semitones."""
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    phase = 2 * np.pi * np.cumsum(hertz * 2 ** (glide * times / seconds / 12)) / SAMPLE_RATE
    return (loud * sum(np.sin(n * phase) / n for n in range(1, 6))).astype(np.float32)


class TestFrames:
    @pytest.mark.parametrize("hertz", [90.0, 150.0, 220.0, 400.0])
    def test_the_pitch_of_a_voice(self, hertz: float) -> None:
        values, spans = frames(voice(hertz))
        assert np.median(values[:, 0]) == pytest.approx(hertz, rel=0.03)
        assert spans[0].tolist() == [0.0, 0.032]
        np.testing.assert_allclose(np.diff(spans[:, 0]), 0.01)
        assert len(values) == 1 + (SAMPLE_RATE - 512) // 160

    def test_noise_and_silence_have_none(self) -> None:
        noise = np.random.default_rng(0).normal(size=SAMPLE_RATE).astype(np.float32)
        assert (frames(noise)[0][:, 0] == 0).mean() > 0.95
        assert (frames(np.zeros(SAMPLE_RATE, dtype=np.float32))[0][:, 0] == 0).all()

    def test_what_a_sine_has(self) -> None:
        """1,000 Hz: all power at one place, 2,000 crossings of zero a second, half of its squared height."""
        sine = (0.5 * np.sin(2 * np.pi * 1000 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)).astype(np.float32)
        _, energy, crossings, centroid, bandwidth, roll = frames(sine)[0].mean(axis=0)
        assert energy == pytest.approx(10 * np.log10(0.125), abs=0.05)
        assert crossings * SAMPLE_RATE == pytest.approx(2000, rel=0.02)
        assert centroid == pytest.approx(1000, rel=0.01)
        assert roll == pytest.approx(1000, abs=2 * SAMPLE_RATE / 512)
        assert bandwidth < 100

    def test_on_a_grid_each_is_standardised(self) -> None:
        found = gridded_acoustics(voice(150.0, 2.0, glide=6.0), 25, 12.5)
        assert found.shape == (25, 6)
        np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-9)
        spread = found.std(axis=0)
        assert np.allclose(spread[spread > 0], 1)
        assert np.corrcoef(found[:, 0], np.arange(25))[0, 1] > 0.95  # The pitch glides up.


class TestWeakAffect:
    SOUNDS = (voice(120.0, loud=0.05), voice(180.0, loud=0.1), voice(260.0, loud=0.4, glide=7.0))

    def test_it_is_a_mean_of_z_scores_and_higher_louder_wider_is_more(self) -> None:
        found = weak_affect(self.SOUNDS)
        np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-9)
        np.testing.assert_allclose(found[:, 2], found[:, :2].mean(axis=1))
        assert (np.diff(found[:, 0]) > 0).all()
        assert found[2, 2] == found[:, 2].max()

    def test_arousal_by_its_formula(self) -> None:
        """Mean z of pitch in semitones, loudness, and spread of pitch over its mean."""
        table = []
        for sound in self.SOUNDS:
            values = frames(sound)[0]
            semitones = 12 * np.log2(values[values[:, 0] > 0, 0] / 27.5)
            table.append([semitones.mean(), values[:, 1].mean(), semitones.std() / semitones.mean()])
        z = (np.array(table) - np.mean(table, axis=0)) / np.std(table, axis=0)
        np.testing.assert_allclose(weak_affect(self.SOUNDS)[:, 0], z.mean(axis=1))


def test_the_standardised_difference_is_hedges() -> None:
    """By the t of two groups: g = t sqrt(1/n + 1/m), less the bias of small groups."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(3, 20))
    values[0, :8] += 2
    one = np.arange(20) < 8
    expected = ttest_ind(values[:, one], values[:, ~one], axis=1).statistic * np.sqrt(1 / 8 + 1 / 12)
    np.testing.assert_allclose(hedges_g(values, one, ~one), expected * (1 - 3 / (4 * 18 - 1)))
    assert hedges_g(np.ones((1, 20)), one, ~one).tolist() == [0.0]


def test_consensus_that_chooses_pieces_by_eeg_makes_no_contrast_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Alignment that has nothing to do with prosody: chosen so on one side alone, g would be 0.5."""
    rng = np.random.default_rng(0)
    subjects, pieces, found = 8, 60, []
    for _ in range(150):
        sentiment = rng.normal(size=pieces)
        monkeypatch.setattr(
            contrasts, "weak_affect", lambda _, own=sentiment: np.repeat(own[:, None], 3, axis=1)
        )
        effects = 0.02 + 0.05 * rng.normal(size=pieces) + 0.1 * rng.normal(size=(subjects, pieces))
        heard = 0.05 + 0.05 * rng.normal(size=pieces) + 0.1 * rng.normal(size=(subjects, pieces))
        comparison = SimpleNamespace(
            pieces=[SimpleNamespace(segment="1", label="", sound=lambda sound: sound)] * pieces,
            ground=SimpleNamespace(sounds={"1": None}),
            task=SimpleNamespace(baseline="", consensus="geometric"),
            references=[SimpleNamespace(measure=MEASURES["debiased"]["rsa_spearman"])],
        )
        made = Found(
            comparison, ("a",), effects[:, None, :, None, None],
            0.2 + 0.1 * rng.normal(size=(pieces, 1)), {"acoustics": heard[:, :, None]},
        )  # fmt: skip
        masks = contrasts.contrasts(made).get(contrasts.NEGATIVE)
        if masks is not None:
            assert not (masks[0] & masks[1]).any()
            found.append(contrasts.sizes(made, *masks)["RSA, Spearman", "geometric"].mean())
    assert len(found) > 130
    assert abs(np.mean(found)) < 4 * np.std(found) / len(found) ** 0.5 < 0.2
