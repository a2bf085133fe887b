"""What can be heard without understanding: acoustics by frame, and a weak guess of affect from them.

The guess follows the released code of arXiv 2601.16540 (there from openSMILE's eGeMAPS): arousal is the
mean z of pitch in semitones, loudness and spread of pitch; valence that of spread of pitch, spectral flux and
the first MFCC; their mean is called sentiment. It is a heuristic and stands for no one's feelings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from affectbench.alignment.grid import token_means
from affectbench.alignment.rdm import FloatArray
from affectbench.audio_io import SAMPLE_RATE, Waveform

FRAME, HOP = 512, 160
LOWEST, HIGHEST = 75.0, 500.0
VOICED = 0.3


def frames(sound: Waveform) -> tuple[FloatArray, FloatArray]:
    """Acoustics (frames, 6) of a sound: pitch (Hz, 0 where unvoiced), energy (dB), zero crossings, spectral
    centroid, bandwidth and 85 % roll-off (Hz); and the spans (frames, 2) in seconds. Frames of 512 samples
    every 160, as in the released code."""
    padded = np.pad(np.asarray(sound, dtype=np.float64), (0, max(0, FRAME - len(sound))))
    cut = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    power = np.abs(np.fft.rfft(cut * np.hanning(FRAME), axis=1)) ** 2
    frequencies = np.fft.rfftfreq(FRAME, 1 / SAMPLE_RATE)
    share = power / np.maximum(power.sum(axis=1, keepdims=True), 1e-20)
    centroid = share @ frequencies
    bandwidth = np.sqrt(np.maximum(share @ frequencies**2 - centroid**2, 0))
    roll = frequencies[(np.cumsum(share, axis=1) < 0.85).sum(axis=1).clip(0, len(frequencies) - 1)]
    energy = 10 * np.log10((cut**2).mean(axis=1) + 1e-10)
    crossings = (np.diff(np.signbit(cut), axis=1) != 0).mean(axis=1)
    starts = np.arange(len(cut)) * HOP / SAMPLE_RATE
    spans = np.stack([starts, starts + FRAME / SAMPLE_RATE], axis=1)
    return np.stack([pitch(cut), energy, crossings, centroid, bandwidth, roll], axis=1), spans


def pitch(cut: npt.NDArray[np.float64]) -> FloatArray:
    """Fundamental frequency (frames,) in Hz by the highest normalised autocorrelation between 75 and 500 Hz;
    0 where that is below 0.3."""
    centred = cut - cut.mean(axis=1, keepdims=True)
    spectrum = np.fft.rfft(centred, 2 * FRAME, axis=1)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, :FRAME]
    correlation = correlation / np.maximum(correlation[:, :1], 1e-12)
    first, last = int(SAMPLE_RATE / HIGHEST), int(SAMPLE_RATE / LOWEST)
    best = correlation[:, first : last + 1].argmax(axis=1) + first
    voiced = correlation[np.arange(len(cut)), best] >= VOICED
    return np.where(voiced, SAMPLE_RATE / best, 0.0)


def gridded_acoustics(sound: Waveform, count: int, grid: float) -> FloatArray:
    """Acoustics of a sound on a grid, (cells, 6), each feature standardised over time: unscaled, those in Hz
    would be all that a distance sees."""
    values, spans = frames(sound)
    found = token_means(values, spans, 0.0, count, grid)
    spread = found.std(axis=0)
    return np.asarray((found - found.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def weak_affect(sounds: Sequence[Waveform]) -> FloatArray:
    """Arousal, valence and sentiment of each sound by the heuristic above, (sounds, 3), as mean z scores over
    these sounds."""
    import librosa

    measured = []
    for sound in sounds:
        values, _ = frames(sound)
        voiced = values[values[:, 0] > 0, 0]
        semitones = 12 * np.log2(voiced / 27.5) if voiced.size else np.zeros(1)
        spectrum = np.abs(librosa.stft(np.asarray(sound, dtype=np.float64), n_fft=FRAME, hop_length=HOP))
        flux = np.sqrt((np.diff(spectrum, axis=1) ** 2).sum(axis=0)).mean() if spectrum.shape[1] > 1 else 0.0
        first = librosa.feature.mfcc(y=np.asarray(sound, dtype=np.float64), sr=SAMPLE_RATE, n_mfcc=2)[
            1
        ].mean()
        spread = semitones.std() / max(abs(semitones.mean()), 1e-9)
        measured.append((semitones.mean(), values[:, 1].mean(), spread, flux, first))
    table = np.array(measured)
    deviation = table.std(axis=0)
    z = (table - table.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    arousal, valence = z[:, :3].mean(axis=1), z[:, 2:].mean(axis=1)
    return np.stack([arousal, valence, (arousal + valence) / 2], axis=1)
