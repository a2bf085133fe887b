"""What all models of a task are compared with: pieces of speech, their sounds, and a recording a subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from affectbench.alignment.features import States
from affectbench.alignment.head import Head
from affectbench.alignment.rdm import FloatArray
from affectbench.alignment.recording import Recording
from affectbench.alignment.simulation import Plant, drive, simulated
from affectbench.alignment.speech import Piece
from affectbench.alignment.story import Story
from affectbench.audio_io import Waveform


class Ground(Protocol):
    """The recordings of a task; it travels to workers."""

    @property
    def pieces(self) -> Sequence[Piece]:
        """What was heard, in the order of the recording."""

    @property
    def sounds(self) -> Mapping[str, Waveform]:
        """The sound of each segment, 16 kHz."""

    @property
    def subjects(self) -> Sequence[str]:
        """Names of the subjects."""

    def recording(self, subject: int) -> Recording:
        """The recording of one of them. Raises `AffectbenchError` where it cannot be read."""


@dataclass(frozen=True)
class SimulatedGround:
    """Simulated listeners of a story; `states` are what of the planted model they hear, for pieces of each of
    `groups` on a scale of its own."""

    story: Story
    states: Sequence[States]
    plant: Plant
    head: Head
    count: int
    rate: float
    seed: int
    groups: tuple[str, ...] | None = None

    @property
    def pieces(self) -> Sequence[Piece]:
        return self.story.pieces

    @property
    def sounds(self) -> Mapping[str, Waveform]:
        return self.story.sounds

    @property
    def subjects(self) -> Sequence[str]:
        return [f"sim-{number + 1:02d}" for number in range(self.count)]

    def source(self) -> FloatArray:
        """The planted time courses (components, samples)."""
        return drive(self.story, self.states, self.plant, self.rate, self.groups)

    def recording(self, subject: int) -> Recording:
        return simulated(
            self.story, self.source(), self.plant, self.head, subject=subject, seed=self.seed, rate=self.rate
        )


def word_means(states: Sequence[States], pieces: Sequence[Piece]) -> FloatArray:
    """States of each word, the mean over its tokens, (points, words, d), in the order of pieces and words."""
    found = []
    for each, piece in zip(states, pieces, strict=True):
        for word in piece.words:
            start = word.onset - piece.start
            shared = np.minimum(each.spans[:, 1], start + word.duration) - np.maximum(each.spans[:, 0], start)
            weights = np.clip(shared, 0, None)
            if weights.sum() <= 0:
                weights[np.abs(each.spans.mean(axis=1) - start).argmin()] = 1.0
            found.append(each.values.transpose(0, 2, 1) @ (weights / weights.sum()))
    return np.stack(found, axis=1)
