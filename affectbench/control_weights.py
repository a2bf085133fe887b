"""Control models: the architecture of another, with weights that hold nothing of what it learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from affectbench.errors import AffectbenchError
from affectbench.model_card import ModelCard


def control_weights(network: nn.Module, card: ModelCard) -> None:
    """What a card's `shuffled` or `untrained` says, in place; nothing where it has neither."""
    if card.shuffled is not None:
        shuffle_weights(network, card.shuffled)
    if card.untrained is not None:
        initialise_weights(network, card.untrained)


@torch.no_grad()
def shuffle_weights(network: nn.Module, seed: int) -> None:
    """Permute the entries of each weight of a network among themselves, in place.

    The order follows from `seed` and the place of the weight among `parameters()`; a weight that several
    modules share is permuted once. Buffers (positions, filters of sound) stay.
    """
    for place, weight in enumerate(network.parameters()):
        order = np.random.default_rng([seed, place]).permutation(weight.numel())
        chosen = torch.from_numpy(order).to(weight.device)
        weight.copy_(weight.reshape(-1)[chosen].reshape(weight.shape))


@torch.no_grad()
def initialise_weights(network: nn.Module, seed: int) -> None:
    """Draw all weights anew, in place, as if the network had never been trained: by the rule of its class.

    The state of torch's generators is what it was afterwards. Raises `AffectbenchError` for a network whose
    class has no such rule: only those of transformers have one.
    """
    initialise: Any = getattr(network, "initialize_weights", None)
    if initialise is None:
        raise AffectbenchError(
            f"{type(network).__name__} has no rule for fresh weights", hint="use `shuffled` in its place"
        )
    for each in (*network.modules(), *network.parameters()):
        if hasattr(each, "_is_hf_initialized"):  # transformers' mark of what came from a checkpoint.
            del each._is_hf_initialized
    devices = sorted({weight.device.index for weight in network.parameters() if weight.is_cuda})
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        initialise()
