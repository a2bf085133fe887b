"""Rules that greedy decoding may be held to: a penalty on what was said, no n-gram twice, no early end.

The rules are those of transformers' ``generate``, over the row's own prompt and what it has written; its left
padding is no part of that, so a row's text does not depend on its company.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessorList, NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

from affectbench.batch import Prepared
from affectbench.task_parts import JudgeReadout


@dataclass(frozen=True)
class Decoding:
    """From `least` to `most` new tokens; `penalty` above 1 divides positive logits of tokens that were said,
    and multiplies negative ones; no run of `ngram` tokens twice, where that is above 0."""

    most: int
    least: int = 0
    penalty: float = 1.0
    ngram: int = 0

    @classmethod
    def of(cls, readout: JudgeReadout) -> Decoding:
        return cls(
            readout.max_new_tokens,
            readout.min_new_tokens,
            readout.repetition_penalty,
            readout.no_repeat_ngram_size,
        )

    def rules(self, prompts: Sequence[Prepared], stops: Tensor) -> Rules | None:
        """The rules for rows of these prompts, again and again in that order; None where there are none."""
        found = LogitsProcessorList()
        if self.penalty != 1.0:
            found.append(RepetitionPenaltyLogitsProcessor(penalty=self.penalty))
        if self.ngram:
            found.append(NoRepeatNGramLogitsProcessor(self.ngram))
        if not found and not self.least:
            return None
        return Rules(found, tuple(prompt.ids.to(stops.device) for prompt in prompts), self.least, stops)


@dataclass(frozen=True)
class Rules:
    """What changes the logits of a row, which may know its prompt (T,) and what it wrote."""

    processors: LogitsProcessorList
    prompts: tuple[Tensor, ...]
    least: int
    stops: Tensor

    def __call__(self, logits: Tensor, rows: Tensor, written: Tensor) -> Tensor:
        """Logits (A, V) of the living `rows` (A,) of all, which have `written` (A, n) so far."""
        found = logits.clone()
        if self.processors:
            for place, row in enumerate(rows.tolist()):
                said = torch.cat((self.prompts[row % len(self.prompts)], written[place]))
                found[place] = self.processors(said[None], found[place][None])[0]
        if written.shape[1] < self.least:
            found[:, self.stops] = -torch.inf
        return found
