"""Amplifying without being told the emotion: two_pass, mix and union. Nothing here ever sees a gold label.

- two_pass: answer once, then again with the units of the answered emotion amplified. That answer is one of
  those the effect matrix needs anyway, so it costs no pass.
- union: the units of all emotions amplified at once, by the dose.
- mix: each emotion's units amplified by its share of the dose's alpha; units of several add their shares.
  Shares are equal (`paper`), or the probabilities of the answers without intervention (`sound`).

arXiv 2601.03115 names the three; shares, and that masks add, are our reading.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from affectbench.engine import Engine
from affectbench.intervention import UNTOUCHED, Intervention
from affectbench.outcomes import Array, Steered
from affectbench.readout import Codes, Items, Readout, Scores
from affectbench.sites import FloatArray
from affectbench.targets import Dosing, Target

Sets = Sequence[Target]
"""What is amplified for each emotion."""
Rows = Array | Sequence[Array]
T = TypeVar("T")


def rotated(draws: Sequence[T], labels: int) -> list[list[T]]:
    """Random draws in the place of emotions: control j takes draw (j + s) modulo their number for emotion s.

    As the random control of specificity does; none where there are fewer draws than emotions.
    """
    if len(draws) < labels:
        return []
    return [[draws[(j + s) % len(draws)] for s in range(labels)] for j in range(len(draws))]


def by_answer(base: Array, answers: Rows) -> Array:
    """(N,) answers with the units of the emotion that was answered without intervention.

    `base` (N,) codes and `answers` (E, N) codes under each emotion's units; an item without an answer in
    `base` has no emotion to amplify and stays as it was.
    """
    rows = np.stack(list(answers))
    chosen = rows[np.clip(base, 0, None), np.arange(len(base))]
    return np.where(base >= 0, chosen, base)


def shares(scores: Scores, mode: str) -> FloatArray:
    """(N, E) weights of the emotions' gains from (N, E) log-likelihoods of the answers without intervention.

    Equal ones in mode ``paper``, and for an item whose readout has no likelihoods.
    """
    equal = np.full(scores.shape, 1.0 / scores.shape[1])
    if mode == "paper":
        return equal
    known = np.asarray(np.isfinite(scores).all(axis=1))
    likely = np.where(known.reshape(-1, 1), scores, 0.0).astype(np.float64)
    weights = np.exp(likely - likely.max(axis=1, keepdims=True))
    return np.where(known.reshape(-1, 1), weights / weights.sum(axis=1, keepdims=True), equal)


@dataclass(frozen=True)
class Injection:
    """Answers of a model to the items of a split under the label-free targetings of a protocol."""

    engine: Engine
    items: Items
    readout: Readout
    dosing: Dosing
    progress: Callable[[int], None] | None = None

    def steered(
        self, dose: float, sets: Sets, draws: Sets, answers: Codes, drawn: Codes
    ) -> tuple[Steered, ...]:
        """One `Steered` for each targeting of the protocol, at one dose of the amplify arm.

        `answers` (E, N) and `drawn` (R, N) are those under each emotion's units and each random draw.
        """
        controls = rotated(draws, len(sets))
        found = []
        for targeting in self.dosing.protocol.arms.amplify.targeting:
            if targeting == "two_pass":
                base = self._base()[0]
                rows: list[Rows] = [answers, *rotated(list(drawn), len(sets))]
                codes = np.stack([by_answer(base, each) for each in rows])
            elif targeting == "union":
                codes = self._all_alike([self.dosing.union(each, dose) for each in (sets, *controls)])
            else:
                codes = self._mixed(dose, [sets, *controls])
            found.append(Steered(targeting, codes[0], codes[1:]))
        return tuple(found)

    def _base(self) -> tuple[Codes, Scores]:
        found = self.engine.predict(self.items, self.readout, [UNTOUCHED])
        return found.codes[0], found.scores[0]

    def _all_alike(self, interventions: list[Intervention]) -> Codes:
        return self.engine.predict(self.items, self.readout, interventions, self.progress).codes

    def _mixed(self, dose: float, every: Sequence[Sets]) -> Codes:
        weights = shares(self._base()[1], self.dosing.protocol.mode)
        if (weights == weights[0]).all():
            return self._all_alike([self.dosing.mixed(sets, weights[0], dose) for sets in every])
        own = [[self.dosing.mixed(sets, weight, dose) for sets in every] for weight in weights]
        return self.engine.predict_each(self.items, self.readout, own, self.progress)
