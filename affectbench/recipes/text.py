"""Recipes of the three text reference models: train, plant, save, measure.

``build`` is what ``python harness.py rebuild NAME`` runs. The same seed, thread count and library versions
give the same weights on one machine; another machine's arithmetic may differ in the last bits, and training
amplifies that, so compare a rebuild by its figures.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from affectbench.generators import narratives
from affectbench.recipes import planting
from affectbench.recipes.text_card import card
from affectbench.recipes.text_data import LABELS, build_tokenizer, label_ids, make_pools, pad
from affectbench.recipes.text_model import EMERGENT, LAYERS, PLAIN, WIDTH, Objective, new_model, train
from affectbench.recipes.text_probe import Probe, figures
from affectbench.recipes.training import Progress, seed_everything

__all__ = ["NAMES", "build", "figures", "plant_labels", "save", "train_model"]

NAMES: Final = ("reference-text", "reference-text-plain", "reference-text-emergent")
TARGETS: Final = (LAYERS - 2, LAYERS - 1)
_READING_SEED: Final = 7
_READING_ITEMS: Final = 150
_READING_DOCUMENTS: Final = 300


def train_model(objective: Objective, seed: int, threads: int, progress: Progress | None = None) -> Probe:
    """A tokenizer and a model trained from scratch in float32."""
    seed_everything(seed, threads)
    tokenizer = build_tokenizer(seed)
    pools = make_pools(tokenizer, seed)
    model = new_model(tokenizer, seed)
    train(model, pools, objective, seed, progress)
    return Probe(model, tokenizer, label_ids(tokenizer))


class _Reader:
    """Feeds labelled training items and documents through the present model for ``planting.plant``."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.pad_id = probe.tokenizer.pad_token_id
        items = narratives.examples("training", _READING_ITEMS, _READING_SEED)
        self.batches = probe.batches(items)
        documents = narratives.language_text(_READING_DOCUMENTS, _READING_SEED, held_out=False)
        documents += narratives.story_text(_READING_DOCUMENTS, _READING_SEED)
        self.documents = pad(probe.tokenizer(documents)["input_ids"], self.pad_id)
        self.gold = torch.cat([gold for _, _, gold in self.batches])

    def _inputs(self, module: Any, ids: torch.Tensor) -> torch.Tensor:
        """What ``module`` receives in a pass over ``ids``: (b, t, d)."""
        seen: list[torch.Tensor] = []
        handle = module.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
        try:
            self.probe.model.model(input_ids=ids, use_cache=False)
        finally:
            handle.remove()
        return seen[0]

    def read(self, layer: int) -> planting.Reading:
        mlp = self.probe.layers[layer].mlp
        answer, elsewhere = [], []
        for ids, positions, _ in self.batches:
            inputs, rows = self._inputs(mlp, ids), torch.arange(len(ids))
            other = ids != self.pad_id
            other[rows, positions] = False
            answer.append(inputs[rows, positions])
            elsewhere.append(inputs[other][::4])
        elsewhere.append(self._inputs(mlp, self.documents)[self.documents != self.pad_id])
        return planting.Reading(torch.cat(answer), self.gold, torch.cat(elsewhere))

    def final_scale(self) -> float:
        sizes = [
            self._inputs(self.probe.model.model.norm, ids)[torch.arange(len(ids)), positions]
            .pow(2)
            .mean(-1)
            .sqrt()
            for ids, positions, _ in self.batches
        ]
        return float(torch.cat(sizes).mean())


@torch.no_grad()
def plant_labels(probe: Probe, recipe: planting.Recipe) -> dict[str, Any]:
    """Plants the labels' units in the last two layers, in place; returns the content of planted.json."""
    model, reader = probe.model, _Reader(probe)
    space = planting.label_space(model.lm_head.weight[probe.answers], model.model.norm.weight)
    result = planting.plant(probe.layers, list(TARGETS), space, reader.read, reader.final_scale, recipe)
    return {
        "emotions": list(LABELS),
        "width": WIDTH,
        **{
            key: dict(zip(LABELS, values, strict=True))
            for key, values in (
                ("planted", result.planted),
                ("decoys", result.decoys),
                ("strengths", result.strengths),
                ("flavour", result.flavours),
            )
        },
        "recipe": {
            **asdict(recipe),
            "layers": list(TARGETS),
            "flavours": {name: asdict(flavour) for name, flavour in planting.FLAVOURS.items()},
        },
    }


def save(probe: Probe, output: Path, planted: dict[str, Any] | None) -> None:
    """Writes the model (rounded to bfloat16), tokenizer and, if any, planted.json; replaces ``output``."""
    if output.exists():
        shutil.rmtree(output)
    output.mkdir(parents=True)
    probe.model.to(torch.bfloat16).save_pretrained(output)
    probe.tokenizer.save_pretrained(output)
    (output / "generation_config.json").unlink(missing_ok=True)
    if planted is not None:
        (output / "planted.json").write_text(json.dumps(planted, indent=1) + "\n", encoding="utf-8")


def build(
    name: str, output: Path, seed: int = 0, threads: int = 1, progress: Progress | None = None
) -> dict[str, float]:
    """Trains (and plants) one text reference model, writes its folder with its card, and measures it.

    Args:
        name: one of ``NAMES``.
        output: folder to write; an existing one is replaced.
        seed: of data order, initialisation, stochastic depth and planting.
        threads: of torch; part of what makes a rebuild repeatable.
        progress: called with lines of text.

    Returns:
        the figures of the written (bfloat16) weights, see ``figures``.

    Raises:
        ValueError: unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"model {name!r} is unknown: use one of {', '.join(NAMES)}")
    probe = train_model(EMERGENT if name.endswith("emergent") else PLAIN, seed, threads, progress)
    planted = plant_labels(probe, planting.Recipe(seed=seed)) if name == "reference-text" else None
    save(probe, output, planted)
    measured = figures(output)
    (output / "README.md").write_text(card(name, measured, seed), encoding="utf-8")
    return measured
