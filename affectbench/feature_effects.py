"""The analysis `feature-effects`: features that cause an emotion's answers, by emotion and phase.

Candidates of each emotion are ablated one by one (`affectbench.tracing`); the causal ones are counted in the
three phases of the model's flow (`feature-flow`), with their summed effect and its Gini coefficient: on all
items that were traced, and on as many of each emotion. Source of the question: arXiv 2604.25866; the protocol
is ours: docs/analyses.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from affectbench.analyses import Asked, Content
from affectbench.analysis import Column, Finding, Matrix, Table, Value, grid
from affectbench.causes import Causes, Found, Strength, causal_features, matched_strengths, strengths
from affectbench.evidence import requests_of
from affectbench.feature_flow import attached, flow_of_reading, read
from affectbench.features import NEEDS, candidates
from affectbench.intervention import Intervention
from affectbench.readout import Items, Predictions
from affectbench.recovery import recovery
from affectbench.score_models import Estimate
from affectbench.sites import FEATURE
from affectbench.study import Study
from affectbench.tracing import causes_of, random_pool, trace

PHASES = ("first", "second", "third")
EFFECT = (
    "Effects are drops of the gold logit minus the mean drop of the others, in nats, summed over features."
)


@dataclass(frozen=True)
class Effects:
    """What was traced: causes and causal features by emotion; phases begin at `boundaries`, which are layers;
    `layers` are those with features, of a model of `depth`."""

    labels: tuple[str, ...]
    causes: Sequence[Causes]
    found: Sequence[Found]
    boundaries: tuple[int, int]
    layers: tuple[int, ...]
    depth: int

    @property
    def phases(self) -> list[str]:
        """The phases in words, with their layers."""
        edges = pairwise((0, *self.boundaries, self.depth))
        return [
            f"{phase} layers {start} to {end - 1}" for phase, (start, end) in zip(PHASES, edges, strict=True)
        ]

    def strengths(self) -> list[list[Strength]]:
        """By emotion and phase."""
        pairs = zip(self.causes, self.found, strict=True)
        return [strengths(causes, found, self.boundaries, self.depth) for causes, found in pairs]


def analyse(asked: Asked) -> Content:
    """Raises `AffectbenchError` as `feature-flow` does, and where answers are generated text."""
    dictionary = attached(asked.session)
    flow = flow_of_reading(read(asked)["all"], asked)
    first, second = (dictionary.layers[place] for place in flow.boundaries)
    effects = traced(asked, (first, second))
    truth = recovered(effects, dictionary.planted(), dictionary.features)
    n, matched = matched_strengths(
        effects.causes, effects.boundaries, effects.depth,
        repeats=asked.number("matched_repeats"), draws=asked.number("effect_draws"), seed=asked.seed,
    )  # fmt: skip
    whole, items = effects.strengths(), [len(causes.effects) for causes in effects.causes]
    return Content(
        n={
            "items": sum(items),
            "ablated_features": sum(len(causes.features) for causes in effects.causes),
            "matched_items": n,
        },
        findings=[*findings(effects, whole), *(finding for finding, _ in truth)],
        matrices=matrices(effects),
        tables=[
            strength_table("effects", "All items that were traced", effects, whole, items),
            strength_table("matched", f"The same on {n} items of each", effects, matched, [n] * len(items)),
            strongest(effects, asked.number("shown")),
            *(table for _, table in truth),
        ],
        notes=["A reconstruction: the effect measure and its thresholds are not public (docs/analyses.md)."],
    )


def traced(asked: Asked, boundaries: tuple[int, int]) -> Effects:
    """Ablate the candidates of each emotion one by one, and random features beside them."""
    session = asked.session
    collected = session.collect(
        requests_of(NEEDS, FEATURE, "answer"), correct_only=False, seed=asked.seed, progress=None
    )
    part = _first(session.items("identification"), asked.number("items"))
    study = Study(
        evidence=collected.evidence(FEATURE, "answer").only(set(NEEDS)),
        shuffled=collected.evidence(FEATURE, "answer", shuffled=True).only(set(NEEDS)),
        items=part,
        readout=session.readout,
        seed=asked.seed,
        ask=partial(_answers, asked, part),
        engine=session.engine,
    )
    named = candidates(study, asked.number("candidates"))
    pool = random_pool(study.evidence.rate, study.rng("tracing"))
    units = np.unique(np.concatenate([*named, pool]))
    shape = study.shape
    found = trace(study.predict, units, site=FEATURE, shape=shape, gold=part.gold, clusters=part.clusters)
    causes = [
        causes_of(found, emotion, own, pool, study.evidence.mean, shape.width)
        for emotion, own in enumerate(named)
    ]
    draws = asked.number("effect_draws")
    return Effects(
        session.benchmark.labels,
        causes,
        [causal_features(each, draws=draws, seed=asked.seed) for each in causes],
        boundaries,
        attached(session).layers,
        shape.layers,
    )


def findings(effects: Effects, whole: Sequence[Sequence[Strength]]) -> list[Finding]:
    """Which emotions have most and fewest causal features, which the strongest and weakest, and in which
    phase the effects are."""
    numbers = [sum(each.number for each in own) for own in whole]
    totals = [sum(each.total for each in own) for own in whole]
    told = [
        Finding(name="number", text=_extremes("Causal features", effects.labels, numbers, "{:.0f}")),
        Finding(name="total", text=_extremes("Summed effect, in nats", effects.labels, totals, "{:.2f}")),
    ]
    if sum(totals) > 0:
        last = sum(own[-1].total for own in whole)
        text = f"Share of all effects in the last phase, from layer {effects.boundaries[1]}:"
        told.append(Finding(name="last-phase", text=text, value=Estimate(value=last / sum(totals))))
    return told


def _extremes(what: str, labels: Sequence[str], values: Sequence[float], form: str) -> str:
    most, least = int(np.argmax(values)), int(np.argmin(values))
    return (
        f"{what}: most for {labels[most]} ({form.format(values[most])}), "
        f"least for {labels[least]} ({form.format(values[least])})"
    )


def matrices(effects: Effects) -> list[Matrix]:
    """How many causal features each emotion has in each layer, and their summed effect."""
    counts = np.zeros((len(effects.labels), len(effects.layers)))
    sums = np.zeros_like(counts)
    for row, (causes, found) in enumerate(zip(effects.causes, effects.found, strict=True)):
        for column, layer in enumerate(effects.layers):
            own = found.causal & (causes.layers == layer)
            counts[row, column] = own.sum()
            sums[row, column] = found.effect[own].sum()
    names = [str(layer) for layer in effects.layers]
    return [
        Matrix(
            name=name, title=title, row_label="emotion", column_label="layer", rows=list(effects.labels),
            columns=names, values=grid(values), note=note,
        )
        for name, title, values, note in (
            ("count", "Causal features by layer", counts, ""),
            ("sum", "Their summed effect", sums, EFFECT),
        )
    ]  # fmt: skip


def strength_table(
    name: str, title: str, effects: Effects, rows: Sequence[Sequence[Strength]], items: Sequence[int]
) -> Table:
    """Number, summed effect and Gini coefficient of causal features, by emotion and phase."""
    columns = [Column(name="emotion"), Column(name="items")]
    for phase in range(1, len(PHASES) + 1):
        parts = (("features", 1), ("effect", 2), ("Gini", 2))
        columns += [Column(name=f"{phase}: {part}", digits=digits) for part, digits in parts]
    values: list[list[Value]] = [
        [label, count, *(value for each in own for value in each)]
        for label, count, own in zip(effects.labels, items, rows, strict=True)
    ]
    note = f"Phases: {'; '.join(effects.phases)}. {EFFECT}"
    return Table(name=name, title=title, columns=columns, rows=values, note=note)


def strongest(effects: Effects, most: int) -> Table:
    """The causal features of each emotion with the largest effect."""
    rows: list[list[Value]] = []
    for label, causes, found in zip(effects.labels, effects.causes, effects.found, strict=True):
        order = np.argsort(-found.effect, kind="stable")
        for place in order[found.causal[order]][:most]:
            effect = Estimate(
                value=float(found.effect[place]), low=float(found.low[place]), high=float(found.high[place])
            )
            bar = float(causes.bar[place])
            rows.append([label, int(causes.layers[place]), int(causes.features[place]), effect, bar])
    names = ("emotion", "layer", "feature", "effect", "95 % of random features")
    return Table(
        name="strongest",
        title="The strongest causal features",
        columns=[Column(name=name) for name in names],
        rows=rows,
        note="Intervals over clusters; random features are of the same layer and as active.",
    )


def recovered(effects: Effects, truth: Mapping[str, Any] | None, width: int) -> list[tuple[Finding, Table]]:
    """How well effects tell planted features from their decoys; empty where nothing was planted.

    `truth`: `planted` and `decoys` by emotion, as flat indices over layers of `width` features. Features that
    were not traced for an emotion rank below all that were.
    """
    if truth is None:
        return []
    scores = np.full((len(effects.labels), effects.depth * width), -np.inf)
    causal = []
    for row, causes, found in zip(scores, effects.causes, effects.found, strict=True):
        units = causes.layers * width + causes.features
        row[units] = found.effect
        causal.append(set(units[found.causal].tolist()))
    planted, decoys = ([truth[kind][label] for label in effects.labels] for kind in ("planted", "decoys"))
    told = recovery(scores, planted, decoys)
    rows: list[list[Value]] = [
        [label, len(own), len(causal[e] & set(own)), len(fake), len(causal[e] & set(fake)),
         told.decoy_auroc_per_emotion[e], told.auroc_per_emotion[e], told.precision_per_emotion[e]]
        for e, (label, own, fake) in enumerate(zip(effects.labels, planted, decoys, strict=True))
    ]  # fmt: skip
    counts = ("planted", "of them causal", "decoys", "decoys causal")
    names = ("AUROC against decoys", "AUROC against all", "planted among the first")
    table = Table(
        name="planted",
        title="Features with a known answer",
        columns=[
            Column(name="emotion"),
            *(Column(name=name, digits=0) for name in counts),
            *(Column(name=name) for name in names),
        ],
        rows=rows,
        note="Ranked by effect; features that were not traced for an emotion come last. Decoys are as active "
        "and do nothing.",
    )
    value = None if told.decoy_auroc is None else Estimate(value=told.decoy_auroc)
    text = "AUROC of effects, planted features against decoys, mean over emotions:"
    return [(Finding(name="planted-auroc", text=text, value=value), table)]


def _first(items: Items, most: int) -> Items:
    """The first items of each emotion, in their own order."""
    seen: dict[int, int] = {}
    kept = []
    for place, emotion in enumerate(items.gold.tolist()):
        seen[emotion] = seen.get(emotion, 0) + 1
        if seen[emotion] <= most:
            kept.append(place)
    return items.at(kept)


def _answers(asked: Asked, items: Items, edits: Sequence[Intervention]) -> Predictions:
    session = asked.session
    return session.engine.predict(items, session.readout, list(edits), asked.progress)
