"""Weak labels: which speech counts as affective where nobody said so, and whose units are off then."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from affectbench.alignment.affect import AFFECTIVE, BETWEEN, CALM, affect_of, all_emotions
from affectbench.alignment.speech import Piece, Word
from affectbench.alignment_task import AlignmentTask
from affectbench.audio_io import SAMPLE_RATE
from affectbench.selector import Selection
from affectbench.sites import SiteShape

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 1.5


def task(**changes: Any) -> AlignmentTask:
    content = yaml.safe_load((ROOT / "tasks/alignments/reference-eeg.yaml").read_text())
    return AlignmentTask.model_validate(content | changes)


def voice(pitch: float, size: float, vibrato: float) -> np.ndarray:
    """A buzz whose pitch (Hz) goes up and down by a share of it."""
    time = np.arange(round(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    phase = 2 * np.pi * np.cumsum(pitch * (1 + vibrato * np.sin(2 * np.pi * 3 * time))) / SAMPLE_RATE
    return (size * sum(np.sin(n * phase) / n for n in range(1, 6))).astype(np.float32)


class TestWeakLabels:
    def test_loud_high_and_lively_voices_are_affective_and_their_opposites_calm(self) -> None:
        lively = [(220 + 5 * n, 0.3, 0.2) for n in range(3)]
        middle = [(160 + 5 * n, 0.1, 0.08) for n in range(3)]
        flat = [(100 + 5 * n, 0.02, 0.005) for n in range(3)]
        kinds = [*flat, *lively, *middle]
        order = np.random.default_rng(0).permutation(len(kinds))
        sounds, pieces = {}, []
        for place in order:
            name = f"s{place}"
            sounds[name] = voice(*kinds[place])
            pieces.append(Piece(name, name, (Word("w", 5.0, SECONDS, 0.0, name, name),)))
        found = affect_of(pieces, sounds, task(affect="weak"))
        expected = np.array([CALM] * 3 + [AFFECTIVE] * 3 + [BETWEEN] * 3)[order]
        assert found.labels.tolist() == expected.tolist()
        assert found.baseline == CALM

    def test_labels_are_taken_where_they_are(self) -> None:
        pieces: Any = [SimpleNamespace(label=label) for label in ("joy", "neutral")]
        found = affect_of(pieces, {}, task())
        assert (found.labels.tolist(), found.baseline) == (["joy", "neutral"], "neutral")

    def test_the_shipped_recordings_use_them_and_mode_paper_has_none(self) -> None:
        for name in ("alice", "ds004408"):
            content = yaml.safe_load((ROOT / f"tasks/alignments/{name}.yaml").read_text())
            assert AlignmentTask.model_validate(content).affect == "weak"
        content = yaml.safe_load((ROOT / "tasks/alignments/alice-paper.yaml").read_text())
        with pytest.raises(ValueError, match="mode paper has none"):
            AlignmentTask.model_validate(content | {"affect": "weak"})


def test_the_units_of_all_emotions_are_one_set_without_those_of_neutral() -> None:
    shape = SiteShape(layers=2, width=10)
    units = (np.array([3, 1]), np.array([9, 8]), np.array([1, 12]))
    selection = Selection("gate", shape, ("anger", "neutral", "joy"), units)
    found = all_emotions(selection)
    assert (found.site, found.shape, found.labels) == ("gate", shape, (AFFECTIVE,))
    assert found.units[0].tolist() == [1, 3, 12]
