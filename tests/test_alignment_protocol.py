"""What the protocol asks of every comparison: settings of tasks, pieces, channels, the grid, words."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

pytest.importorskip("mne_bids", reason="the extra `eeg` is not installed")

from affectbench.alignment.comparison import _word_locked, _word_sides, kept_pieces
from affectbench.alignment.features import States
from affectbench.alignment.grid import interval_means
from affectbench.alignment.ground import word_means
from affectbench.alignment.head import head_model, projected
from affectbench.alignment.metrics import lag_side
from affectbench.alignment.preprocessing import prepared
from affectbench.alignment.readers import read_bids
from affectbench.alignment.recording import Recording
from affectbench.alignment.series import Timing, cleaned, cut
from affectbench.alignment.simulation import Plant, simulated
from affectbench.alignment.speech import Piece, Word, pieces
from affectbench.alignment.story import Story, reference_story
from affectbench.alignment_task import AlignmentTask
from affectbench.errors import AffectbenchError
from affectbench.recorded_eeg import RecordedEeg
from affectbench.registry import Registry

ROOT = Path(__file__).resolve().parent.parent
ALICE = Path(os.environ.get("AFFECTBENCH_DATA", ROOT.parent / "shared" / "data")) / "alice"
SOUND = ("rsa_spearman", "rsa_lag_partial", "tau_b", "cka_linear", "cka_rbf", "dcor_squared", "pairwise_mi")
RELEASED = (
    "rsa_spearman",
    "rsa_pearson",
    "tau_b",
    "cka_linear",
    "dcor_squared",
    "hsic_rbf",
    "rv",
    "pairwise_mi",
)


def task(name: str) -> AlignmentTask:
    return Registry(installed=False).alignment(name)


def piece(start: float, seconds: float, name: str = "s") -> Piece:
    return Piece(name, "1", (Word("w", start, seconds, start, "1", name),))


def partial_spearman(one: np.ndarray, other: np.ndarray, given: np.ndarray) -> float:
    a, b, c = (float(spearmanr(*pair).statistic) for pair in ((one, other), (one, given), (other, given)))
    return (a - b * c) / float(np.sqrt((1 - b**2) * (1 - c**2)))


class TestSettings:
    @pytest.mark.parametrize(("name", "line"), [("alice", 60.0), ("ds004408", 50.0)])
    def test_of_our_way(self, name: str, line: float) -> None:
        found = task(name)
        assert found.mode == "sound"
        assert (found.band, found.seconds, found.grid) == ((0.5, 20.0), (2.0, 15.0), 12.5)
        assert (found.lags.until, found.lags.step, found.components) == (0.6, 0.05, 20)
        assert (found.distance, found.correction, found.consensus) == ("correlation", "fdr", "geometric")
        assert found.metrics == SOUND
        assert isinstance(found.source, RecordedEeg)
        assert (found.source.handling.line, found.source.handling.reference) == (line, "average")

    @pytest.mark.parametrize("name", ["alice-paper", "ds004408-paper"])
    def test_as_released(self, name: str) -> None:
        """Alice was recorded where the mains have 60 Hz; the released code takes out 50."""
        found = task(name)
        assert (found.mode, found.band, found.metrics) == ("paper", (0.5, 40.0), RELEASED)
        assert isinstance(found.source, RecordedEeg)
        assert found.source.handling.line == 50.0

    def test_options_are_there(self) -> None:
        content = yaml.safe_load((ROOT / "tasks/alignments/alice.yaml").read_text())
        options: list[dict[str, Any]] = [
            {"grid": 25.0}, {"band": [0.5, 40.0]}, {"distance": "euclidean"}, {"distance": "cosine"},
            {"correction": "max_t"}, {"consensus": "min"}, {"consensus": "mean"}, {"site": "gate"},
        ]  # fmt: skip
        for option in options:
            assert AlignmentTask.model_validate(content | option).digest != task("alice").digest


class TestPieces:
    def test_those_of_2_to_15_seconds_are_compared_both_ends_included(self) -> None:
        found = [piece(20.0 * n, seconds) for n, seconds in enumerate((1.99, 2.0, 8.0, 15.0, 15.01))]
        assert kept_pieces(SimpleNamespace(pieces=found), task("alice")) == (1, 2, 3)
        with pytest.raises(AffectbenchError, match="none of 1 pieces lasts 2-15 s"):
            kept_pieces(SimpleNamespace(pieces=found[:1]), task("alice"))

    def test_a_sentence_in_two_sounds_is_two_pieces_without_the_pause_between(self) -> None:
        words = [Word("a", 1.0, 0.5, 1.0, "1", "7"), Word("b", 1.5, 0.5, 1.5, "1", "7"),
                 Word("c", 60.0, 0.5, 0.0, "2", "7"), Word("d", 61.0, 0.4, 1.0, "2", "8")]  # fmt: skip
        assert [(p.name, p.start, p.seconds) for p in pieces(words)] == [
            ("7/1", 1.0, 1.0), ("7/2", 60.0, 0.5), ("8/2", 61.0, pytest.approx(0.4)),
        ]  # fmt: skip

    def test_one_too_short_for_any_measure_is_refused(self) -> None:
        found = [piece(5.0 * n, 2.0, f"s{n}") for n in range(9)]
        assert Timing.of(found, 12.5, np.zeros(1)).lengths == (25,) * 9
        with pytest.raises(AffectbenchError, match=r"piece short/1 lasts 0\.30 s, which is 3 cells"):
            Timing.of([*found, piece(50.0, 0.3, "short")], 12.5, np.zeros(1))


class TestChannels:
    def test_the_sound_on_an_auxiliary_channel_changes_nothing(self) -> None:
        """A copy of the sound, or of anything, on Aux5 and VEOG: what is compared has the same bits."""
        story: Story = reference_story(10, segments=1, seed=1)
        recording = simulated(story, None, Plant(0, 0.3, 0.0), head_model(), subject=0, seed=0, rate=100.0)
        data = recording.data.copy()
        data[-2:] = 1e3 * np.random.default_rng(0).normal(size=data[-2:].shape)
        timing = Timing.of(story.pieces, 12.5, np.zeros(1))
        ours, theirs = (
            cut(cleaned(each, (0.5, 20.0)), story.pieces, timing)
            for each in (recording, replace(recording, data=data))
        )
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_those_of_alice_by_its_own_sidecars(self, tmp_path: Path) -> None:
        """60 electrodes, labels 1 to 61 without 29; the sound (Aux5) and the eyes (VEOG) are none."""
        if not ALICE.is_dir():
            pytest.skip(f"the tables of Alice are not in {ALICE}")
        import pybv

        folder = tmp_path / "sub-001" / "eeg"
        folder.mkdir(parents=True)
        shutil.copy(ALICE / "dataset_description.json", tmp_path)
        for path in ALICE.glob("sub-001_*"):
            shutil.copy(path, folder)
        names = [str(n) for n in range(1, 62) if n != 29] + ["VEOG", "Aux5"]
        data = 1e-5 * np.random.default_rng(0).normal(size=(62, 2000))
        pybv.write_brainvision(
            data=data, sfreq=500.0, ch_names=names, folder_out=folder,
            fname_base="sub-001_task-alicelistening_eeg", resolution=0.001, unit="µV",
        )  # fmt: skip
        found = read_bids(folder / "sub-001_task-alicelistening_eeg.vhdr", tmp_path)
        assert found.line == 60.0
        assert found.types == ("eeg",) * 60 + ("eog", "misc")
        source = task("alice").source
        assert isinstance(source, RecordedEeg)
        clean = prepared(found, source.handling, (0.5, 20.0))
        assert (clean.names, clean.line, clean.rate) == (tuple(names[:60]), 60.0, 125.0)


def test_electrodes_on_a_flat_head() -> None:
    """The vertex in the middle, ears at 1 to the left and right, the nose up; at any height."""
    places = 0.09 * np.array([[0, 0, 1], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0.6, 0, 0.8]]) + [0, 0, 0.04]
    expected = [[0, 0], [1, 0], [-1, 0], [0, 1], [np.arctan2(0.6, 0.8) / (np.pi / 2), 0]]
    np.testing.assert_allclose(projected(places), expected, atol=1e-9)


class TestGrid:
    @pytest.mark.parametrize("grid", [12.5, 25.0])
    def test_eeg_is_filtered_before_its_cells_are_averaged_and_read_at_the_lag(self, grid: float) -> None:
        """Of a slow sine the phase at each lag is that of the sound's time plus the lag; of one above half of
        the grid's rate nothing is folded back, where plain averaging leaves a tenth of it."""
        rate, slow, fast = 250.0, 1.0, 0.9 * grid
        times = (np.arange(round(60 * rate)) + 0.5) / rate
        data = np.stack([np.sin(2 * np.pi * each * times) for each in (slow, fast)])
        positions = np.full((2, 3), np.nan)
        recording = Recording(data, rate, ("a", "b"), ("eeg", "eeg"), positions, clean=True)
        lags = np.array([0.0, 0.25])
        found = cut(recording, [piece(20.0, 4.0)], Timing(grid, lags, (round(4 * grid),)))[0]
        assert found.shape == (2, round(4 * grid), 2)
        for lag, series in zip(lags, found, strict=True):
            middles = 20.0 + lag + (np.arange(round(4 * grid)) + 0.5) / grid
            cell = np.sinc(slow / grid)  # The mean of a sine over a cell.
            np.testing.assert_allclose(series[:, 0], cell * np.sin(2 * np.pi * slow * middles), atol=0.01)
        assert abs(found[..., 1]).max() < 0.01

    def test_a_word_has_the_mean_of_its_tokens_by_the_time_they_share(self) -> None:
        spans = np.array([[0.0, 0.1], [0.1, 0.2], [0.2, 0.3], [0.3, 0.4]])
        values = np.arange(8.0).reshape(1, 4, 2)
        words = (
            Word("a", 7.05, 0.1, 0.0, "1", "s"),
            Word("b", 7.2, 0.2, 0.2, "1", "s"),
            Word("c", 7.9, 0.1, 0.9, "1", "s"),
        )
        # The piece starts with its first word.
        found = word_means([States(("x",), values, spans)], [Piece("s", "1", words)])[0]
        np.testing.assert_allclose(
            found, [values[0, 0], (values[0, 1] + 2 * values[0, 2] + values[0, 3]) / 4, values[0, 3]]
        )

    def test_word_locked_windows_are_partial_given_the_time_between_words(self) -> None:
        """By the formula of partial Spearman; some windows of the last word are behind the recording."""
        rng = np.random.default_rng(0)
        onsets = np.cumsum(0.2 + rng.exponential(0.3, size=30))
        words = [Word("w", float(at), 0.1, float(at), "1", f"s{n // 10}") for n, at in enumerate(onsets)]
        rate, states = 100.0, rng.normal(size=(2, 30, 6))
        data = rng.normal(size=(3, round((onsets[-1] + 0.4) * rate)))
        sides = _word_sides(states, lag_side(onsets), "correlation")
        shared = SimpleNamespace(task=task("alice"), pieces=pieces(words), words=states, word_sides=sides)
        topography, windows = _word_locked(shared, data, rate)
        assert (topography.shape, windows.shape) == ((6, 3, 2), (6, 2))
        for place, (first, last) in enumerate(
            ((0.08, 0.15), (0.15, 0.25), (0.2, 0.3), (0.25, 0.5), (0.3, 0.5), (0.5, 0.8))
        ):
            kept = onsets + last <= data.shape[1] / rate
            assert kept.all() == (last < 0.4)
            starts, cells = onsets[kept] + first, 1 / (last - first)
            means = np.concatenate([interval_means(data, rate, float(at), 1, cells) for at in starts])
            lag = pdist(onsets[kept][:, None])
            for point in range(2):
                own = pdist(states[point, kept], "correlation")
                assert windows[place, point] == pytest.approx(
                    partial_spearman(own, pdist(means, "correlation"), lag)
                )
                for channel in range(3):
                    one = pdist(means[:, [channel]])
                    assert topography[place, channel, point] == pytest.approx(partial_spearman(own, one, lag))
