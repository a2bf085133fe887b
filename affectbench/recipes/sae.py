"""Trains SAEs on a wrapped model, measures them, and writes weights, README and card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from affectbench.dataset import Dataset
from affectbench.model import Model
from affectbench.recipes.sae_report import Quality, facts_of, measure, table
from affectbench.recipes.sae_stream import Streams, Texts, texts_of
from affectbench.recipes.sae_training import Options, train
from affectbench.recipes.training import seed_everything
from affectbench.sae import SAE, SAEError
from affectbench.store import write_atomically
from affectbench.task import Benchmark

WEIGHTS = "sae.safetensors"
Told = Callable[[str, int, int, str], None]
"""Told what is being done, how much of it is done, of how much, and a word on how it goes."""

README = """---
license: {licence}
tags: [sparse-autoencoder, interpretability]
---

# {name}

{features} JumpReLU features after each of layers {layers} of `{model}`, trained with BatchTopK ({active}
active a token on average) on {tokens:,} tokens: {n_training} texts, the prompts of `{task}` (identification
split) and neutral text.

Measured on {n_measured} other texts (prompts of the validation split, other neutral text):

{table}
Explained variance of the stream after the layer; L0, the features active on a token; dead, the share active
on none; loss recovered, where 1 is the model's own next-token loss and 0 that with the stream put to zero.
Losses in nats.

The features are what training found, without labels; that one is active for an emotion is no evidence that
it does anything. In bfloat16. Made by `{command}`
"""

CARD = """# yaml-language-server: $schema=../../tasks/schema/sae.schema.json
kind: sae
name: {name}
version: 1
title: SAEs of {model}
description: >-
  JumpReLU SAEs after every trained layer, made with train-sae on {task}; figures are in the README beside
  the weights.
base: {model}
hook: resid_post
layers: {layers}
width: {width}
features: {features}
activation: jumprelu
source: {{reader: files, format: affectbench, path: {name}/{weights}}}
licence: {licence}
"""


@dataclass(frozen=True)
class Request:
    """What `train-sae` was asked for. `layers`: None for all. `output` takes NAME.yaml and the folder."""

    name: str
    output: Path
    options: Options
    layers: tuple[int, ...] | None
    texts: tuple[Path, ...]
    command: str

    @property
    def folder(self) -> Path:
        return self.output / self.name


def build(
    model: Model, benchmark: Benchmark, dataset: Dataset, model_digest: str, request: Request, told: Told
) -> tuple[SAE, list[Quality]]:
    """Train, measure and write; a run that was killed goes on where it stood.

    Raises `AffectbenchError` for a layer that does not exist, for bad texts, or a loss that is not finite.
    """
    seed_everything(request.options.seed, torch.get_num_threads())
    layers = request.layers or tuple(range(len(model.layers)))
    for layer in layers:
        if not 0 <= layer < len(model.layers):
            raise SAEError(
                f"--layers: {model.card.name} has no layer {layer}", hint=f"0 to {len(model.layers) - 1}"
            )
    texts = texts_of(benchmark, dataset, request.texts, request.options.seed)
    streams = Streams(model, benchmark, layers)
    state = request.folder / "training.safetensors"
    trainer = train(
        streams, texts.training, request.options, state, (model_digest, _digest(texts)),
        lambda done, total, loss: told("training", done, total, f"loss {loss:.3f}"),
    )  # fmt: skip
    made = SAE(dict(zip(layers, trainer.saes(), strict=True)), model.card.name)
    rounded = SAE({layer: made.at(layer).to(dtype=torch.bfloat16) for layer in layers}, made.base)
    qualities = measure(
        streams, rounded, texts.measured, lambda done, total: told("measuring", done, total, "")
    )
    training = {
        "model": model_digest, "task": benchmark.name, **asdict(request.options),
        "norm_factors": [float(scale) for scale in trainer.scale],
    }  # fmt: skip
    facts = {"training": training, "quality": facts_of(qualities)}
    saved = SAE(made.by_layer, made.base, facts=facts).save(request.folder / WEIGHTS, torch.bfloat16)
    _write_words(request, saved, model, benchmark, texts, qualities)
    state.unlink(missing_ok=True)
    return saved, qualities


def _digest(texts: Texts) -> str:
    from affectbench.identity import digest_of

    return digest_of(each if isinstance(each, str) else each.id for each in texts.training)


def _write_words(
    request: Request,
    saved: SAE,
    model: Model,
    benchmark: Benchmark,
    texts: Texts,
    qualities: Sequence[Quality],
) -> None:
    licence = model.card.licence.lower() if model.card.licence == "Apache-2.0" else "other"
    readme = README.format(
        licence=licence, name=request.name, features=saved.features, model=model.card.name,
        layers=", ".join(map(str, saved.layers)), active=request.options.active,
        tokens=request.options.tokens, n_training=len(texts.training), task=benchmark.name,
        n_measured=len(texts.measured), table=table(qualities), command=request.command,
    )  # fmt: skip
    card = CARD.format(
        name=request.name, model=model.card.name, task=benchmark.name, layers=list(saved.layers),
        width=saved.width, features=saved.features, weights=WEIGHTS, licence=model.card.licence,
    )  # fmt: skip
    write_atomically(request.folder / "README.md", readme.encode())
    write_atomically(request.output / f"{request.name}.yaml", card.encode())
