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
from affectbench.journal import Arrays
from affectbench.pieces import Progress
from affectbench.readout import Items

Vectors = npt.NDArray[np.float32]


def answer_vectors(
    engine: Engine, items: Items, points: Sequence[tuple[str, int]], progress: Progress | None = None
) -> Vectors:
    """(N, P, d) float32: the hooked tensor of each (site, layer) of `points` at the answer position.

    For sites of the residual stream (`residual`, `middle`), whose width is the same everywhere. Not finite
    for an item that failed. `progress` hears of the items done. Each batch is a piece: a run that goes on
    where it was stopped takes those that are there.
    """
    found = np.empty((len(items), len(points), engine.model.hidden_width), dtype=np.float32)
    about = "answer vectors", items.digest, repr(list(points))
    for places in engine.batches(items.items, most=len(items)):
        work = partial(_batch, engine, items, places, points)
        got = engine.piece(about, places, work, progress, answers=len(places))
        if got is not None:
            found[places] = got["vectors"]
    return found


def _batch(
    engine: Engine, items: Items, places: list[int], points: Sequence[tuple[str, int]], tell: Progress
) -> Arrays:
    model = engine.model
    seen: dict[int, Tensor] = {}
    hooks = [
        (*model.site_module(site, layer), partial(_keep, seen, place))
        for place, (site, layer) in enumerate(points)
    ]
    with torch.no_grad(), hooked(hooks):
        model.decode(model.collate([items.items[place] for place in places]), last=1)
    engine.spent(len(places))
    vectors = np.stack([seen[place].float().cpu().numpy() for place in range(len(points))], axis=1)
    tell(len(places))
    return {"vectors": vectors}


def _keep(seen: dict[int, Tensor], place: int, value: Tensor) -> None:
    seen[place] = value[:, -1]


def sound(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """(N,) which items have finite vectors (N, ...) throughout."""
    return np.asarray(np.isfinite(vectors).reshape(len(vectors), -1).all(axis=1))
