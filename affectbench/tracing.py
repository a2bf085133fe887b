"""Causal tracing: what single units do to the answers, one ablation each, packed through the engine.

Ablating a unit lowers the gold logit and moves the others; its effect on an item is the drop of the gold
logit minus the mean drop of the other labels' logits. Log-likelihoods of the labels serve as well as
logits: what they are normalised by cancels. Features are ablated at the answer position, their SAE's error
kept.

A feature is compared with random features that are as active: of `POOL` random ones of its layer, the
`MATCHED` whose mean activation is nearest to its own (log scale). Source: the protocol of `docs/sae.md`, a
reconstruction of arXiv 2604.25866, whose effect measure is not public.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from affectbench.causes import Causes
from affectbench.errors import AffectbenchError
from affectbench.intervention import UNTOUCHED, Intervention, scale
from affectbench.readout import FAILED, Codes, IntArray, Predictions
from affectbench.sites import FloatArray, SiteShape, UnitArray

POOL, MATCHED = 48, 20
"""Random units of a layer that are ablated for comparison, and how many of them a unit is compared with."""
CLEAREST = 95.0
"""Percentile of the comparison's effects that an effect must exceed."""
AT_ONCE = 512
"""Units whose answers are held at a time."""
Ask = Callable[[Sequence[Intervention]], Predictions]


@dataclass(frozen=True)
class Traced:
    """Units that were ablated one by one: `effects` (N, K) on each item; `flips` (N, K): whether the answer
    was the gold label before and is another one then; `kept` (N,): items whose answers are all finite;
    `correct` (N,): those that are answered with the gold label without intervention."""

    units: UnitArray
    effects: FloatArray
    flips: np.ndarray
    kept: np.ndarray
    correct: np.ndarray
    gold: IntArray
    clusters: tuple[str, ...]

    @property
    def places(self) -> dict[int, int]:
        """Column of each unit."""
        return {int(unit): place for place, unit in enumerate(self.units)}


def effects_of(clean: npt.ArrayLike, ablated: npt.ArrayLike, gold: IntArray) -> FloatArray:
    """Drop of the gold logit minus the mean drop of the others', (K, N).

    Args:
        clean: (N, E) logits, or log-likelihoods, of the labels without intervention.
        ablated: (K, N, E) the same under each of K ablations.
        gold: (N,) place of each item's gold label.
    """
    drops = np.asarray(clean, dtype=np.float64)[None] - np.asarray(ablated, dtype=np.float64)
    own = np.take_along_axis(drops, gold[None, :, None], axis=2)[:, :, 0]
    return np.asarray(own - (drops.sum(axis=2) - own) / (drops.shape[2] - 1))


def flips_of(clean: Codes, ablated: Codes, gold: IntArray) -> np.ndarray:
    """(K, N): whether an item was answered with its gold label, and under the ablation is not."""
    return np.asarray((clean == gold) & (ablated != gold))


def trace(
    ask: Ask, units: UnitArray, *, site: str, shape: SiteShape, gold: IntArray, clusters: Sequence[str]
) -> Traced:
    """Ablate `units` one by one, at the answer position, on all items that `ask` answers.

    Raises `AffectbenchError` where answers are generated text: there is no logit to drop.
    """
    base = ask([UNTOUCHED])
    clean, codes = base.scores[0], base.codes[0]
    if np.isnan(clean).all():
        raise AffectbenchError(
            "causal tracing needs the likelihoods of the answers",
            hint="use the readout `labels` or `letters`",
        )
    effects, flips = [], []
    for start in range(0, len(units), AT_ONCE):
        part = units[start : start + AT_ONCE]
        found = ask([scale(site, shape, unit[None], 0.0, "answer") for unit in part])
        effects.append(effects_of(clean, found.scores, gold))
        flips.append(flips_of(codes, found.codes, gold))
    shaped = (0, len(gold))
    table = np.concatenate(effects or [np.empty(shaped)]).T
    return Traced(
        units,
        table,
        np.concatenate(flips or [np.empty(shaped, dtype=bool)]).T,
        (codes != FAILED) & np.isfinite(table).all(axis=1),
        codes == gold,
        gold,
        tuple(clusters),
    )


def random_pool(rate: FloatArray, rng: np.random.Generator, size: int = POOL) -> UnitArray:
    """Flat indices of up to `size` random units of each layer, of those that are ever active.

    `rate` (E, layers, width): share of tokens of each emotion on which a unit is active.
    """
    alive = rate.max(axis=0) > 0
    chosen = [
        layer * alive.shape[1] + np.sort(rng.permutation(np.flatnonzero(row))[:size])
        for layer, row in enumerate(alive)
    ]
    return np.concatenate(chosen).astype(np.int64)


def causes_of(
    traced: Traced, emotion: int, candidates: UnitArray, pool: UnitArray, mean: FloatArray, width: int
) -> Causes:
    """Effects of `candidates` on the items of an emotion, beside those of random units that are as active.

    `mean` (E, layers, width): mean activation; matching is by its mean over emotions. Items that the model
    answers correctly count, or all where it answers fewer than two of the emotion's clusters so.
    """
    own = (traced.gold == emotion) & traced.kept
    if len({traced.clusters[place] for place in np.flatnonzero(own & traced.correct)}) >= 2:
        own &= traced.correct
    places = np.flatnonzero(own)
    columns = traced.places
    level = np.log(np.maximum(mean.mean(axis=0).ravel(), 1e-12))
    averages = traced.effects[places].mean(axis=0) if places.size else np.zeros(len(traced.units))
    bars = np.empty(len(candidates))
    for row, unit in enumerate(candidates):
        rivals = pool[(pool // width == unit // width) & (pool != unit)]
        nearest = rivals[np.argsort(np.abs(level[rivals] - level[unit]), kind="stable")[:MATCHED]]
        effects = averages[[columns[int(each)] for each in nearest]]
        bars[row] = np.percentile(effects, CLEAREST) if effects.size else np.inf
    return Causes(
        candidates // width,
        candidates % width,
        traced.effects[places][:, [columns[int(unit)] for unit in candidates]],
        tuple(traced.clusters[place] for place in places),
        bars,
    )
