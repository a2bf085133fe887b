"""Shuffled weights: a control model with the sizes and statistics of another, and nothing that it learned."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


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
