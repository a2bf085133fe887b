"""Files of EEG as recordings: BrainVision, EEGLAB, FieldTrip .mat, EDF and BDF, and BIDS folders. MNE reads
them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from affectbench.alignment.head import import_mne
from affectbench.alignment.rdm import FloatArray
from affectbench.alignment.recording import Recording
from affectbench.errors import AffectbenchError

Unit = Literal["V", "mV", "uV"]
VOLTS: dict[Unit, float] = {"V": 1.0, "mV": 1e-3, "uV": 1e-6}
TYPES = ("eeg", "eog", "ecg", "emg", "stim")
"""Channel types of MNE that keep their name; all others are ``misc``."""
EUROPEAN = (".edf", ".bdf")
TRIGGERS = 0xFFFF
"""The bits of a BioSemi Status word that are triggers; those above tell how the amplifier is."""


class Mark(NamedTuple):
    """A mark in a recording: seconds from its first sample, and what it says."""

    onset: float
    text: str


@dataclass(frozen=True)
class Header:
    """What a file says of itself: names and types of its channels, which have a position, its rate in Hz, and
    how many seconds it lasts."""

    names: tuple[str, ...]
    types: tuple[str, ...]
    placed: tuple[bool, ...]
    rate: float
    seconds: float


def read_recording(path: Path, *, variable: str = "data", unit: Unit = "V") -> Recording:
    """The recording in a file, by its ending: .vhdr, .set, .mat, .edf or .bdf.

    A FieldTrip .mat says neither the unit nor, often, the types of its channels: `variable` names the
    structure in it and `unit` what its numbers are. Channels of an EDF or BDF that name no unit known to MNE
    are in `unit` as well. Raises `AffectbenchError` for a file that is missing, damaged, or of no such kind.
    """

    def recording() -> Recording:
        raw = _raw(path, variable)
        return _in_volts(recording_of(raw), raw, path, VOLTS[unit])

    found: Recording = _opened(path, recording)
    return found


def _in_volts(recording: Recording, raw: Any, path: Path, volts: float) -> Recording:
    """The recording where channels whose file does not say their unit were taken for volts by MNE."""
    ending = path.suffix.lower()
    if ending == ".mat":
        silent = np.ones(len(recording.names), dtype=bool)
    elif ending in EUROPEAN:
        told = raw._orig_units  # Public nowhere; MNE-BIDS writes channels.tsv from it.
        silent = np.array([told.get(name) == "n/a" for name in recording.names])
        silent &= np.array([kind != "stim" for kind in recording.types])
    else:
        return recording
    if volts == 1.0 or not silent.any():
        return recording
    return replace(recording, data=recording.data * np.where(silent, volts, 1.0)[:, None])


def read_bids(path: Path, root: Path) -> Recording:
    """A recording of a BIDS folder, with what its sidecars say of it: types and bad channels (channels.tsv),
    positions (electrodes.tsv), mains (eeg.json).

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
        rate = float(raw.info["sfreq"])
        return Header(tuple(raw.ch_names), _types(raw), placed, rate, raw.n_times / rate)

    found: Header = _opened(path, header)
    return found


def read_marks(path: Path, *, bids: Path | None = None) -> tuple[Mark, ...]:
    """The marks of a recording by time: its annotations, and the triggers on its Status channel if it has
    one (a number each); of a BIDS folder, what events.tsv says.

    Raises `AffectbenchError` as `read_recording` and `read_bids` do.
    """

    def marks() -> tuple[Mark, ...]:
        raw = _raw(path, "data") if bids is None else _raw_bids(path, bids)
        return tuple(sorted([*_annotations(raw), *_triggers(raw)]))

    found: tuple[Mark, ...] = _opened(path, marks)
    return found


def check_bids(root: Path) -> None:
    """Raises `AffectbenchError` where a folder is no BIDS data set."""
    if not (root / "dataset_description.json").is_file():
        raise AffectbenchError(
            f"{root} is no BIDS folder: it has no dataset_description.json",
            hint="give the folder that holds the sub-* folders",
        )


def _raw_bids(path: Path, root: Path) -> Any:
    mne_bids = import_mne_bids()
    check_bids(root)
    if path.suffix.lower() in EUROPEAN:
        _check_continuous(path)
    return mne_bids.read_raw_bids(mne_bids.get_bids_path_from_fname(path))


def _raw(path: Path, variable: str) -> Any:
    mne = import_mne()
    opened: dict[str, Callable[[], Any]] = {
        ".vhdr": lambda: mne.io.read_raw_brainvision(path),
        ".set": lambda: mne.io.read_raw_eeglab(path),
        ".mat": lambda: _fieldtrip(path, variable),
        ".edf": lambda: mne.io.read_raw_edf(path, infer_types=True),
        ".bdf": lambda: mne.io.read_raw_bdf(path, infer_types=True),
    }
    ending = path.suffix.lower()
    if ending not in opened:
        raise AffectbenchError(
            f"{path}: {path.suffix or 'a file without an ending'} is no format of EEG that is read here",
            hint=f"formats: {', '.join(opened)}",
        )
    if not path.is_file():
        raise AffectbenchError(f"there is no recording {path}")
    if ending in EUROPEAN:
        _check_continuous(path)
    return opened[ending]()


def _check_continuous(path: Path) -> None:
    """EDF+D and BDF+D: 44 reserved bytes of the header, from the 193rd on, say so. MNE joins their parts."""
    with path.open("rb") as file:
        reserved = file.read(236)[192:]
    if reserved.startswith((b"EDF+D", b"BDF+D")):
        raise AffectbenchError(
            f"{path} has gaps ({reserved[:5].decode()}): what is behind one would be read too early",
            hint="export it as one continuous recording, or each stretch as a run of its own",
        )


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
        tuple(raw.info["bads"]),
    )


def _types(raw: Any) -> tuple[str, ...]:
    return tuple(kind if kind in TYPES else "misc" for kind in raw.get_channel_types())


def _positions(raw: Any) -> FloatArray:
    """(channels, 3) in metres, NaN where a file does not say."""
    found = np.array([channel["loc"][:3] for channel in raw.info["chs"]], dtype=np.float64)
    found[(found == 0).all(axis=1)] = np.nan
    return found


def _annotations(raw: Any) -> list[Mark]:
    first = raw.first_time if raw.annotations.orig_time is not None else 0.0
    return [Mark(float(mark["onset"]) - first, str(mark["description"])) for mark in raw.annotations]


def _triggers(raw: Any) -> list[Mark]:
    """Where a Status channel changes to another trigger that is not 0."""
    mne = import_mne()
    found = []
    for channel, kind in zip(raw.ch_names, _types(raw), strict=True):
        if kind != "stim":
            continue
        events = mne.find_events(
            raw, channel, consecutive=True, shortest_event=1, mask=TRIGGERS, mask_type="and", verbose="error"
        )
        found += [Mark((at - raw.first_samp) / raw.info["sfreq"], str(code)) for at, _, code in events]
    return found
