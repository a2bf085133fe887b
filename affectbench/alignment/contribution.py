"""What planted emotion units add to a model's states: simulated listeners hear it where the answer is known.

Only generators may look at what is planted; selectors have to find it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from affectbench.alignment.features import States
from affectbench.alignment.listening import heard
from affectbench.alignment.speech import Piece
from affectbench.errors import AffectbenchError
from affectbench.intervention import scale

if TYPE_CHECKING:
    from affectbench.audio_io import Waveform
    from affectbench.engine import Engine

SITE = "neuron"
"""Where units are planted."""


def contributions(
    engine: Engine,
    pieces: Sequence[Piece],
    sounds: Mapping[str, Waveform],
    states: Sequence[States],
    baseline: str,
) -> list[States]:
    """For each piece of an emotion, what its planted units add: the residual stream `states` less what they
    are with these units switched off. Pieces labelled `baseline` keep their states.

    Raises `AffectbenchError` for a model in which nothing is planted, and for a label that has no units.
    """
    model: Any = engine.model
    truth = model.planted()
    if truth is None:
        raise AffectbenchError(
            f"model {model.card.name} has no planted units",
            hint="`drive: planted-units` needs a model whose card says what is `planted`",
        )
    found = list(states)
    for label in sorted({piece.label for piece in pieces} - {baseline}):
        if label not in truth["planted"]:
            raise AffectbenchError(f"model {model.card.name} has no planted units of {label!r}")
        own = [place for place, piece in enumerate(pieces) if piece.label == label]
        off = scale(SITE, model.shape, np.sort(truth["planted"][label]), 0.0)
        without = heard(engine, [pieces[place] for place in own], sounds, "residual", [off])
        for place, (each,) in zip(own, without, strict=True):
            whole = states[place]
            values = whole.values.astype(np.float64) - each.values
            found[place] = States(whole.points, values, whole.spans)
    return found
