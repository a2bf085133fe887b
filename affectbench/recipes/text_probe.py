"""Figures of a text reference model: accuracy, language, capability, and every selector's effect."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from affectbench.generators import narratives
from affectbench.recipes import measure
from affectbench.recipes.text_data import LABELS, label_ids, pad

__all__ = ["Probe", "figures", "load"]

FRACTION: Final = 0.02
GAIN: Final = 4.0
SELECTORS: Final = ("lap", "lape", "mad", "cas", "magnitude_abs", "attribution", "random")
DATA_SEED: Final = 1000

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Probe:
    """A model, its tokenizer and its label token ids."""

    model: Any
    tokenizer: Any
    answers: list[int]

    @property
    def layers(self) -> Any:
        return self.model.model.layers

    def batches(self, items: list[dict[str, Any]], size: int = 128) -> list[Batch]:
        """(ids, answer positions, gold) batches of items, in order, padded on the right."""
        encoded = self.tokenizer([narratives.prompt(item) for item in items])["input_ids"]
        gold = [LABELS.index(item["label"]) for item in items]
        result = []
        for start in range(0, len(items), size):
            rows = encoded[start : start + size]
            positions = torch.tensor([len(row) - 1 for row in rows])
            result.append(
                (pad(rows, self.tokenizer.pad_token_id), positions, torch.tensor(gold[start : start + size]))
            )
        return result

    def answer(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Label logits (b, E), gold and answer positions of one batch."""
        ids, positions, gold = batch
        hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state
        at_answer = hidden[torch.arange(len(ids)), positions]
        return at_answer @ self.model.lm_head.weight[self.answers].T, gold, positions

    @torch.no_grad()
    def predict(self, batches: list[Batch]) -> np.ndarray:
        return np.concatenate([self.answer(batch)[0].argmax(1).numpy() for batch in batches])

    @torch.no_grad()
    def nll(self, texts: list[str]) -> tuple[float, int]:
        """Summed negative log likelihood in nats and the number of predicted tokens."""
        eos, pad_id = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        ids = pad([[*row, eos] for row in self.tokenizer(texts)["input_ids"]], pad_id)
        logits = self.model(input_ids=ids, use_cache=False).logits[:, :-1]
        target = ids[:, 1:]
        total = functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), target.reshape(-1), ignore_index=pad_id, reduction="sum"
        )
        return float(total), int((target != pad_id).sum())

    def perplexity(self, texts: list[str]) -> float:
        total, count = self.nll(texts)
        return float(np.exp(total / count))

    @torch.no_grad()
    def cloze_accuracy(self, items: list[dict[str, Any]]) -> float:
        """Share of items whose right choice has the largest log likelihood."""
        rows, spans = [], []
        for item in items:
            context = self.tokenizer(item["context"])["input_ids"]
            for choice in item["choices"]:
                continuation = self.tokenizer(choice)["input_ids"]
                rows.append(context + continuation)
                spans.append((len(context), len(continuation)))
        logp = self.model(
            input_ids=(ids := pad(rows, self.tokenizer.pad_token_id)), use_cache=False
        ).logits.log_softmax(-1)
        token = logp[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
        score = torch.stack([token[i, start - 1 : start - 1 + n].sum() for i, (start, n) in enumerate(spans)])
        chosen = score.reshape(-1, 4).argmax(1).numpy()
        return float(np.mean(chosen == np.array([item["answer"] for item in items])))


def load(folder: Path) -> Probe:
    """The model of ``folder`` in float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return Probe(model, tokenizer, label_ids(tokenizer))


def _uar(predictions: np.ndarray, gold: np.ndarray) -> float:
    return 100 * float(np.mean([np.mean(predictions[gold == e] == e) for e in range(len(LABELS))]))


def _silent(probe: Probe, batches: list[Batch], gold: np.ndarray, language: list[str]) -> dict[str, float]:
    """Accuracy and perplexity with every MLP unit zeroed."""
    everything = np.arange(sum(layer.mlp.down_proj.in_features for layer in probe.layers))
    with measure.scaled(probe.layers, everything, 0.0):
        accuracy, perplexity = _uar(probe.predict(batches), gold), probe.perplexity(language)
    return {"silent.uar": accuracy, "silent.perplexity": perplexity}


def _effects(
    probe: Probe, sites: tuple[str, ...]
) -> tuple[dict[str, float], dict[str, dict[str, np.ndarray]]]:
    """Ablation and gain of every selector's sets, at every site."""
    test = narratives.examples("test", 40, DATA_SEED)
    batches, gold = probe.batches(test), np.array([LABELS.index(item["label"]) for item in test])
    language = narratives.language_text(60, DATA_SEED, held_out=True)
    base, base_ppl = probe.predict(batches), probe.perplexity(language)
    found = {"uar": _uar(base, gold), **_silent(probe, batches, gold, language)}
    identification = probe.batches(narratives.examples("identification", 100, DATA_SEED))
    statistics = measure.collect(probe.layers, identification, probe.answer)
    scores = {site: measure.scores(statistics, len(LABELS), site, DATA_SEED) for site in sites}
    for site, selector in ((site, selector) for site in sites for selector in SELECTORS):
        if site != sites[0] and selector in ("attribution", "random"):
            continue
        sets = [measure.top(row, FRACTION) for row in scores[site][selector]]
        off = measure.effect(probe.layers, sets, 0.0, lambda: probe.predict(batches))
        up = measure.effect(probe.layers, sets, GAIN, lambda: probe.predict(batches))
        key = f"{site}.{selector}"
        found[f"{key}.self"], found[f"{key}.cross"] = measure.ablated(off, base, gold)
        found[f"{key}.moved"] = measure.moved(up, base, gold)
        ppl = []
        for units in sets:
            with measure.scaled(probe.layers, units, 0.0):
                ppl.append(probe.perplexity(language))
        found[f"{key}.perplexity_change"] = 100 * (float(np.mean(ppl)) / base_ppl - 1)
    return found, scores


def recovery(
    scores: dict[str, np.ndarray], planted: list[list[int]], decoys: list[list[int]]
) -> dict[str, float]:
    """Mean AUROC of planted units against all others, and against their own decoys, per selector."""
    found = {}
    for selector, values in scores.items():
        everyone, own = [], []
        for score, causal, inert in zip(values, planted, decoys, strict=True):
            rest = np.setdiff1d(np.arange(len(score)), causal)
            everyone.append(measure.auroc(score[causal], score[rest]))
            own.append(measure.auroc(score[causal], score[inert]))
        found[f"auroc.{selector}"], found[f"decoy_auroc.{selector}"] = (
            float(np.mean(everyone)),
            float(np.mean(own)),
        )
    return found


def figures(folder: Path) -> dict[str, float]:
    """What the card reports: recalls and shifts in points, perplexity changes in percent, the rest as is."""
    probe = load(folder)
    found, scores = _effects(probe, ("gate", "neuron"))
    found["perplexity"] = probe.perplexity(narratives.language_text(300, DATA_SEED, held_out=True))
    found["cloze"] = 100 * probe.cloze_accuracy(narratives.cloze(200, DATA_SEED))
    path = folder / "planted.json"
    if path.exists():
        truth = json.loads(path.read_text(encoding="utf-8"))
        lists = [[truth[kind][label] for label in LABELS] for kind in ("planted", "decoys")]
        found |= recovery(scores["gate"], lists[0], lists[1])
    return found
