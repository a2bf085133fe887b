"""Files of EEG as recordings: BrainVision, EEGLAB, FieldTrip .mat, EDF and BDF, and BIDS folders. MNE reads
them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from affectbench.alignment.head import import_mne
from affectbench.alignment.rdm import FloatArray
from affectbench.alignment.recording import Event, Recording
from affectbench.errors import AffectbenchError

Unit = Literal["V", "mV", "uV"]
VOLTS: dict[Unit, float] = {"V": 1.0, "mV": 1e-3, "uV": 1e-6}
BIDS_ENDINGS = (".vhdr", ".set", ".edf", ".bdf")
TYPES = ("eeg", "eog", "ecg", "emg", "stim")
"""Channel types of MNE that keep their name; all others are ``misc``."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself: names and types of its channels, which have a position, and seconds."""

    names: tuple[str, ...]
    types: tuple[str, ...]
    placed: tuple[bool, ...]
    seconds: float


def read_recording(path: Path, *, variable: str = "data", unit: Unit = "V") -> Recording:
    """The recording in a file, by its ending: .vhdr, .set, .mat, .edf or .bdf.

    A FieldTrip .mat says neither the unit nor, often, the types of its channels: `variable` names the
    structure in it and `unit` what its numbers are. Raises `AffectbenchError` for a file that is missing,
    damaged, or of no such kind.
    """
    recording: Recording = _opened(path, lambda: recording_of(_raw(path, variable)))
    if path.suffix.lower() != ".mat":
        return recording
    return replace(recording, data=recording.data * VOLTS[unit])


def read_bids(path: Path, root: Path) -> Recording:
    """A recording of a BIDS folder, with what its sidecars say of it: types and bad channels (channels.tsv),
    positions (electrodes.tsv), mains (eeg.json), events (events.tsv).

    Raises `AffectbenchError` where the file cannot be read or contradicts its sidecars.
    """
    found: Recording = _opened(path, lambda: recording_of(_raw_bids(path, root)))
    return found


def read_header(path: Path, *, bids: Path | None = None, variable: str = "data") -> Header:
    """The header of a recording; `bids` is the root of its BIDS folder, if it lies in one.

    Raises `AffectbenchError` as `read_recording` and `read_bids` do.
    """

    def header() -> Header:
        raw = _raw(path, variable) if bids is None else _raw_bids(path, bids)
        placed = tuple(bool(np.isfinite(place).all()) for place in _positions(raw))
        return Header(tuple(raw.ch_names), _types(raw), placed, raw.n_times / raw.info["sfreq"])

    found: Header = _opened(path, header)
    return found


def bids_files(root: Path, task: str) -> dict[str, dict[str, Path]]:
    """Recordings of a task in a BIDS folder, by subject and run; that of a recording without one is empty.

    Raises `AffectbenchError` where there is none.
    """
    mne_bids = import_mne_bids()
    _check_bids(root)
    paths = mne_bids.find_matching_paths(
        root, tasks=task, suffixes="eeg", datatypes="eeg", extensions=list(BIDS_ENDINGS)
    )
    found: dict[str, dict[str, Path]] = {}
    for path in paths:
        runs = found.setdefault(path.subject, {})
        if (path.run or "") in runs:
            raise AffectbenchError(
                f"{root}: subject {path.subject} has two recordings of task {task}, run {path.run}",
                hint="sessions are not told apart: keep one in the folder",
            )
        runs[path.run or ""] = Path(path.fpath)
    if not found:
        raise AffectbenchError(
            f"{root} has no recording of task {task!r}",
            hint=f"expected sub-*/eeg/sub-*_task-{task}_*eeg with {', '.join(BIDS_ENDINGS)}",
        )
    return found


def _check_bids(root: Path) -> None:
    if not (root / "dataset_description.json").is_file():
        raise AffectbenchError(
            f"{root} is no BIDS folder: it has no dataset_description.json",
            hint="give the folder that holds the sub-* folders",
        )


def _raw_bids(path: Path, root: Path) -> Any:
    mne_bids = import_mne_bids()
    _check_bids(root)
    return mne_bids.read_raw_bids(mne_bids.get_bids_path_from_fname(path))


def _raw(path: Path, variable: str) -> Any:
    mne = import_mne()
    opened: dict[str, Callable[[], Any]] = {
        ".vhdr": lambda: mne.io.read_raw_brainvision(path),
        ".set": lambda: mne.io.read_raw_eeglab(path),
        ".mat": lambda: _fieldtrip(path, variable),
        ".edf": lambda: mne.io.read_raw_edf(path),
        ".bdf": lambda: mne.io.read_raw_bdf(path),
    }
    ending = path.suffix.lower()
    if ending not in opened:
        raise AffectbenchError(
            f"{path}: {path.suffix or 'a file without an ending'} is no format of EEG that is read here",
            hint=f"formats: {', '.join(opened)}",
        )
    if not path.is_file():
        raise AffectbenchError(f"there is no recording {path}")
    return opened[ending]()


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


def _opened(path: Path, reader: Callable[[], Any]) -> Any:
    """What `reader` gives. Whatever MNE raises about a file comes from outside: it is told as it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MNE warns of every sidecar that a file may have and has not.
            return reader()
    except AffectbenchError:
        raise
    except Exception as error:  # MNE raises many kinds for a damaged file; none is swallowed.
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
    line = raw.info["line_freq"]
    return Recording(
        data,
        float(raw.info["sfreq"]),
        names,
        _types(raw),
        _positions(raw),
        None if line is None else float(line),
        _events(raw),
        tuple(raw.info["bads"]),
    )


def _types(raw: Any) -> tuple[str, ...]:
    return tuple(kind if kind in TYPES else "misc" for kind in raw.get_channel_types())


def _positions(raw: Any) -> FloatArray:
    """(channels, 3) in metres, NaN where a file does not say."""
    found = np.array([channel["loc"][:3] for channel in raw.info["chs"]], dtype=np.float64)
    found[(found == 0).all(axis=1)] = np.nan
    return found


def _events(raw: Any) -> tuple[Event, ...]:
    """Annotations in seconds from the first sample that is there."""
    marks = raw.annotations
    first = raw.first_time if marks.orig_time is not None else 0.0
    return tuple(
        Event(float(mark["onset"]) - first, float(mark["duration"]), str(mark["description"]))
        for mark in marks
    )
