"""Alignment as released: against the same steps done plainly, and what is known to be wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import kendalltau, spearmanr

from affectbench.alignment.features import States
from affectbench.alignment.recording import Recording
from affectbench.alignment.speech import Piece, Word
from affectbench.alignment.study_paper import NOTES, Found, heard_series, one_subject, staged, study, whitened
from affectbench.alignment_task import AlignmentTask
from affectbench.audio_io import Waveform

RATE, STEP, SECONDS, PIECES = 100.0, 0.04, 4.0, 6
TASK = AlignmentTask.model_validate(
    {
        "kind": "alignment", "name": "mine", "version": 1, "licence": "none", "mode": "paper",
        "source": {"reader": "simulated", "model": "m", "point": 0, "lag": 0.0, "snr": 1.0},
        "metrics": ["rsa_spearman", "tau_b", "cka_linear", "rv"], "band": [0.5, 40.0],
    }
)  # fmt: skip


@dataclass(frozen=True)
class Ground:
    """One listener, already clean."""

    data: np.ndarray
    sounds: Mapping[str, Waveform]

    @property
    def pieces(self) -> Sequence[Piece]:
        starts = [1.0 + place * (SECONDS + 1) for place in range(PIECES)]
        return [
            Piece(f"s{n}", "1", (Word("w", at, SECONDS, at, "1", f"s{n}"),)) for n, at in enumerate(starts)
        ]

    @property
    def subjects(self) -> Sequence[str]:
        return ["one"]

    def recording(self, subject: int) -> Recording:
        count = len(self.data)
        names = tuple(str(n) for n in range(count))
        places = np.full((count, 3), np.nan)
        return Recording(self.data, RATE, names, ("eeg",) * count, places, clean=True)


def smooth(steps: int, width: int, rng: np.random.Generator, phi: float = 0.97) -> np.ndarray:
    found = np.zeros((steps, width))
    for step in range(1, steps):
        found[step] = phi * found[step - 1] + rng.normal(size=width)
    return found


def stage_of(seed: int, *, follows: bool) -> tuple[Ground, list[States], object]:
    """States of two points; EEG repeats the second where it `follows`, else it is independent."""
    rng = np.random.default_rng(seed)
    tokens = round(SECONDS / STEP)
    data = smooth(round((PIECES * (SECONDS + 1) + 2) * RATE), 12, rng).T.copy()
    spans = np.stack([np.arange(tokens) * STEP, (np.arange(tokens) + 1) * STEP], axis=1)
    ground, states = Ground(data, {}), []
    for piece in ground.pieces:
        values = np.stack([smooth(tokens, 30, rng), smooth(tokens, 12, rng)[:, np.arange(30) % 12]])
        if follows:
            first = round(piece.start * RATE)
            held = np.repeat(values[1, :, :12], round(STEP * RATE), axis=0)
            data[:, first : first + len(held)] = held.T
        states.append(States(("a", "b"), values, spans))
    return ground, states, staged(ground, TASK, tuple(range(PIECES)), states)


class TestSteps:
    def test_components_are_the_sentences_own_and_white(self) -> None:
        values = np.random.default_rng(0).normal(size=(2, 50, 8))
        found = whitened(values, 5)
        for point, reduced in zip(values, found, strict=True):
            np.testing.assert_allclose(np.cov(reduced.T), np.eye(5), atol=1e-12)
            centred = point - point.mean(axis=0)
            _, vectors = np.linalg.eigh(centred.T @ centred)
            for place in range(5):
                own = centred @ vectors[:, -1 - place]
                assert abs(np.corrcoef(own, reduced[:, place])[0, 1]) == pytest.approx(1.0)
        assert whitened(values[:, :10], 20).shape == (2, 10, 8)
        assert whitened(np.random.default_rng(0).normal(size=(1, 10, 40)), 20).shape == (1, 10, 9)

    def test_scores_are_those_of_the_steps_done_plainly(self) -> None:
        ground, states, stage = stage_of(0, follows=False)
        found = one_subject(stage, 0)["scores"]
        piece, tokens = ground.pieces[2], round(SECONDS / STEP)
        first = round(piece.start * RATE)
        part = ground.data[:, first : first + round(SECONDS * RATE)]
        places = (np.arange(tokens) + 0.5) * part.shape[1] / tokens - 0.5
        heard = np.stack([np.interp(places, np.arange(part.shape[1]), row) for row in part], axis=1)
        heard = (heard - heard.mean(axis=0)) / heard.std(axis=0, ddof=1)
        # The first point: the second is of rank 12, and noise scaled up fills its other components.
        values = states[2].values[0] - states[2].values[0].mean(axis=0)
        left, strengths, _ = np.linalg.svd(values, full_matrices=False)
        reduced = left[:, :20] * strengths[:20]
        reduced = reduced / reduced.std(axis=0, ddof=1)
        one, other = pdist(heard, "correlation"), pdist(reduced, "correlation")
        assert found[0, 2, 0] == pytest.approx(spearmanr(one, other).statistic)
        assert found[1, 2, 0] == pytest.approx(kendalltau(one, other).statistic)
        rv = np.linalg.norm(heard.T @ reduced) ** 2
        rv /= np.linalg.norm(heard.T @ heard) * np.linalg.norm(reduced.T @ reduced)
        assert found[2:, 2, 0] == pytest.approx([rv, rv])

    def test_every_channel_is_standardised_at_the_models_steps(self) -> None:
        _, _, stage = stage_of(0, follows=False)
        for heard in heard_series(stage, 0):
            assert heard.shape == (100, 12)
            np.testing.assert_allclose(heard.std(axis=0, ddof=1), 1.0)


class TestFindings:
    def test_a_layer_that_the_eeg_repeats_is_found(self) -> None:
        _, _, stage = stage_of(1, follows=True)
        scores = one_subject(stage, 0)["scores"].mean(axis=1)
        assert (scores[:, 1] > scores[:, 0] + 0.05).all()

    def test_its_null_calls_independent_smooth_series_aligned(self) -> None:
        found = [one_subject(stage_of(seed, follows=False)[2], 0)["p"] for seed in range(3)]
        assert (np.concatenate(found) < 0.05).mean() > 0.8

    def test_the_record_warns(self) -> None:
        _, _, stage = stage_of(0, follows=False)
        done = [one_subject(stage, 0)] * 2
        found = Found(
            ("a", "b"), np.stack([each["scores"].mean(axis=1) for each in done]),
            (done[0]["p"] < 0.05).mean(axis=0), np.stack([each["windows"] for each in done]),
        )  # fmt: skip
        parts = study({"m": found}, stage)
        assert parts["notes"] == list(NOTES)
        assert "nearly always" in parts["notes"][0]
        assert len(parts["tables"][0].rows) == 4
        (curve,) = [each for each in parts["curves"] if each.name == "windows-m"]
        assert curve.x[5] == pytest.approx(0.25)
        assert all(value is not None for value in curve.series[0].values)
