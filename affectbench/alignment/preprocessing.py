"""What is done to a recording before it is compared, as an alignment task says it: channels typed, placed,
filtered, repaired, referenced and resampled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from affectbench.alignment.head import import_mne
from affectbench.alignment.rdm import FloatArray
from affectbench.alignment.recording import (
    Recording,
    average_referenced,
    bad_channels,
    band_passed,
    notched,
    repaired,
)
from affectbench.errors import AffectbenchError
from affectbench.recorded_eeg import Handling

NO_EEG = re.compile(
    r"^([vh]?eog|aux|audio|sound|speech|trig|stat(us)?$|stim|sti\b|e[ck]g|emg|exg|gsr|resp|plet|temp)", re.I
)
"""Names of channels that are no EEG whatever type a file gives them: EEGLAB and FieldTrip call all EEG."""


def typed(recording: Recording, channels: Mapping[str, str]) -> Recording:
    """The recording with the types that a task declares.

    Raises `AffectbenchError` for a declared channel that is not there, and for a channel that is EEG by type
    and something else by name: it may carry the sound itself.
    """
    absent = [name for name in channels if name not in recording.names]
    if absent:
        raise AffectbenchError(
            f"`channels` types {absent[0]!r}, which the recording does not have",
            hint=f"it has {_some(recording.names)}",
        )
    types = tuple(
        channels.get(name, kind) for name, kind in zip(recording.names, recording.types, strict=True)
    )
    for name, kind in zip(recording.names, types, strict=True):
        if kind == "eeg" and name not in channels and NO_EEG.match(name):
            raise AffectbenchError(
                f"channel {name!r} is EEG by type and something else by name",
                hint=f"say which it is: channels: {{{name}: eog}} (or misc, ..., or eeg)",
            )
    return replace(recording, types=types)


def placed(recording: Recording, montage: str) -> Recording:
    """Electrodes at the positions of a montage that MNE knows; names are compared without regard to case.

    Raises `AffectbenchError` for an unknown montage and for an EEG channel that it does not have.
    """
    mne = import_mne()
    try:
        electrodes = mne.channels.make_standard_montage(montage)
    except ValueError as error:
        raise AffectbenchError(
            f"there is no montage {montage!r}",
            hint=f"montages: {', '.join(mne.channels.get_builtin_montages())}",
        ) from error
    known = {name.lower(): place for name, place in electrodes.get_positions()["ch_pos"].items()}
    positions = recording.positions.copy()
    for place, (name, kind) in enumerate(zip(recording.names, recording.types, strict=True)):
        if kind != "eeg":
            continue
        if name.lower() not in known:
            raise AffectbenchError(
                f"montage {montage} has no electrode {name!r}",
                hint=f"it has {_some(tuple(known))}; type the channel in `channels` if it is no EEG",
            )
        positions[place] = known[name.lower()]
    return replace(recording, positions=positions)


def referenced(recording: Recording, reference: str | Sequence[str]) -> Recording:
    """Each moment against the average of all channels (``average``), against the mean of those that are
    named, or as it was recorded (``none``). Raises `AffectbenchError` for a channel that is not there."""
    if reference == "none":
        return recording
    if reference == "average":
        return average_referenced(recording)
    for name in reference:
        if name not in recording.names:
            raise AffectbenchError(
                f"`reference` names {name!r}, which is no EEG channel", hint=_some(recording.names)
            )
    rows = [recording.names.index(name) for name in reference]
    return replace(recording, data=recording.data - recording.data[rows].mean(axis=0))


def resampled(recording: Recording, rate: float) -> Recording:
    """The recording at another rate: polyphase, behind an anti-alias filter that moves nothing in time."""
    from scipy.signal import resample_poly

    ratio = Fraction(rate / recording.rate).limit_denominator(2000)
    if ratio == 1:
        return recording
    data = resample_poly(recording.data, ratio.numerator, ratio.denominator, axis=1)
    return replace(recording, data=np.asarray(data), rate=recording.rate * float(ratio))


def prepared(recording: Recording, handling: Handling, band: tuple[float, float]) -> Recording:
    """EEG channels alone: hum taken out, band-passed, bad channels repaired, referenced, resampled.

    The `line` of what is returned is where a notch was set: at the mains, unless they are unknown or above
    what the rate can hold. Raises `AffectbenchError` where any step cannot be done.
    """
    found = typed(recording, handling.channels)
    if handling.montage:
        found = placed(found, handling.montage)
    found = found.eeg()
    data = found.data - found.data.mean(axis=1, keepdims=True)
    line = handling.line or found.line
    if line is not None and line >= found.rate / 2:
        line = None
    if line is not None:
        data = notched(data, found.rate, line)
    data = band_passed(data, found.rate, *band)
    found = repaired(replace(found, data=data, line=line), bad_places(found, data, handling))
    found = referenced(found, handling.reference)
    if handling.rate is not None:
        found = resampled(found, handling.rate)
    return replace(found, clean=True)


def bad_places(recording: Recording, filtered: FloatArray, handling: Handling) -> list[int]:
    """Rows of bad channels: those that the data set declares, those that the rules of
    `recording.bad_channels` find in filtered data, both, or none."""
    declared = {place for place, name in enumerate(recording.names) if name in recording.bad}
    found = set(bad_channels(filtered)) if handling.bad in ("found", "both") else set()
    if handling.bad in ("declared", "both"):
        found |= declared
    return sorted(found)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
