"""Open answers: what a model says to a benchmark's items when it may name any emotions, in its own words.

The best answer and some that are drawn, as MER-UniBench asks for them (arXiv 2501.16566 draws one, without a
seed). `emotion_wheel` scores them. Work is kept batch by batch, so a stopped run goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affectbench.dataset import Dataset, load_benchmark
from affectbench.decoding import Decoding
from affectbench.errors import AffectbenchError
from affectbench.identity import code_digest, digest_of
from affectbench.intervention import UNTOUCHED
from affectbench.journal import Journal, remove_pieces
from affectbench.pieces import Progress
from affectbench.placement import content_hashes, library_versions, load_model
from affectbench.plan import Job
from affectbench.readout import FAILED, IntArray, decode_texts
from affectbench.registry import Registry
from affectbench.session import Session
from affectbench.store import write_atomically
from affectbench.task import RecognitionBenchmark
from affectbench.writing import Writer

BEST = 0
"""The number of the answer that takes the likeliest token each time; drawn ones count from 1."""


@dataclass(frozen=True)
class Asking:
    """How answers are got: a question in place of the benchmark's own prompt, tokens at most, and answers
    that are drawn beside the best, at a temperature from the likeliest tokens that have `top_p` together."""

    question: str | None = None
    most: int = 64
    samples: int = 3
    temperature: float = 1.0
    top_p: float = 0.9
    seed: int = 0

    @property
    def ways(self) -> tuple[Decoding, ...]:
        """The best answer's way of decoding, then one for each drawn."""
        drawn = (
            Decoding(self.most, temperature=self.temperature, top_p=self.top_p, seed=self.seed + number)
            for number in range(self.samples)
        )
        return (Decoding(self.most), *drawn)


@dataclass(frozen=True)
class Answering:
    """Asks the model of a job all test items of its benchmark, and writes JSON lines to `output`."""

    registry: Registry
    job: Job
    asking: Asking
    output: Path
    device: str = "cpu"
    data: Path | None = None
    limit: int | None = None
    tokens: int = 0

    def run(self, progress: Callable[[int, int], None], note: Callable[[str], None]) -> int:
        """Returns how many rows have no answer but an error. `progress` is told of answers done, and of all.

        Raises `AffectbenchError` for a benchmark that asks for no label, a question without the place of its
        items, and a model or data that cannot be used.
        """
        benchmark = self._benchmark()
        dataset = load_benchmark(benchmark, self.data, self.limit)
        journal = self._journal(dataset, note)
        model = load_model(self.registry, self.job, self.device)
        session = Session(
            model, benchmark, dataset, self.registry.benchmark, self.limit, self.tokens, self.data, journal
        )
        total = len(self.asking.ways) * len(session.items("test"))
        done = 0

        def advance(more: int) -> None:
            nonlocal done
            done += more
            progress(done, total)

        rows = list(rows_of(session, self.asking, advance))
        if dataset.errors:
            note(f"{len(dataset.errors)} items cannot be read; the first: {dataset.errors[0].id}")
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomically(self.output, text.encode())
        journal.close()
        remove_pieces(self._partial, self._name)
        return sum("error" in row for row in rows)

    def _benchmark(self) -> RecognitionBenchmark:
        found = self.job.benchmark
        if not isinstance(found, RecognitionBenchmark):
            raise AffectbenchError(
                f"benchmark {found.name} asks for no label", hint="choose one of kind `benchmark`"
            )
        if self.asking.question is None:
            return found
        if f"{{{found.modality}}}" not in self.asking.question:
            raise AffectbenchError(
                f"the question has no place for an item of {found.name}",
                hint=f"put {{{found.modality}}} into it, where the item belongs",
            )
        return found.model_copy(update={"prompt": self.asking.question})

    @property
    def _partial(self) -> Path:
        return self.output.parent / "partial"

    @property
    def _name(self) -> str:
        return f"answers-{self.output.stem}"

    def _journal(self, dataset: Dataset, note: Callable[[str], None]) -> Journal:
        """What a stopped run of the same model, items, question and code has left."""
        hashes = content_hashes(self.registry, self.job, dataset)
        computed_by = (library_versions(), self.device, torch.get_num_threads(), self.tokens)
        identity = digest_of([*hashes, repr(self.asking), repr(computed_by), code_digest()])
        journal = Journal(self._partial / f"{self._name}__{identity}", identity, note)
        if journal.found:
            note(f"going on from what is in {journal.folder}")
        return journal


def rows_of(session: Session, asking: Asking, progress: Progress) -> Iterator[dict[str, Any]]:
    """One row for each test item and answer: set, item, gold, which answer it is, and the answer, or the
    error that is in its place."""
    items, benchmark = session.items("test"), session.benchmark
    for number, way in enumerate(asking.ways):
        tokens = Writer(session.engine, way).write(items, [UNTOUCHED], progress)[0]
        texts = decode_texts(session.engine.model, torch.as_tensor(tokens))
        for item, gold, text, row in zip(items.ids, items.gold, texts, tokens, strict=True):
            about = {"set": benchmark.name, "item": item, "gold": benchmark.labels[gold], "sample": number}
            yield about | _said(text, row)
    asked = set(items.ids)
    golds = {each.id: each.label for each in session.dataset.splits["test"]}
    for failure in session.failures:
        if failure.id in golds and failure.id not in asked:
            about = {"set": benchmark.name, "item": failure.id, "gold": golds[failure.id], "sample": BEST}
            yield about | {"error": failure.reason}


def _said(text: str, tokens: IntArray) -> dict[str, str]:
    if bool(np.any(tokens == FAILED)):
        return {"error": "the model's numbers are not finite"}
    return {"answer": text.strip()}
