"""What arXiv 2601.16540 reports, asked of these results: depth, the window of 250-500 ms, negative prosody.

Its first finding, that the ranking of models depends on the measure, is in `over_models`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from affectbench.alignment.contrasts import NEGATIVE, contrasts, sizes
from affectbench.alignment.grid import COMPONENTS
from affectbench.alignment.group import estimate_of, over_subjects, peak
from affectbench.alignment.rdm import FloatArray
from affectbench.analysis import Finding

if TYPE_CHECKING:
    from affectbench.alignment.study_alignment import Found

LATE = (0.25, 0.5)
SAID = {"geometric": "lower", "covariance": "higher"}
"""What the paper says of negative prosody, by family of measures."""


def published(model: str, found: Found, seed: int) -> list[Finding]:
    """The findings that are about one model, of `model`, whatever they turn out to be."""
    (_, points), _ = found.at_peak(0)
    depth = np.asarray(points / max(1, len(found.points) - 1), dtype=np.float64)
    title = found.comparison.references[0].measure.title
    late = late_window(found.kept["windows"])
    asked = [
        Finding(
            name="depth-peak",
            text=f"{title} of {model} peaks at this relative depth (0: what enters the decoder, 1: its last "
            "layer; cross-validated). The paper: peaks depend on depth.",
            value=estimate_of(depth, seed=seed),
        ),
        _tested(
            "late-window",
            f"Partial RSA of {model} over words, 250-500 ms after their onset less the windows before. The "
            "paper: a rise, counted from the onset of sentences.",
            late, seed,
        ),
    ]  # fmt: skip
    masks = contrasts(found).get(NEGATIVE)
    if masks is None:
        return asked
    measured = sizes(found, *masks)
    for family, said in SAID.items():
        values = [each for (_, own), each in measured.items() if own == family]
        if values:
            text = (
                f"Negative prosody (lowest third of weak sentiment): {int(masks[0].sum())} pieces against "
                f"{int(masks[1].sum())} others, all where acoustics, EEG and {model} agree: {family} "
                f"measures, Hedges' g within subjects. The paper: {said}."
            )
            asked.append(_tested(f"negative-prosody-{family}", text, np.mean(values, axis=0), seed))
    return asked


def late_window(windows: FloatArray) -> FloatArray:
    """Of `windows` (subjects, windows, points) the one from 250 to 500 ms less the mean of those that end
    before it, (subjects,), at the layer where the mean over windows of the other subjects is highest."""
    points, _ = peak(windows.mean(axis=1))
    own = windows[np.arange(len(windows)), :, points]
    spans = [(each.start, each.end) for each in COMPONENTS]
    before = [place for place, (_, end) in enumerate(spans) if end <= LATE[0]]
    return np.asarray(own[:, spans.index(LATE)] - own[:, before].mean(axis=1))


def _tested(name: str, text: str, values: FloatArray, seed: int) -> Finding:
    return Finding(
        name=name, text=text, value=estimate_of(values, seed=seed),
        p=float(over_subjects(values, seed=seed).p),
    )  # fmt: skip
