"""Recordings of people as what models are compared with.

Every listener heard the same sounds, each at times of their own. So the recordings are brought to one line of
time, on which every segment has its place: a recording is prepared whole, then the stretch of each segment is
cut from it, with a margin on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from affectbench.alignment.listeners import Listener
from affectbench.alignment.preprocessing import prepared
from affectbench.alignment.rdm import FloatArray
from affectbench.alignment.recording import Recording
from affectbench.alignment.speech import Piece, Word, pieces
from affectbench.alignment.tables import Spoken
from affectbench.audio_io import Waveform
from affectbench.errors import AffectbenchError
from affectbench.recorded_eeg import RecordedEeg

MARGIN = 0.5
"""Seconds on both sides of a stretch that are filtered with it and never compared."""


@dataclass(frozen=True)
class Line:
    """One line of time for all listeners: where on it the sound of each segment starts, and how long the
    stretch from there on is, both in seconds."""

    starts: Mapping[str, float]
    lengths: Mapping[str, float]

    @classmethod
    def of(cls, words: Sequence[Spoken], after: float) -> Line:
        """The segments in the order of the story; each stretch ends `after` seconds behind its last word."""
        lengths: dict[str, float] = {}
        for word in words:
            end = word.onset + word.duration + after
            lengths[word.segment] = max(end, lengths.get(word.segment, 0.0))
        starts, at = {}, 0.0
        for segment, length in lengths.items():
            starts[segment] = at + MARGIN
            at += length + 2 * MARGIN
        return cls(starts, lengths)


def placed_words(words: Sequence[Spoken], line: Line) -> tuple[Word, ...]:
    """Words of a story on the line of time."""
    return tuple(
        Word(
            word.text, line.starts[word.segment] + word.onset, word.duration, word.onset, word.segment,
            word.sentence,
        )
        for word in words
    )  # fmt: skip


@dataclass(frozen=True)
class RecordedGround:
    """Recordings of people who heard a story: see `affectbench.alignment.ground.Ground`. It travels to
    workers, which read the files themselves."""

    source: RecordedEeg
    band: tuple[float, float]
    line: Line
    words: tuple[Word, ...]
    sounds: Mapping[str, Waveform]
    listeners: tuple[Listener, ...]
    channels: tuple[str, ...]
    left_out: frozenset[str]
    digest: str

    @cached_property
    def pieces(self) -> list[Piece]:
        """Without those (`left_out`, by name) that not everyone's recording holds whole."""
        return [piece for piece in pieces(self.words) if piece.name not in self.left_out]

    @property
    def subjects(self) -> Sequence[str]:
        return [listener.name for listener in self.listeners]

    def recording(self, subject: int) -> Recording:
        """The prepared recording of a listener on the line of time, channels in one order for all.

        Samples are not interpolated: a stretch starts at the nearest one.
        """
        listener = self.listeners[subject]
        files: dict[int, Recording] = {}
        stretches = []
        for segment, start in self.line.starts.items():
            number, at = listener.starts[segment]
            if number not in files:
                files = {number: self._prepared(listener, number)}
            stretches.append(
                _stretch(files[number], at - MARGIN, self.line.lengths[segment] + 2 * MARGIN, start - MARGIN)
            )
        first = next(iter(files.values()))
        ends = np.cumsum([stretch.shape[1] for stretch in stretches])
        data = np.concatenate(stretches, axis=1)
        return replace(first, data=data, breaks=tuple(int(end) for end in ends[:-1]))

    def _prepared(self, listener: Listener, number: int) -> Recording:
        recording = listener.read(number, self.source)
        try:
            found = prepared(recording, self.source.handling, self.band)
        except AffectbenchError as error:
            raise AffectbenchError(
                f"subject {listener.name}, {listener.files[number].name}: {error.message}",
                hint=f"{error.hint or ''}; `leave_out` of the task names subjects to leave out".lstrip("; "),
            ) from error
        return found.only([found.names.index(name) for name in self.channels])


def _stretch(recording: Recording, at: float, seconds: float, place: float) -> FloatArray:
    """So many seconds of a recording from `at` on, (channels, samples), for a `place` on the line of time.

    Beyond its ends, which only margins reach, the outermost sample is repeated.
    """
    rate = recording.rate
    count = round((place + seconds) * rate) - round(place * rate)
    wanted = round(at * rate) + np.arange(count)
    if wanted[-1] < 0 or wanted[0] >= recording.data.shape[1]:
        raise AffectbenchError(
            f"{at:.1f}-{at + seconds:.1f} s is outside the recording of {recording.seconds:.1f} s"
        )
    return recording.data[:, np.clip(wanted, 0, recording.data.shape[1] - 1)]
