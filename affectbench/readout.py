"""How an answer is read from a model: label log-likelihood, lettered options, or parsed generation.

A prediction is a code: 0 .. E-1 for a label, `UNPARSED` for text that names none, `FAILED` for an item
whose scores are not finite. The last two are counted, never turned into a label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

if TYPE_CHECKING:
    from affectbench.batch import Prepared
    from affectbench.model import Model

UNPARSED, FAILED = -1, -2
IntArray = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Predictions:
    """`codes` (K, N) prediction codes; `scores` (K, N, E) label log-likelihoods, NaN for generation."""

    codes: Codes
    scores: Scores


@dataclass(frozen=True)
class Readout:
    """What is asked of the model at the answer position.

    `candidates`: token ids of each possible answer, in option order. `max_new_tokens` above 0 means greedy
    generation, whose text `parse` turns into a label index or `UNPARSED`.
    """

    labels: tuple[str, ...]
    candidates: tuple[tuple[int, ...], ...]
    max_new_tokens: int = 0
    parse: Callable[[str, IntArray | None], int] | None = None

    @property
    def one_pass(self) -> bool:
        """Whether the logits at the answer position say it all."""
        return self.max_new_tokens == 0 and not self.prefixes

    @cached_property
    def prefixes(self) -> tuple[tuple[int, ...], ...]:
        """What candidates of several tokens begin with, short of their last token; each once, short first."""
        if self.max_new_tokens:
            return ()
        found = {tokens[:size] for tokens in self.candidates for size in range(1, len(tokens))}
        return tuple(sorted(found, key=lambda prefix: (len(prefix), prefix)))

    @property
    def further(self) -> int:
        """Columns that answering adds to an item's prompt."""
        return self.max_new_tokens or len(self.prefixes)

    def first_scores(self, logits: Tensor) -> Tensor:
        """Log-probability (rows, C) of each candidate's first token from answer logits (rows, V)."""
        first = torch.tensor([tokens[0] for tokens in self.candidates], device=logits.device)
        return logits[:, first] - logits.logsumexp(-1, keepdim=True)


@dataclass(frozen=True)
class Items:
    """The prepared items of one split. `orders` (N, C): which label each option of an item stands for,
    where options are shuffled; None where candidate c is label c. `gold` (N,) label indices."""

    split: str
    items: tuple[Prepared, ...]
    gold: IntArray
    clusters: tuple[str, ...]
    orders: IntArray | None = None

    def __len__(self) -> int:
        return len(self.items)

    def at(self, places: Sequence[int]) -> Items:
        """The items at these places, in this order."""
        chosen = np.asarray(places, dtype=np.int64)
        gold = self.gold[chosen]
        gold.setflags(write=False)
        return Items(
            split=self.split,
            items=tuple(self.items[place] for place in chosen),
            gold=gold,
            clusters=tuple(self.clusters[place] for place in chosen),
            orders=None if self.orders is None else self.orders[chosen],
        )

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(item.id for item in self.items)

    @cached_property
    def digest(self) -> str:
        """Content hash of what the model is shown: item ids, tokens and option orders."""
        digest = hashlib.sha256(self.split.encode())
        for item in self.items:
            digest.update(item.id.encode() + b"\0" + item.ids.numpy().tobytes())
        if self.orders is not None:
            digest.update(self.orders.tobytes())
        return digest.hexdigest()[:16]


def to_labels(scores: Scores, orders: IntArray | None) -> Scores:
    """Reorder candidate scores (..., N, C) into label scores (..., N, E)."""
    if orders is None:
        return scores
    inverse = np.argsort(orders, axis=-1)
    return np.take_along_axis(scores, np.broadcast_to(inverse, scores.shape), axis=-1)


def codes_of(scores: Scores) -> Codes:
    """Prediction codes (...) of label scores (..., E): the argmax, or `FAILED` where any is not finite."""
    finite = np.asarray(np.isfinite(scores).all(axis=-1))
    best = np.where(finite[..., None], scores, 0).argmax(axis=-1)
    return np.where(finite, best, FAILED).astype(np.int8)


def margins_of(scores: Scores) -> Scores:
    """Score of each label minus the best other label's, shape (..., E); NaN where scores are not finite."""
    ranked = np.sort(scores, axis=-1)
    best, second = ranked[..., -1:], ranked[..., -2:-1]
    margins = np.where(scores == best, scores - second, scores - best)
    return np.where(np.isfinite(scores).all(axis=-1, keepdims=True), margins, np.nan).astype(np.float32)


def parsed(model: Model, tokens: Tensor, readout: Readout, orders: IntArray | None, times: int) -> Codes:
    """Codes (K, B) of generated token ids (K * B, n), `times` = K; `orders` of the B items' options."""
    assert readout.parse is not None, "a generating readout has a parser"
    texts = decode_texts(model, tokens)
    size = len(texts) // times
    found = [
        readout.parse(text, None if orders is None else orders[row % size]) for row, text in enumerate(texts)
    ]
    failed = (tokens == FAILED).any(-1).cpu().numpy()
    return np.where(failed, FAILED, found).astype(np.int8).reshape(times, size)


def decode_texts(model: Model, tokens: Tensor) -> Sequence[str]:
    """Generated token ids (rows, n) as text; negative entries, which follow the end, are dropped."""
    rows = [[int(token) for token in row if token >= 0] for row in tokens]
    return list(model.tokenizer.batch_decode(rows, skip_special_tokens=True))
