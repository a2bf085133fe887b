"""Small recordings for tests, and files of them in every format that is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

NAMES = ("Fz", "Cz", "Pz", "Oz", "VEOG", "Aux5")
TYPES = ("eeg", "eeg", "eeg", "eeg", "eog", "misc")
RATE = 250.0


def signal(seconds: float = 8.0, rate: float = RATE, seed: int = 0) -> np.ndarray:
    """Six channels (6, samples) of some tens of microvolts, in volts, that share half of their variance."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * rate)
    return 2e-5 * (rng.normal(size=(len(NAMES), samples)) + rng.normal(size=(1, samples)))


def as_raw(
    data: np.ndarray, names: tuple[str, ...] = NAMES, types: tuple[str, ...] = TYPES, rate: float = RATE
) -> Any:
    """A recording of MNE, with two annotations."""
    import mne

    raw = mne.io.RawArray(data, mne.create_info(list(names), rate, list(types)), verbose="error")
    raw.set_annotations(mne.Annotations([1.0, 2.5], [0.0, 0.5], ["first", "second"]))
    return raw


def write_brainvision(path: Path, data: np.ndarray) -> Path:
    import pybv

    pybv.write_brainvision(
        data=data, sfreq=RATE, ch_names=list(NAMES), fname_base=path.stem, folder_out=str(path.parent),
        events=np.array([[250, 1], [625, 2]]), resolution=0.001, unit="µV",
    )  # fmt: skip
    return path


def write_eeglab(path: Path, data: np.ndarray) -> Path:
    import mne

    mne.export.export_raw(path, as_raw(data), verbose="error")
    return path


def write_fieldtrip(path: Path, data: np.ndarray, variable: str = "data") -> Path:
    """As FieldTrip saves one continuous trial: cells of labels, times and trials; microvolts."""
    cell = np.empty(1, dtype=object)
    cell[0] = data * 1e6
    times = np.empty(1, dtype=object)
    times[0] = np.arange(data.shape[1]) / RATE
    labels = np.array(NAMES, dtype=object)[:, None]
    savemat(path, {variable: {"label": labels, "fsample": RATE, "trial": cell, "time": times}})
    return path
