"""Work on a model in batches, each of them done whole, kept as it is done, and counted.

All work that a cell pays for is done in such pieces, always in the same order. So a run that goes on where
another was stopped takes the same way, with the same batches, and its records say the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

from affectbench.batch import Prepared
from affectbench.errors import AffectbenchError
from affectbench.identity import digest_of
from affectbench.intervention import Intervention
from affectbench.journal import Arrays, Journal
from affectbench.memory import ran_out, release
from affectbench.model import Model

Progress = Callable[[int], None]
"""Told how much was done since the last call; below 0 where memory ran out and a batch is done again."""
ITEMS_A_BATCH = 32
"""So many that a killed run loses little. Where each item is run once, `tokens` is the only bound."""


@dataclass
class Cost:
    """What has been spent: model calls, rows put through them, and how often memory ran out.

    `wall_s` and `cpu_s`: the seconds that a stopped run had spent on what was taken from its journal.
    """

    forward_passes: int = 0
    items_forwarded: int = 0
    halvings: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0

    def since(self, before: Cost) -> Cost:
        """What has been spent since `before`."""
        return Cost(**{name: value - getattr(before, name) for name, value in asdict(self).items()})

    def add(self, spent: Cost) -> None:
        for name, value in asdict(spent).items():
            setattr(self, name, getattr(self, name) + value)


class PieceWork:
    """What an engine needs to do its work in pieces."""

    model: Model
    tokens: int
    journal: Journal | None
    cost: Cost
    _refused: bool = False

    def batches(
        self,
        items: Sequence[Prepared],
        further: int = 0,
        *,
        start: int = 0,
        times: int = 1,
        most: int = ITEMS_A_BATCH,
    ) -> Iterator[list[int]]:
        """Places of items of like length, so that little is padded; a batch holds at most `most` items and
        `tokens`, the `further` columns that are added to each item included.

        Where a batch fills a pass because each item is run `times` times, it takes no longer item. The first
        `start` items are left out: they were in batches that were taken.
        """
        todo = sorted(range(len(items)), key=lambda place: (len(items[place]), items[place].id))
        del todo[:start]
        while todo:
            size = 1
            while (
                size < min(len(todo), most) and (size + 1) * (len(items[todo[size]]) + further) <= self.tokens
            ):
                full = times * size * (len(items[todo[0]]) + further) >= self.tokens
                if full and len(items[todo[size]]) > len(items[todo[0]]):
                    break
                size += 1
            yield todo[:size]
            if self._refused:
                self._refused = False
                self._halve(size * (len(items[todo[size - 1]]) + further))
            else:
                del todo[:size]

    def by_weights(
        self, interventions: Sequence[Intervention], work: Callable[[list[int], list[Intervention]], None]
    ) -> None:
        """Have `work` done with the places of all interventions that edit the same weights, and what of each
        hooks have to carry then. The weights stand for as long as that takes, so that they are written once
        for all of its batches; afterwards, after an error or an interrupt too, they are as they were."""
        groups: dict[str, list[int]] = {}
        for place, each in enumerate(interventions):
            groups.setdefault(Intervention(each.parts[0]).digest, []).append(place)
        for places in groups.values():
            weights = interventions[places[0]].parts[0]
            with self.model.under(weights) if weights else nullcontext():
                work(places, [interventions[place].parts[1] for place in places])

    @contextmanager
    def taking(self, places: list[int], progress: Progress | None = None) -> Iterator[Progress]:
        """All that is done with one of `batches`, reporting to what the block is given.

        Where memory runs out in the block the batch comes again in smaller ones, so the block may keep
        nothing before its end. Raises `AffectbenchError` where a single item does not fit.
        """
        told = 0

        def tell(done: int) -> None:
            nonlocal told
            told += done
            if progress is not None:
                progress(done)

        try:
            yield tell
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            if len(places) == 1:
                raise AffectbenchError(
                    f"one item under one intervention does not fit into the memory of {self.model.device}",
                    hint="use a larger device, dtype bfloat16, or shorter items",
                ) from error
            tell(-told)
            self._refused = True

    def piece(
        self,
        about: Iterable[str],
        places: list[int],
        work: Callable[[Progress], Arrays],
        progress: Progress | None = None,
        answers: int = 0,
    ) -> Arrays | None:
        """What `work` gives for one of `batches`: at once, or from the journal at the cost it had.

        None where memory runs out: the batch comes again in smaller ones. `about` names all that the result
        depends on beside the job and `places`. `progress` hears of the `answers` in it, (item, intervention)
        pairs; `work` tells what it is given.
        """
        key = self.key((*about, *map(str, places)))
        found = self.journal.find(key) if self.journal is not None else None
        if found is None:
            return self._done(key, places, work, progress, answers)
        self.repeat(found.facts)
        if found.facts["refused"]:
            self._refused = True
            return None
        if progress is not None:
            progress(answers)
        return found.arrays

    def _done(
        self,
        key: str,
        places: list[int],
        work: Callable[[Progress], Arrays],
        progress: Progress | None,
        answers: int,
    ) -> Arrays | None:
        meter = Meter(self)
        arrays = None
        with self.taking(places, progress) as tell:
            arrays = work(tell)
        if self.journal is not None:
            facts = {"refused": arrays is None, "answers": answers if progress and arrays else 0}
            self.journal.add(key, arrays or {}, meter.facts() | facts)
        return arrays

    def key(self, about: Iterable[str]) -> str:
        """The name of a piece in the journal. What the model has folded in, and the tokens allowed, change
        last bits."""
        return digest_of([*about, repr(self.model.folds), str(self.tokens)])

    def repeat(self, facts: Mapping[str, Any]) -> None:
        """Count what a piece from the journal had cost, and take over what was learnt then about memory."""
        self.cost.add(Cost(**facts["cost"]))
        self.tokens = facts["tokens"]

    def _halve(self, used: int) -> None:
        """From here on use half of the tokens with which memory ran out."""
        self.tokens = max(1, min(self.tokens, used) // 2)
        self.cost.halvings += 1
        release()

    def spent(self, rows: int) -> None:
        """Count one model call with `rows` rows."""
        self.cost.forward_passes += 1
        self.cost.items_forwarded += rows


class Meter:
    """Measures a piece of an engine's work, from now on."""

    def __init__(self, engine: PieceWork) -> None:
        self._engine = engine
        self._before = replace(engine.cost)
        self._clocks = time.monotonic(), time.process_time()

    def facts(self) -> dict[str, Any]:
        """What the work has cost up to now and the tokens it left allowed, for the journal."""
        spent = self._engine.cost.since(self._before)
        spent.wall_s += time.monotonic() - self._clocks[0]
        spent.cpu_s += time.process_time() - self._clocks[1]
        return {"cost": asdict(spent), "tokens": self._engine.tokens}
