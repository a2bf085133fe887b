"""Metrics of MER-UniBench over emotion wheels: hit rate, open vocabulary, sentiment (arXiv 2501.16566).

A label is grouped by each of five wheels, and two labels of one cluster count as equal. What the published
numbers leave out is always beside them: how many items a wheel can group at all, how long the answers are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from affectbench.errors import ScoreError

Level = Literal["level1", "level2"]
LONGEST = 3
"""Words of a label that `labels_in` looks for."""


@dataclass(frozen=True)
class Wheels:
    """The wheels and their vocabularies. `forms`: base forms of a word; `synonyms`: words of the wheels for a
    base form; `clusters`: for each wheel and level, the cluster of each of its words."""

    forms: Mapping[str, Sequence[str]]
    synonyms: Mapping[str, Sequence[str]]
    clusters: tuple[Mapping[str, Mapping[str, str]], ...]

    @classmethod
    def read(cls, path: Path) -> Wheels:
        """Read the official maps from JSON, with their own names `format_mapping`, `raw_mapping` and
        `wheel_map_whole`. Raises `ScoreError` where the file is not that."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            wheels = [content["wheel_map_whole"][name] for name in sorted(content["wheel_map_whole"])]
            found = cls(content["format_mapping"], content["raw_mapping"], tuple(wheels))
            if not wheels or any({"level1", "level2"} - set(wheel) for wheel in wheels):
                raise KeyError("level1 and level2 of each wheel")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ScoreError(
                f"{path} does not hold emotion wheels: {type(error).__name__}: {error}",
                hint="convert the official wheel_mapping.npz to JSON with its three keys, and name that file",
            ) from error
        return found

    def cluster(self, label: str, wheel: int, level: Level = "level1") -> str | None:
        """The cluster of a label in a wheel (from 0), or None: the alphabetically first word of the wheel
        that is reachable from the label decides."""
        words = self.clusters[wheel][level]
        return next((words[word] for word in _reachable(self, label) if word in words), None)

    def grouped(self, labels: Iterable[str], wheel: int, level: Level = "level1") -> set[str]:
        """The clusters of labels; those without one are left out."""
        found = (self.cluster(label, wheel, level) for label in labels)
        return {cluster for cluster in found if cluster is not None}

    def labels_in(self, text: str) -> list[str]:
        """The known labels in a text, in order, longest first, none twice: an extractor without a model."""
        words = re.findall(r"[a-z]+(?:['’-][a-z]+)*", text.lower())
        found: list[str] = []
        place = 0
        while place < len(words):
            for size in range(min(LONGEST, len(words) - place), 0, -1):
                label = " ".join(words[place : place + size])
                if label in self.forms:
                    found.append(label)
                    break
            place += size
        return list(dict.fromkeys(found))

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


@cache
def _reachable(wheels: Wheels, label: str) -> tuple[str, ...]:
    """The wheel words that a label stands for, alphabetically."""
    bases = wheels.forms.get(label.lower().strip(), ())
    return tuple(sorted(set(chain.from_iterable(wheels.synonyms.get(base, ()) for base in bases))))


def parse_list(text: str) -> list[str]:
    """Labels of a printed list: one pair of square brackets is stripped, quotes and commas separate."""
    inner = text.strip()
    if inner.startswith("[") and inner.endswith("]"):
        inner = inner[1:-1]
    return [part.strip() for part in re.split(r"['\",]", inner) if part.strip()]


@dataclass(frozen=True)
class HitRate:
    """`value`: mean over wheels of the share of items whose cluster is among those answered; `wheels`: each
    wheel's, NaN where it counts no item; `counted`: items that each wheel can group, of `n`.

    Beside it, for long lists hit more: `length`, mean labels answered; `precision`, mean share of the
    answered clusters that are the gold one.
    """

    value: float
    wheels: tuple[float, ...]
    counted: tuple[int, ...]
    n: int
    length: float
    precision: float

    @property
    def coverage(self) -> float:
        """Mean share of the items that count."""
        return float(np.mean(self.counted)) / self.n


def hit_rate(wheels: Wheels, gold: Sequence[str], answers: Sequence[Sequence[str]]) -> HitRate:
    """Hit rate of lists of labels against one gold label each, by the inner rings.

    Raises `ScoreError` unless there is one answer for each gold label.
    """
    _same_length(gold, answers)
    values, counted, precisions = [], [], []
    for wheel in range(len(wheels.clusters)):
        hits = []
        for label, answer in zip(gold, answers, strict=True):
            cluster = wheels.cluster(label, wheel)
            if cluster is None:
                continue
            found = wheels.grouped(answer, wheel)
            hits.append(cluster in found)
            precisions.append((cluster in found) / len(found) if found else 0.0)
        values.append(_mean(hits))
        counted.append(len(hits))
    lengths = [len(answer) for answer in answers]
    return HitRate(_mean(values), tuple(values), tuple(counted), len(gold), _mean(lengths), _mean(precisions))


@dataclass(frozen=True)
class OpenVocabulary:
    """Means over wheels of precision, recall and F; `wheels`: each wheel's F; `counted` as in `HitRate`."""

    f: float
    precision: float
    recall: float
    wheels: tuple[float, ...]
    counted: tuple[int, ...]
    n: int


def open_vocabulary(
    wheels: Wheels, gold: Sequence[Sequence[str]], answers: Sequence[Sequence[str]], level: Level = "level1"
) -> OpenVocabulary:
    """Set overlap of lists of labels, cluster by cluster; F is of the mean precision and mean recall, and 0
    where both are 0. Items whose gold labels have no cluster do not count.

    Raises `ScoreError` unless there is one answer for each gold list.
    """
    _same_length(gold, answers)
    rows, counted = [], []
    for wheel in range(len(wheels.clusters)):
        precisions, recalls = [], []
        for labels, answer in zip(gold, answers, strict=True):
            wanted, found = wheels.grouped(labels, wheel, level), wheels.grouped(answer, wheel, level)
            if wanted:
                shared = len(wanted & found)
                precisions.append(shared / len(found) if found else 0.0)
                recalls.append(shared / len(wanted))
        precision, recall = _mean(precisions), _mean(recalls)
        total = precision + recall
        rows.append((2 * precision * recall / total if total else total, precision, recall))
        counted.append(len(precisions))
    f, precision, recall = (_mean(column) for column in zip(*rows, strict=True))
    return OpenVocabulary(f, precision, recall, tuple(row[0] for row in rows), tuple(counted), len(gold))


@dataclass(frozen=True)
class Sentiment:
    """Positive against not positive, without items whose gold is 0: weighted F1 and accuracy over `counted`
    of `n` items. `three_way`: accuracy of the sign, zeros included."""

    weighted_f1: float
    accuracy: float
    three_way: float
    counted: int
    n: int


def sentiment(gold: Sequence[float], answers: Sequence[float]) -> Sentiment:
    """Scores of signed numbers; an answer of 0 counts as negative in the first two, as published.

    Raises `ScoreError` unless there is one finite answer for each gold number.
    """
    _same_length(gold, answers)
    wanted, found = np.asarray(gold, dtype=float), np.asarray(answers, dtype=float)
    if not (np.isfinite(wanted).all() and np.isfinite(found).all()):
        raise ScoreError("sentiments must be finite numbers")
    kept = wanted != 0
    positive, said = wanted[kept] > 0, found[kept] > 0
    f1 = 0.0
    for side in (True, False):
        own, told = positive == side, said == side
        shared = np.count_nonzero(own & told)
        both = np.count_nonzero(own) + np.count_nonzero(told)
        f1 += np.count_nonzero(own) * (2 * shared / both if both else 0.0)
    count = int(np.count_nonzero(kept))
    return Sentiment(
        weighted_f1=f1 / count if count else float("nan"),
        accuracy=_mean(positive == said),
        three_way=_mean(np.sign(wanted) == np.sign(found)),
        counted=count,
        n=len(wanted),
    )


def closed_set_recall(gold: Sequence[str], answers: Sequence[Sequence[str]]) -> float:
    """Unweighted average recall over all gold labels, those without a cluster too, of the first answered
    label that is one of them. What hit rates drop shows here."""
    _same_length(gold, answers)
    labels = {label.lower().strip() for label in gold}
    recalls = []
    for label in sorted(labels):
        own = [
            answer for wanted, answer in zip(gold, answers, strict=True) if wanted.lower().strip() == label
        ]
        recalls.append(_mean([_first(answer, labels) == label for answer in own]))
    return _mean(recalls)


def _first(answer: Iterable[str], labels: set[str]) -> str | None:
    return next((each for each in (word.lower().strip() for word in answer) if each in labels), None)


def _mean(values: Iterable[float] | np.ndarray) -> float:
    """The mean; NaN of nothing."""
    found = list(values)
    return float(np.mean(found)) if found else float("nan")


def _same_length(gold: Sequence[object], answers: Sequence[object]) -> None:
    if len(gold) != len(answers) or not len(gold):
        raise ScoreError(f"{len(gold)} gold labels and {len(answers)} answers", hint="one answer an item")
