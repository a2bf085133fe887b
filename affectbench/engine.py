"""Many interventions for the price of few: packed forward passes over shared items.

Rows of one batch carry different interventions. What lies below the first edited layer is computed once for
a batch, and an intervention that was already run on the same items is never run again. An edit of weights is
one set of weights, so it has its passes to itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from affectbench.batch import Batch, Prefix, Watched
from affectbench.candidates import branches_hold, candidate_scores, logits_hold, with_candidates
from affectbench.errors import AffectbenchError
from affectbench.folding import foldable_sites
from affectbench.generation import generate
from affectbench.identity import digest_of
from affectbench.intervention import ROLE_BIT, UNTOUCHED, Edit, Intervention, PackedEdits, hooked
from affectbench.journal import Arrays, Journal
from affectbench.memory import keep_freed, ran_out
from affectbench.model import Model
from affectbench.passes import answer_column, only_at_answer, watching
from affectbench.pieces import ITEMS_A_BATCH, Cost, PieceWork, Progress
from affectbench.readout import (
    FAILED,
    Codes,
    Items,
    Predictions,
    Readout,
    Scores,
    codes_of,
    parsed,
    to_labels,
)
from affectbench.views import PlainView
from affectbench.weight_edit import folded

Reader = Callable[[Batch, PackedEdits, Prefix | None], Tensor]
"""Reads packed rows under their edits, from an optional prefix, into one result a row."""
Several = Sequence[Intervention]
Base = Callable[[Tensor], None] | None
CPU_TOKENS, GPU_TOKENS = 4096, 65536
CPU_GROWTH = 4
"""A step of generation sees one column of each row, so on a CPU it takes more rows to be worth its call."""
STEP_TOKENS = 64
"""A step of generation costs as much as so many tokens of a prompt: its calls, and reading all weights."""


class Start(NamedTuple):
    """Where a packed pass enters the model: at `layer`, or after it where its edits are folded in."""

    layer: int
    folded: bool = False

    @property
    def entry(self) -> int:
        """The first layer that still has to run."""
        return self.layer + self.folded


@dataclass
class Engine(PieceWork):
    """Runs interventions on one model. `tokens` bounds the tokens (rows x length) of a forward pass; what is
    in the `journal` is taken from there."""

    model: Model
    tokens: int = 0
    journal: Journal | None = None
    cost: Cost = field(default_factory=Cost)
    _known: dict[tuple[Hashable, ...], tuple[Codes, Scores]] = field(default_factory=dict)
    _tried: set[tuple[tuple[int, ...], ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.tokens <= 0:
            self.tokens = CPU_TOKENS if self._on_cpu else GPU_TOKENS
        if self._on_cpu:
            keep_freed()
        _ = self.model.trimmable, self.model.resumable  # Tried out now: later hooks may be in the model.

    @property
    def _on_cpu(self) -> bool:
        return self.model.device.type == "cpu"

    @property
    def _has_experts(self) -> bool:
        return any(experts is not None for experts in self.model.experts)

    @cached_property
    def foldable(self) -> frozenset[str]:
        """The sites of this model whose edits need not run their first layer again."""
        return foldable_sites(self.model)

    def predict(
        self, items: Items, readout: Readout, interventions: Several, progress: Progress | None = None
    ) -> Predictions:
        """Answers of every item under every intervention, in the order given.

        `progress` is called with the number of (item, intervention) pairs just done. Items whose scores are
        not finite get the code `FAILED`.
        """
        key = (items.digest, readout.candidates, readout.max_new_tokens, self.model.folds)
        fresh = {i.digest: i for i in interventions if (*key, i.digest) not in self._known}
        if fresh:
            codes, scores = self._run(items, readout, list(fresh.values()), progress)
            for place, digest in enumerate(fresh):
                self._known[(*key, digest)] = (codes[place], scores[place])
        found = [self._known[(*key, intervention.digest)] for intervention in interventions]
        return Predictions(np.stack([codes for codes, _ in found]), np.stack([scores for _, scores in found]))

    def predict_each(
        self,
        items: Items,
        readout: Readout,
        interventions: Sequence[Several],
        progress: Progress | None = None,
    ) -> Codes:
        """Codes (K, N): item n under each of its own K interventions, packed item by item."""
        self._check(readout)
        codes = np.full((len(interventions[0]), len(items)), FAILED, dtype=np.int8)
        for place, own in enumerate(interventions):
            under = digest_of(intervention.digest for intervention in own)
            about = "answers", items.digest, repr((readout.candidates, readout.max_new_tokens)), under
            work = partial(self._batch, items, [place], readout, list(own))
            found = self.piece(about, [place], work, progress, answers=len(own))
            assert found is not None, "a single item that does not fit is an error"
            codes[:, place] = found["codes"][:, 0]
        return codes

    def _run(
        self, items: Items, readout: Readout, interventions: list[Intervention], progress: Progress | None
    ) -> tuple[Codes, Scores]:
        self._check(readout)
        shape = (len(interventions), len(items))
        codes = np.full(shape, FAILED, dtype=np.int8)
        scores = np.full((*shape, len(readout.labels)), np.nan, dtype=np.float32)

        def answer(chosen: list[int], edits: list[Intervention]) -> None:
            under = digest_of(intervention.digest for intervention in edits)
            about = "answers", items.digest, repr((readout.candidates, readout.max_new_tokens)), under
            times, rows = len(edits), np.array(chosen)[:, None]
            most = ITEMS_A_BATCH if times > 1 else len(items)
            for places in self.batches(items.items, readout.further, times=times, most=most):
                work = partial(self._batch, items, places, readout, edits)
                found = self.piece(about, places, work, progress, answers=times * len(places))
                if found is not None:
                    codes[rows, places], scores[rows, places] = found["codes"], found["scores"]

        self.by_weights(interventions, answer)
        return codes, scores

    def _batch(
        self,
        items: Items,
        places: list[int],
        readout: Readout,
        interventions: list[Intervention],
        tell: Progress,
    ) -> Arrays:
        """`codes` (K, B) and `scores` (K, B, E) of one batch of items."""
        shape = (len(interventions), len(places))
        codes = np.full(shape, FAILED, dtype=np.int8)
        scores = np.full((*shape, len(readout.labels)), np.nan, dtype=np.float32)
        batch = with_candidates(self.model, self.model.collate([items.items[p] for p in places]), readout)
        orders = None if items.orders is None else items.orders[places]
        last, grow = 1 + len(readout.prefixes), readout.max_new_tokens
        for chosen, rows in self.sweep(batch, interventions, self._answers(readout), last=last, grow=grow):
            if readout.max_new_tokens:
                codes[chosen] = parsed(self.model, rows, readout, orders, len(chosen))
            else:
                values = rows.cpu().numpy().reshape(len(chosen), len(places), -1)
                scores[chosen] = to_labels(values, orders)
                codes[chosen] = codes_of(scores[chosen])
            tell(len(chosen) * len(places))
        return {"codes": codes, "scores": scores}

    def _check(self, readout: Readout) -> None:
        """Raises `AffectbenchError` where this model cannot answer `readout`."""
        if not self._tried:
            if not logits_hold(self.model):
                raise AffectbenchError(
                    f"{self.model.card.name} gives other logits than are read from its last hidden states",
                    hint="the family file must override `logits`, or `decode` where hidden states differ",
                )
            self._tried.add(())
        if readout.prefixes not in self._tried:
            if not branches_hold(self.model, readout):
                raise AffectbenchError(
                    f"{self.model.card.name} attends to tokens that it is told to pass over, so answers of "
                    "several tokens cannot share a pass",
                    hint="use answers of one token each, the readout `letters` or the readout `generate`",
                )
            self._tried.add(readout.prefixes)

    def sweep(
        self,
        batch: Batch,
        interventions: Sequence[Intervention],
        read: Reader,
        *,
        last: int,
        grow: int = 0,
        base: Base = None,
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Run `read` on packed rows of `batch` under `interventions`, as many at once as `tokens` allow.

        Yields (places of the interventions, what `read` returned); rows are grouped by intervention. `read`
        looks at the `last` columns of hidden states, and feeds each row up to `grow` tokens more; what an
        intervention does not change is computed once for the batch. `base` is first given the hidden states
        (B, T, d) of the untouched model, at least of the `last` columns.
        """
        packed = partial(self._packed, batch, read=read, last=last, grow=grow)
        hooked = [place for place, each in enumerate(interventions) if not each.parts[0]]
        for chosen, rows in packed([interventions[place] for place in hooked], base=base):
            yield [hooked[place] for place in chosen], rows
        for place, each in enumerate(interventions):
            weights, rest = each.parts
            if weights:
                with self.model.under(weights):  # Nobody else's code runs while the weights are others.
                    found = list(packed([rest]))
                yield [place], found[0][1]

    def _packed(
        self, batch: Batch, interventions: Several, read: Reader, last: int, grow: int, base: Base = None
    ) -> Iterator[tuple[list[int], Tensor]]:
        """`sweep` for interventions that hooks can carry."""
        if last == 1 and base is None and only_at_answer(batch, interventions):
            batch = answer_column(self.model, batch, self.spent)
        groups = self._groups(batch, interventions, grow, base is not None)
        watched = self._watched(batch, groups, last, grow > 0, base)
        columns, few = batch.mask.shape[1] + grow, grow > 0 or batch.before is not None
        for start, group in sorted(groups.items()):
            if start.folded:
                group.sort(key=lambda place: interventions[place].effective[0].units.tobytes())
            done = 0
            while done < len(group):
                tokens = self.tokens * (CPU_GROWTH if few and self._on_cpu else 1)
                room = max(1, tokens // (batch.embeds.shape[0] * columns))
                chosen = group[done : done + room]
                rows = None
                try:
                    rows = self._forward(batch, [interventions[p] for p in chosen], read, start, watched)
                except RuntimeError as error:
                    if len(chosen) == 1 or not ran_out(error):
                        raise
                if rows is None:  # Here the error, and with it what the pass had allocated, is gone.
                    self._halve(len(chosen) * batch.embeds.shape[0] * columns)
                    continue
                yield chosen, rows
                done += len(chosen)

    def _groups(
        self, batch: Batch, interventions: Sequence[Intervention], grow: int, shown: bool
    ) -> dict[Start, list[int]]:
        """The places of the interventions by where their passes enter the model; not apart where that costs
        more than it saves. `shown`: the pass that they start from is made anyway."""
        layers, everything = len(self.model.layers), list(range(len(interventions)))
        if not self.model.resumable:
            return {Start(0): everything} if everything else {}
        groups: dict[Start, list[int]] = defaultdict(list)
        for place, intervention in enumerate(interventions):
            groups[self._start(intervention, fold=grow == 0)].append(place)
        if grow and groups:
            lowest = min(groups)
            above = sum((start.layer - lowest.layer) * len(group) for start, group in groups.items())
            if above * batch.mask.numel() < STEP_TOKENS * grow * layers * (len(groups) - 1):
                groups = {lowest: everything}
        if not shown and sum(start.entry * len(group) for start, group in groups.items()) <= layers:
            groups = {Start(0): everything}  # A pass that shows less than it costs.
        return groups

    def _start(self, intervention: Intervention, *, fold: bool) -> Start:
        """Where the model must be entered for an intervention: at its first edited layer, or with `fold` one
        later, where what that layer writes can be corrected by a product with the few edited columns."""
        first = intervention.first_layer
        if first is None or not fold:
            return Start(first or 0)
        here, _ = intervention.parted
        simple = len(here) == 1 and here[0].operation == "scale" and here[0].site in self.foldable
        return Start(first, folded=simple)

    @torch.no_grad()
    def _watched(
        self,
        batch: Batch,
        starts: Iterable[Start],
        last: int,
        cached: bool,
        base: Callable[[Tensor], None] | None,
    ) -> Watched:
        """One pass of the untouched model that shows what the interventions start from."""
        entries = {start.entry for start in starts if start.entry > 0}
        if not entries and base is None:
            return Watched({}, {})
        folded = sorted({start.layer for start in starts if start.folded})
        with watching(self.model, sorted(entries), folded) as watched:
            if batch.before is not None:
                batch = batch.repeated(1)  # The pass extends what stands before.
                watched.cache = batch.before
            elif cached:
                watched.cache = self.model.cache()
            hidden = self.model.decode(batch, cache=watched.cache, last=last)
        self.spent(batch.embeds.shape[0])
        if base is not None:
            base(hidden)
        return watched

    @torch.no_grad()
    def _forward(
        self, batch: Batch, interventions: list[Intervention], read: Reader, start: Start, watched: Watched
    ) -> Tensor:
        prefix = None
        times = len(interventions)
        if start.entry > 0:
            entered = watched.entries[start.entry].repeat(times, 1, 1)
            prefix = Prefix(start.entry, entered, watched.cache)
        if start.folded:
            assert prefix is not None, "a folded layer is never the entry"
            parted = [intervention.parted for intervention in interventions]
            self._fold(prefix, [here[0] for here, _ in parted], watched.neurons[start.layer], batch.roles)
            interventions = [rest for _, rest in parted]
        with self._in_force(interventions) as edits:
            edits.roles = batch.roles
            return read(batch.repeated(times), edits, prefix)

    def _fold(self, prefix: Prefix, edits: Sequence[Edit], neurons: Tensor, roles: Tensor) -> None:
        """Add to the hidden states (K * B, T, d) of `prefix` what each edit changes in the layer before.

        Scaling neuron n by s adds (s - 1) * neuron n * column n of down_proj. Doses of the same units differ
        in the factor alone, so neighbours share what these neurons write.
        """
        weight = self.model.down(prefix.layer - 1).weight
        blocks = prefix.hidden.view(len(edits), neurons.shape[0], *prefix.hidden.shape[1:])
        known: tuple[bytes, str] | None = None
        for block, edit in zip(blocks, edits, strict=True):
            factors = edit.value - 1.0
            uniform = bool((factors == factors[0]).all())
            units = (edit.units.tobytes(), edit.positions)
            if not uniform or units != known:
                channels = torch.as_tensor(edit.units % edit.shape.width, device=neurons.device)
                changed = neurons[..., channels]
                if not uniform:
                    changed = changed * torch.as_tensor(factors, dtype=neurons.dtype, device=neurons.device)
                if edit.positions != "all":
                    here = (roles[:, -neurons.shape[1] :] & ROLE_BIT[edit.positions]).bool()
                    changed = changed * here.unsqueeze(-1).to(neurons.device)
                written = changed @ weight[:, channels].T
                known = units if uniform else None
            block[:, -neurons.shape[1] :].add_(written, alpha=float(factors[0]) if uniform else 1.0)

    def _answers(self, readout: Readout) -> Reader:
        """What is read at the answer position: candidate scores (rows, C), or generated tokens (rows, n)."""

        def read(rows: Batch, edits: PackedEdits, prefix: Prefix | None) -> Tensor:
            if readout.max_new_tokens:
                return generate(self.model, rows, edits, prefix, readout.max_new_tokens, self.spent)
            hidden = self.model.decode(rows, prefix=prefix, last=1 + len(readout.prefixes))
            self.spent(rows.embeds.shape[0])
            return candidate_scores(self.model, hidden, readout)

        return read

    @contextmanager
    def _in_force(self, interventions: Sequence[Intervention]) -> Iterator[PackedEdits]:
        """Edit one pass. Hooks show what every expert does, which takes longer than running them: where one
        intervention has the pass to itself, it is folded into their weights instead, if it can be."""
        with ExitStack() as stack:
            if len(interventions) == 1 and interventions[0].effective and self._has_experts:
                with suppress(AffectbenchError):
                    stack.enter_context(self.folded(interventions[0]))
                    interventions = [UNTOUCHED]
            yield stack.enter_context(self.editing(interventions))

    @contextmanager
    def editing(self, interventions: Sequence[Intervention]) -> Iterator[PackedEdits]:
        """Hook packed interventions into the model for the length of the block."""
        edits = PackedEdits(interventions, self.model.device, self.model.dtype)
        points = []
        for site, layer in edits.points:
            module, side = self.model.site_module(site, layer)
            points.append((module, side, _applied(edits, site, layer, self.model.site_view(site, layer))))
        with hooked(points):
            yield edits

    def folded(self, intervention: Intervention) -> AbstractContextManager[None]:
        """Scale weights instead, for the length of a block: whatever runs the model then runs it under the
        intervention, at no cost. See `weight_edit.folded` for what can be folded."""
        return folded(self.model, intervention)


def _applied(edits: PackedEdits, site: str, layer: int, view: PlainView) -> Callable[[Any], Any]:
    return lambda activation: edits.apply(site, layer, activation, view)
