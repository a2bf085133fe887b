"""What is left of the language model under an intervention: neutral text, a capability, open generation.

Everything is measured under the same interventions as the emotion items, the untouched model beside them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from affectbench.batch import Batch, Prefix, Prepared
from affectbench.engine import Engine
from affectbench.generation import generate
from affectbench.identity import digest_of
from affectbench.intervention import UNTOUCHED, Intervention, PackedEdits
from affectbench.journal import Arrays
from affectbench.lm_harness import ChoiceQuestions, PackedLM, neutral_text
from affectbench.pieces import Progress
from affectbench.preservation_score import PreservationOutcomes, score_preservation
from affectbench.readout import Items, Readout, decode_texts
from affectbench.score_models import Arm, PreservationScore

REFUSAL = re.compile(r"(i('m| am) (very )?sorry|i (can't|cannot|can not)|as an ai)\b")
LONGEST_WORD, MOST_REPEATED = 30, 0.3


@dataclass(frozen=True)
class Capability:
    """What the model must still be able to do: multiple-choice documents for lm-eval, or the items of
    another benchmark with its readout."""

    name: str
    docs: Sequence[dict[str, Any]] = ()
    items: Items | None = None
    readout: Readout | None = None


@dataclass(frozen=True)
class Preserver:
    """Measures preservation on one model; `prompts` are open prompts for generation."""

    engine: Engine
    neutral: Sequence[str]
    capability: Capability
    prompts: Sequence[Prepared]
    max_new_tokens: int

    def measure(
        self,
        conditions: Sequence[tuple[Arm, float, Sequence[Intervention]]],
        seed: int,
        random: Mapping[tuple[Arm, float], Sequence[Intervention]] | None = None,
    ) -> list[PreservationScore]:
        """One score for each (arm, dose, interventions), averaged over the interventions. `random` units, by
        condition, are asked for the capability alone."""
        swept = list({i.digest: i for _, _, found in conditions for i in found if i.effective}.values())
        place = {intervention.digest: row + 1 for row, intervention in enumerate(swept)} | {
            UNTOUCHED.digest: 0
        }
        lm = PackedLM(self.engine, swept)
        neutral = neutral_text(lm, self.neutral)
        correct = self._capability(swept)
        degenerate = self._degenerate(swept)
        drawn = {key: self._drawn(draws) for key, draws in (random or {}).items() if draws}
        measured = []
        for arm, dose, found in conditions:
            rows = [place[intervention.digest] for intervention in found]
            measured.append(
                PreservationOutcomes(
                    arm=arm,
                    dose=dose,
                    kl=neutral.kl[rows],
                    nll=neutral.nll[rows],
                    nll_base=neutral.nll[0],
                    n_tokens=neutral.n_tokens,
                    n_bytes=neutral.n_bytes,
                    capability=correct[rows],
                    capability_base=np.repeat(correct[:1], len(rows), axis=0),
                    capability_task=self.capability.name,
                    degenerate=degenerate[rows],
                    degenerate_base=np.repeat(degenerate[:1], len(rows), axis=0),
                    capability_random=drawn.get((arm, dose)),
                )
            )
        return score_preservation(measured, seed=seed)

    def _capability(self, swept: Sequence[Intervention]) -> np.ndarray:
        """Correct answers (K + 1, items), 0 or 1; failed items are wrong."""
        if self.capability.items is None or self.capability.readout is None:
            return self._chosen([UNTOUCHED, *swept])
        found = self.engine.predict(self.capability.items, self.capability.readout, [UNTOUCHED, *swept])
        correct: np.ndarray = found.codes == self.capability.items.gold
        return correct.astype(np.int64)

    def _chosen(self, interventions: Sequence[Intervention]) -> np.ndarray:
        """Whether each multiple-choice document is answered right, (K, documents)."""
        questions = ChoiceQuestions(self.capability.docs)
        found = np.zeros((len(interventions), len(self.capability.docs)), dtype=np.int64)

        def ask(places: list[int], edits: list[Intervention]) -> None:
            hooked = {each.digest: each for each in edits if each.effective}
            rows = {digest: row for row, digest in enumerate([UNTOUCHED.digest, *hooked])}
            answers = questions.answers(PackedLM(self.engine, list(hooked.values())))
            found[places] = answers[[rows[each.digest] for each in edits]]

        self.engine.by_weights(interventions, ask)
        return found

    def _drawn(self, draws: Sequence[Intervention]) -> np.ndarray:
        """Correct answers (R, items) under draws of random units."""
        return self._capability(draws)[1:]

    def _degenerate(self, swept: Sequence[Intervention]) -> np.ndarray:
        """Whether each open continuation is degenerate, (K + 1, prompts), 0 or 1."""
        interventions = [UNTOUCHED, *swept]
        found = np.zeros((len(interventions), len(self.prompts)), dtype=np.int64)

        def judge(chosen: list[int], edits: list[Intervention]) -> None:
            under = digest_of(intervention.digest for intervention in edits)
            for places in self.engine.batches(self.prompts, self.max_new_tokens):
                prompts = [self.prompts[place] for place in places]
                about = ("generations", under, repr((self.max_new_tokens, [p.ids.tolist() for p in prompts])))
                judged = self.engine.piece(about, places, partial(self._judged, prompts, edits))
                if judged is not None:
                    found[np.array(chosen)[:, None], places] = judged["degenerate"]

        self.engine.by_weights(interventions, judge)
        return found

    def _judged(
        self, prompts: list[Prepared], interventions: Sequence[Intervention], _tell: Progress
    ) -> Arrays:
        """`degenerate` (K + 1, B), 0 or 1, of the continuations of one batch of prompts."""
        model, most = self.engine.model, self.max_new_tokens
        chat = bool(getattr(model.tokenizer, "chat_template", None))
        found = np.zeros((len(interventions), len(prompts)), dtype=np.int64)

        def read(rows: Batch, edits: PackedEdits, prefix: Prefix | None) -> Tensor:
            return generate(model, rows, edits, prefix, most, self.engine.spent)

        batch = model.collate(prompts)
        for chosen, tokens in self.engine.sweep(batch, interventions, read, last=1, grow=most):
            capped = (tokens >= 0).all(-1)
            for row, text in enumerate(decode_texts(model, tokens)):
                at = chosen[row // len(prompts)], row % len(prompts)
                found[at] = degenerate(text, endless=chat and bool(capped[row]))
        return {"degenerate": found}


def degenerate(text: str, *, endless: bool = False) -> bool:
    """Whether generated text has broken down.

    Empty, a refusal, more than 30 % of its word 3-grams repeated, a word longer than 30 characters, or
    `endless`: it hit the token cap. Only a chat model's reply can be endless; plain text has no set end.
    """
    words = text.split()
    if endless or not words or any(len(word) > LONGEST_WORD for word in words):
        return True
    if REFUSAL.match(text.strip().lower()):
        return True
    grams = [tuple(words[place : place + 3]) for place in range(len(words) - 2)]
    return bool(grams) and 1 - len(set(grams)) / len(grams) > MOST_REPEATED
