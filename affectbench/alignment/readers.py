"""Files of EEG as recordings: BrainVision, EEGLAB, FieldTrip .mat, EDF and BDF, and BIDS folders. MNE reads
them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from affectbench.alignment.head import import_mne
from affectbench.alignment.recording import Event, Recording
from affectbench.errors import AffectbenchError

Unit = Literal["V", "mV", "uV"]
VOLTS: dict[Unit, float] = {"V": 1.0, "mV": 1e-3, "uV": 1e-6}
TYPES = ("eeg", "eog", "ecg", "emg", "stim")
"""Channel types of MNE that keep their name; all others are ``misc``."""


def read_recording(path: Path, *, variable: str = "data", unit: Unit = "V") -> Recording:
    """The recording in a file, by its ending: .vhdr, .set, .mat, .edf or .bdf.

    A FieldTrip .mat says neither the unit nor, often, the types of its channels: `variable` names the
    structure in it and `unit` what its numbers are. Raises `AffectbenchError` for a file that is missing,
    damaged, or of no such kind.
    """
    mne = import_mne()
    opened: dict[str, Callable[[], Any]] = {
        ".vhdr": lambda: mne.io.read_raw_brainvision(path, preload=True),
        ".set": lambda: mne.io.read_raw_eeglab(path, preload=True),
        ".mat": lambda: _fieldtrip(path, variable),
        ".edf": lambda: mne.io.read_raw_edf(path, preload=True),
        ".bdf": lambda: mne.io.read_raw_bdf(path, preload=True),
    }
    ending = path.suffix.lower()
    if ending not in opened:
        raise AffectbenchError(
            f"{path}: {path.suffix or 'a file without an ending'} is no format of EEG that is read here",
            hint=f"formats: {', '.join(opened)}",
        )
    if not path.is_file():
        raise AffectbenchError(f"there is no recording {path}")
    recording = _opened(path, opened[ending])
    if ending != ".mat":
        return recording
    return Recording(
        recording.data * VOLTS[unit], recording.rate, recording.names, recording.types, recording.positions,
    )  # fmt: skip


def read_bids(path: Path, root: Path) -> Recording:
    """A recording of a BIDS folder, with what its sidecars say of it: types and bad channels (channels.tsv),
    positions (electrodes.tsv), mains (eeg.json), events (events.tsv).

    Raises `AffectbenchError` where the file cannot be read or contradicts its sidecars.
    """
    mne_bids = import_mne_bids()

    def opened() -> Any:
        raw = mne_bids.read_raw_bids(mne_bids.get_bids_path_from_fname(path))
        return raw.load_data()

    if not (root / "dataset_description.json").is_file():
        raise AffectbenchError(
            f"{root} is no BIDS folder: it has no dataset_description.json",
            hint="give the folder that holds the sub-* folders",
        )
    return _opened(path, opened)


def import_mne_bids() -> Any:
    """The library. Raises `AffectbenchError` where it is not installed."""
    import_mne()
    try:
        import mne_bids
    except ImportError as error:
        raise AffectbenchError(
            f"BIDS folders need MNE-BIDS, which cannot be imported: {error}",
            hint="pip install 'affectbench[eeg]'",
        ) from error
    return mne_bids


def _fieldtrip(path: Path, variable: str) -> Any:
    mne = import_mne()
    try:
        return mne.io.read_raw_fieldtrip(path, info=None, data_name=variable)
    except KeyError as error:
        raise AffectbenchError(
            f"{path}: there is no variable {variable!r}", hint="`variable` names FieldTrip's structure in it"
        ) from error


def _opened(path: Path, reader: Callable[[], Any]) -> Recording:
    """What a reader of MNE gives. Whatever it raises about a file comes from outside: it is told as it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MNE warns of every sidecar that a file may have and has not.
            return recording_of(reader())
    except AffectbenchError:
        raise
    except Exception as error:
        raise AffectbenchError(
            f"{path} cannot be read as EEG: {type(error).__name__}: {error}",
            hint="was the file fetched whole, and are the files beside it there (.eeg, .vmrk, .fdt)?",
        ) from error


def recording_of(raw: Any) -> Recording:
    """A continuous recording of MNE. Raises `AffectbenchError` for values that are not finite."""
    data = np.asarray(raw.get_data(), dtype=np.float64)
    names = tuple(str(name) for name in raw.ch_names)
    bad_rows = np.flatnonzero(~np.isfinite(data).all(axis=1))
    if bad_rows.size:
        raise AffectbenchError(
            f"channel {names[bad_rows[0]]} has values that are not finite", hint="fetch the file again"
        )
    positions = np.array([channel["loc"][:3] for channel in raw.info["chs"]], dtype=np.float64)
    positions[(positions == 0).all(axis=1)] = np.nan
    line = raw.info["line_freq"]
    return Recording(
        data,
        float(raw.info["sfreq"]),
        names,
        tuple(kind if kind in TYPES else "misc" for kind in raw.get_channel_types()),
        positions,
        None if line is None else float(line),
        _events(raw),
        tuple(raw.info["bads"]),
    )


def _events(raw: Any) -> tuple[Event, ...]:
    """Annotations in seconds from the first sample that is there."""
    marks = raw.annotations
    first = raw.first_time if marks.orig_time is not None else 0.0
    return tuple(
        Event(float(mark["onset"]) - first, float(mark["duration"]), str(mark["description"]))
        for mark in marks
    )
