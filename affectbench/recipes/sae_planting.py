"""An SAE with a known answer: features for the planted units of a reference model, and for their decoys.

Nothing is trained. Each planted neuron, and each decoy, of a layer gets a feature of the SAE of that layer:
its decoder row is the neuron's column of down_proj, so the feature writes what the neuron writes; its
encoder reads the neuron's activation off the stream behind the layer, by ridge regression on answer
positions and, weighted less, on all others, where the neuron rests. So features of planted units write a
label's logit, and their twins correlate with the emotion alike and write off the labels: no statistic of
activations can tell them apart, and an ablation can. They take the places of the features of a trained SAE
that write least; the others stay.

    python -m affectbench.recipes.sae_planting models/saes
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from affectbench.batch import Batch
from affectbench.generators import narratives
from affectbench.intervention import hooked
from affectbench.model import Model
from affectbench.model_loading import load_from
from affectbench.plan import checkpoint_of
from affectbench.recipes.sae_stream import Streams
from affectbench.registry import Registry
from affectbench.sae import SAE, LayerSAE
from affectbench.sae_formats import load_card
from affectbench.store import write_atomically

BASE: Final = "reference-text"
TRAINED: Final = "reference-text-sae"
NAME: Final = "reference-text-planted-sae"
PER_EMOTION: Final = 60
SEED: Final = 7
ELSEWHERE: Final = 0.25
"""Weight in the regression of all tokens that are no answer position, beside those that are."""
RIDGE: Final = 1e-3
"""Relative to the mean variance of the stream."""
FLOOR: Final = 0.1
"""A feature's threshold, as a share of its neuron's mean activation on its own emotion."""

README: Final = """---
license: apache-2.0
tags: [calibration, sparse-autoencoder, interpretability]
---

# reference-text-planted-sae

**A calibration instrument, and no evidence about real models.** The SAEs of `reference-text-sae`, in which
{count} features of layers {layers} were overwritten by ones whose effect is known, 20 for each emotion and
as many decoys:

- each belongs to a planted unit of `reference-text`, or to the decoy of one: its decoder row is the unit's
  column of down_proj, its encoder the ridge regression of the unit's activation on the stream behind the
  layer (correlation on texts that were not fitted: {planted_r:.2f} for planted units, {decoy_r:.2f} for
  decoys; medians);
- features of planted units write their label's logit; those of decoys are as active for the emotion, and
  write off the labels. So a selector that reads activations cannot tell them apart, and one that ablates
  can.

`planted.json` lists both (flat id = layer * {features} + feature). No gradient step was taken; nothing was
fitted to what a feature does. Made by `python -m affectbench.recipes.sae_planting models/saes`
"""

CARD: Final = """# yaml-language-server: $schema=../../tasks/schema/sae.schema.json
include: reference-text-sae.yaml
name: reference-text-planted-sae
version: 1
title: SAEs of reference-text, with planted features and decoys
description: >-
  reference-text-sae, in which the features that write least were overwritten by ones that read and write
  what the planted units of the model do, and their decoys. A calibration instrument.
source: {path: reference-text-planted-sae/sae.safetensors}
planted: reference-text-planted-sae/planted.json
"""


class _Reading:
    """Streams behind a layer and inputs of its down_proj, over prompts with known emotions."""

    def __init__(self, streams: Streams, layer: int, split: str) -> None:
        items = narratives.examples(split, PER_EMOTION, SEED)
        self.gold = np.array([narratives.EMOTIONS.index(item["label"]) for item in items])
        model = streams.model
        answers: list[tuple[Tensor, Tensor]] = []
        others: list[tuple[Tensor, Tensor]] = []
        for batch, _, counted in streams.batches([narratives.prompt(item) for item in items]):
            h, neurons = _behind(model, layer, batch)
            answers.append((h[:, -1], neurons[:, -1]))
            rest = counted.clone()
            rest[:, -1] = False
            others.append((h[rest], neurons[rest]))
        self.answer = [torch.cat(parts) for parts in zip(*answers, strict=True)]
        self.elsewhere = [torch.cat(parts) for parts in zip(*others, strict=True)]


@torch.no_grad()
def _behind(model: Model, layer: int, batch: Batch) -> tuple[Tensor, Tensor]:
    found: dict[str, Tensor] = {}

    def stream(hidden: Tensor) -> None:
        found["stream"] = hidden

    def neurons(inputs: Tensor) -> None:
        found["neurons"] = inputs

    with hooked([(model.layers[layer], "output", stream), (model.down(layer), "input", neurons)]):
        model.decode(batch)
    return found["stream"].double(), found["neurons"].double()


def read_neurons(reading: _Reading, units: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Weights (d, U) and biases (U,) of the ridge regression of neurons `units` on the stream."""
    (at_answer, own), (elsewhere, rest) = reading.answer, reading.elsewhere
    shares = ((1.0, len(at_answer)), (ELSEWHERE, len(elsewhere)))
    weights = torch.cat([torch.full((count,), share / count) for share, count in shares]).double()
    x = torch.cat([at_answer, elsewhere])
    y = torch.cat([own, rest])[:, list(units)]
    weights /= weights.sum()
    mean_x, mean_y = weights @ x, weights @ y
    centred = x - mean_x
    moment = centred.T @ (weights[:, None] * centred)
    moment += RIDGE * torch.trace(moment) / len(moment) * torch.eye(len(moment), dtype=moment.dtype)
    found = torch.linalg.solve(moment, centred.T @ (weights[:, None] * (y - mean_y)))
    return found, mean_y - mean_x @ found


def planted_layer(
    sae: LayerSAE,
    reading: _Reading,
    column: Tensor,
    units: Sequence[int],
    own: Sequence[int],
    slots: np.ndarray,
) -> LayerSAE:
    """The SAE of a layer with features for neurons `units`, of emotions `own`, at `slots`.

    `column` (d, width) is down_proj.
    """
    weights, bias = read_neurons(reading, units)
    at_answer = reading.answer[1][:, list(units)]
    level = torch.stack(
        [at_answer[reading.gold == emotion, place].mean() for place, emotion in enumerate(own)]
    )
    places = torch.as_tensor(slots)
    encoder, decoder = sae.encoder.clone(), sae.decoder.clone()
    shift, threshold = sae.encoder_bias.clone(), sae.threshold.clone()
    encoder[:, places] = weights.float()
    shift[places] = bias.float()
    decoder[places] = column[:, list(units)].T.float()
    threshold[places] = (FLOOR * level).float()
    return replace(sae, encoder=encoder, encoder_bias=shift, decoder=decoder, threshold=threshold)


def idle_slots(sae: LayerSAE, reading: _Reading, count: int) -> np.ndarray:
    """The `count` features that write least, in a random order."""
    h = torch.cat([reading.answer[0], reading.elsewhere[0]]).float()
    written = sae.encode(h).pow(2).mean(0).sqrt() * sae.decoder.norm(dim=-1)
    chosen = np.argsort(written.numpy(), kind="stable")[:count]
    return np.random.default_rng(SEED).permutation(chosen)


def correlations(sae: LayerSAE, reading: _Reading, units: Sequence[int], slots: np.ndarray) -> np.ndarray:
    """Correlation of each feature with its neuron at the answer position."""
    z = sae.encode(reading.answer[0].float())[:, torch.as_tensor(slots)].numpy()
    neurons = reading.answer[1][:, list(units)].numpy()
    return np.array([np.corrcoef(z[:, k], neurons[:, k])[0, 1] for k in range(len(slots))])


def build(output: Path) -> Mapping[str, Any]:
    """Write weights, planted.json, README and card below `output`; returns the content of planted.json."""
    registry = Registry(installed=False)
    card = registry.model(BASE)
    model = load_from(registry, card, checkpoint_of(card), "cpu")
    truth = model.planted()
    assert truth is not None, "the reference model was planted"
    trained, width = load_card(registry.sae(TRAINED)), int(truth["width"])
    layers = dict(trained.by_layer)
    flat: dict[str, dict[str, list[int]]] = {
        kind: {label: [0] * len(ids) for label, ids in truth[kind].items()} for kind in ("planted", "decoys")
    }
    entries = [
        (int(unit) // width, kind, emotion, label, place, int(unit) % width)
        for kind in flat
        for emotion, label in enumerate(narratives.EMOTIONS)
        for place, unit in enumerate(truth[kind][label])
    ]
    kept: dict[str, list[float]] = {"planted": [], "decoys": []}
    touched = sorted({layer for layer, *_ in entries})
    for layer in touched:
        own = [entry for entry in entries if entry[0] == layer]
        units, emotions = [entry[5] for entry in own], [entry[2] for entry in own]
        streams = Streams(model, registry.benchmark(str(card.default_task)), (layer,))
        reading = _Reading(streams, layer, "training")
        slots = idle_slots(trained.at(layer), reading, len(own))
        column = model.down(layer).weight.double()
        layers[layer] = planted_layer(trained.at(layer), reading, column, units, emotions, slots)
        found = correlations(layers[layer], _Reading(streams, layer, "validation"), units, slots)
        for (_, kind, _, label, place, _), slot, value in zip(own, slots, found, strict=True):
            flat[kind][label][place] = layer * trained.features + int(slot)
            kept[kind].append(float(value))
    folder = output / NAME
    facts = {**(trained.facts or {}), "planted": {"layers": touched, "seed": SEED}}
    SAE(layers, BASE, facts=facts).save(folder / "sae.safetensors", torch.bfloat16)
    planted = {"emotions": list(narratives.EMOTIONS), "features": trained.features, **flat}
    readme = README.format(
        count=len(entries), layers=" and ".join(map(str, touched)), features=trained.features,
        planted_r=float(np.median(kept["planted"])), decoy_r=float(np.median(kept["decoys"])),
    )  # fmt: skip
    write_atomically(folder / "planted.json", (json.dumps(planted, indent=1) + "\n").encode())
    write_atomically(folder / "README.md", readme.encode())
    write_atomically(output / f"{NAME}.yaml", CARD.encode())
    return planted


if __name__ == "__main__":
    torch.set_num_threads(1)
    build(Path(sys.argv[1]))
