"""Whisper-style log-mel features with a fixed floor (Radford et al. 2022, minus its per-clip scaling).

Whisper clips each recording 8 decades below its own maximum, which hides how loud it is; loudness is part of
prosody, so the floor here is a constant.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
HOP = 160
WINDOW = 400


def _hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's mel scale: linear below 1 kHz, logarithmic above."""
    log_part = 15.0 + np.log(np.maximum(hz, 1.0) / 1000.0) / (np.log(6.4) / 27.0)
    return np.where(hz < 1000.0, hz * 3.0 / 200.0, log_part)


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * np.exp(np.log(6.4) / 27.0 * (mel - 15.0)))


@lru_cache(maxsize=4)
def mel_filters(n_mels: int = 80) -> NDArray[np.float32]:
    """Area-normalised triangular filters (n_mels, WINDOW // 2 + 1) from 0 to 8 kHz, after Slaney."""
    bins = np.linspace(0.0, SAMPLE_RATE / 2, WINDOW // 2 + 1)
    edges = _mel_to_hz(np.linspace(0.0, float(_hz_to_mel(np.array(SAMPLE_RATE / 2))), n_mels + 2))
    rising = (bins[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins[None]) / (edges[2:] - edges[1:-1])[:, None]
    scale = 2.0 / (edges[2:] - edges[:-2])[:, None]
    filters: NDArray[np.float32] = (np.maximum(0.0, np.minimum(rising, falling)) * scale).astype(np.float32)
    filters.setflags(write=False)
    return filters


def log_mel(waveform: NDArray[np.float32], n_mels: int = 80, floor: float = 1e-6) -> NDArray[np.float32]:
    """Log-mel spectrogram (n_mels, T) of a mono 16 kHz waveform in [-1, 1], T = samples // 160.

    Power spectrum of periodic-Hann frames (400 samples, centred, reflected at the ends), mel filters,
    log10 with a constant `floor`, then (x + 4) / 4 as Whisper scales it. Raises ValueError when the waveform
    is not one-dimensional or shorter than one window.
    """
    if waveform.ndim != 1 or waveform.size < WINDOW:
        raise ValueError(
            f"log_mel needs a mono waveform of at least {WINDOW} samples, got shape {waveform.shape}"
        )
    padded = np.pad(waveform.astype(np.float64), WINDOW // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][: waveform.size // HOP]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    mel = power @ mel_filters(n_mels).T
    scaled = (np.log10(np.maximum(mel, floor)) + 4.0) / 4.0
    return np.ascontiguousarray(scaled.T, dtype=np.float32)


def audio_token_count(frames: int) -> int:
    """Placeholder tokens a Qwen2.5-Omni audio tower needs for a clip of `frames` mel frames (one stride-2
    convolution, then average pooling by 2)."""
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1
