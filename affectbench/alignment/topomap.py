"""Maps of an analysis as topographies of MNE: values between electrodes interpolated, as papers print them.

The site draws the electrodes themselves, from the record alone. These are files beside the record.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from affectbench.alignment.head import import_mne
from affectbench.analysis import Analysis, Topography
from affectbench.store import write_atomically

FOLDER = "topomaps"
ACROSS, SIDE = 3, 2.6
"""Heads in a row, and inches of each."""


def topomap(found: Topography) -> bytes:
    """A map as SVG, one head a panel, all on one scale; the same bytes for the same values and libraries.

    A point without a value is left out of its panel's interpolation. Raises `AffectbenchError` where MNE is
    not installed.
    """
    mne = import_mne()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    values = np.array([[np.nan if v is None else v for v in row] for row in found.values], dtype=np.float64)
    top = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    low = -top if found.scale == "diverging" else 0.0
    places = np.column_stack([found.x, found.y]).astype(np.float64)
    rows = ceil(len(found.panels) / ACROSS)
    with mpl.rc_context({"svg.hashsalt": found.name, "svg.fonttype": "none"}):
        figure = Figure(figsize=(SIDE * ACROSS + 0.8, (SIDE + 0.3) * rows + 0.4), layout="constrained")
        axes = figure.subplots(rows, ACROSS, squeeze=False).ravel()
        image: Any = None
        for axis, panel, row in zip(axes, found.panels, values, strict=False):
            known = np.isfinite(row)
            image, _ = mne.viz.plot_topomap(
                row[known], places[known], axes=axis, show=False, sphere=(0.0, 0.0, 0.0, 1.0),
                vlim=(low, top), cmap="RdBu_r" if found.scale == "diverging" else "Reds", contours=4,
            )  # fmt: skip
            axis.set_title(panel, fontsize=9)
        for axis in axes[len(found.panels) :]:
            axis.set_axis_off()
        figure.colorbar(image, ax=axes.tolist(), shrink=0.6)
        figure.suptitle(found.title, fontsize=10)
        buffer = BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def write_topomaps(analyses: Iterable[Analysis], folder: Path) -> list[Path]:
    """Write every map of some analyses to `folder`/topomaps; returns the files."""
    written = []
    for analysis in analyses:
        for found in analysis.maps:
            path = folder / FOLDER / f"{analysis.name}.{found.name}.svg"
            write_atomically(path, topomap(found))
            written.append(path)
    return written
