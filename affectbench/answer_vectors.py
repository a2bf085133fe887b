"""What is at an item's answer position in the residual stream, for analyses of many items at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from affectbench.engine import Engine
from affectbench.intervention import hooked
from affectbench.pieces import Progress
from affectbench.readout import Items

Vectors = npt.NDArray[np.float32]


def answer_vectors(
    engine: Engine, items: Items, points: Sequence[tuple[str, int]], progress: Progress | None = None
) -> Vectors:
    """(N, P, d) float32: the hooked tensor of each (site, layer) of `points` at the answer position.

    For sites of the residual stream (`residual`, `middle`), whose width is the same everywhere. Not finite
    for an item that failed. `progress` hears of the items done.
    """
    model = engine.model
    found = np.empty((len(items), len(points), model.hidden_width), dtype=np.float32)
    for places in engine.batches(items.items, most=len(items)):
        with engine.taking(places, progress) as tell:
            seen: dict[int, Tensor] = {}
            hooks = [
                (*model.site_module(site, layer), partial(_keep, seen, place))
                for place, (site, layer) in enumerate(points)
            ]
            with torch.no_grad(), hooked(hooks):
                model.decode(model.collate([items.items[place] for place in places]), last=1)
            engine.spent(len(places))
            for place, value in seen.items():
                found[places, place] = value.float().cpu().numpy()
            tell(len(places))
    return found


def _keep(seen: dict[int, Tensor], place: int, value: Tensor) -> None:
    seen[place] = value[:, -1]


def sound(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """(N,) which items have finite vectors (N, ...) throughout."""
    return np.asarray(np.isfinite(vectors).reshape(len(vectors), -1).all(axis=1))
