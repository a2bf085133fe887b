"""What a model writes to prompts under interventions: text, packed, each piece kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from torch import Tensor

from affectbench.batch import Batch, Prefix
from affectbench.decoding import Decoding
from affectbench.engine import Engine
from affectbench.generation import generate
from affectbench.identity import digest_of
from affectbench.intervention import Intervention, PackedEdits
from affectbench.journal import Arrays
from affectbench.pieces import Progress
from affectbench.readout import IntArray, Items


@dataclass
class Writer:
    """Continuations by one way of decoding. What was written under an intervention is not written again."""

    engine: Engine
    decoding: Decoding
    _known: dict[tuple[str, str], IntArray] = field(init=False, default_factory=dict)

    def write(
        self, items: Items, interventions: Sequence[Intervention], progress: Progress | None = None
    ) -> IntArray:
        """Token ids (K, N, `decoding.most`) of each item's continuation under each intervention, as
        `generate` has them: -1 after the end, `FAILED` where the model's numbers were not finite. `progress`
        is told of (item, intervention) pairs."""
        fresh = {
            each.digest: each for each in interventions if (items.digest, each.digest) not in self._known
        }
        if fresh:
            written = self._run(items, list(fresh.values()), progress)
            for place, digest in enumerate(fresh):
                self._known[items.digest, digest] = written[place]
        return np.stack([self._known[items.digest, each.digest] for each in interventions])

    def _run(self, items: Items, interventions: list[Intervention], progress: Progress | None) -> IntArray:
        written = np.full((len(interventions), len(items), self.decoding.most), -1, dtype=np.int64)

        def write(chosen: list[int], edits: list[Intervention]) -> None:
            under, times = digest_of(each.digest for each in edits), len(edits)
            about = "writings", items.digest, repr(self.decoding), under
            for places in self.engine.batches(items.items, self.decoding.most, times=times):
                work = partial(self._batch, items, places, edits)
                found = self.engine.piece(about, places, work, progress, answers=times * len(places))
                if found is not None:
                    written[np.array(chosen)[:, None], places] = found["tokens"]

        self.engine.by_weights(interventions, write)
        return written

    def _batch(
        self, items: Items, places: list[int], interventions: list[Intervention], tell: Progress
    ) -> Arrays:
        """`tokens` (K, B, most) of one batch of items."""
        engine, most = self.engine, self.decoding.most
        written = np.full((len(interventions), len(places), most), -1, dtype=np.int32)
        prompts = [items.items[place] for place in places]
        rules = self.decoding.rules(prompts, engine.model.stops)

        def read(rows: Batch, edits: PackedEdits, prefix: Prefix | None) -> Tensor:
            return generate(engine.model, rows, edits, prefix, most, engine.spent, rules)

        batch = engine.model.collate(prompts)
        for chosen, tokens in engine.sweep(batch, interventions, read, last=1, grow=most):
            written[chosen] = tokens.cpu().numpy().reshape(len(chosen), len(places), most)
            tell(len(chosen) * len(places))
        return {"tokens": written}
