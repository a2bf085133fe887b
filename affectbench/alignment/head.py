"""A head to simulate on: electrodes of a standard cap over a sphere, and what a source shows at each of them.

MNE computes the gains from a spherical model and a built-in montage; nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from affectbench.alignment.rdm import FloatArray
from affectbench.errors import AffectbenchError

MONTAGES = {"easycap-M10": ("29",), "biosemi128": ()}
"""Montages of MNE by name, with the electrodes that are left out: Alice's cap lacks 29."""
GRID_MM = 30.0


@dataclass(frozen=True)
class Head:
    """Electrode `names` with `positions` (C, 3) in metres, and `gain` (C, sources): volts per ampere metre of
    dipoles on a grid, three directions each, against the average reference."""

    names: tuple[str, ...]
    positions: FloatArray
    gain: FloatArray


def import_mne() -> Any:
    """The library. Raises `AffectbenchError` where it is not installed."""
    try:
        import mne
    except ImportError as error:
        raise AffectbenchError(
            f"EEG needs MNE, which cannot be imported: {error}", hint="pip install 'affectbench[eeg]'"
        ) from error
    mne.set_log_level("ERROR")
    return mne


@lru_cache(maxsize=4)
def head_model(montage: str = "easycap-M10") -> Head:
    """The head with that cap. Raises `AffectbenchError` for a montage that is not known here."""
    if montage not in MONTAGES:
        raise AffectbenchError(f"there is no montage {montage!r}", hint=f"montages: {', '.join(MONTAGES)}")
    mne = import_mne()
    electrodes = mne.channels.make_standard_montage(montage)
    names = [name for name in electrodes.ch_names if name not in MONTAGES[montage]]
    info = mne.create_info(names, 100.0, "eeg")
    info.set_montage(electrodes)
    sphere = mne.make_sphere_model("auto", "auto", info)
    sources = mne.setup_volume_source_space(sphere=sphere, pos=GRID_MM, exclude=20.0)
    forward = mne.make_forward_solution(info, None, sources, sphere, meg=False)
    gain = np.asarray(forward["sol"]["data"], dtype=np.float64)
    positions = np.array([channel["loc"][:3] for channel in info["chs"]])
    return Head(tuple(names), positions, gain - gain.mean(axis=0))


def projected(positions: FloatArray) -> FloatArray:
    """Electrodes (C, 3) on a flat head seen from above, (C, 2) in head radii: x to the right ear, y to the
    nose; the angle from the vertex is the distance, the horizontal plane through the ears at 1."""
    centred = positions - np.array([0.0, 0.0, _centre_height(positions)])
    angle = np.arctan2(np.linalg.norm(centred[:, :2], axis=1), centred[:, 2])
    bearing = np.arctan2(centred[:, 1], centred[:, 0])
    return np.asarray((angle / (np.pi / 2) * np.stack([np.cos(bearing), np.sin(bearing)])).T)


def _centre_height(positions: FloatArray) -> float:
    """Height of the centre of the sphere through the electrodes, by least squares."""
    system = np.column_stack([2 * positions, np.ones(len(positions))])
    solution, *_ = np.linalg.lstsq(system, (positions**2).sum(axis=1), rcond=None)
    return float(solution[2])
