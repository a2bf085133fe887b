"""Residual streams of a model, layer by layer, over an endless shuffled stream of prompts and neutral text.

Nothing is kept but one chunk of tokens: a chunk is filled by forward passes (one gives the streams of all
layers), its tokens are shuffled, and it is used up before the next. Chunk n depends on the seed and n
alone, so training that goes on after a kill sees what it would have seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from affectbench.batch import Batch, Prepared
from affectbench.dataset import Dataset, Example, prompt_text
from affectbench.errors import AffectbenchError
from affectbench.intervention import hooked
from affectbench.model import Model
from affectbench.preservation_items import neutral_texts
from affectbench.table_rows import json_rows
from affectbench.task import Benchmark
from affectbench.task_parts import GeneratedItems

LONGEST = 512
"""Tokens of a document that are read at most; what comes after is left out."""
PASS_TOKENS = 4096
CHUNK_TOKENS, CHUNK_BYTES = 32768, 1 << 30
"""Tokens in a chunk, and what its activations may take."""
MADE_TEXTS = 1500
"""Neutral texts that are generated for a task whose texts are generated."""
HELD_OUT = 5
"""Of neutral text in files, every so many-th document is kept for measuring."""
Source = Example | str
"""A benchmark's item, or a text."""


@dataclass(frozen=True)
class Texts:
    """What SAEs are trained on and what they are measured on; the two share nothing."""

    training: tuple[Source, ...]
    measured: tuple[Source, ...]


def texts_of(benchmark: Benchmark, dataset: Dataset, files: Sequence[Path] = (), seed: int = 0) -> Texts:
    """Prompts of the identification split and neutral text to train on; prompts of the validation split and
    other neutral text to measure on.

    Neutral text: documents of `files` (JSON lines with a key `text`), or else of the benchmark: generated
    anew where it is generated, four fifths of it where it is in a file. Raises `AffectbenchError` for bad
    files.
    """
    prompts, asked = dataset.splits["identification"], dataset.splits["validation"]
    neutral = benchmark.preservation.neutral
    if not files and isinstance(neutral, GeneratedItems):
        return Texts((*prompts, *_generated(neutral, seed)), (*asked, *neutral_texts(benchmark)))
    documents = [text for path in files for text in _documents(path)] if files else neutral_texts(benchmark)
    kept = documents[HELD_OUT - 1 :: HELD_OUT]
    read = [text for place, text in enumerate(documents) if place % HELD_OUT != HELD_OUT - 1]
    return Texts((*prompts, *read), (*asked, *kept))


def _generated(neutral: GeneratedItems, seed: int) -> list[str]:
    from affectbench.generators import narratives, speech

    generate = narratives.language_text if neutral.module == "narratives" else speech.language_text
    return list(generate(MADE_TEXTS, seed, held_out=False))


def _documents(path: Path) -> list[str]:
    rows = list(json_rows(path))
    for number, row in rows:
        if not isinstance(row.get("text"), str) or not row["text"]:
            raise AffectbenchError(f"{path}:{number}: expected a key `text` with a document")
    return [str(row["text"]) for _, row in rows]


@dataclass
class Streams:
    """The residual streams of `layers` (after each), for texts of one model."""

    model: Model
    benchmark: Benchmark
    layers: Sequence[int]

    @property
    def width(self) -> int:
        return int(self.model.embed(torch.zeros(1, dtype=torch.long)).shape[-1])

    @property
    def chunk(self) -> int:
        """Tokens in a chunk."""
        return max(1024, min(CHUNK_TOKENS, CHUNK_BYTES // (4 * len(self.layers) * self.width)))

    def prepared(self, source: Source) -> Prepared:
        """One text as the decoder will see it, cut to `LONGEST` tokens."""
        if isinstance(source, Example):
            return self.model.prepare(source, prompt_text(self.benchmark, source))
        found = self.model.open_prompt("text", source)
        return Prepared(found.id, found.ids[:LONGEST], found.roles[:LONGEST])

    def batches(self, sources: Iterable[Source]) -> Iterator[tuple[Batch, Tensor, Tensor]]:
        """Left-padded batches of at most `PASS_TOKENS`, in order, with token ids (B, T) and which tokens
        count (B, T): not padding, and not a begin-of-sequence token, whose activations drown the others."""
        waiting: list[Prepared] = []
        for source in sources:
            item = self.prepared(source)
            if waiting and (len(waiting) + 1) * max(map(len, (*waiting, item))) > PASS_TOKENS:
                yield self._batch(waiting)
                waiting = []
            waiting.append(item)
        if waiting:
            yield self._batch(waiting)

    def _batch(self, items: Sequence[Prepared]) -> tuple[Batch, Tensor, Tensor]:
        batch = self.model.collate(items)
        ids = torch.zeros(batch.mask.shape, dtype=torch.long)
        for row, item in enumerate(items):
            ids[row, -len(item) :] = item.ids
        ids = ids.to(batch.mask.device)
        return batch, ids, batch.mask & ~self._begins(ids, batch.mask)

    def _begins(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Which tokens begin a row and are special."""
        tokenizer = self.model.tokenizer
        special = {tokenizer.bos_token_id, tokenizer.eos_token_id} - {None}
        first = mask & (mask.long().cumsum(-1) == 1)
        known = torch.tensor(sorted(special), dtype=torch.long, device=ids.device)
        return first & torch.isin(ids, known)

    @torch.no_grad()
    def read(self, batch: Batch, counted: Tensor) -> Tensor:
        """Residual vectors (layers, tokens that count, d), float32, of one forward pass."""
        found: dict[int, Tensor] = {}

        def keep(layer: int) -> Callable[[Tensor], None]:
            def hook(hidden: Tensor) -> None:
                found[layer] = hidden[counted.to(hidden.device)].float()

            return hook

        with hooked([(self.model.layers[layer], "output", keep(layer)) for layer in self.layers]):
            self.model.decode(batch)
        return torch.stack([found[layer].to(self.model.device) for layer in self.layers])

    def chunks(self, sources: Sequence[Source], seed: int, start: int = 0) -> Iterator[Tensor]:
        """Endless chunks (layers, `chunk` tokens, d), shuffled, from chunk `start` on."""
        for number in itertools.count(start):
            drawn = np.random.default_rng([seed, number])
            passes = (sources[place] for _ in itertools.count() for place in drawn.permutation(len(sources)))
            parts, filled = [], 0
            for batch, _, counted in self.batches(passes):
                parts.append(self.read(batch, counted))
                filled += parts[-1].shape[1]
                if filled >= self.chunk:
                    break
            whole = torch.cat(parts, dim=1)
            yield whole[:, torch.from_numpy(drawn.permutation(filled)[: self.chunk]).to(whole.device)]
