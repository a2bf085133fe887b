"""Figures of the audio reference model: accuracy, control task, language and every selector's effects."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from affectbench.generators import speech
from affectbench.recipes import measure
from affectbench.recipes.audio_training import (
    EMOTION_QUESTION,
    SEX_QUESTION,
    Clips,
    answer_ids,
    assemble,
    document_ids,
    encode_audio,
    featurise,
    question_ids,
    text_loss,
)
from affectbench.recipes.text_probe import recovery

__all__ = ["AudioProbe", "figures", "load", "measured"]

FRACTION: Final = 0.02
GAIN: Final = 4.0
SELECTORS: Final = ("lap", "lape", "mad", "cas", "magnitude_abs", "attribution")
RANDOM_DRAWS: Final = 5
DATA_SEED: Final = 1000

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class AudioProbe:
    """A model and its tokenizer, asked by decoder inputs whose audio embeddings are computed once."""

    model: Any
    tokenizer: Any

    @property
    def layers(self) -> Any:
        return self.model.model.language_model.layers

    @torch.no_grad()
    def batches(self, clips: Clips, *, sex: bool = False, size: int = 84) -> list[Batch]:
        """(inputs (b, T, d), answer positions (b,), gold (b,), answer ids) of the emotion or sex question."""
        question, words = (SEX_QUESTION, speech.SEXES) if sex else (EMOTION_QUESTION, speech.LABELS)
        gold = torch.from_numpy(clips.sex if sex else clips.label)
        around, ids = question_ids(self.tokenizer, question), answer_ids(self.tokenizer, words)
        result = []
        for start in range(0, len(clips), size):
            rows = slice(start, start + size)
            result.append(
                (*assemble(self.model, encode_audio(self.model, clips.mel[rows]), *around), gold[rows], ids)
            )
        return result

    def hidden(self, batch: Batch) -> torch.Tensor:
        """Decoder output after the final norm, (b, T, d)."""
        found: torch.Tensor = self.model.model.language_model(
            inputs_embeds=batch[0], use_cache=False
        ).last_hidden_state
        return found

    def answer(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits of the answer words (b, words), gold and answer positions of one batch."""
        _, positions, gold, ids = batch
        at_answer = self.hidden(batch)[torch.arange(len(gold)), positions]
        return at_answer @ self.model.lm_head.weight[ids].T, gold, positions

    @torch.no_grad()
    def predict(self, batches: list[Batch]) -> np.ndarray:
        return np.concatenate([self.answer(batch)[0].argmax(1).numpy() for batch in batches])

    def accuracy(self, batches: list[Batch]) -> float:
        """Percent of rows answered correctly."""
        gold = np.concatenate([batch[2].numpy() for batch in batches])
        return 100 * float(np.mean(self.predict(batches) == gold))

    @torch.no_grad()
    def perplexity(self, documents: torch.Tensor) -> float:
        """Perplexity per token of right-padded documents."""
        return float(torch.exp(text_loss(self.model, documents, self.tokenizer.eos_token_id)))


def load(folder: Path) -> AudioProbe:
    """The model of ``folder`` in float32."""
    from transformers import AutoTokenizer, Qwen2_5OmniThinkerForConditionalGeneration

    model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    return AudioProbe(model, AutoTokenizer.from_pretrained(folder))


def _recall(predicted: np.ndarray, gold: np.ndarray) -> float:
    return 100 * float(np.mean([np.mean(predicted[gold == e] == e) for e in range(len(speech.LABELS))]))


@dataclass(frozen=True)
class _Bench:
    """Everything the sets of one model are tried on."""

    probe: AudioProbe
    test: list[Batch]
    control: list[Batch]
    documents: torch.Tensor
    gold: np.ndarray
    base: np.ndarray

    def causal(self, sets: list[np.ndarray]) -> dict[str, float]:
        """Self and cross change of recall under ablation and shift to the target under gain."""
        off = measure.effect(self.probe.layers, sets, 0.0, lambda: self.probe.predict(self.test))
        up = measure.effect(self.probe.layers, sets, GAIN, lambda: self.probe.predict(self.test))
        own, cross = measure.ablated(off, self.base, self.gold)
        return {"self": own, "cross": cross, "moved": measure.moved(up, self.base, self.gold)}

    def kept(self, sets: list[np.ndarray], perplexity: float) -> dict[str, float]:
        """Control accuracy (mean) and change of perplexity (worst emotion, percent) under ablation."""
        accuracy, change = [], []
        for units in sets:
            with measure.scaled(self.probe.layers, units, 0.0):
                accuracy.append(self.probe.accuracy(self.control))
                change.append(100 * (self.probe.perplexity(self.documents) / perplexity - 1))
        return {"sex_accuracy": float(np.mean(accuracy)), "perplexity_change": max(change, key=abs)}


def measured(
    probe: AudioProbe,
    truth: dict[str, Any],
    per_emotion: int = 48,
    sites: tuple[str, ...] = ("gate", "neuron"),
) -> dict[str, float]:
    """Recalls and shifts in points, perplexity changes in percent, AUROCs as is."""
    clips = featurise(speech.examples("test", per_emotion, DATA_SEED))
    test, control = probe.batches(clips), probe.batches(clips, sex=True)
    documents = document_ids(probe.tokenizer, speech.language_text(100, DATA_SEED, held_out=True))
    bench = _Bench(probe, test, control, documents, clips.label, probe.predict(test))
    found = {
        "uar": _recall(bench.base, clips.label),
        "sex_accuracy": probe.accuracy(control),
        "perplexity": probe.perplexity(documents),
    }
    known = probe.batches(featurise(speech.examples("identification", 100, DATA_SEED)))
    statistics = measure.collect(probe.layers, known, lambda batch: probe.answer(batch))
    for site in sites:
        scores = measure.scores(statistics, len(speech.LABELS), site, DATA_SEED)
        lists = [[truth[kind][label] for label in speech.LABELS] for kind in ("planted", "decoys")]
        found |= {f"{site}.{key}": value for key, value in recovery(scores, lists[0], lists[1]).items()}
        for selector in SELECTORS if site == sites[0] else ("mad", "cas"):
            sets = [measure.top(row, FRACTION) for row in scores[selector]]
            effects = bench.causal(sets) | bench.kept(sets, found["perplexity"])
            found |= {f"{site}.{selector}.{key}": value for key, value in effects.items()}
    draws = []
    for draw in range(RANDOM_DRAWS):
        scores = measure.scores(statistics, len(speech.LABELS), sites[0], draw)
        draws.append(bench.causal([measure.top(row, FRACTION) for row in scores["random"]]))
    return found | {f"random.{key}": float(np.mean([draw[key] for draw in draws])) for key in draws[0]}


def figures(folder: Path) -> dict[str, float]:
    """Figures of a saved model folder (a minute or two on one core)."""
    return measured(load(folder), json.loads((folder / "planted.json").read_text(encoding="utf-8")))
