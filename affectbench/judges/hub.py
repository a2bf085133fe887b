"""A judge that is a text classifier of transformers: a folder beside its card, or one of the hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from affectbench.errors import AffectbenchError
from affectbench.identity import checkpoint_digest, digest_of
from affectbench.judge_card import JudgeCard
from affectbench.judges.judgement import Judgement, Probabilities, codes_of, decided

BATCH = 32


class HubJudge:
    """Judges by the softmax of a sequence classifier, in float32; long texts are cut at its length. See
    `Judge`."""

    def __init__(self, card: JudgeCard, labels: Sequence[str], device: str = "cpu") -> None:
        self.name = card.name
        source = str(card.folder or card.checkpoint)
        self._network, self._tokenizer = _loaded(card, source, device)
        own = self._network.config.id2label
        self._codes = codes_of([own[place] for place in sorted(own)], card, labels)
        self._n_labels, self._device = len(labels), device
        self._threshold = card.threshold or 0.0
        weights = checkpoint_digest(card.folder) if card.folder else f"{source} {card.revision}"
        self.digest = digest_of([card.digest, weights, *labels])

    def judge(self, texts: Sequence[str]) -> list[Judgement]:
        """A judgement for each text; probabilities that are not finite give an error."""
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        found: list[Judgement] = [Judgement(0)] * len(texts)
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            probabilities = self._probabilities([texts[place] for place in places])
            judged = decided(probabilities, self._codes, self._n_labels, self._threshold)
            for place, judgement in zip(places, judged, strict=True):
                found[place] = judgement
        return found

    def _probabilities(self, texts: list[str]) -> Probabilities:
        import torch

        most = min(self._tokenizer.model_max_length, self._network.config.max_position_embeddings)
        inputs = self._tokenizer(texts, padding=True, truncation=True, max_length=most, return_tensors="pt")
        with torch.no_grad():
            logits = self._network(**inputs.to(self._device)).logits
        return np.asarray(logits.float().softmax(-1).cpu(), dtype=np.float32)


def _loaded(card: JudgeCard, source: str, device: str) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        network = AutoModelForSequenceClassification.from_pretrained(source, revision=card.revision)
        tokenizer = AutoTokenizer.from_pretrained(source, revision=card.revision)
    except Exception as error:  # Loaders raise all kinds; each becomes one error with its cause.
        problem = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AffectbenchError(
            f"judge {card.name}: {source} cannot be loaded as a text classifier: {problem}",
            hint="`checkpoint` is a folder beside the card, or one of the hub that is on this machine",
        ) from error
    return network.float().eval().to(device), tokenizer
