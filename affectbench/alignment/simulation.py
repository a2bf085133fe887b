"""EEG of simulated listeners in whose brains one layer of a model is heard, at one lag.

Signal: principal components of the planted layer's states, delayed by a Gaussian kernel around the planted
lag, as the strengths of dipoles of each subject's own. Noise: dipoles with a pink spectrum, a little white
noise at the electrodes, blinks; an auxiliary channel carries the sound itself, which must never be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from affectbench.alignment.features import States
from affectbench.alignment.head import Head
from affectbench.alignment.rdm import FloatArray
from affectbench.alignment.recording import Recording, band_passed
from affectbench.alignment.story import Story
from affectbench.audio_io import SAMPLE_RATE

BAND = (0.5, 20.0)
NOISE_SOURCES = 40
BLINKS_A_SECOND, BLINK_VOLTS = 0.3, 100e-6
SCALP_VOLTS = 10e-6
"""Standard deviation of the simulated EEG without blinks, averaged over electrodes."""


@dataclass(frozen=True)
class Plant:
    """What the listeners' EEG carries: which point of the states, how late (s) and how blurred (s), how many
    of its components, and `snr`, the ratio of the variances of signal and noise at the electrodes, 0.5-20
    Hz."""

    point: int
    lag: float
    snr: float
    blur: float = 0.06
    components: int = 8


def drive(
    story: Story, states: Sequence[States], plant: Plant, rate: float, groups: Sequence[str] | None = None
) -> FloatArray:
    """What the planted layer says at every moment of the recording, (components, samples), before any delay.

    Components are fitted over all pieces, or over those of each of `groups` (a name a piece), and keep their
    relative strengths, so that the signal has the layer's own geometry; those of a group have unit power
    together.
    """
    layers = [each.values[plant.point].astype(np.float64) for each in states]
    names = list(groups) if groups is not None else [""] * len(layers)
    found = np.zeros((plant.components, round(story.seconds * rate)))
    fitted = {
        name: _fitted([layer for layer, own in zip(layers, names, strict=True) if own == name], plant)
        for name in dict.fromkeys(names)
    }
    for piece, each, layer, name in zip(story.pieces, states, layers, names, strict=True):
        centre, axes = fitted[name]
        scaled = (layer - centre) @ axes
        first = round(piece.start * rate)
        times = (np.arange(round(piece.seconds * rate)) + 0.5) / rate
        token = np.clip(np.searchsorted(each.spans[:, 1], times, side="right"), 0, len(scaled) - 1)
        found[:, first : first + len(times)] = scaled[token].T
    return found


def _fitted(layers: Sequence[FloatArray], plant: Plant) -> tuple[FloatArray, FloatArray]:
    """The mean (d,) of `layers` (tokens, d) and their components (d, components), scaled to unit power."""
    stacked = np.concatenate(layers)
    centre = stacked.mean(axis=0)
    _, _, axes = np.linalg.svd(stacked - centre, full_matrices=False)
    chosen = axes[: plant.components].T
    power = np.sqrt((((stacked - centre) @ chosen) ** 2).sum(axis=1).mean())
    return centre, chosen / power


def delayed(signal: FloatArray, rate: float, lag: float, blur: float) -> FloatArray:
    """A signal (components, samples) convolved with a Gaussian of sd `blur` around `lag` seconds."""
    size = signal.shape[1]
    padded = 2 * size
    frequencies = np.fft.rfftfreq(padded, 1 / rate)
    response = np.exp(-2 * (np.pi * frequencies * blur) ** 2 - 2j * np.pi * frequencies * lag)
    return np.asarray(np.fft.irfft(np.fft.rfft(signal, padded, axis=1) * response, padded, axis=1)[:, :size])


def pink(sources: int, samples: int, rate: float, rng: np.random.Generator) -> FloatArray:
    """Noise (sources, samples) whose power falls with frequency, from 0.5 Hz on; unit variance."""
    frequencies = np.fft.rfftfreq(samples, 1 / rate)
    amplitude = 1.0 / np.sqrt(np.maximum(frequencies, 0.5))
    amplitude[0] = 0.0
    spectrum = rng.normal(size=(sources, len(frequencies))) + 1j * rng.normal(
        size=(sources, len(frequencies))
    )
    found = np.fft.irfft(spectrum * amplitude, samples, axis=1)
    return np.asarray(found / found.std(axis=1, keepdims=True))


def scalp(head: Head, strengths: FloatArray, rng: np.random.Generator) -> FloatArray:
    """What randomly placed and turned dipoles of those strengths (sources, samples) show at the electrodes,
    each with the same power there."""
    shown = head.gain[:, rng.permutation(head.gain.shape[1])[: len(strengths)]]
    return np.asarray(shown / np.linalg.norm(shown, axis=0) @ strengths)


def simulated(
    story: Story, source: FloatArray | None, plant: Plant, head: Head, *, subject: int, seed: int, rate: float
) -> Recording:
    """The recording of one listener. `source` is what `drive` gives; None plants nothing.

    Channels: the head's, VEOG (blinks) and Aux5 (the sound). Equal arguments give equal recordings.
    """
    rng = np.random.default_rng([seed, subject, 13])
    samples = round(story.seconds * rate)
    noise = scalp(head, pink(NOISE_SOURCES, samples, rate, rng), rng)
    noise += 0.1 * noise.std() * rng.normal(size=noise.shape)
    data = noise / _power(noise, rate)
    if source is not None and plant.snr > 0:
        signal = scalp(head, delayed(source, rate, plant.lag, plant.blur), rng)
        data = data + np.sqrt(plant.snr) * signal / _power(signal, rate)
    data *= SCALP_VOLTS / data.std()
    blinks = _blinks(samples, rate, rng)
    frontal = np.clip(head.positions[:, 1] / np.abs(head.positions).max(), 0, None) ** 3
    data = data + np.outer(frontal, blinks)
    data -= data.mean(axis=0)
    veog = blinks + SCALP_VOLTS * rng.normal(size=samples)
    return Recording(
        data=np.concatenate([data, veog[None], 1e-3 * loudness(story, samples, rate)[None]]),
        rate=rate,
        names=(*head.names, "VEOG", "Aux5"),
        types=(*("eeg",) * len(head.names), "eog", "misc"),
        positions=np.concatenate([head.positions, np.full((2, 3), np.nan)]),
        line=60.0,
    )


def _power(data: FloatArray, rate: float) -> float:
    """Root mean square in the band in which the signal-to-noise ratio is defined."""
    return float(np.sqrt((band_passed(data, rate, *BAND) ** 2).mean()))


def _blinks(samples: int, rate: float, rng: np.random.Generator) -> FloatArray:
    """Bumps of 100 microvolts and 0.3 s, some every 10 s, (samples,) in volts."""
    count = rng.poisson(BLINKS_A_SECOND * samples / rate)
    marks = np.zeros(samples)
    np.add.at(marks, rng.integers(0, samples, count), 1.0)
    shape = np.hanning(max(3, round(0.3 * rate)))
    return BLINK_VOLTS * np.convolve(marks, shape, "same")[:samples]


def loudness(story: Story, samples: int, rate: float) -> FloatArray:
    """The root mean square of the sound in each sample of the recording, (samples,)."""
    found = np.zeros(samples)
    for name, sound in story.sounds.items():
        count = int(len(sound) / SAMPLE_RATE * rate)
        edges = (np.arange(count + 1) * SAMPLE_RATE / rate).astype(np.int64)
        power = np.concatenate([[0.0], np.cumsum(sound.astype(np.float64) ** 2)])
        first = round(story.starts[name] * rate)
        found[first : first + count] = np.sqrt(np.diff(power[edges]) / np.diff(edges))
    return found
