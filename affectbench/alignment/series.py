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


@dataclass(frozen=True)
class Reduction:
    """A projection on principal components of each point: `centres` (points, d), `axes` (points, d, k)."""

    centres: FloatArray
    axes: FloatArray

    @classmethod
    def fitted(cls, states: Sequence[States], components: int) -> Reduction:
        """Components over the tokens of all pieces. No EEG is seen, and they are not whitened.

        The largest entry of an axis is positive: a correlation between two steps depends on the signs of
        components, and a library may return either.
        """
        centres, axes = [], []
        for point in range(len(states[0].points)):
            stacked = np.concatenate([each.values[point] for each in states])
            centre = stacked.mean(axis=0)
            centres.append(centre)
            axes.append(_components(stacked - centre, components))
        return cls(np.stack(centres), np.stack(axes))

    def __call__(self, values: FloatArray) -> FloatArray:
        """States (points, tokens, d) as components (points, tokens, k)."""
        return np.asarray((values - self.centres[:, None]) @ self.axes)


def _components(centred: FloatArray, count: int) -> FloatArray:
    """The first right singular vectors (d, count) of `centred` (n, d), from the smaller Gram matrix."""
    from scipy.linalg import eigh

    tokens, channels = centred.shape
    count = min(count, tokens, channels)
    gram = centred.T @ centred if channels <= tokens else centred @ centred.T
    size = len(gram)
    values, vectors = eigh(
        gram, subset_by_index=[size - count, size - 1], overwrite_a=True, check_finite=False
    )
    vectors = vectors[:, ::-1]
    if channels > tokens:
        vectors = centred.T @ vectors / np.sqrt(np.maximum(values[::-1], np.finfo(np.float64).tiny))
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
    return np.asarray(vectors * np.where(largest < 0, -1.0, 1.0))


def gridded(states: Sequence[States], reduction: Reduction, timing: Timing) -> list[FloatArray]:
    """Components of each piece on the grid, (points, cells, k)."""
    found = []
    for each, count in zip(states, timing.lengths, strict=True):
        reduced = reduction(each.values)
        found.append(np.stack([token_means(point, each.spans, 0.0, count, timing.grid) for point in reduced]))
    return found


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
