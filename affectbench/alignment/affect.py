"""Which pieces are affective and which are not: by their labels, or by a weak guess from their sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from affectbench.alignment.acoustics import weak_affect
from affectbench.alignment.speech import Piece
from affectbench.alignment_task import AlignmentTask
from affectbench.audio_io import Waveform
from affectbench.errors import AffectbenchError
from affectbench.selector import Selection

AFFECTIVE, CALM, BETWEEN = "affective", "calm", "between"
NEUTRAL = "neutral"
"""What tasks of emotion recognition call none."""
WEAK = (
    "Affect is a weak guess: nobody labelled these pieces. Affective are the third of them with the highest "
    "arousal by pitch, loudness and spread of pitch (mean z scores), calm the third with the lowest; the "
    "rest counts for neither. A selector's units of all emotions are switched off together."
)


@dataclass(frozen=True)
class Affect:
    """The affect of each piece, `labels` (pieces,), and the one that others are contrasted with."""

    labels: np.ndarray
    baseline: str


def affect_of(pieces: Sequence[Piece], sounds: Mapping[str, Waveform], task: AlignmentTask) -> Affect:
    """What a task says of its pieces. Raises `AffectbenchError` where no piece has the label of its
    baseline, or none another one."""
    if task.affect == "weak":
        arousal = weak_affect([piece.sound(sounds[piece.segment]) for piece in pieces])[:, 0]
        low, high = np.quantile(arousal, [1 / 3, 2 / 3])
        return Affect(np.where(arousal >= high, AFFECTIVE, np.where(arousal <= low, CALM, BETWEEN)), CALM)
    labels = np.array([piece.label for piece in pieces])
    if not (labels == task.baseline).any() or not task.baseline:
        raise AffectbenchError(
            f"task {task.name}: no piece is labelled {task.baseline!r}",
            hint="`baseline` names the affect that others are contrasted with; where nobody labelled pieces, "
            "`affect: weak` guesses it from their sound",
        )
    return Affect(labels, task.baseline)


def all_emotions(selection: Selection) -> Selection:
    """The units of all emotions as those of one, `AFFECTIVE`; those of "neutral" are left out."""
    sets = zip(selection.labels, selection.units, strict=True)
    union = np.unique(np.concatenate([units for label, units in sets if label != NEUTRAL]))
    return Selection(selection.site, selection.shape, (AFFECTIVE,), (union,))
