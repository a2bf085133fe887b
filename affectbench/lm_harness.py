"""lm-eval on a wrapped model, many interventions at once.

lm-eval's tasks build the requests, its `HFLM` encodes them and cuts windows; `PackedLM` runs them packed.
The answers equal those of `simple_evaluate` on an `HFLM` whose model carries the hooks. Divergence from the
base model is read in the same passes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from io import StringIO
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from torch import Tensor

from affectbench.batch import Batch, Prefix, Prepared
from affectbench.engine import Engine
from affectbench.identity import digest_of
from affectbench.intervention import ANSWER, CONTENT, UNTOUCHED, VALID, Intervention, PackedEdits
from affectbench.journal import Arrays
from affectbench.pieces import Progress

Pair = tuple[tuple[int, ...], tuple[int, ...]]
"""(context token ids, continuation token ids)"""

logging.getLogger("lm_eval").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Neutral:
    """Neutral text under each intervention, the model as it is first: over the tokens of each of D documents
    the summed `kl` (K + 1, D) (base || intervened) and negative log-likelihood `nll` (K + 1, D), in nats;
    `n_tokens` and `n_bytes` (D,) of the documents."""

    kl: np.ndarray
    nll: np.ndarray
    n_tokens: np.ndarray
    n_bytes: np.ndarray


class PackedLM(HFLM):  # type: ignore[misc]
    """lm-eval's `HFLM` on a wrapped model, run under several interventions at once.

    `interventions` starts with the untouched model, whose answers lm-eval gets. `answers` holds, for each
    request and intervention, log-likelihood, whether it is greedy, and the summed KL to the base.
    """

    def __init__(self, engine: Engine, interventions: Sequence[Intervention]) -> None:
        model = engine.model
        super().__init__(
            pretrained=model.network,
            backend="causal",
            tokenizer=model.tokenizer,
            batch_size=1 << 20,
            max_length=min(2048, int(model.text_config.max_position_embeddings)),
        )
        self.engine = engine
        self.interventions = [UNTOUCHED, *interventions]
        self.answers: dict[Pair, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._asked: list[Pair] = []

    def asked_by(self, call: Callable[[], object]) -> list[Pair]:
        """The requests that lm-eval makes in `call`, in order; their answers are known afterwards."""
        self._asked = []
        call()
        return self._asked

    def _loglikelihood_tokens(
        self, requests: Sequence[Any], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        pairs = [self._fitted(context, continuation) for _, context, continuation in requests]
        self._asked += pairs
        self.answer(pairs)
        found = [self.answers[pair] for pair in pairs]
        return [(float(total[0]), bool(greedy[0])) for total, greedy, _ in found]

    def answer(self, pairs: Sequence[Pair]) -> None:
        """Make the answers to these requests known."""
        self._run([pair for pair in dict.fromkeys(pairs) if pair not in self.answers])

    def _fitted(self, context: list[int], continuation: list[int]) -> Pair:
        """Truncated from the left as `HFLM` does."""
        room = self.max_length + 1 - len(continuation)
        return tuple(context[-room:]), tuple(continuation)

    def _run(self, pairs: list[Pair]) -> None:
        rows: dict[tuple[int, ...], list[Pair]] = {}
        for pair in pairs:
            rows.setdefault((pair[0] + pair[1])[:-1], []).append(pair)
        prepared = [
            _prepared(ids, min(len(context) for context, _ in wanted)) for ids, wanted in rows.items()
        ]
        wanted = list(rows.values())
        under = digest_of(intervention.digest for intervention in self.interventions)
        for places in self.engine.batches(prepared, times=len(self.interventions)):
            items = [prepared[place] for place in places]
            flat = [(row, pair) for row, place in enumerate(places) for pair in wanted[place]]
            about = "likelihoods", under, repr(flat)
            found = self.engine.piece(about, places, partial(self._batch, items, flat))
            if found is not None:
                total, greedy, divergence = found["table"]
                for column, (_, pair) in enumerate(flat):
                    self.answers[pair] = (total[:, column], greedy[:, column] > 0.5, divergence[:, column])

    def _batch(self, items: list[Prepared], flat: list[tuple[int, Pair]], _tell: Progress) -> Arrays:
        """`table` (3, K + 1, pairs): log-likelihood, whether greedy, summed KL to the base."""
        batch = self.engine.model.collate(items)
        last = max(len(continuation) for _, (_, continuation) in flat)
        scored = _Scored.of(
            [(row, continuation) for row, (_, continuation) in flat], last, batch.embeds.device
        )
        table = np.zeros((3, len(self.interventions), len(flat)))
        base: list[BaseLogs] = []

        def untouched(hidden: Tensor) -> None:
            logs = self._logs(hidden[:, -last:], scored)
            base.append(BaseLogs.of(logs.clone()))
            table[:, 0] = self._judge(logs, base[0], scored).cpu().numpy()

        def read(rows: Batch, _edits: PackedEdits, prefix: Prefix | None) -> Tensor:
            hidden = self.engine.model.decode(rows, prefix=prefix, last=last)
            self.engine.spent(rows.embeds.shape[0])
            blocks = hidden[:, -last:].reshape(-1, len(items), last, hidden.shape[-1])
            return torch.stack([self._judge(self._logs(block, scored), base[0], scored) for block in blocks])

        edited = self.interventions[1:]
        for chosen, values in self.engine.sweep(batch, edited, read, last=last, base=untouched):
            table[:, [place + 1 for place in chosen]] = values.permute(1, 0, 2).cpu().numpy()
        return {"table": table}

    def _logs(self, hidden: Tensor, scored: _Scored) -> Tensor:
        """Log-probabilities (positions, V) where something is scored, of one intervention's rows."""
        return self.engine.model.logits(hidden[scored.rows, scored.columns]).log_softmax(-1)

    def _judge(self, logs: Tensor, base: BaseLogs, scored: _Scored) -> Tensor:
        """(3, pairs): log-likelihood, whether greedy, summed KL to the base. Overwrites `logs`."""
        likelihood = logs[scored.places, scored.tokens].double()
        missed = (logs.argmax(-1)[scored.places] != scored.tokens).double()
        divergence = base.divergence(logs)[scored.places].double()
        found = torch.zeros(3, scored.pairs, dtype=torch.float64, device=logs.device)
        found.index_add_(1, scored.owners, torch.stack([likelihood, missed, divergence]))
        found[1] = (found[1] == 0).double()
        return found


@dataclass(frozen=True)
class _Scored:
    """Which tokens of a batch are scored. `rows`, `columns` (positions,) say where, each position once;
    `places`, `tokens`, `owners` (n,) name each scored token's position, id and pair."""

    rows: Tensor
    columns: Tensor
    places: Tensor
    tokens: Tensor
    owners: Tensor
    pairs: int

    @classmethod
    def of(cls, continuations: Sequence[tuple[int, Sequence[int]]], last: int, device: Any) -> _Scored:
        """From each pair's row and continuation, which ends in the row's last column."""
        positions: dict[tuple[int, int], int] = {}
        entries = []
        for owner, (row, tokens) in enumerate(continuations):
            for column, token in enumerate(tokens, start=last - len(tokens)):
                place = positions.setdefault((row, column), len(positions))
                entries.append((place, token, owner))
        rows, columns = torch.tensor(list(positions), device=device).T
        places, ids, owners = torch.tensor(entries, device=device).T
        return cls(rows, columns, places, ids, owners, len(continuations))


@dataclass(frozen=True)
class BaseLogs:
    """Log-probabilities (positions, V) of the untouched model, to which edited ones are compared."""

    logs: Tensor
    probabilities: Tensor
    impossible: Tensor | None
    """Which tokens it gives no probability at all; None where there are none."""

    @classmethod
    def of(cls, logs: Tensor) -> BaseLogs:
        impossible = logs.isneginf()
        return cls(logs, logs.exp(), impossible if bool(impossible.any()) else None)

    def divergence(self, logs: Tensor) -> Tensor:
        """KL(base || edited) (positions,) in nats; what base gives no probability counts 0. Overwrites the
        edited log-probabilities."""
        terms = logs.sub_(self.logs).mul_(self.probabilities)
        if self.impossible is not None:
            terms.masked_fill_(self.impossible, 0.0)
        return terms.sum(-1).neg_()


def _prepared(ids: tuple[int, ...], context: int) -> Prepared:
    """A request as the engine sees it: its words are content, what is scored is the answer."""
    roles = torch.full((len(ids),), VALID | CONTENT, dtype=torch.uint8)
    roles[max(0, context - 1) :] |= ANSWER
    return Prepared(f"{hash(ids):x}", torch.tensor(ids, dtype=torch.long), roles)


def rolling_task(name: str, texts: Sequence[str]) -> ConfigurableTask:
    """lm-eval task: bits per byte of whole documents.

    Here and in `choice_task` fields are named: lm-eval would compile a template anew for every document.
    """
    return _task(
        name,
        [{"text": text} for text in texts],
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="text",
        metric_list=[{"metric": "bits_per_byte"}],
    )


def choice_task(name: str, docs: Sequence[dict[str, Any]]) -> ConfigurableTask:
    """lm-eval task: multiple choice over ``{context, choices, answer}`` documents."""
    return _task(
        name,
        list(docs),
        output_type="multiple_choice",
        doc_to_text="context",
        doc_to_choice="choices",
        doc_to_target="answer",
        metric_list=[{"metric": "acc"}],
    )


def _task(name: str, docs: list[dict[str, Any]], **settings: Any) -> ConfigurableTask:
    from datasets import Dataset

    dataset = {"test": Dataset.from_list(docs)}
    return ConfigurableTask(
        config={
            "task": name,
            "custom_dataset": lambda **_: dataset,
            "test_split": "test",
            "target_delimiter": "",
            **settings,
        }
    )


def requests_of(task: ConfigurableTask) -> list[list[Instance]]:
    """The task's requests, one list a document."""
    with redirect_stderr(StringIO()):  # lm-eval draws a progress bar of its own, which cannot be turned off.
        task.build_all_requests(rank=0, world_size=1)
    by_doc: dict[int, list[Instance]] = {}
    for request in task.instances:
        by_doc.setdefault(request.doc_id, []).append(request)
    return [sorted(by_doc[doc], key=lambda request: request.idx) for doc in sorted(by_doc)]


def neutral_text(lm: PackedLM, texts: Sequence[str]) -> Neutral:
    """Likelihood of and divergence on neutral documents, for each of the LM's interventions."""
    requests = [request for doc in requests_of(rolling_task("neutral", texts)) for request in doc]
    lm.loglikelihood_rolling(requests, disable_tqdm=True)
    kl, nll = np.zeros((2, len(lm.interventions), len(texts)))
    n_tokens = np.zeros(len(texts), dtype=np.int64)
    for place, request in enumerate(requests):
        # Answered above, all together. lm-eval alone knows into which windows it cuts a document.
        for pair in lm.asked_by(lambda own=request: lm.loglikelihood_rolling([own], disable_tqdm=True)):  # type: ignore[misc]
            total, _, divergence = lm.answers[pair]
            nll[:, place] -= total
            kl[:, place] += divergence
            n_tokens[place] += len(pair[1])
    return Neutral(kl, nll, n_tokens, np.array([len(text.encode()) for text in texts]))


class ChoiceQuestions:
    """Multiple-choice documents, as the requests that lm-eval makes of them: made and encoded once, asked of
    one model repeatedly."""

    def __init__(self, docs: Sequence[dict[str, Any]]) -> None:
        self._task = choice_task("capability", docs)
        self._requests = requests_of(self._task)
        self._docs = list(self._task.test_docs())
        self._pairs: list[Pair] = []

    def answers(self, lm: PackedLM) -> np.ndarray:
        """Whether each document is answered correctly, shape (K + 1, documents); base first."""
        if self._pairs:  # As lm-eval encoded them before; the tokenizer is the same.
            lm.answer(self._pairs)
        else:
            flat = [request for requests in self._requests for request in requests]
            self._pairs = lm.asked_by(lambda: lm.loglikelihood(flat, disable_tqdm=True))
        asked = iter(self._pairs)
        correct = np.zeros((len(lm.interventions), len(self._docs)), dtype=np.int64)
        for row, (source, requests) in enumerate(zip(self._docs, self._requests, strict=True)):
            found = [lm.answers[next(asked)] for _ in requests]
            for place in range(len(lm.interventions)):
                answers = [(float(total[place]), bool(greedy[place])) for total, greedy, _ in found]
                correct[place, row] = int(self._task.process_results(source, answers)["acc"])
        return correct
