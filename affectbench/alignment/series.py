"""The two sides that are compared: hidden states and EEG of the same pieces of speech, on one grid of
time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from affectbench.alignment.features import States
from affectbench.alignment.grid import cells, interval_means, token_means
from affectbench.alignment.preprocessing import prepared
from affectbench.alignment.rdm import SHORTEST, FloatArray
from affectbench.alignment.recording import Recording, low_passed
from affectbench.alignment.speech import Piece
from affectbench.errors import AffectbenchError
from affectbench.recorded_eeg import Handling

OTHERS = 8
"""Every piece is compared with at least so many others: the longest are cut to the length of one that is."""
ANTI_ALIAS = 0.4
"""EEG is low-passed at this share of the grid's rate before its cells are averaged."""


@dataclass(frozen=True)
class Timing:
    """How time is cut: `grid` cells a second, EEG `lags` in seconds, and the cells of each piece."""

    grid: float
    lags: FloatArray
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, pieces: Sequence[Piece], grid: float, lags: FloatArray, others: int = OTHERS) -> Timing:
        """Raises `AffectbenchError` where there are too few pieces for a mismatch, and for one of fewer cells
        than a measure needs."""
        if len(pieces) <= others:
            raise AffectbenchError(
                f"{len(pieces)} pieces: each needs {others} others that last as long",
                hint="use more sentences",
            )
        counts = [cells(piece.seconds, grid) for piece in pieces]
        if min(counts) < SHORTEST:
            short = pieces[int(np.argmin(counts))]
            raise AffectbenchError(
                f"piece {short.name} lasts {short.seconds:.2f} s, which is {min(counts)} cells of time",
                hint=f"measures need {SHORTEST}: raise the lower of `seconds`, or `grid`",
            )
        longest = sorted(counts)[-others - 1]
        return cls(grid, lags, tuple(min(count, longest) for count in counts))

    def mismatched(self, piece: int, most: int, seed: int) -> list[int]:
        """Other pieces that last at least as long, at most so many of them, in an order of `seed`."""
        order = np.random.default_rng([seed, piece, 17]).permutation(len(self.lengths)).tolist()
        found = [other for other in order if other != piece and self.lengths[other] >= self.lengths[piece]]
        return found[:most]


def gridded(states: Sequence[States], timing: Timing) -> list[FloatArray]:
    """States of each piece (points, tokens, k) on the grid, (points, cells, k)."""
    return [
        np.stack([token_means(point, each.spans, 0.0, count, timing.grid) for point in each.values])
        for each, count in zip(states, timing.lengths, strict=True)
    ]


def cleaned(recording: Recording, band: tuple[float, float]) -> Recording:
    """A recording that is clean as it is; another one prepared in the ordinary way."""
    return recording.eeg() if recording.clean else prepared(recording, Handling(), band)


def cut(recording: Recording, pieces: Sequence[Piece], timing: Timing) -> list[FloatArray]:
    """Cleaned EEG of each piece on the grid at each lag, (lags, cells, channels).

    A lag of 0.2 s reads the EEG from 0.2 s after the sound. Raises `AffectbenchError` where a piece and its
    lags leave the recording.
    """
    smooth = recording.by_stretch(lambda part: low_passed(part, recording.rate, ANTI_ALIAS * timing.grid))
    found = []
    for piece, count in zip(pieces, timing.lengths, strict=True):
        series = [
            interval_means(smooth, recording.rate, piece.start + float(lag), count, timing.grid)
            for lag in timing.lags
        ]
        found.append(np.stack(series))
    return found
