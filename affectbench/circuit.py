"""Emotion circuits: which neurons and heads write an emotion's direction, and how much each sublayer matters.

Everything here is arithmetic on means that the evidence pass has collected, and on what units write into the
residual stream. Source: arXiv 2510.11328; what differs from its code is said where it does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from affectbench.directions import Mode, aligned, reference_directions, stable_layers, unit
from affectbench.errors import AffectbenchError
from affectbench.sites import FloatArray, UnitArray

STRENGTHS = 0.1, 0.3, 0.5, 0.7
"""Doses at which a sublayer's influence is measured, in units of the residual stream's size there."""
ATTENTION_PLACE, MLP_PLACE = 0, 1
"""Places of a layer: behind its attention, behind its MLP."""


def contributions(activations: FloatArray, writes: FloatArray, directions: FloatArray) -> FloatArray:
    """What every channel of a sublayer adds along an emotion's direction: (E, channels) of one layer.

    ``c[e, n] = a[e, n] * (writes[n] . v[e])`` for `activations` (E, channels), `writes` (channels, d) and
    `directions` (E, d). Over all channels it sums to v . (what the sublayer writes): nothing is left over.
    For neurons `writes` are the columns of down_proj, and it is linear in the activation, so that the mean
    over items of an emotion needs no more than its mean activation.
    """
    found: FloatArray = activations * (directions @ writes.T)
    return found


def head_contributions(
    activations: FloatArray, writes: FloatArray, directions: FloatArray, heads: int
) -> FloatArray:
    """As `contributions` for the input of o_proj, summed over each head's channels: (E, heads).

    That is by how much the projection on the direction behind the layer's attention falls when the head is
    zeroed: nothing below changes and o_proj is linear, so one pass shows it for all heads. The published code
    runs the model again for each head, and projects behind the norm that follows, where the direction was not
    taken.
    """
    found = contributions(activations, writes, directions)
    total: FloatArray = found.reshape(len(found), heads, -1).sum(axis=-1)
    return total


class Frame(NamedTuple):
    """The directions of a model: `local` (E, places, layers, d) of length 1, on the side of the `reference`
    (E, d), which is made up of the `stable` layers."""

    local: FloatArray
    reference: FloatArray
    stable: range


def frame(directions: FloatArray, mode: Mode = "sound") -> Frame:
    """The frame that directions (E, places, layers, d) give."""
    stable = stable_layers(directions, mode)
    reference = reference_directions(directions, stable)
    return Frame(aligned(unit(directions), reference), reference, stable)


def influence(injected: FloatArray, base: FloatArray, doses: FloatArray) -> FloatArray:
    """How far a unit step along a sublayer's direction moves the end of the residual stream along the
    emotion's reference: (E, places, layers).

    `injected` (E, places, layers, strengths) and `base` (E,) are mean projections on the reference, `doses`
    (places, layers, strengths) the lengths of what was added. Averaged over strengths. A place that the
    stream does not reach (dose 0: all items are zero there) has no influence.
    """
    moved = injected - base[:, None, None, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        found: FloatArray = np.where(doses > 0, moved / doses, 0.0).mean(axis=-1)
    return found


def best_of_layers(scores: FloatArray, counts: UnitArray) -> UnitArray:
    """Flat indices of the `counts` (layers,) best units of each layer by `scores` (layers, width), best first
    over all layers; ties go to the lower (layer, unit)."""
    layers, width = scores.shape
    if counts.shape != (layers,):
        raise AffectbenchError(f"{counts.size} counts for {layers} layers", hint="one count for each layer")
    chosen = np.concatenate(
        [
            layer * width + np.sort(np.argsort(-row, kind="stable")[:count])
            for layer, (row, count) in enumerate(zip(scores, counts, strict=True))
        ]
    ).astype(np.int64)
    return chosen[np.argsort(-scores.ravel()[chosen], kind="stable")]
