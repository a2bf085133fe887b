"""Generation under packed edits: one key-value cache, and rows that have ended leave the batch."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from affectbench.batch import Batch, Prefix, select_rows
from affectbench.decoding import Rules
from affectbench.intervention import ANSWER, VALID, PackedEdits
from affectbench.model import Model
from affectbench.readout import FAILED

Spent = Callable[[int], None]
"""Told the rows of each model call."""


@torch.no_grad()
def generate(
    model: Model,
    rows: Batch,
    edits: PackedEdits,
    prefix: Prefix | None,
    max_new_tokens: int,
    spent: Spent,
    rules: Rules | None = None,
) -> Tensor:
    """Continuation (rows, max_new_tokens) of every row under its edits, up to a stop token.

    -1 stands after a row's end, `FAILED` where its logits were not finite. `prefix` brings the keys and
    values of the layers below it. `rules` change logits before the best token is taken.
    """
    hidden, cache = _prefill(model, rows, prefix)
    spent(rows.embeds.shape[0])
    items = rows.roles.shape[0]
    mask = rows.mask
    alive = torch.arange(mask.shape[0], device=mask.device)
    written = torch.full((alive.numel(), max_new_tokens), -1, device=mask.device)
    edits.roles = torch.full((1, 1), VALID | ANSWER, dtype=torch.uint8, device=mask.device)
    for column in range(max_new_tokens):
        logits = model.logits(hidden[:, -1])
        broken = ~torch.isfinite(logits).all(-1)
        logits = logits.nan_to_num()
        if rules is not None:
            logits = rules(logits, alive, written[alive, :column])
        token = logits.argmax(-1)
        ended = broken | torch.isin(token, model.stops)
        written[alive, column] = torch.where(broken, FAILED, torch.where(ended, -1, token))
        going = (~ended).nonzero().squeeze(1)
        if column + 1 == max_new_tokens or going.numel() == 0:
            break
        if going.numel() < alive.numel():
            alive, mask, token = alive[going], mask[going], token[going]
            select_rows(cache.layers, going)
            edits.keep(alive, items)
        mask = pad(mask, (0, 1), value=True)
        hidden = model.decode(Batch(model.embed(token)[:, None], mask, edits.roles), cache=cache)
        spent(alive.numel())
    return written


def _prefill(model: Model, rows: Batch, prefix: Prefix | None) -> tuple[Tensor, Any]:
    """Hidden states of the prompts, and the cache of all layers."""
    cache = model.cache() if rows.before is None else rows.before
    hidden = model.decode(rows, prefix=prefix, cache=cache, last=1)
    if prefix is not None:
        # Only now: while the prompt runs, the cache's lowest layer says how many tokens came before.
        repeated = torch.arange(rows.roles.shape[0], device=rows.mask.device).repeat(
            rows.mask.shape[0] // rows.roles.shape[0]
        )
        for layer, shared in enumerate(prefix.cache.layers[: prefix.layer]):
            cache.layers[layer] = copy(shared)
        select_rows(cache.layers[: prefix.layer], repeated)
    return hidden, cache
