"""How far the residual stream at the answer position lies along given vectors, under interventions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from affectbench.batch import Batch, Prefix
from affectbench.engine import Engine
from affectbench.identity import digest_of
from affectbench.intervention import Intervention, PackedEdits, hooked
from affectbench.journal import Arrays
from affectbench.pieces import ITEMS_A_BATCH, Progress
from affectbench.readout import Items
from affectbench.sites import FloatArray


def projections(
    engine: Engine,
    items: Items,
    interventions: Sequence[Intervention],
    vectors: FloatArray,
    progress: Progress | None = None,
) -> FloatArray:
    """Dot products (K, N, V) of the last layer's output at the answer position, before the final norm, with
    `vectors` (V, d): of item n under intervention k, packed as answers are. NaN for an item that failed."""
    found = np.full((len(interventions), len(items), len(vectors)), np.nan)
    under = digest_of(intervention.digest for intervention in interventions)
    about = "projections", items.digest, digest_of([vectors.astype("<f8").tobytes().hex()]), under
    times = len(interventions)
    for places in engine.batches(items.items, times=times, most=ITEMS_A_BATCH if times > 1 else len(items)):
        work = partial(_batch, engine, items, places, list(interventions), vectors)
        got = engine.piece(about, places, work, progress, answers=times * len(places))
        if got is not None:
            found[:, places] = got["projections"]
    return found


def _batch(
    engine: Engine,
    items: Items,
    places: list[int],
    interventions: list[Intervention],
    vectors: FloatArray,
    tell: Progress,
) -> Arrays:
    model = engine.model
    along = torch.as_tensor(vectors, dtype=torch.float32, device=model.device).T
    found = np.full((len(interventions), len(places), len(vectors)), np.nan)

    def read(rows: Batch, _edits: PackedEdits, prefix: Prefix | None) -> Tensor:
        seen: list[Tensor] = []
        with hooked([(model.layers[-1], "output", lambda hidden: seen.append(hidden[:, -1]))]):
            model.decode(rows, prefix=prefix, last=1)
        engine.spent(rows.embeds.shape[0])
        return seen[-1].float().to(along.device) @ along

    batch = model.collate([items.items[place] for place in places])
    for chosen, rows in engine.sweep(batch, interventions, read, last=1):
        found[chosen] = rows.cpu().numpy().reshape(len(chosen), len(places), -1)
        tell(len(chosen) * len(places))
    return {"projections": found}
