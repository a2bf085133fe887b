"""Bringing EEG and hidden states to one time grid, with explicit lags and windows.

A grid is a row of cells of equal length. A cell's value is the mean over the cell, for EEG as for tokens, so
that a model's token rate does not decide how long the compared series are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from affectbench.alignment.rdm import FloatArray
from affectbench.errors import AffectbenchError

Spans = npt.NDArray[np.float64]
"""Start and end in seconds, shape (n, 2)."""


class Window(NamedTuple):
    """A stretch of time in seconds, from `start` to before `end`, after whatever it is locked to."""

    name: str
    start: float
    end: float


COMPONENTS = (
    Window("N1", 0.08, 0.15),
    Window("P2", 0.15, 0.25),
    Window("N2", 0.20, 0.30),
    Window("P3", 0.25, 0.50),
    Window("N400", 0.30, 0.50),
    Window("P6", 0.50, 0.80),
)
"""The fixed windows of the released code of arXiv 2601.16540, which counts them from sentence onset."""


def sliding_windows(until: float, length: float = 0.25, step: float = 0.05) -> tuple[Window, ...]:
    """Windows of `length` that start every `step` seconds from 0 on and end by `until`."""
    count = int(np.floor((until - length) / step + 1e-9)) + 1
    starts = [place * step for place in range(max(0, count))]
    return tuple(Window(f"{s * 1000:.0f}-{(s + length) * 1000:.0f} ms", s, s + length) for s in starts)


def lag_grid(until: float = 0.6, step: float = 0.05) -> FloatArray:
    """Lags in seconds from 0 to `until`."""
    return np.arange(round(until / step) + 1, dtype=np.float64) * step


def cells(seconds: float, rate: float) -> int:
    """Whole cells of a grid of `rate` per second that fit into a stretch of that length."""
    return int(np.floor(seconds * rate + 1e-6))


def interval_means(signal: FloatArray, rate: float, start: float, count: int, grid: float) -> FloatArray:
    """Means (count, channels) of a signal (channels, N) sampled at `rate`, over cells of 1 / `grid` seconds.

    Sample k stands for the time from k / rate to (k + 1) / rate; parts of samples count by their share.
    Raises `AffectbenchError` where the cells leave the signal.
    """
    edges = (start + np.arange(count + 1) / grid) * rate
    if edges[0] < -1e-6 or edges[-1] > signal.shape[1] + 1e-6:
        raise AffectbenchError(
            f"{edges[0] / rate:.3f}-{edges[-1] / rate:.3f} s is outside the signal of "
            f"{signal.shape[1] / rate:.3f} s",
            hint="are onsets in the time of the recording, not of its segments?",
        )
    first = int(np.clip(np.floor(edges[0]), 0, signal.shape[1]))
    last = int(np.clip(np.ceil(edges[-1]), 0, signal.shape[1]))
    part = signal[:, first:last]
    total = np.concatenate([np.zeros((len(part), 1)), np.cumsum(part, axis=1)], axis=1)
    inside = np.clip(edges - first, 0, part.shape[1])
    whole = np.minimum(inside.astype(np.int64), part.shape[1] - 1)
    at = total[:, whole] + (inside - whole) * part[:, whole]
    return np.asarray(np.diff(at, axis=1).T * (grid / rate))


def token_means(values: FloatArray, spans: Spans, start: float, count: int, grid: float) -> FloatArray:
    """Means (count, features) of token states (n, features) over cells; a token counts in a cell by the
    time that its span shares with it. A cell that no token reaches takes the nearest one."""
    edges = start + np.arange(count + 1) / grid
    low, high = edges[:-1, None], edges[1:, None]
    shared = np.clip(np.minimum(high, spans[:, 1]) - np.maximum(low, spans[:, 0]), 0.0, None)
    empty = shared.sum(axis=1) <= 1e-9
    if empty.any():
        middles = (edges[:-1] + edges[1:])[empty] / 2
        nearest = np.abs(spans.mean(axis=1) - middles[:, None]).argmin(axis=1)
        shared[np.flatnonzero(empty), nearest] = 1.0
    return np.asarray(shared @ values / shared.sum(axis=1, keepdims=True))


def stretched(signal: FloatArray, count: int) -> FloatArray:
    """A signal (channels, N) brought to (count, channels) by linear interpolation between the middles of its
    samples, without a filter: what the released code of arXiv 2601.16540 does (`align_corners` false)."""
    size = signal.shape[1]
    places = np.clip((np.arange(count) + 0.5) * size / count - 0.5, 0, size - 1)
    return np.stack([np.interp(places, np.arange(size), channel) for channel in signal], axis=1)


def epochs(
    signal: FloatArray, rate: float, onsets: Sequence[float], window: Window
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Mean of a signal (channels, N) in a window after each onset (seconds): (kept, channels), and which of
    the onsets (n,) have the whole window inside the signal."""
    grid = 1.0 / (window.end - window.start)
    starts = np.asarray(onsets, dtype=np.float64) + window.start
    kept = (starts >= 0) & ((starts + 1 / grid) * rate <= signal.shape[1])
    means = [interval_means(signal, rate, float(start), 1, grid)[0] for start in starts[kept]]
    return np.array(means).reshape(len(means), len(signal)), kept
