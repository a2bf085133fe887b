"""What was heard: words in the time of a recording, and the pieces of sentences that are compared.

Sentences are cut where the sound is: a sentence that goes on in the next sound file is two pieces, or the
pause between the files would count as speech.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from affectbench.audio_io import SAMPLE_RATE, Waveform
from affectbench.errors import AffectbenchError


@dataclass(frozen=True)
class Word:
    """A spoken word: `onset` in seconds of the recording, `heard` in seconds of its sound file
    (`segment`)."""

    text: str
    onset: float
    duration: float
    heard: float
    segment: str
    sentence: str


@dataclass(frozen=True)
class Piece:
    """A sentence's words within one sound file: from `start` to `end` in seconds of the recording, and from
    `heard` on in that file. `label` is its affect, empty where nobody named one."""

    sentence: str
    segment: str
    words: tuple[Word, ...]
    label: str = ""

    @property
    def name(self) -> str:
        return f"{self.sentence}/{self.segment}"

    @property
    def start(self) -> float:
        return self.words[0].onset

    @property
    def heard(self) -> float:
        return self.words[0].heard

    @property
    def seconds(self) -> float:
        return max(word.onset + word.duration for word in self.words) - self.start

    def sound(self, segment: Waveform) -> Waveform:
        """The piece's own part of its sound file. Raises `AffectbenchError` where the file ends before."""
        first, last = (round(at * SAMPLE_RATE) for at in (self.heard, self.heard + self.seconds))
        if last > len(segment) + SAMPLE_RATE // 10:
            raise AffectbenchError(
                f"piece {self.name} ends at {last / SAMPLE_RATE:.2f} s, its sound at "
                f"{len(segment) / SAMPLE_RATE:.2f} s",
                hint="are the onsets those of the recording, and the sound that of this segment?",
            )
        return segment[first:last]


def pieces(words: Sequence[Word], labels: dict[str, str] | None = None) -> list[Piece]:
    """The (sentence, segment) pieces of a story in the order of their onsets, each with its words by onset.

    `labels` names the affect of sentences.
    """
    groups: dict[tuple[str, str], list[Word]] = {}
    for word in words:
        groups.setdefault((word.sentence, word.segment), []).append(word)
    known = labels or {}
    found = [
        Piece(sentence, segment, tuple(sorted(group, key=lambda word: word.onset)), known.get(sentence, ""))
        for (sentence, segment), group in groups.items()
    ]
    return sorted(found, key=lambda piece: piece.start)
