"""The residual stream of every item at its answer position, from which the geometry of emotions follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from affectbench.directions import differences, unit
from affectbench.engine import Engine
from affectbench.intervention import hooked
from affectbench.pieces import Progress
from affectbench.readout import IntArray, Items
from affectbench.sites import MIDDLE, RESIDUAL, FloatArray

PLACES = MIDDLE, RESIDUAL
"""Behind attention and behind the MLP of each layer."""


@dataclass(frozen=True)
class ItemVectors:
    """`vectors` (N, places, layers, d) in float32 of items with `gold` labels (N,), and the `groups` (N,) of
    which they are (a scenario, a document): what items of one group share is no emotion."""

    labels: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    gold: IntArray
    groups: tuple[str, ...]

    def means(self) -> FloatArray:
        """Mean of each emotion's items, (E, places, layers, d)."""
        emotions = range(len(self.labels))
        return np.stack([self.vectors[self.gold == each].mean(axis=0, dtype=np.float64) for each in emotions])

    def directions(self) -> FloatArray:
        """Unit directions (E, places, layers, d): each emotion's mean minus the mean over emotions."""
        return unit(differences(self.means()))

    def complete(self) -> ItemVectors:
        """The items of those groups that have an item of every emotion."""
        seen: dict[str, set[int]] = {}
        for group, emotion in zip(self.groups, self.gold.tolist(), strict=True):
            seen.setdefault(group, set()).add(emotion)
        whole = {group for group, emotions in seen.items() if len(emotions) == len(self.labels)}
        return self.at([place for place, group in enumerate(self.groups) if group in whole])

    def at(self, places: list[int]) -> ItemVectors:
        """The items at these places."""
        groups = tuple(self.groups[place] for place in places)
        return ItemVectors(self.labels, self.vectors[places], self.gold[places], groups)


def item_vectors(
    engine: Engine, items: Items, labels: tuple[str, ...], progress: Progress | None = None
) -> ItemVectors:
    """One pass over `items`; the answer position's residual stream behind each attention and each MLP.

    4 x 2 x layers x d bytes are kept for an item. `progress` is called with the number of items just done.
    Raises `AffectbenchError` where the model has no such places.
    """
    model = engine.model
    layers, width = model.site_shape(RESIDUAL).layers, model.site_shape(RESIDUAL).size
    found = np.empty((len(items), len(PLACES), layers, width), dtype=np.float32)
    for places in engine.batches(items.items):
        with engine.taking(places, progress) as tell:
            seen: dict[tuple[int, int], Tensor] = {}
            hooks = [
                (*model.site_module(site, layer), _keeper(seen, place, layer))
                for place, site in enumerate(PLACES)
                for layer in range(layers)
            ]
            with torch.no_grad(), hooked(hooks):
                model.decode(model.collate([items.items[place] for place in places]), last=1)
            engine.spent(len(places))
            for (place, layer), value in seen.items():
                found[places, place, layer] = value.float().cpu().numpy()
            tell(len(places))
    return ItemVectors(labels, found, items.gold, items.clusters)


def _keeper(seen: dict[tuple[int, int], Tensor], place: int, layer: int) -> Callable[[Tensor], None]:
    def keep(value: Tensor) -> None:
        seen[place, layer] = value[:, -1]

    return keep
