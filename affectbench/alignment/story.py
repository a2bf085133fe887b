"""A story for simulated listeners: sentences of reference-speech clips, an emotion each, with a word table.

A "word" is one clip. Every sentence is one speaker in one emotion; sentences alternate between emotional and
neutral speakers. What a person may see in it beyond that was not put there: this is a calibration instrument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from affectbench.alignment.speech import Piece, Word, pieces
from affectbench.audio_io import SAMPLE_RATE, Waveform
from affectbench.generators import speech

PAUSE, LEAD, GAP = 0.5, 3.5, 2.0
"""Seconds of silence between sentences, before the first sound file, and between sound files."""
NEUTRAL = "neutral"


@dataclass(frozen=True)
class Story:
    """Words in the time of the recording, the sound of each segment (samples,) at 16 kHz, and the affect of
    each sentence."""

    words: tuple[Word, ...]
    sounds: Mapping[str, Waveform]
    labels: Mapping[str, str]
    starts: Mapping[str, float]

    @cached_property
    def pieces(self) -> list[Piece]:
        return pieces(self.words, dict(self.labels))

    @property
    def seconds(self) -> float:
        """From the start of the recording to a while after the last sound."""
        last = max(self.starts, key=lambda name: self.starts[name])
        return self.starts[last] + len(self.sounds[last]) / SAMPLE_RATE + GAP


def reference_story(sentences: int = 24, *, segments: int = 2, seed: int = 0) -> Story:
    """A story of that many sentences of 3 to 7 clips, in `segments` sound files; the same for equal
    numbers."""
    rng = np.random.default_rng([seed, 11])
    emotions = [label for label in speech.LABELS if label != NEUTRAL]
    clips: dict[str, list[speech.Clip]] = {label: [] for label in speech.LABELS}
    for clip in speech.examples("test", 40, seed + 2026):
        clips[clip["label"]].append(clip)
    words: list[Word] = []
    labels: dict[str, str] = {}
    sounds: dict[str, Waveform] = {}
    starts: dict[str, float] = {}
    at = LEAD
    for segment, numbers in enumerate(np.array_split(np.arange(sentences), segments)):
        name, parts, length = f"segment-{segment + 1}", [], 0
        for number in numbers.tolist():
            label = NEUTRAL if number % 2 else emotions[(number // 2) % len(emotions)]
            sentence = f"s{number + 1:03d}"
            labels[sentence] = label
            for clip in rng.permutation(len(clips[label]))[: int(rng.integers(3, 8))].tolist():
                sound = speech.synthesise(clips[label][clip])
                heard = length / SAMPLE_RATE
                words.append(Word(label, at + heard, len(sound) / SAMPLE_RATE, heard, name, sentence))
                parts.append(sound)
                length += len(sound)
            parts.append(np.zeros(round(PAUSE * SAMPLE_RATE), dtype=np.float32))
            length += len(parts[-1])
        sounds[name] = np.concatenate(parts)
        starts[name] = at
        at += length / SAMPLE_RATE + GAP
    return Story(tuple(words), sounds, labels, starts)
