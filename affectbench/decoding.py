"""Rules that decoding may be held to: a penalty on what was said, no n-gram twice, no early end, sampling.

The rules are those of transformers' ``generate``, over the row's own prompt and what it has written; its left
padding is no part of that, so a row's text does not depend on its company.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TopPLogitsWarper,
)

from affectbench.batch import Prepared
from affectbench.task_parts import JudgeReadout


@dataclass(frozen=True)
class Decoding:
    """From `least` to `most` new tokens; `penalty` above 1 divides positive logits of tokens that were said,
    and multiplies negative ones; no run of `ngram` tokens twice, where that is above 0. At a `temperature`
    above 0 tokens are drawn, from the likeliest that have `top_p` together; the draw is the `seed`'s."""

    most: int
    least: int = 0
    penalty: float = 1.0
    ngram: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

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
        if not found and not self.least and not self.temperature:
            return None
        sampler = Sampler(self.temperature, self.top_p, self.seed) if self.temperature else None
        ids = tuple(prompt.ids.to(stops.device) for prompt in prompts)
        return Rules(found, ids, self.least, stops, sampler)


@dataclass(frozen=True)
class Sampler:
    """Turns logits into scores whose largest is a draw: log p plus Gumbel noise (Gumbel 1954; Maddison et al.
    2014). The noise follows from seed, prompt and step, so a text depends neither on its batch nor on when it
    is written, and a prompt under two interventions has the same luck."""

    temperature: float
    top_p: float
    seed: int

    def __call__(self, logits: Tensor, prompt: Tensor, step: int) -> Tensor:
        """Scores (V,), float32, of the token after `step` others; `prompt` (T,) are its ids."""
        scores = logits.float() / self.temperature
        if self.top_p < 1.0:
            scores = TopPLogitsWarper(self.top_p)(prompt[None], scores[None])[0]
        name = f"{self.seed} {step} {prompt.tolist()}".encode()
        digest = int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1
        random = torch.Generator().manual_seed(digest)
        uniform = torch.rand(logits.shape[-1], generator=random, dtype=torch.float64)
        noise = -torch.log(-torch.log(uniform))
        return scores + noise.to(scores)


@dataclass(frozen=True)
class Rules:
    """What changes the logits of a row, which may know its prompt (T,) and what it wrote."""

    processors: LogitsProcessorList
    prompts: tuple[Tensor, ...]
    least: int
    stops: Tensor
    sampler: Sampler | None = None

    def __call__(self, logits: Tensor, rows: Tensor, written: Tensor) -> Tensor:
        """Logits (A, V) of the living `rows` (A,) of all, which have `written` (A, n) so far."""
        found = logits.clone()
        if self.processors:
            for place, row in enumerate(rows.tolist()):
                said = torch.cat((self.prompts[row % len(self.prompts)], written[place]))
                found[place] = self.processors(said[None], found[place][None])[0]
        if written.shape[1] < self.least:
            found[:, self.stops] = -torch.inf
        if self.sampler is None:
            return found
        drawn = [
            self.sampler(found[place], self.prompts[row % len(self.prompts)], written.shape[1])
            for place, row in enumerate(rows.tolist())
        ]
        return torch.stack(drawn)
