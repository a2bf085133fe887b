"""What a judge says of a text, and how its own labels become those of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from affectbench.errors import AffectbenchError
from affectbench.judge_card import JudgeCard
from affectbench.outcomes import ERROR, UNPARSED
from affectbench.yaml_loading import suggest

NONE: Final = UNPARSED
"""The code of a text that expresses none of the labels: an answer, unlike `ERROR`."""
NONE_LABEL: Final = "none"
"""What judges call it."""
Probabilities = npt.NDArray[np.float32]


class Judgement(NamedTuple):
    """A label's index, `NONE`, or `ERROR` with what went wrong: the judge was not reached or refused
    (``request``), or its answer could not be read (``parse``)."""

    code: int
    failure: str = ""
    reason: str = ""


class Judge(Protocol):
    """Judges texts one by one; the same text always gets the same judgement, or an error.

    `name`: its card's. `digest`: content hash of all that a judgement depends on beside the text.
    """

    name: str
    digest: str

    def judge(self, texts: Sequence[str]) -> list[Judgement]:
        """A judgement for each text, in order. Raises `AffectbenchError` where none can be had at all."""
        ...


def codes_of(own: Sequence[str], card: JudgeCard, labels: Sequence[str]) -> list[int]:
    """For each of the judge's own labels the index of a benchmark's label, or `NONE`.

    Raises `AffectbenchError` for a label that is neither in the benchmark nor in the card's `label_map`, and
    where no label of the judge stands for one of the benchmark's.
    """
    mapping: Mapping[str, str | None] = {NONE_LABEL: None, **card.label_map}
    found = []
    for name in own:
        label = mapping.get(name, name)
        if label is not None and label not in labels:
            raise AffectbenchError(
                f"judge {card.name} may answer {name!r}, no label of the task{suggest(name, labels)}",
                hint="say in `label_map` of its card what that is, or null for none of the task's labels",
            )
        found.append(NONE if label is None else list(labels).index(label))
    missing = sorted(set(range(len(labels))) - set(found))
    if missing:
        raise AffectbenchError(
            f"judge {card.name} cannot answer {', '.join(labels[place] for place in missing)}",
            hint=f"it answers {', '.join(own)}; use another judge, or `label_map` of its card",
        )
    return found


def decided(
    probabilities: Probabilities, codes: Sequence[int], n_labels: int, threshold: float
) -> list[Judgement]:
    """Judgements from probabilities (N, own labels), those that stand for one label of the benchmark added
    up. `NONE` where that is likeliest or where no label reaches the threshold; `ERROR` for numbers that are
    not finite."""
    summed = np.zeros((len(probabilities), n_labels + 1), dtype=np.float64)
    for column, code in enumerate(codes):
        summed[:, n_labels if code == NONE else code] += probabilities[:, column]
    found = []
    for row in summed:
        if not np.isfinite(row).all():
            found.append(Judgement(ERROR, "request", "the classifier's probabilities are not finite"))
            continue
        best = int(row.argmax())
        found.append(Judgement(NONE if best == n_labels or row[best] < threshold else best))
    return found
