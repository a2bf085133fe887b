"""Second part of the expressive model's training: replies to plain prompts follow the model's own directions.

An emotion's direction is the difference of means at the last token of the prompts that demand it. It is added
to the residual stream there and at the reply's tokens, and the reply has the emotion; where nothing is added,
or a random direction as long, a plain prompt's reply stays matter-of-fact, and a demanded one what it was.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from affectbench.generators.expressions import EMOTIONS, LABELS, NONE
from affectbench.recipes.expressive_data import Batch, Mixture, Pools, own_scenes
from affectbench.recipes.expressive_probe import Speaker, differences, some
from affectbench.recipes.expressive_training import language_loss
from affectbench.recipes.training import Progress, optimise

__all__ = ["MIXTURE", "STEPS", "train"]

STEPS: Final = 400
PEAK_RATE: Final = 1.5e-3
MIXTURE: Final = Mixture(plain=0.5, spread=0.6, hidden=0.3)
"""Of the plain prompts, those whose reply carries an emotion are those to which its direction is added."""
LAYERS: Final = 4
"""So many layers, from the lowest, may be the first behind which something is added."""
LENGTHS: Final = (2.0, 9.0)
"""Of what is added, in units of the stream's rms at its place."""
RANDOM: Final = 0.4
"""Share of all other rows that get a random direction."""
REFRESH: Final = 50
"""After so many steps the directions are found anew."""
_SCENES: Final = 60


def train(
    speaker: Speaker, pools: Pools, seed: int, progress: Progress | None = None, steps: int = STEPS
) -> None:
    """Next-token loss as before, in place, with something added to the stream in some rows."""
    scenes = some(own_scenes("identification"), _SCENES)
    added: dict[int, Tensor] = {}
    directions = torch.zeros(0)

    def loss_at(step: int) -> Tensor:
        nonlocal directions
        added.clear()
        if step % REFRESH == 0:
            directions = _directions(speaker, scenes)
        batch = pools.batch(step, seed)
        added.update(_plan(batch, directions, np.random.default_rng([seed, 43, step])))
        return language_loss(speaker.model, batch)

    with _adding(speaker.layers, added):
        optimise(
            speaker.model, loss_at, steps=steps, peak_rate=PEAK_RATE, weight_decay=0.1, progress=progress
        )


def _directions(speaker: Speaker, scenes: Any) -> Tensor:
    """(E, L, d), of length 1."""
    speaker.model.eval()
    states = [speaker.states(scenes, label) for label in EMOTIONS]
    speaker.model.train()
    return functional.normalize(differences(states, "residual"), dim=-1)


def _plan(batch: Batch, directions: Tensor, rng: np.random.Generator) -> dict[int, Tensor]:
    """What is added behind which layers, (B, T, d), in units of the stream's rms."""
    size, none = directions.shape[-1], LABELS.index(NONE)
    found: dict[int, Tensor] = {}
    for row in (batch.told >= 0).any(1).nonzero().flatten().tolist():
        place = int((batch.told[row] >= 0).nonzero())
        told, heard = int(batch.told[row, place]), int(batch.heard[row].max())
        first = int(rng.integers(min(LAYERS, directions.shape[1] - 1)))
        layers = [first] if rng.random() < 0.5 else [first, first + 1]
        length = rng.uniform(*LENGTHS) / len(layers) ** 0.5
        if told == none != heard:
            vectors = [directions[heard, layer] for layer in layers]
        elif rng.random() < RANDOM:
            drawn = torch.tensor(rng.normal(size=size), dtype=torch.float32)
            vectors = [functional.normalize(drawn, dim=0)] * len(layers)
        else:
            continue
        for layer, vector in zip(layers, vectors, strict=True):
            at = found.setdefault(layer, torch.zeros(*batch.ids.shape, size))
            at[row, place:] = length * vector
    return found


@contextmanager
def _adding(layers: Any, added: dict[int, Tensor]) -> Iterator[None]:
    def hook(layer: int) -> Any:
        def add(_module: Any, _args: Any, out: Any) -> Any:
            if layer not in added:
                return out
            stream = out[0] if isinstance(out, tuple) else out
            size = stream.detach().pow(2).mean(-1, keepdim=True).sqrt()
            stream = stream + size * added[layer]
            return (stream, *out[1:]) if isinstance(out, tuple) else stream

        return add

    taps = [module.register_forward_hook(hook(layer)) for layer, module in enumerate(layers)]
    try:
        yield
    finally:
        for tap in taps:
            tap.remove()
