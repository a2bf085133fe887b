"""Changes of a log-mel spectrogram that leave its emotion alone: for training on a few speakers."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["augmented"]

STRETCH, WARP = 0.2, 0.12
"""Largest change of tempo and of the frequency axis, as natural logarithms of the factor."""
GAIN: Final = 0.15
"""6 dB, in features: a quarter of log10 of power."""
FLOOR: Final = -0.5
"""What silence is: log10 of 1e-6 in features."""
MASKS, MASK_BINS, MASK_FRAMES = 2, 12, 25

Mel = NDArray[np.floating[Any]]


def _resampled(mel: Mel, axis: int, factor: float, size: int) -> Mel:
    """`mel` stretched by `factor` along an axis to `size` values, the last one repeated where it is short."""
    last = mel.shape[axis] - 1
    place = np.clip(np.arange(size) / factor, 0, last)
    below = place.astype(np.int64)
    part = np.expand_dims((place - below).astype(np.float32), 1 - axis)
    above = np.minimum(below + 1, last)
    blend: Mel = np.take(mel, below, axis) * (1 - part) + np.take(mel, above, axis) * part
    return blend


def _with_noise(mel: Mel, level: float) -> Mel:
    """Adds the power of white noise at `level` (in features)."""
    scale = 4 * np.log(10)
    louder: Mel = np.logaddexp(mel * scale, level * scale) / scale
    return louder


def augmented(mel: Mel, rng: np.random.Generator) -> NDArray[np.float16]:
    """A variant of log-mel features (bins, T), as `log_mel` scales them: another tempo and length of the
    vocal tract (Jaitly & Hinton 2013), another level, noise in every second one, and masked bands and
    stretches (SpecAugment, Park et al. 2019). The length changes with the tempo."""
    bins, frames = mel.shape
    tempo, tract = np.exp(rng.uniform(-STRETCH, STRETCH)), np.exp(rng.uniform(-WARP, WARP))
    found = _resampled(mel.astype(np.float32), 1, tempo, max(1, int(frames * tempo)))
    found = _resampled(found, 0, tract, bins) + np.float32(rng.uniform(-GAIN, GAIN))
    if rng.random() < 0.5:
        found = _with_noise(found, FLOOR + rng.uniform(-0.2, 0.5))
    found = np.maximum(found, FLOOR)
    mean, length = found.mean(), found.shape[1]
    for _ in range(MASKS):
        band, low = _span(rng, MASK_BINS, bins)
        found[low : low + band] = mean
        stretch, start = _span(rng, MASK_FRAMES, length)
        found[:, start : start + stretch] = mean
    return found.astype(np.float16)


def _span(rng: np.random.Generator, longest: int, size: int) -> tuple[int, int]:
    """Length below `longest` and start of a span within `size`."""
    length = int(rng.integers(0, min(longest, size)))
    return length, int(rng.integers(0, size - length + 1))
