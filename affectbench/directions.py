"""Directions of emotions in the residual stream: what sets an emotion apart from the mean of all.

Two places of a layer hold a direction each: behind its attention (layer input + attention output) and behind
its MLP (the layer's output). Source: arXiv 2510.11328.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from affectbench.errors import AffectbenchError
from affectbench.sites import FloatArray

Mode = Literal["sound", "paper"]
ADJACENT_COSINE = 0.9
"""Neighbouring layers whose directions are at least so alike are stable."""
PUBLISHED_LAYERS = 28
PUBLISHED_STABLE = 21, 26
"""Of the published model's layers, those whose directions make up the reference."""
PUBLISHED_STEERED = 11, 21
"""Of the published model's layers, those that direction steering adds to."""


def grouped_differences(activations: FloatArray) -> FloatArray:
    """Mean over groups of what sets an emotion apart from its group: (G, E, ...) to (E, ...).

    A group holds one item of each emotion, alike in all else (a scenario and its outcome). The differences
    sum to 0 over emotions. They are equal to `differences` of the emotions' means.
    """
    found: FloatArray = (activations - activations.mean(axis=1, keepdims=True)).mean(axis=0)
    return found


def differences(means: FloatArray) -> FloatArray:
    """Each emotion's mean (E, ...) minus the mean over emotions."""
    found: FloatArray = means - means.mean(axis=0, keepdims=True)
    return found


def unit(vectors: FloatArray) -> FloatArray:
    """Vectors (..., d) at length 1; a vector of zeros stays one."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    found: FloatArray = vectors / np.where(length > 0, length, 1)
    return found


def neighbours(directions: FloatArray) -> FloatArray:
    """Cosine (layers - 1,) between neighbouring layers' directions (E, places, layers, d), averaged over
    emotions and places of a layer."""
    directions = unit(directions)
    found: FloatArray = (directions[:, :, 1:] * directions[:, :, :-1]).sum(axis=-1).mean(axis=(0, 1))
    return found


def stable_layers(directions: FloatArray, mode: Mode = "sound") -> range:
    """The layers whose directions (E, places, layers, d) are to stand for all.

    ``sound``: the longest run of layers in which neighbours have a cosine above 0.9, the upper one of equally
    long runs; the two most alike where no two are. ``paper``: layers 21 to 25 of 28, as a share of the depth.
    """
    layers = directions.shape[2]
    if mode == "paper":
        return scaled_layers(*PUBLISHED_STABLE, layers)
    if layers == 1:
        return range(1)
    cosines = neighbours(directions)
    alike = cosines > ADJACENT_COSINE
    if not alike.any():
        lower = int(cosines.argmax())
        return range(lower, lower + 2)
    best = range(0)
    first = 0
    for layer in range(layers):
        if layer and not alike[layer - 1]:
            first = layer
        if layer + 1 - first >= max(len(best), 2):
            best = range(first, layer + 1)
    return best


def scaled_layers(first: int, end: int, layers: int) -> range:
    """Layers `first` to `end` - 1 of the published model as a share of another's depth; at least one."""
    lower = min(round(first / PUBLISHED_LAYERS * layers), layers - 1)
    return range(lower, max(round(end / PUBLISHED_LAYERS * layers), lower + 1))


def middle_layers(layers: int, count: int) -> range:
    """The `count` layers in the middle, the upper ones where there are two middles."""
    first = (layers - count + 1) // 2
    return range(first, first + count)


def aligned(directions: FloatArray, reference: FloatArray) -> FloatArray:
    """Directions (E, ..., d) turned round where they point away from their emotion's `reference` (E, d)."""
    along = np.einsum("e...d,ed->e...", directions, reference)
    return np.where(along[..., None] < 0, -directions, directions)


def reference_directions(directions: FloatArray, layers: range) -> FloatArray:
    """One direction (E, d) for each emotion: the unit sum of its unit directions (E, places, layers, d) over
    both places of `layers`, turned to the side of the lowest one."""
    chosen = unit(directions[:, :, layers.start : layers.stop])
    chosen = aligned(chosen, chosen[:, 0, 0])
    return unit(chosen.sum(axis=(1, 2)))


def check_directions(directions: FloatArray, labels: tuple[str, ...]) -> None:
    """Raise `AffectbenchError` unless every emotion has a finite direction of length above 0 everywhere."""
    length = np.linalg.norm(directions, axis=-1)
    bad = ~(np.isfinite(length) & (length > 0))
    if bad.any():
        emotion, place, layer = (int(part) for part in np.argwhere(bad)[0])
        raise AffectbenchError(
            f"{labels[emotion]!r} has no direction at layer {layer}, place {place}: its items are like all",
            hint="the emotions' items must differ at the positions of the protocol's `statistics`",
        )
