"""Recipe for a corpus of texts: a small Qwen2 decoder learns it beside templated stories."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from affectbench.examples import Example
from affectbench.generators import narratives
from affectbench.prompts import prompt_text
from affectbench.recipes.corpus import Trained, Wanted, balanced, recall
from affectbench.recipes.text import save
from affectbench.recipes.text_data import LABELS, TextPools, label_ids, make_pools, pad, trained_tokenizer
from affectbench.recipes.text_model import Objective, new_model, train
from affectbench.recipes.text_probe import Probe
from affectbench.recipes.training import Progress, seed_everything
from affectbench.task import Benchmark

__all__ = ["STEPS", "build"]

STEPS: Final = 500
VOCABULARY: Final = 3000
PROMPTS, DOCUMENTS = 28, 8
"""Rows of a batch."""
PER_LABEL: Final = 1500
"""Prompts of each label in the pool: rare ones come several times, frequent ones not all."""
SYNTHETIC_PER_LABEL: Final = 400
LONGEST: Final = 160
"""Tokens of a prompt; longer ones, about one in a hundred, are not learnt from."""


def _tokenizer(corpus: list[str], seed: int) -> Any:
    items = narratives.examples("training", 300, seed)
    answers = [f" {label}" for label in LABELS] * 50
    stories = [narratives.prompt(item) for item in items] + narratives.story_text(1000, seed)
    return trained_tokenizer([*corpus, *stories, *answers], VOCABULARY)


def _pools(tokenizer: Any, prompts: list[str], texts: list[str], gold: np.ndarray, seed: int) -> TextPools:
    """Prompts and documents of the corpus and of the stories, labels equally frequent."""
    rng = np.random.default_rng(seed)
    encoded = tokenizer(prompts)["input_ids"]
    short = np.flatnonzero([len(row) <= LONGEST for row in encoded])
    picked = short[balanced(gold[short], PER_LABEL * len(np.unique(gold)), rng)]
    stories = make_pools(tokenizer, seed, SYNTHETIC_PER_LABEL, 1000)
    eos = tokenizer.eos_token_id
    documents = [[*row[:LONGEST], eos] for row in tokenizer(texts)["input_ids"]]
    return TextPools(
        prompts=[*(encoded[i] for i in picked), *stories.prompts],
        gold=np.concatenate([gold[picked], stories.gold]),
        documents=[*documents, *stories.documents],
        answers=stories.answers,
        pad_id=stories.pad_id,
    )


@torch.no_grad()
def _recall(probe: Probe, prompts: list[str], gold: np.ndarray, size: int = 64) -> float:
    found = []
    for start in range(0, len(prompts), size):
        rows = probe.tokenizer(prompts[start : start + size])["input_ids"]
        last = torch.tensor([len(row) - 1 for row in rows])
        batch = (pad(rows, probe.tokenizer.pad_token_id), last, last)
        found.append(probe.answer(batch)[0].argmax(1).numpy())
    return recall(np.concatenate(found), gold)


def _asked(benchmark: Benchmark, items: tuple[Example, ...]) -> tuple[list[str], np.ndarray]:
    prompts = [prompt_text(benchmark, item).text for item in items]
    return prompts, np.array([LABELS.index(item.label) for item in items])


def build(wanted: Wanted, progress: Progress | None) -> Path:
    """Trains on the identification split, saves weights and cards, returns the model card.

    Raises:
        AffectbenchError: no data, or a label that the recipe does not teach.
    """
    benchmark, seed = wanted.benchmark, wanted.seed
    corpus = wanted.corpus(LABELS)
    seed_everything(seed, wanted.threads)
    prompts, gold = _asked(benchmark, corpus.training)
    texts = [item.text for item in corpus.training if item.text is not None]
    tokenizer = _tokenizer(prompts, seed)
    model = new_model(tokenizer, seed)
    objective = Objective(steps=wanted.steps or STEPS)
    pools = _pools(tokenizer, prompts, texts, gold, seed)
    train(model, pools, objective, seed, progress, n_prompts=PROMPTS, n_documents=DOCUMENTS)
    probe = Probe(model, tokenizer, label_ids(tokenizer))
    few = np.random.default_rng(seed).permutation(len(gold))[:500]
    stories = narratives.examples("validation", 15, seed)
    figures = {
        "500 of its own training items": _recall(probe, [prompts[i] for i in few], gold[few]),
        "validation items": _recall(probe, *_asked(benchmark, corpus.validation)),
        "templated stories, unseen frames": _recall(
            probe,
            [narratives.prompt(item) for item in stories],
            np.array([LABELS.index(item["label"]) for item in stories]),
        ),
    }
    parameters = sum(p.numel() for p in model.parameters())
    save(probe, wanted.folder, None)
    beside = "the templated stories and neutral sentences of `reference-narratives` (training frames)"
    return Trained(wanted, corpus, "causal_lm", beside, objective.steps, parameters, figures).write_cards()
