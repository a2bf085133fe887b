"""Answers of several tokens: greedy generation and candidates' tails, on packed rows under their edits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from affectbench.intervention import ANSWER, VALID, PackedEdits
from affectbench.model import Batch, Model
from affectbench.readout import FAILED, Readout

Spent = Callable[[int], None]
"""Told the rows of each model call."""


def candidate_scores(model: Model, rows: Batch, edits: PackedEdits, readout: Readout, spent: Spent) -> Tensor:
    """Log-likelihood (rows, C) of candidates of several tokens: the prompt runs once, each candidate's
    further tokens are fed to its cache, which is cropped back afterwards."""
    hidden, cache = _prefill(model, rows, spent)
    totals = readout.first_scores(model.logits(hidden[:, -1]))
    for place, tokens in enumerate(readout.candidates):
        if len(tokens) == 1:
            continue
        fed = torch.tensor(tokens[:-1], device=model.device)
        step = _step(model, rows, edits, model.embed(fed).expand(rows.mask.shape[0], -1, -1), cache, spent)
        logits = model.logits(step).log_softmax(-1)
        wanted = torch.tensor(tokens[1:], device=model.device)
        totals[:, place] += logits[:, torch.arange(len(wanted)), wanted].sum(-1)
        cache.crop(-len(fed))
    return totals


def generate(model: Model, rows: Batch, edits: PackedEdits, max_new_tokens: int, spent: Spent) -> Tensor:
    """Greedy continuation (rows, n) of every row under its edits.

    -1 stands after a row's end, `FAILED` where its logits were not finite.
    """
    hidden, cache = _prefill(model, rows, spent)
    eos = model.tokenizer.eos_token_id
    ended = torch.zeros(rows.mask.shape[0], dtype=torch.bool, device=model.device)
    written: list[Tensor] = []
    mask = rows.mask
    for _ in range(max_new_tokens):
        logits = model.logits(hidden[:, -1])
        broken = ~torch.isfinite(logits).all(-1) & ~ended
        token = logits.nan_to_num().argmax(-1)
        ended = ended | broken | (token == (-1 if eos is None else eos))
        written.append(torch.where(ended, torch.where(broken, FAILED, -1), token))
        if bool(ended.all()) or len(written) == max_new_tokens:
            break
        hidden = _step(
            model, Batch(rows.embeds, mask, rows.roles), edits, model.embed(token)[:, None], cache, spent
        )
        mask = torch.nn.functional.pad(mask, (0, 1), value=True)
    return torch.stack(written, dim=1)


def _prefill(model: Model, rows: Batch, spent: Spent) -> tuple[Tensor, Any]:
    from transformers import DynamicCache

    cache = DynamicCache(config=model.text_config)
    hidden = model.decode(rows, cache=cache, last=1)
    spent(rows.embeds.shape[0])
    return hidden, cache


def _step(model: Model, rows: Batch, edits: PackedEdits, embeds: Tensor, cache: Any, spent: Spent) -> Tensor:
    """Feed further answer tokens (rows, n, d) to a cache that holds `rows.mask` columns."""
    new = embeds.shape[1]
    edits.roles = torch.full(
        (rows.roles.shape[0], new), VALID | ANSWER, dtype=torch.uint8, device=embeds.device
    )
    mask = torch.nn.functional.pad(rows.mask, (0, new), value=True)
    hidden = model.decode(Batch(embeds, mask, edits.roles), cache=cache)
    spent(embeds.shape[0])
    return hidden
