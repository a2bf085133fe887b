"""A continuous recording and what is done to it before anything is compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from affectbench.alignment.rdm import FloatArray
from affectbench.errors import AffectbenchError

ChannelType = Literal["eeg", "eog", "misc", "ecg", "emg", "stim"]


@dataclass(frozen=True)
class Recording:
    """`data` (channels, samples) in volts at `rate` Hz; names and types of the channels, positions (channels,
    3) in metres where they are known (NaN else), and the frequency of the mains, in Hz.

    `bad` are the channels that the file calls bad. `breaks` are samples before which time jumps: nothing is
    filtered across them. `clean`: it was prepared; `line` is then where a notch was set.
    """

    data: FloatArray
    rate: float
    names: tuple[str, ...]
    types: tuple[str, ...]
    positions: FloatArray
    line: float | None = None
    bad: tuple[str, ...] = ()
    breaks: tuple[int, ...] = ()
    clean: bool = False

    def __post_init__(self) -> None:
        rows = {len(self.data), len(self.names), len(self.types), len(self.positions)}
        if len(rows) != 1:
            raise AffectbenchError(
                f"a recording of {len(self.data)} channels has {len(self.names)} names, {len(self.types)} "
                f"types and {len(self.positions)} positions"
            )

    @property
    def seconds(self) -> float:
        return float(self.data.shape[1] / self.rate)

    def only(self, kept: Sequence[int]) -> Recording:
        """The recording with these channels alone."""
        places = list(kept)
        return replace(
            self,
            data=self.data[places],
            names=tuple(self.names[place] for place in places),
            types=tuple(self.types[place] for place in places),
            positions=self.positions[places],
        )

    def by_stretch(self, change: Callable[[FloatArray], FloatArray]) -> FloatArray:
        """The data (channels, samples) with every stretch between two breaks changed by itself."""
        parts = np.split(self.data, self.breaks, axis=1)
        return np.concatenate([change(part) for part in parts], axis=1)

    def eeg(self) -> Recording:
        """The channels declared EEG, and no others: an auxiliary channel may carry the sound itself.

        Raises `AffectbenchError` where there are fewer than two.
        """
        kept = [place for place, kind in enumerate(self.types) if kind == "eeg"]
        if len(kept) < 2:
            raise AffectbenchError(
                f"{len(kept)} of {len(self.names)} channels are declared EEG",
                hint="declare the types of channels: channels.tsv, or `channel_types` of the task",
            )
        return self.only(kept)


def band_passed(data: FloatArray, rate: float, low: float, high: float, order: int = 4) -> FloatArray:
    """Butterworth band pass of that order, forwards and backwards, so that nothing moves in time."""
    from scipy.signal import butter, sosfiltfilt

    if not 0 < low < high < rate / 2:
        raise AffectbenchError(
            f"a band of {low:g}-{high:g} Hz does not fit a rate of {rate:g} Hz",
            hint="0 < low < high < rate / 2",
        )
    sections = butter(order, (low, high), "bandpass", fs=rate, output="sos")
    return np.asarray(sosfiltfilt(sections, data, axis=1))


def low_passed(data: FloatArray, rate: float, high: float, order: int = 4) -> FloatArray:
    """Butterworth low pass of that order, forwards and backwards."""
    from scipy.signal import butter, sosfiltfilt

    return np.asarray(sosfiltfilt(butter(order, high, "lowpass", fs=rate, output="sos"), data, axis=1))


def notched(data: FloatArray, rate: float, line: float, quality: float = 30.0) -> FloatArray:
    """A notch at the frequency of the mains, forwards and backwards."""
    from scipy.signal import filtfilt, iirnotch

    return np.asarray(filtfilt(*iirnotch(line, quality, fs=rate), data, axis=1))


def bad_channels(data: FloatArray) -> list[int]:
    """Channels that are flat, far more or less variable than others, or unlike every other one.

    After the released code of arXiv 2601.16540: sd below 1e-6 of the median, or abs z of the sd above 3. Its
    third rule, an abs correlation with the average below 0.4, names all channels after an average reference,
    where that average is zero; here a channel is alone where its abs correlation with each other one is below
    0.4.
    """
    spread = data.std(axis=1)
    flat = spread < 1e-6 * np.median(spread)
    deviant = np.abs(spread - spread.mean()) > 3 * spread.std()
    with np.errstate(invalid="ignore", divide="ignore"):
        correlations = np.atleast_2d(np.corrcoef(data))
    correlations[np.isnan(correlations)] = 0.0
    np.fill_diagonal(correlations, 0.0)
    alone = np.abs(correlations).max(axis=1) < 0.4
    return np.flatnonzero(flat | deviant | alone).tolist()


def repaired(recording: Recording, bad: Sequence[int]) -> Recording:
    """Bad channels replaced by the average of the good ones, weighted by inverse squared distance where
    positions are known. Raises `AffectbenchError` where less than half of the channels are good."""
    if not bad:
        return recording
    good = [place for place in range(len(recording.names)) if place not in set(bad)]
    if len(good) < len(bad):
        raise AffectbenchError(
            f"{len(bad)} of {len(recording.names)} channels are bad", hint="leave this subject out"
        )
    data = recording.data.copy()
    for place in bad:
        apart = ((recording.positions[good] - recording.positions[place]) ** 2).sum(axis=1)
        weights = np.ones(len(good)) if np.isnan(apart).any() else 1.0 / np.maximum(apart, 1e-8)
        data[place] = weights / weights.sum() @ recording.data[good]
    return replace(recording, data=data)


def average_referenced(recording: Recording) -> Recording:
    """Each moment against the mean of all channels."""
    return replace(recording, data=recording.data - recording.data.mean(axis=0))
