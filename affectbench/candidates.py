"""Log-likelihood of answers of any length, all of an item's in the forward pass that reads its prompt."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from affectbench.batch import Batch, Prepared
from affectbench.branches import branches_of
from affectbench.intervention import ANSWER, VALID
from affectbench.model import Model
from affectbench.readout import Readout


def with_candidates(model: Model, batch: Batch, readout: Readout) -> Batch:
    """`batch` with a column for each of `readout.prefixes`: the tokens that longer answers go through."""
    if not readout.prefixes:
        return batch
    tree = branches_of(readout.prefixes, model.device)
    fed = model.embed(tree.tokens).expand(batch.embeds.shape[0], -1, -1)
    return Batch(
        torch.cat((batch.embeds, fed), dim=1),
        pad(batch.mask, (0, len(tree)), value=True),
        pad(batch.roles, (0, len(tree)), value=VALID | ANSWER),
        tree,
    )


def candidate_scores(model: Model, hidden: Tensor, readout: Readout) -> Tensor:
    """Log-likelihood (rows, C) of each candidate from hidden states (rows, T, d) that end with the answer
    position and the columns of `with_candidates`: the sum over the candidate's tokens."""
    totals = torch.zeros(hidden.shape[0], len(readout.candidates), device=hidden.device)
    columns = hidden[:, -1 - len(readout.prefixes) :]
    # Column by column: the logits of all at once would be as large as everything else together.
    for column, prefix in enumerate([(), *readout.prefixes]):
        follow = [
            (place, tokens[len(prefix)])
            for place, tokens in enumerate(readout.candidates)
            if len(tokens) > len(prefix) and tokens[: len(prefix)] == prefix
        ]
        logits = model.logits(columns[:, column])
        places, tokens = torch.tensor(follow, device=hidden.device).T
        totals[:, places] += logits[:, tokens] - logits.logsumexp(-1, keepdim=True)
    return totals


@torch.no_grad()
def logits_hold(model: Model) -> bool:
    """Whether what is read of `model` are the logits of its own forward: families scale and cap them."""
    prompt = torch.tensor([1, 2, 3])
    item = Prepared("probe", prompt, torch.full((3,), VALID, dtype=torch.uint8))
    found = model.logits(model.decode(model.collate([item])))
    expected = model.network(input_ids=prompt[None].to(model.device), use_cache=False).logits.float()
    rounding = torch.finfo(model.dtype).eps ** 0.5
    return torch.allclose(found, expected, rtol=rounding, atol=rounding, equal_nan=True)


@torch.no_grad()
def branches_hold(model: Model, readout: Readout) -> bool:
    """Whether `model` minds the tree's mask and positions: candidates in one row score as in rows of their
    own. That is not read from names: it is tried out."""
    roles = torch.full((3,), VALID, dtype=torch.uint8)
    prompt = torch.tensor([1, 2, 3])
    batch = with_candidates(model, model.collate([Prepared("probe", prompt, roles)]), readout)
    found = candidate_scores(model, model.decode(batch), readout)[0]
    expected = []
    for tokens in readout.candidates:
        alone = replace(readout, candidates=(tokens,))
        row = torch.cat((prompt, torch.tensor(tokens[:-1], dtype=torch.long)))
        item = Prepared("alone", row, torch.full_like(row, VALID, dtype=torch.uint8))
        expected.append(candidate_scores(model, model.decode(model.collate([item])), alone)[0, 0])
    rounding = torch.finfo(model.dtype).eps ** 0.5
    return torch.allclose(found, torch.stack(expected), rtol=rounding, atol=rounding, equal_nan=True)
