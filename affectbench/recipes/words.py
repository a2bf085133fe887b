"""Recipe of the word-writing reference model: emotion units and word writers, one behind the other.

An emotion unit reads a story's emotion at the answer position and writes a message, one direction for each
emotion. What follows turns the message into an answer: a letter, found by attention, or a word, which planted
word writers put there. They write a label's word whenever it is to be written, also where it is only copied.
So both sets are needed to name a story's emotion, and only one of them has to do with emotion.
"""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from affectbench.generators import narratives
from affectbench.recipes import measure, planting
from affectbench.recipes.text import save
from affectbench.recipes.text_data import LABELS, label_ids, pad
from affectbench.recipes.text_model import new_model
from affectbench.recipes.text_probe import DATA_SEED, GAIN, Probe, load
from affectbench.recipes.training import Progress, seed_everything
from affectbench.recipes.words_card import card
from affectbench.recipes.words_data import KINDS, Pool, make_pools, pool, tokenizer_of
from affectbench.recipes.words_training import EMOTION_LAYER, MESSAGE, messages, train

__all__ = ["NAMES", "build", "figures", "plant_units"]

NAMES: Final = ("reference-text-words",)
LAYERS: Final = 5
WIDTH: Final = 256
WORD_LAYER: Final = LAYERS - 1
PER_LABEL: Final = 8
COPIES_WEIGHT: Final = 4
"""How often the control's answer positions count among what an emotion unit must stay silent at."""
_SIZE: Final = 128


def build(
    name: str, output: Path, seed: int = 0, threads: int = 1, progress: Progress | None = None
) -> dict[str, float]:
    """Trains and plants the model, writes its folder with its card, and measures it.

    Arguments and result as in ``affectbench.recipes.text.build``. Raises ValueError for an unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"model {name!r} is unknown: use one of {', '.join(NAMES)}")
    seed_everything(seed, threads)
    tokenizer = tokenizer_of(seed)
    pools = make_pools(tokenizer, seed)
    model = new_model(tokenizer, seed, LAYERS, WIDTH, attn_implementation="eager")
    train(model, tokenizer, pools, seed, progress)
    probe = Probe(model, tokenizer, label_ids(tokenizer))
    save(probe, output, plant_units(probe, seed))
    measured = figures(output)
    (output / "README.md").write_text(card(name, measured, seed), encoding="utf-8")
    return measured


@torch.no_grad()
def plant_units(probe: Probe, seed: int) -> dict[str, Any]:
    """Plants emotion units and word writers, in place; returns the content of planted.json.

    `planted` and `decoys` are the emotion units and their decoys, `words` the word writers.
    """
    model, layers = probe.model, probe.layers
    space = planting.label_space(model.lm_head.weight[probe.answers], model.model.norm.weight)
    planting.silence(layers, space)
    said = messages(model.config.hidden_size, seed)
    said = torch.nn.functional.normalize(said - (said @ space.basis) @ space.basis.T, dim=1)
    message = planting.LabelSpace(torch.linalg.qr(said.T).Q, said)
    found: list[planting.Planted] = []
    recipes: list[planting.Recipe] = []
    for layer, written in ((EMOTION_LAYER, message), (WORD_LAYER, space)):
        reading = _reading(probe, layer)
        scale = MESSAGE if layer == EMOTION_LAYER else _final_scale(probe)
        logit = 1.0 if layer == EMOTION_LAYER else planting.Recipe.logit
        recipes.append(planting.Recipe(seed=seed + len(found), per_emotion=PER_LABEL, logit=logit))
        found.append(planting.plant_layer(layers, layer, written, reading, scale, recipes[-1]))
    emotion, words = found
    lists = {"planted": emotion.planted, "decoys": emotion.decoys, "words": words.planted}
    return {
        "emotions": list(LABELS),
        "width": WIDTH,
        **{key: dict(zip(LABELS, values, strict=True)) for key, values in lists.items()},
        "recipe": {
            "emotion": asdict(recipes[0]) | {"layer": EMOTION_LAYER, "message": MESSAGE},
            "words": asdict(recipes[1]) | {"layer": WORD_LAYER},
        },
    }


def _pools(tokenizer: Any) -> dict[str, Pool]:
    """Prompts from which planted units take their readings: training data, other draws."""
    counts = dict(zip(KINDS, (60, 40, 4, 2), strict=True))
    return {kind: pool(tokenizer, kind, "training", count, 7) for kind, count in counts.items()}


def _reading(probe: Probe, layer: int) -> planting.Reading:
    """MLP inputs of a layer: its own answers are those of stories, or those that are words."""
    mlp, found = probe.layers[layer].mlp, _pools(probe.tokenizer)
    at = {kind: _inputs(probe, mlp, own.prompts) for kind, own in found.items()}
    documents = narratives.language_text(200, 7, held_out=False) + narratives.story_text(200, 7)
    text = _inputs(probe, mlp, probe.tokenizer(documents)["input_ids"])
    emotional = layer == EMOTION_LAYER
    own = [kind for kind in KINDS if (kind.startswith("story") if emotional else kind in KINDS[::2])]
    silent = [at[kind][0] for kind in KINDS if kind not in own] * (COPIES_WEIGHT if emotional else 1)
    return planting.Reading(
        torch.cat([at[kind][0] for kind in own]),
        torch.tensor(np.concatenate([found[kind].gold for kind in own])),
        torch.cat([*(other for _, other in at.values()), *text, *silent]),
    )


def _final_scale(probe: Probe) -> float:
    rows = _pools(probe.tokenizer)[KINDS[0]].prompts
    return float(_inputs(probe, probe.model.model.norm, rows)[0].pow(2).mean(-1).sqrt().mean())


def _inputs(probe: Probe, module: Any, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """What a module receives at the last token of each row, and at every eighth of the others."""
    seen: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    last, others = [], []
    try:
        for ids, positions in _batches(probe, rows):
            probe.model.model(input_ids=ids, use_cache=False)
            found, at = seen.pop(), torch.arange(len(ids))
            elsewhere = torch.arange(ids.shape[1]) < positions[:, None]
            last.append(found[at, positions])
            others.append(found[elsewhere][::8])
    finally:
        handle.remove()
    return torch.cat(last), torch.cat(others)


def _batches(
    probe: Probe, rows: list[list[int]], size: int = _SIZE
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    pad_id = probe.tokenizer.pad_token_id
    return [(pad(part, pad_id), torch.tensor([len(row) - 1 for row in part])) for part in parts]


@torch.no_grad()
def answers(probe: Probe, own: Pool) -> np.ndarray:
    """(n,) label indices that the model answers."""
    found = []
    for (ids, positions), start in zip(_batches(probe, own.prompts), range(0, len(own), _SIZE), strict=True):
        hidden = probe.model.model(input_ids=ids, use_cache=False).last_hidden_state
        logits = probe.model.lm_head(hidden[torch.arange(len(ids)), positions]).numpy()
        found.append(np.take_along_axis(logits, own.answers[start : start + _SIZE], 1).argmax(1))
    return np.concatenate(found)


def figures(folder: Path) -> dict[str, float]:
    """UAR of each kind of prompt, and what zeroing or amplifying each planted set does to it, in points."""
    probe = load(folder)
    truth = json.loads((folder / "planted.json").read_text(encoding="utf-8"))
    found: dict[str, float] = {}
    for kind in KINDS:
        own = pool(probe.tokenizer, kind, "test", 30 if kind.startswith("story") else 1, DATA_SEED)
        base = answers(probe, own)
        right = [np.mean(base[own.gold == e] == e) for e in range(len(LABELS))]
        found[f"{kind}.uar"] = 100 * float(np.mean(right))
        predict = partial(answers, probe, own)
        for name in ("planted", "words", "decoys"):
            sets = [np.array(truth[name][label]) for label in LABELS]
            off = measure.effect(probe.layers, sets, 0.0, predict)
            key = f"{kind}.{name}"
            found[f"{key}.self"], found[f"{key}.cross"] = measure.ablated(off, base, own.gold)
            amplified = measure.effect(probe.layers, sets, GAIN, predict)
            found[f"{key}.moved"] = measure.moved(amplified, base, own.gold)
    found["perplexity"] = probe.perplexity(narratives.language_text(300, DATA_SEED, held_out=True))
    found["cloze"] = 100 * probe.cloze_accuracy(narratives.cloze(200, DATA_SEED))
    return found
