"""The local judge: TF-IDF of words and word pairs, and a multinomial logistic regression.

A folder with `judge.json` (labels, vocabulary, threshold, where it comes from) and `judge.safetensors`: `idf`
(F,), `weights` (L, F), `intercept` (L,). Trained by `affectbench.recipes.judge`, stored without pickle.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from affectbench.errors import AffectbenchError
from affectbench.identity import digest_of, file_digest
from affectbench.judge_card import JudgeCard
from affectbench.judges.judgement import Judgement, Probabilities, codes_of, decided
from affectbench.stats import FloatArray
from affectbench.store import write_atomically

HEAD, WEIGHTS = "judge.json", "judge.safetensors"
TOKEN = r"(?u)\b\w[\w']*\b"


class Head(BaseModel):
    """What `judge.json` says. `vocabulary` in the order of the features; `origin` for people."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    vocabulary: tuple[str, ...]
    threshold: Annotated[float, Field(ge=0, lt=1)]
    origin: str


@dataclass(frozen=True)
class Classifier:
    """A trained classifier: `idf` (F,), `weights` (L, F), `intercept` (L,)."""

    head: Head
    idf: FloatArray
    weights: FloatArray
    intercept: FloatArray

    def probabilities(self, texts: Sequence[str]) -> Probabilities:
        """(N, L) of texts. Softmax of the regression's scores."""
        vectors = features(list(self.head.vocabulary))
        vectors.idf_ = self.idf
        scores = vectors.transform(list(texts)) @ self.weights.T + self.intercept
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        found: Probabilities = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
        return found

    def save(self, folder: Path) -> None:
        """Write both files; the same classifier gives the same bytes."""
        from safetensors.numpy import save

        arrays = {"idf": self.idf, "weights": self.weights, "intercept": self.intercept}
        stored = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in arrays.items()}
        head = json.dumps(self.head.model_dump(), ensure_ascii=False, indent=0)
        write_atomically(folder / WEIGHTS, save(stored))
        write_atomically(folder / HEAD, (head + "\n").encode())


def features(vocabulary: list[str] | None = None, *, at_least: int = 2) -> Any:
    """The vectoriser: lower case, words and pairs of neighbouring words, 1 + log of counts, unit length;
    without a vocabulary, of the terms in `at_least` so many texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKEN, vocabulary=vocabulary, min_df=at_least
    )


def read_classifier(folder: Path) -> Classifier:
    """Read a folder of `Classifier.save`. Raises `AffectbenchError` naming the file that is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / HEAD
    try:
        head = Head.model_validate_json(path.read_bytes())
        path = folder / WEIGHTS
        arrays = load_file(path)
        size, terms = len(head.labels), len(head.vocabulary)
        shapes = {"idf": (terms,), "intercept": (size,), "weights": (size, terms)}
        found = {name: value.shape for name, value in arrays.items()}
        if found != shapes:
            raise ValueError(f"arrays {found}, expected {shapes}")
    except (OSError, ValidationError, SafetensorError, ValueError) as error:
        raise AffectbenchError(
            f"{path}: no judge can be read from it: {str(error).splitlines()[0]}",
            hint="write the judge anew: python harness.py train-judge",
        ) from error
    return Classifier(head, **{name: value.astype(np.float64) for name, value in arrays.items()})


class LocalJudge:
    """Judges with a classifier in a folder. See `Judge`."""

    def __init__(self, card: JudgeCard, labels: Sequence[str]) -> None:
        self.name = card.name
        folder = card.folder
        if folder is None:
            raise AffectbenchError(
                f"judge {card.name}: there is no folder {card.checkpoint} beside its card",
                hint="write the judge anew: python harness.py train-judge",
            )
        self._classifier = read_classifier(folder)
        self._codes = codes_of(self._classifier.head.labels, card, labels)
        self._n_labels = len(labels)
        threshold = card.threshold
        self._threshold = self._classifier.head.threshold if threshold is None else threshold
        files = [file_digest(folder / name) for name in (HEAD, WEIGHTS)]
        self.digest = digest_of([card.digest, *files, *labels])

    def judge(self, texts: Sequence[str]) -> list[Judgement]:
        """A judgement for each text; all are made."""
        if not texts:
            return []
        probabilities = self._classifier.probabilities(texts)
        return decided(probabilities, self._codes, self._n_labels, self._threshold)
