"""Training of local judges: labelled replies -> a small classifier that also knows what expresses nothing.

Every text is learnt twice, as it is and without its emotion words (`affectbench.emotion_words`), so that the
judge listens to the tone and not to the name. Sentences of the project without emotion are learnt as none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from affectbench.content import builtin_root
from affectbench.dataset import Dataset
from affectbench.emotion_words import masked
from affectbench.examples import DatasetError
from affectbench.judges.judgement import NONE_LABEL
from affectbench.judges.local import Classifier, Head, features
from affectbench.scenarios import own_scenarios
from affectbench.stats import FloatArray
from affectbench.table_rows import json_rows

FOLDS: Final = 3
LOST: Final = 0.0025
"""Share of correctly judged texts, in cross-validation, that the threshold may turn into none."""
RARE: Final = 0.0005
"""Terms in a smaller share of the texts, or in one, are passed over."""
STRENGTH: Final = 10.0
"""Inverse of the regularisation, as scikit-learn's C."""


@dataclass(frozen=True)
class Labelled:
    """Texts with labels; texts of one group are kept together in cross-validation."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """Share of texts judged as labelled, and share judged as none; the same with emotion words taken out."""

    n: int
    accuracy: float
    none: float
    masked_accuracy: float
    masked_none: float


def read_labelled(path: Path, text: str, label: str, group: str) -> Labelled:
    """Texts of a JSON lines file, by the names of its keys; without the key `group`, each is its own group.

    Raises `DatasetError` for a row that lacks one of the others.
    """
    rows = []
    for number, cells in json_rows(path):
        for key in (text, label):
            if not isinstance(cells.get(key), str) or not cells[key]:
                raise DatasetError(f"{path}:{number}: expected a text under {key!r}",
                                   hint="name the keys with --text-key and --label-key")  # fmt: skip
        rows.append((cells[text], cells[label], str(cells.get(group, number))))
    if not rows:
        raise DatasetError(f"{path}: there is no text in it")
    texts, labels, groups = zip(*rows, strict=True)
    return Labelled(texts, labels, groups)


def labelled_by_task(dataset: Dataset, labels: Sequence[str]) -> Labelled:
    """The test texts of a benchmark that have one of the `labels`. Raises `DatasetError` where none has."""
    kept = [each for each in dataset.splits["test"] if each.label in labels and each.text]
    if not kept:
        raise DatasetError(f"{dataset.benchmark.name} has no test text labelled {', '.join(labels)}")
    rows = [(str(each.text), each.label, each.cluster) for each in kept]
    texts, named, groups = zip(*rows, strict=True)
    return Labelled(texts, named, groups)


def own_replies(per_label: int = 1000, seed: int = 0) -> tuple[Labelled, Labelled]:
    """Generated replies to learn from, of all parts there are, and other draws of the same parts."""
    from affectbench.generators.expressions import labelled_replies

    learnt = labelled_replies(per_label, seed, held_out=None)
    return _ungrouped(learnt), _ungrouped(labelled_replies(per_label // 4, seed + 1, held_out=None))


def _ungrouped(rows: Sequence[tuple[str, str]]) -> Labelled:
    texts, labels = zip(*rows, strict=True)
    return Labelled(texts, labels, tuple(str(place) for place in range(len(rows))))


def own_neutral() -> list[str]:
    """Sentences of this project that express no emotion: scenarios, neutral outcomes, neutral documents."""
    found = [text for each in own_scenarios() for text in (each.text, each.events["neutral"])]
    found += [f"{each.text} {each.events['neutral']}" for each in own_scenarios()]
    path = builtin_root() / "tasks" / "data" / "neutral-english.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines():
        found += [f"{part}." for part in json.loads(line)["text"].rstrip(".").split(". ")]
    return found


def train(data: Labelled, neutral: Sequence[str], origin: str, *, seed: int = 0) -> Classifier:
    """A classifier of the labels in `data` and of none, with a threshold found by cross-validation."""
    labels = (*sorted(set(data.labels) - {NONE_LABEL}), NONE_LABEL)
    known = np.array([labels.index(label) for label in data.labels])
    threshold = _threshold(data, known, neutral, len(labels), seed)
    vectors, model = _fitted(data.texts, known, neutral, len(labels))
    order = np.argsort(model.classes_)
    head = Head(
        labels=labels,
        vocabulary=tuple(vectors.get_feature_names_out()),
        threshold=threshold,
        origin=origin,
    )
    weights, intercept = model.coef_[order], model.intercept_[order]
    return Classifier(head, _stored(vectors.idf_), _stored(weights), _stored(intercept))


def _stored(values: np.ndarray) -> FloatArray:
    """As they come back from a file, which has 32 bits a number."""
    return values.astype(np.float32).astype(np.float64)


def measure(classifier: Classifier, data: Labelled) -> Measured:
    """How often a classifier says what texts are labelled; labels that it does not know count as wrong."""
    found = []
    for texts in (data.texts, tuple(masked(text) for text in data.texts)):
        probabilities = classifier.probabilities(texts)
        best = probabilities.argmax(axis=1)
        sure = probabilities.max(axis=1) >= classifier.head.threshold
        said = [classifier.head.labels[k] if ok else NONE_LABEL for k, ok in zip(best, sure, strict=True)]
        right = [word == label for word, label in zip(said, data.labels, strict=True)]
        found += [float(np.mean(right)), float(np.mean([word == NONE_LABEL for word in said]))]
    return Measured(len(data.texts), *found)


def _fitted(
    texts: Sequence[str], known: np.ndarray, neutral: Sequence[str], n_labels: int
) -> tuple[Any, Any]:
    from sklearn.linear_model import LogisticRegression

    everything = [*texts, *(masked(text) for text in texts), *neutral]
    gold = np.concatenate([known, known, np.full(len(neutral), n_labels - 1)])
    vectors = features(at_least=max(2, round(RARE * len(everything))))
    model = LogisticRegression(C=STRENGTH, max_iter=2000)
    return vectors, model.fit(vectors.fit_transform(everything), gold)


def _threshold(data: Labelled, known: np.ndarray, neutral: Sequence[str], n_labels: int, seed: int) -> float:
    """The probability below which `LOST` of the texts lie that are judged correctly in cross-validation; at
    most a half, for what is likelier than all else together is said."""
    groups = sorted(set(data.groups))
    fold_of = dict(
        zip(np.random.default_rng(seed).permutation(groups), np.arange(len(groups)) % FOLDS, strict=True)
    )
    fold = np.array([fold_of[group] for group in data.groups])
    sure = []
    for k in range(FOLDS):
        inside, outside = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        if not outside.size:
            continue
        vectors, model = _fitted([data.texts[p] for p in inside], known[inside], neutral, n_labels)
        found = model.predict_proba(vectors.transform([data.texts[p] for p in outside]))
        right = model.classes_[found.argmax(axis=1)] == known[outside]
        sure.append(found.max(axis=1)[right])
    return min(0.5, round(float(np.quantile(np.concatenate(sure), LOST)), 4))
