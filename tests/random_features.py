"""A dictionary of random features, for tests of everything that reads or edits features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class RandomLayer:
    """ReLU features of one layer."""

    encoder: Tensor
    encoder_bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor

    def encode(self, hidden: Tensor, features: Tensor | None = None) -> Tensor:
        found = torch.relu(hidden.float() @ self.encoder + self.encoder_bias)
        return found if features is None else found[..., features]

    def to(self, device: Any) -> RandomLayer:
        moved = {name: value.to(device) for name, value in vars(self).items()}
        return replace(self, **moved)


class RandomFeatures:
    """Random features of some layers."""

    name = "random-features"
    digest = "random"

    def __init__(self, width: int, features: int, layers: tuple[int, ...], seed: int = 0) -> None:
        self.width, self.features, self.layers = width, features, layers
        made = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=made)

        self._layers = {
            layer: RandomLayer(
                normal(width, features), normal(features) * 0.1, normal(features, width) * 0.05, normal(width)
            )
            for layer in layers
        }

    def at(self, layer: int) -> RandomLayer:
        return self._layers[layer]

    def planted(self) -> Mapping[str, Any] | None:
        return None
