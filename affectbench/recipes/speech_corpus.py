"""Recipe for a corpus of speech: a small Omni thinker learns it beside synthetic prosody."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch

from affectbench.audio_features import log_mel
from affectbench.errors import AffectbenchError
from affectbench.examples import Example
from affectbench.generators import speech
from affectbench.recipes.audio import save
from affectbench.recipes.audio_probe import AudioProbe
from affectbench.recipes.audio_training import (
    EMOTION_QUESTION,
    Clips,
    Recipe,
    batch_loss,
    excerpt_ids,
    featurise,
    initialise,
)
from affectbench.recipes.augmentation import augmented
from affectbench.recipes.corpus import Trained, Wanted, balanced, recall
from affectbench.recipes.training import Progress, optimise, seed_everything
from affectbench.task import RecognitionBenchmark

__all__ = ["STEPS", "build"]

STEPS: Final = 400
ROWS: Final = 20
"""Clips of the corpus in a batch."""
PLAIN: Final = Recipe(
    clips_per_emotion=80, emotion_rows=8, sex_rows=4, text_rows=4, direct_path=0.0, sparsity=0.0
)
"""The reference model's recipe without the penalties that make MLP units carry the answer."""
DOCUMENTS: Final = 4000


def _clips(items: tuple[Example, ...]) -> Clips:
    """Features of sound files; what a speaker's sex is, is not known."""
    return Clips(
        mel=[log_mel(item.waveform()).astype(np.float16) for item in items],
        label=np.array([speech.LABELS.index(item.label) for item in items]),
        sex=np.zeros(len(items), dtype=np.int64),
        speaker=[item.cluster for item in items],
    )


def _mixed(known: Clips, real: Clips, recipe: Recipe, rng: np.random.Generator) -> Clips:
    """A batch: synthetic clips, about whose first ones the sex is asked too, then variants of real ones."""
    first = rng.integers(len(known), size=recipe.emotion_rows)
    second = balanced(real.label, ROWS, rng)
    return Clips(
        mel=[*(known.mel[i] for i in first), *(augmented(real.mel[i], rng) for i in second)],
        label=np.concatenate([known.label[first], real.label[second]]),
        sex=np.concatenate([known.sex[first], real.sex[second]]),
        speaker=[],
    )


def _train(real: Clips, recipe: Recipe, progress: Progress | None) -> AudioProbe:
    model, tokenizer = initialise(recipe)
    known = featurise(speech.examples("training", recipe.clips_per_emotion, recipe.seed))
    texts = speech.language_text(DOCUMENTS, seed=recipe.seed)
    rng = np.random.default_rng(recipe.seed)

    def loss_at(_step: int) -> torch.Tensor:
        batch = _mixed(known, real, recipe, rng)
        chosen = [texts[i] for i in rng.integers(len(texts), size=recipe.text_rows)]
        documents = excerpt_ids(tokenizer, chosen, rng)
        return batch_loss(model, tokenizer, batch, np.arange(len(batch)), documents, recipe)

    rate = recipe.learning_rate
    optimise(model, loss_at, steps=recipe.steps, peak_rate=rate, weight_decay=0.1, progress=progress)
    return AudioProbe(model, tokenizer)


def build(wanted: Wanted, progress: Progress | None) -> Path:
    """Trains on the identification split, saves weights and cards, returns the model card.

    Raises:
        AffectbenchError: no data, or a benchmark that asks or answers otherwise than `reference-speech`.
    """
    benchmark = wanted.benchmark
    asked = benchmark.prompt if isinstance(benchmark, RecognitionBenchmark) else "for replies"
    if asked != "{audio}" + EMOTION_QUESTION:
        raise AffectbenchError(
            f"benchmark {benchmark.name} asks {asked!r}, which this recipe does not teach",
            hint=f"it teaches the prompt {'{audio}' + EMOTION_QUESTION!r}",
        )
    corpus = wanted.corpus(speech.LABELS)
    seed_everything(wanted.seed, wanted.threads)
    recipe = replace(PLAIN, seed=wanted.seed, steps=wanted.steps or STEPS)
    real = _clips(corpus.training)
    probe = _train(real, recipe, progress)
    figures = {}
    for name, clips in {
        "its own training items": real,
        "validation items": _clips(corpus.validation),
        "synthetic speech, unseen speakers": featurise(speech.examples("validation", 15, wanted.seed)),
    }.items():
        figures[name] = recall(probe.predict(probe.batches(clips)), clips.label)
    parameters = sum(p.numel() for p in probe.model.parameters())
    save(probe, wanted.folder)
    beside = (
        "the synthetic speech of `reference-speech` (training speakers) and sentences of its toy language"
    )
    family = "qwen2_5_omni_thinker"
    return Trained(wanted, corpus, family, beside, recipe.steps, parameters, figures).write_cards()
