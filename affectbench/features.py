"""What the selectors of SAE features share: candidates, tracing in a study, and vectors to steer with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from affectbench.causes import Found, causal_features
from affectbench.errors import AffectbenchError
from affectbench.evidence import ATTRIBUTION, MEAN, RATE
from affectbench.intervention import Intervention
from affectbench.readout import Predictions
from affectbench.selector import Selection
from affectbench.sites import FEATURE, FloatArray, UnitArray
from affectbench.study import Study
from affectbench.tracing import Traced, causes_of, random_pool, trace

NEEDS = frozenset({MEAN, RATE, ATTRIBUTION})
CANDIDATES = 64
"""Features traced for an emotion: half by first-order effect, half by contrast with other emotions."""
ITEMS = 25
"""Items of an emotion that features are traced on."""
DRAWS = 1000
NEAR = 10
"""Features that a random one is drawn from to take the place of another."""


@dataclass(frozen=True)
class TracedStudy:
    """What ablating single features of a study does: `scores` (E, units), the mean effect on an emotion's
    items, -inf for features that were not candidates for it; `causal`: the features of each emotion that
    pass, best first."""

    traced: Traced
    found: tuple[Found, ...]
    scores: FloatArray
    causal: tuple[UnitArray, ...]


def margin_to_next(mean: FloatArray) -> FloatArray:
    """``m[e] - max over e' != e of m[e']`` of means m (E, ...)."""
    first, second = np.sort(mean, axis=0)[::-1][:2]
    return np.asarray(np.where(mean == first, mean - second, mean - first), dtype=np.float64)


def candidates(study: Study, most: int = CANDIDATES) -> tuple[UnitArray, ...]:
    """Features to trace for each emotion, of those that are active on it."""
    evidence, labels = study.evidence, len(study.labels)
    rate = evidence.rate.reshape(labels, -1)
    attribution = evidence.attribution.reshape(labels, -1)
    contrast = margin_to_next(evidence.mean).reshape(labels, -1)
    found = []
    for emotion in range(labels):
        active = rate[emotion] > 0
        chosen: set[int] = set()
        for scores, enough in ((attribution[emotion], most // 2), (contrast[emotion], most)):
            ranked = np.argsort(-np.where(active, scores, -np.inf), kind="stable")
            fresh = [int(unit) for unit in ranked[: int(active.sum())] if int(unit) not in chosen]
            chosen |= set(fresh[: enough - len(chosen)])
        found.append(np.array(sorted(chosen), dtype=np.int64))
    return tuple(found)


def first_items(study: Study, most: int = ITEMS) -> list[int]:
    """Places of the first items of each emotion, ascending."""
    gold = study.items.gold
    return sorted(int(place) for e in range(len(study.labels)) for place in np.flatnonzero(gold == e)[:most])


def traced_study(study: Study, most: int = CANDIDATES) -> TracedStudy:
    """Trace a study's candidates beside random features that are as active."""
    if study.engine is None:
        raise AffectbenchError("causal tracing runs the model", hint="give the study an engine")
    engine, items = study.engine, study.items.at(first_items(study))

    def ask(edits: Sequence[Intervention]) -> Predictions:
        return engine.predict(items, study.readout, edits)

    named = candidates(study, most)
    pool = random_pool(study.evidence.rate, study.rng("tracing"))
    units = np.unique(np.concatenate([*named, pool]))
    traced = trace(ask, units, site=study.site, shape=study.shape, gold=items.gold, clusters=items.clusters)
    scores = np.full((len(study.labels), study.shape.units), -np.inf)
    found, causal = [], []
    for emotion, own in enumerate(named):
        causes = causes_of(traced, emotion, own, pool, study.evidence.mean, study.shape.width)
        effects = causal_features(causes, draws=DRAWS, seed=study.seed)
        scores[emotion, own] = effects.effect
        order = np.argsort(-effects.effect, kind="stable")
        causal.append(own[order][effects.causal[order]])
        found.append(effects)
    return TracedStudy(traced, tuple(found), scores, tuple(causal))


def nearest_features(study: Study, unit: int, barred: UnitArray, count: int = NEAR) -> UnitArray:
    """The `count` features of a feature's layer that fire as often and write as much, without those `barred`.

    Distance in log firing rate and log (mean activation x norm of the decoder row), each divided by its
    standard deviation over the layer's active features; means over emotions.
    """
    width = study.shape.width
    layer, own = divmod(unit, width)
    rate = study.evidence.rate[:, layer].mean(axis=0)
    norms = study.writes(FEATURE, layer).norm(dim=-1).double().cpu().numpy()
    written = study.evidence.mean[:, layer].mean(axis=0) * norms
    alive = np.flatnonzero((rate > 0) & (written > 0))
    place = np.log(np.stack([rate[alive], written[alive]]))
    at = np.log(np.maximum([rate[own], written[own]], 1e-12))
    spread = np.maximum(place.std(axis=1), 1e-12)
    distance = (((place - at[:, None]) / spread[:, None]) ** 2).sum(axis=0)
    ranked = layer * width + alive[np.argsort(distance, kind="stable")]
    free = (ranked != unit) & ~np.isin(ranked, barred)
    return np.asarray(ranked[free][:count], dtype=np.int64)


def selection(study: Study, scores: FloatArray, units: Sequence[UnitArray]) -> Selection:
    """Features of each emotion, with what they are steered by."""
    rows = tuple(np.asarray(own, dtype=np.int64) for own in units)
    flat = scores.reshape(len(study.labels), -1)
    return Selection(study.site, study.shape, study.labels, rows, flat, vectors=steering(study, rows))


def steering(study: Study, units: tuple[UnitArray, ...]) -> tuple[FloatArray, ...]:
    """Weights of each emotion's features: their mean activation on its items, scaled so that all that they
    add at dose 1 is as long together as sqrt(d): times the stream's root mean square, as long as the stream.

    Where features are of several layers, the length is that of the parts laid side by side.
    """
    mean = study.evidence.mean.reshape(len(study.labels), -1)
    found = []
    for emotion, own in enumerate(units):
        weights = mean[emotion, own]
        total, width = 0.0, 1
        for layer in np.unique(own // study.shape.width):
            here = own // study.shape.width == layer
            rows = study.writes(FEATURE, int(layer))[own[here] % study.shape.width].double().cpu().numpy()
            total += float(((weights[here] @ rows) ** 2).sum())
            width = rows.shape[1]
        length = np.sqrt(total)
        found.append(weights * (np.sqrt(width) / length) if length > 0 else np.zeros_like(weights))
    return tuple(found)
