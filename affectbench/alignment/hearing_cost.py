"""What it takes a model to hear: a forward pass timed where its weights are here, else its operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from affectbench.audio_io import SAMPLE_RATE
from affectbench.errors import AffectbenchError
from affectbench.model_card import BYTES

if TYPE_CHECKING:
    from affectbench.engine import Engine
    from affectbench.registry import Registry

Clock = Callable[[Callable[[], object]], float]
WIDTH, INTERMEDIATE, TOKENS_A_SECOND = 4096, 11008, 25.0
"""Of the larger models of arXiv 2601.16540: channels of a layer and of its MLP, tokens of a sound."""
TOWER_S, TOWER = 30.0, 2.3e12
"""Whisper large's encoder, behind which most of them hear: seconds of its window, and its operations for one
(637 million weights at 1,500 steps, and attention over these)."""
SAMPLE_TOKENS, SAMPLE_WIDTH = 128, 2048
"""The matrix product by which speed is measured."""


class Hearer(Protocol):
    """A model, as far as a plan needs it."""

    @property
    def weights(self) -> float:
        """Bytes of its weights."""

    @property
    def basis(self) -> str:
        """Where its seconds are from."""

    def seconds(self, sound: float, clock: Clock) -> float:
        """What hearing that many seconds of sound takes."""


@dataclass(frozen=True)
class OnPaper:
    """A decoder of some size behind Whisper large's encoder; its matrix products are counted."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    parameters: int
    dtype: str = "bfloat16"
    device: str = "cpu"

    @property
    def weights(self) -> float:
        return float(self.parameters * BYTES[self.dtype])

    @property
    def basis(self) -> str:
        return (
            f"operations of {self.name} ({self.layers} layers x {self.hidden:,} behind Whisper large's "
            f"encoder), at the speed of a {self.dtype} product on {self.device}"
        )

    def operations(self, sound: float) -> float:
        """Of one forward pass."""
        token = self.layers * (4 * self.hidden**2 + 3 * self.hidden * self.intermediate)
        return 2.0 * TOKENS_A_SECOND * sound * token + ceil(sound / TOWER_S) * TOWER

    def seconds(self, sound: float, clock: Clock) -> float:
        return self.operations(sound) / _speed(self.dtype, self.device, clock)


def _speed(dtype: str, device: str, clock: Clock) -> float:
    """Operations a second of a product of some tokens with a matrix of weights."""
    import torch

    options: Any = {"device": device, "dtype": getattr(torch, dtype)}
    try:
        left, right = (torch.ones(rows, SAMPLE_WIDTH, **options) for rows in (SAMPLE_TOKENS, SAMPLE_WIDTH))
    except (RuntimeError, AssertionError) as error:
        raise AffectbenchError(
            f"device {device!r} cannot be used: {str(error).splitlines()[0]}", hint="--device cpu"
        ) from error

    def product() -> None:
        found = torch.nn.functional.linear(left, right)
        float(found[0, 0])  # A GPU is done when a number of it is here.

    return 2.0 * SAMPLE_TOKENS * SAMPLE_WIDTH**2 / clock(product)


@dataclass(frozen=True)
class Loaded:
    """A model that is on this machine; it hears noise."""

    engine: Engine

    @property
    def weights(self) -> float:
        network: Any = self.engine.model.network
        return float(sum(each.numel() * each.element_size() for each in network.parameters()))

    @property
    def basis(self) -> str:
        return f"forward passes of {self.engine.model.card.name}, timed"

    def seconds(self, sound: float, clock: Clock) -> float:
        from affectbench.alignment.features import hidden_states, prepared

        samples = max(round(sound * SAMPLE_RATE), SAMPLE_RATE // 2)
        noise = 0.1 * np.random.default_rng(0).standard_normal(samples).astype(np.float32)
        model: Any = self.engine.model
        return clock(lambda: hidden_states(self.engine, prepared(model, "noise", noise), samples))


def of_the_paper(layers: int, device: str) -> OnPaper:
    """The larger ones of arXiv 2601.16540, with so many layers."""
    parameters = layers * (4 * WIDTH**2 + 3 * WIDTH * INTERMEDIATE)
    return OnPaper("a model of the paper", layers, WIDTH, INTERMEDIATE, parameters, device=device)


def hearer(registry: Registry, name: str, device: str) -> Hearer:
    """A model by its card: timed where its weights are on this machine, else counted by the card's `sizes`.

    Raises `AffectbenchError` where neither can be.
    """
    from affectbench.engine import Engine
    from affectbench.model_loading import load_from
    from affectbench.plan import card_of, checkpoint_of

    card = card_of(registry, name)
    source = checkpoint_of(card)
    if Path(source).is_dir():
        return Loaded(Engine(load_from(registry, card, source, device)))
    sizes = card.sizes
    if not (sizes.parameters and sizes.layers and sizes.hidden and sizes.intermediate):
        raise AffectbenchError(
            f"model {name}: its weights are not here, and its card does not say all `sizes`",
            hint="fetch the checkpoint, or add parameters, layers, hidden and intermediate to the card",
        )
    return OnPaper(name, sizes.layers, sizes.hidden, sizes.intermediate, sizes.parameters, card.dtype, device)
