"""Activation statistics for selectors: one streaming pass over the identification split, constant memory.

Sums are kept for every unit and emotion, so memory is O(units x emotions) whatever the number of items.
Statistics follow arXiv 2601.03115: counts and sums of tokens, pooled over the items of an emotion.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affectbench.batch import Batch
from affectbench.engine import Engine
from affectbench.errors import AffectbenchError
from affectbench.experts import Routed
from affectbench.intervention import ANSWER, ROLE_BIT, UNTOUCHED, hooked
from affectbench.journal import Arrays
from affectbench.pieces import ITEMS_A_BATCH, Meter
from affectbench.readout import FAILED, Codes, IntArray, Items, Readout, codes_of, to_labels
from affectbench.sites import COMPONENT, COMPONENT_PARTS, MODULE, READ_ONLY, SITES, FloatArray, SiteShape
from affectbench.views import PlainView

MEAN, MEAN_ABS, RATE, ATTRIBUTION, RMS = "mean", "mean_abs", "rate", "attribution", "rms"
STATISTICS = {
    MEAN: "mean activation",
    MEAN_ABS: "mean absolute activation",
    RATE: "share of tokens with activation > 0",
    ATTRIBUTION: "mean of activation x gradient of the gold label's margin",
    RMS: "mean over tokens of the root mean square over all channels of the layer, the same for each",
}
Key = tuple[str, str, str]
"""(site, positions, statistic)"""
Point = tuple[str, int]
"""(site, layer)"""


@dataclass(frozen=True)
class Evidence:
    """Statistics of one site at one choice of token positions; arrays are (emotions, layers, channels).
    A unit is one channel, but for heads and whole streams.

    `items` (emotions,) counts the items behind each emotion's row, `tokens` (emotions,) their tokens.
    """

    labels: tuple[str, ...]
    site: str
    positions: str
    shape: SiteShape
    items: IntArray
    tokens: FloatArray
    _sums: dict[str, FloatArray]

    def __post_init__(self) -> None:
        # All selectors read the same arrays: none may change what the next one sees.
        for array in (self.items, self.tokens, *self._sums.values()):
            array.setflags(write=False)

    def only(self, statistics: Collection[str]) -> Evidence:
        """This evidence with none but the named statistics."""
        return replace(self, _sums={name: sums for name, sums in self._sums.items() if name in statistics})

    def _statistic(self, name: str) -> FloatArray:
        if name not in self._sums:
            raise AffectbenchError(
                f"the evidence pass did not collect {name!r}",
                hint=f"add {name!r} to the selector's `needs`; known: {', '.join(STATISTICS)}",
            )
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(self._sums[name] / self.tokens[:, None, None])

    @property
    def mean(self) -> FloatArray:
        return self._statistic(MEAN)

    @property
    def mean_abs(self) -> FloatArray:
        return self._statistic(MEAN_ABS)

    @property
    def rate(self) -> FloatArray:
        return self._statistic(RATE)

    @property
    def attribution(self) -> FloatArray:
        return self._statistic(ATTRIBUTION)

    @property
    def rms(self) -> FloatArray:
        return self._statistic(RMS)

    def of(self, statistic: str) -> FloatArray:
        """A statistic by its name. Raises `AffectbenchError` where it was not collected."""
        return self._statistic(statistic)

    @property
    def overall_mean(self) -> FloatArray:
        """Mean activation of every channel, each emotion weighted alike; flat, shape (layers * channels,)."""
        seen = self.tokens > 0
        means: FloatArray = self.mean[seen].mean(axis=0)
        return means.ravel()


@dataclass
class EvidencePass:
    """Collects every requested statistic in one pass.

    `requests` are (site, positions, statistic) keys. With `correct_only`, an item counts only if the
    un-intervened model answers it correctly, and at most `per_emotion` such items count for an emotion, in
    the split's order; an item that fails never counts. Shuffled-label statistics use a seeded permutation of
    the counted items' labels.
    """

    engine: Engine
    items: Items
    readout: Readout
    requests: frozenset[Key]
    correct_only: bool = True
    per_emotion: int | None = None
    seed: int = 0
    counted: IntArray = field(init=False)
    codes: Codes = field(init=False)
    _sums: dict[Key, Tensor] = field(init=False, default_factory=dict)
    _tokens: dict[str, Tensor] = field(init=False, default_factory=dict)

    def run(self, progress: Callable[[int], None] | None = None) -> EvidencePass:
        """Run the pass; returns itself, ready for `evidence`."""
        labels = len(self.readout.labels)
        self.counted = np.zeros(2 * labels, dtype=np.int64)
        self.codes = np.zeros(len(self.items), dtype=np.int8)
        model = self.engine.model
        for key in self.requests:
            shape = model.site_shape(key[0])
            size = (2 * labels, shape.layers, shape.channels)
            self._sums[key] = torch.zeros(size, dtype=self._wide, device=model.device)
            self._tokens[key[1]] = torch.zeros(2 * labels, dtype=self._wide, device=model.device)
        known = (
            None
            if self.readout.one_pass
            else self.engine.predict(self.items, self.readout, [UNTOUCHED]).codes[0]
        )
        shuffled = np.random.default_rng([self.seed, 0x5AFF1E]).permutation(self.items.gold)
        name, meter = self._name(), Meter(self.engine)
        taken = self._taken_up(name)
        if progress is not None:
            progress(taken)
        most = len(self.items) if self._answer_only else ITEMS_A_BATCH  # A graph of all columns is large.
        for places in self.engine.batches(self.items.items, start=taken, most=most):
            before = taken
            with self.engine.taking(places, progress) as tell:
                self._batch(places, known, shuffled)
                tell(len(places))
                taken += len(places)
            if taken > before:
                self._keep(name, meter, taken)
        if (self.codes == FAILED).all():
            raise AffectbenchError(
                f"model {self.engine.model.card.name} gave no finite score for any of the "
                f"{len(self.items)} identification items",
                hint="check the checkpoint and its dtype",
            )
        return self

    def evidence(self, site: str, positions: str, *, shuffled: bool = False) -> Evidence:
        """The statistics of `site` at `positions`, by gold label or by shuffled label."""
        labels = self.readout.labels
        rows = slice(len(labels), None) if shuffled else slice(0, len(labels))
        sums = {
            statistic: total[rows].cpu().numpy()
            for (at_site, at_positions, statistic), total in self._sums.items()
            if (at_site, at_positions) == (site, positions)
        }
        # A pass without requests, for selectors that look at nothing, has counted no tokens.
        counts = self._tokens.get(positions)
        tokens = np.zeros(len(labels)) if counts is None else counts[rows].cpu().numpy()
        shape = self.engine.model.site_shape(site)
        return Evidence(labels, site, positions, shape, self.counted[rows], tokens, sums)

    def _name(self) -> str:
        options = repr((sorted(self.requests), self.correct_only, self.per_emotion, self.seed))
        return self.engine.key(["evidence", self.items.digest, repr(self.readout.candidates), options])

    def _taken_up(self, name: str) -> int:
        """Go on from the sums that a stopped run left; returns how many items they are of."""
        found = self.engine.journal.find(name) if self.engine.journal is not None else None
        if found is None:
            return 0
        self.engine.repeat(found.facts)
        self.counted, self.codes = found.arrays["counted"].copy(), found.arrays["codes"].copy()
        for each, total in self._totals().items():
            total.copy_(torch.as_tensor(found.arrays[each].copy()))
        return int(found.facts["items"])

    def _keep(self, name: str, meter: Meter, taken: int) -> None:
        """Leave the sums of the first `taken` items to a run that goes on from here."""

        def state() -> tuple[Arrays, dict[str, Any]]:
            arrays = {each: total.cpu().numpy() for each, total in self._totals().items()}
            arrays |= {"counted": self.counted, "codes": self.codes}
            return arrays, {**meter.facts(), "items": taken}

        if self.engine.journal is not None:
            self.engine.journal.snapshot(name, state, taken == len(self.items))

    def _totals(self) -> dict[str, Tensor]:
        """All running sums by name."""
        sums = {f"sums {' '.join(key)}": total for key, total in self._sums.items()}
        return sums | {f"tokens {positions}": total for positions, total in self._tokens.items()}

    def _batch(self, places: list[int], known: Codes | None, shuffled: IntArray) -> None:
        model = self.engine.model
        batch = model.collate([self.items.items[place] for place in places])
        gradients = any(statistic == ATTRIBUTION for _, _, statistic in self.requests)
        seen: dict[Point, Tensor | Routed] = {}
        pooled: dict[Point, dict[tuple[str, str], Tensor]] = {}

        def read(point: Point) -> Callable[[Tensor | Routed], None]:
            def hook(activation: Tensor | Routed) -> None:
                if gradients:
                    seen[point] = activation
                else:  # Pooled at once, so that no activation outlives its layer.
                    pooled[point] = self._pool(point, activation, None, batch.roles)

            return hook

        sites = sorted({site for site, _, _ in self.requests})
        wanted = [(site, layer) for site in sites for layer in model.site_layers(site)]
        gold = self.items.gold[places]
        batch, cache = self._begun(batch)
        with torch.set_grad_enabled(gradients):
            if gradients:
                batch = replace(batch, embeds=batch.embeds.detach().requires_grad_())
            with hooked([(*model.site_module(*point), read(point)) for point in wanted]):
                hidden = model.decode(batch, cache=cache)
            first = self.readout.first_scores(model.logits(hidden[:, -1]))
            slopes = self._slopes(first, gold, places, seen) if gradients else {}
        self.engine.spent(len(places))
        for point, activation in seen.items():
            pooled[point] = self._pool(point, activation.detach(), slopes[point], batch.roles)
        orders = None if self.items.orders is None else self.items.orders[places]
        codes = codes_of(to_labels(first.detach().cpu().numpy(), orders)) if known is None else known[places]
        weights, counted = self._weights(places, codes, gold, shuffled)
        additions = list(self._additions(batch.roles, pooled, weights))
        # From here on nothing is allocated: where memory runs out, a batch has left no trace.
        for total, addition in additions:
            total += addition
        self.codes[places], self.counted = codes, counted

    @property
    def _answer_only(self) -> bool:
        return all(ROLE_BIT[positions] == ANSWER for _, positions, _ in self.requests)

    def _begun(self, batch: Batch) -> tuple[Batch, Any]:
        """What is left of a batch, and the keys and values of what was run: nothing was, unless statistics
        of the answer position are all that is asked for.

        An activation there reaches the answer through its own column alone, so gradients need a graph for no
        other: what comes before runs without one.
        """
        if not self._answer_only or batch.embeds.shape[1] == 1:
            return batch, None
        before = Batch(batch.embeds[:, :-1], batch.mask[:, :-1], batch.roles[:, :-1])
        cache = self.engine.model.cache()
        with torch.no_grad():
            self.engine.model.decode(before, cache=cache, last=1)
        return Batch(batch.embeds[:, -1:], batch.mask, batch.roles[:, -1:]), cache

    def _pool(
        self, point: Point, activation: Tensor | Routed, slope: Tensor | None, roles: Tensor
    ) -> dict[tuple[str, str], Tensor]:
        """Sums (B, channels) over tokens, for each (positions, statistic) requested of the point's site."""
        view = self.engine.model.site_view(*point)
        return {
            (positions, statistic): _pooled(view, activation, slope, statistic, roles, positions)
            for site, positions, statistic in self.requests
            if site == point[0]
        }

    def _slopes(
        self, first: Tensor, gold: IntArray, places: list[int], seen: dict[Point, Tensor | Routed]
    ) -> dict[Point, Tensor]:
        """Gradient of each item's gold margin (gold minus best other) with respect to every site."""
        wanted = gold if self.items.orders is None else (self.items.orders[places] == gold[:, None]).argmax(1)
        rows = torch.arange(len(places), device=first.device)
        at = torch.as_tensor(wanted, device=first.device)
        others = first.clone()
        others[rows, at] = -torch.inf
        margin = (first[rows, at] - others.max(dim=-1).values).sum()
        values = [found.values if isinstance(found, Routed) else found for found in seen.values()]
        slopes = torch.autograd.grad(margin, values, allow_unused=True)
        return {
            point: torch.zeros_like(value) if slope is None else slope
            for point, value, slope in zip(seen, values, slopes, strict=True)
        }

    def _weights(
        self, places: list[int], codes: Codes, gold: IntArray, shuffled: IntArray
    ) -> tuple[Tensor, IntArray]:
        """Membership (items, 2 x emotions): which gold and which shuffled group each item counts for, and
        how many items each group has then."""
        labels, counted = len(self.readout.labels), self.counted.copy()
        weights = np.zeros((len(places), 2 * labels))
        for row, place in enumerate(places):
            if codes[row] == FAILED or (self.correct_only and codes[row] != gold[row]):
                continue
            for group in (int(gold[row]), labels + int(shuffled[place])):
                if self.per_emotion is None or counted[group] < self.per_emotion:
                    weights[row, group] = 1
                    counted[group] += 1
        return torch.as_tensor(weights, dtype=self._wide, device=self.engine.model.device), counted

    def _additions(
        self, roles: Tensor, pooled: dict[Point, dict[tuple[str, str], Tensor]], weights: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Each running sum, and what a batch adds to it."""
        for positions, total in self._tokens.items():
            counts = (roles & ROLE_BIT[positions]).bool().sum(-1)
            yield total, weights.T @ counts.to(weights)
        # An item that failed has values that are not finite, and 0 x NaN is NaN: it is left out.
        used = weights.any(dim=1).nonzero().squeeze(1)
        members = weights[used].T
        for (site, layer), sums in pooled.items():
            for (positions, statistic), values in sums.items():
                found = values.index_select(0, used.to(values.device))
                yield self._sums[site, positions, statistic][:, layer], members @ found.to(weights)

    @property
    def _wide(self) -> torch.dtype:
        return torch.float32 if self.engine.model.device.type == "mps" else torch.float64


def _pooled(
    view: PlainView,
    activation: Tensor | Routed,
    slope: Tensor | None,
    statistic: str,
    roles: Tensor,
    positions: str,
) -> Tensor:
    """Sum (B, channels) over the tokens of `positions` of one statistic of what was hooked, (B, T, width)."""
    mask = (roles & ROLE_BIT[positions]).bool()
    if isinstance(activation, Routed):
        value = _measured(activation.values, slope, statistic)
        return activation.summed(value * mask.view(-1, 1, 1).to(value.device), mask.shape[0])
    if ROLE_BIT[positions] == ANSWER:
        activation, mask = activation[:, -1:], mask[:, -1:]
        slope = None if slope is None else slope[:, -1:]
    slope = None if slope is None else view.slope(slope)
    value = _measured(view.read(activation), slope, statistic)
    return torch.bmm(mask[:, None].to(value), value).squeeze(1).float()


def _measured(value: Tensor, slope: Tensor | None, statistic: str) -> Tensor:
    if statistic == MEAN_ABS:
        return value.abs()
    if statistic == RATE:
        return (value > 0).float()
    if statistic == ATTRIBUTION:
        assert slope is not None, "gradients were taken"
        return value * slope
    if statistic == RMS:
        return value.float().pow(2).mean(-1, keepdim=True).sqrt().expand_as(value)
    return value


def requests_of(needs: Iterable[str], site: str, positions: str) -> frozenset[Key]:
    """The keys of the statistics a selector needs: those of `site`, and ``SITE:STATISTIC`` of another one.

    Raises `AffectbenchError` for an unknown site or statistic.
    """
    found = set()
    for need in sorted(needs):
        at, _, name = need.rpartition(":")
        if name not in STATISTICS:
            raise AffectbenchError(
                f"statistic {name!r} does not exist", hint=f"a selector may need: {', '.join(STATISTICS)}"
            )
        if at and at not in (*SITES, *READ_ONLY):
            raise AffectbenchError(
                f"site {at!r} does not exist", hint=f"sites: {', '.join((*SITES, *READ_ONLY))}"
            )
        if (at or site) == MODULE:
            raise AffectbenchError(
                f"site 'module' is weights, which have no statistic {name!r}",
                hint="a selector for it asks `study.adaptation`, or needs SITE:STATISTIC of another site",
            )
        if (at or site) == COMPONENT:
            raise AffectbenchError(
                f"site 'component' joins {' and '.join(COMPONENT_PARTS)}, and has no statistics of its own",
                hint=f"a selector for it needs {', '.join(f'{part}:{name}' for part in COMPONENT_PARTS)}",
            )
        found.add((at or site, positions, name))
    return frozenset(found)


def merged(requests: Sequence[frozenset[Key]]) -> frozenset[Key]:
    """One request that serves all of `requests`."""
    return frozenset().union(*requests)
