"""Sound files of any rate and number of channels as mono float32 at 16 kHz."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from affectbench.errors import AffectbenchError

Waveform = npt.NDArray[np.float32]
SAMPLE_RATE = 16_000

MIN_SAMPLES = 160
"""10 ms at 16 kHz: less holds no analysis frame."""


class AudioError(AffectbenchError):
    """A sound file is missing, damaged, empty, or holds samples that are not finite."""


def read_waveform(source: Path | BinaryIO) -> Waveform:
    """Decode a file, or the bytes of one, to shape (samples,): channels averaged, resampled to 16 kHz.

    WAV, FLAC, OGG, MP3 and what else libsndfile reads, at any rate. Polyphase resampling with scipy's
    default Kaiser window; levels are left as they are. Raises `AudioError`.
    """
    import soundfile

    if isinstance(source, Path) and not source.is_file():
        raise AudioError("the sound file is missing")
    try:
        samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, ValueError) as error:
        raise AudioError(f"the sound file cannot be decoded: {error}") from error
    if samples.shape[0] == 0:
        raise AudioError("the sound file is empty")
    mono = samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise AudioError("the sound file holds samples that are not finite")
    wave = _resampled(mono, int(rate))
    if wave.size < MIN_SAMPLES:
        raise AudioError(
            f"the sound file lasts {wave.size / SAMPLE_RATE * 1000:.1f} ms; at least 10 ms are needed"
        )
    return wave


def sound_digest(wave: Waveform) -> str:
    """16 hex of the sha256 of the samples as 16-bit integers: equal for a WAV and a FLAC of one sound."""
    scaled = np.clip(np.rint(wave.astype(np.float64) * 32768), -32768, 32767)
    return hashlib.sha256(scaled.astype("<i2").tobytes()).hexdigest()[:16]


def _resampled(mono: Waveform, rate: int) -> Waveform:
    if rate == SAMPLE_RATE:
        return mono
    from scipy.signal import resample_poly

    common = math.gcd(rate, SAMPLE_RATE)
    return np.asarray(resample_poly(mono, SAMPLE_RATE // common, rate // common), dtype=np.float32)
