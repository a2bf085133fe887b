"""The analysis `circuit-validation`: do the units that write an emotion's direction move a model along it?

The best k units of an emotion, and k random ones of the same layers, are switched off on the emotion's own
items, and enhanced on others: what they do more for the emotion than over all emotions is added. The score is
the projection of the stream at its end on the emotion's reference direction, as a share of how far the
emotion's own items lie from the others there. Source of the question: arXiv 2510.11328, whose code has no
such step; where it reads its score is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from affectbench.analyses import Asked, Content
from affectbench.analysis import Curve, Finding, Series, numbers
from affectbench.anatomy import HEAD_NEEDS, NEURON_NEEDS, Anatomy
from affectbench.errors import AffectbenchError
from affectbench.evidence import requests_of
from affectbench.intervention import UNTOUCHED, Intervention, Positions, add, scale
from affectbench.readout import Items
from affectbench.score_models import Estimate
from affectbench.selector import Selection
from affectbench.session import Session
from affectbench.sites import HEAD, MIDDLE, NEURON, RESIDUAL, FloatArray
from affectbench.stats import clustered_se
from affectbench.study import Study
from affectbench.targets import Units, random_targets, targets_of, with_differences

SITES = NEURON, HEAD
NAMES = {NEURON: "neurons", HEAD: "heads"}
POSITIONS: Positions = "answer"
WIDE = 1.959964
"""Standard errors on each side of a 95 % interval."""
Arm = Literal["enhanced", "ablated"]
ARMS: tuple[Arm, ...] = ("enhanced", "ablated")


@dataclass(frozen=True)
class Effects:
    """Change of the projection under the best units of each count, (counts, N), and its mean under random
    ones, (draws, counts), as shares of the gap."""

    counts: tuple[int, ...]
    best: FloatArray
    random: FloatArray


@dataclass(frozen=True)
class Trial:
    """Units of an anatomy tried out on `items` (N). `base` (N, E): projections of the untouched model on each
    emotion's reference; `draws` sets of random units for each count."""

    anatomy: Anatomy
    items: Items
    base: FloatArray
    draws: int

    @property
    def own(self) -> npt.NDArray[np.bool_]:
        """(E, N) whether an item is of an emotion."""
        return np.asarray(self.items.gold == np.arange(self.base.shape[1])[:, None])

    @property
    def gap(self) -> FloatArray:
        """How far an emotion's own items lie along its reference from the others, (E,)."""
        parts = zip(self.base.T, self.own, strict=True)
        return np.array([np.nanmean(row[own]) - np.nanmean(row[~own]) for row, own in parts])

    def effects(self, site: str, arm: Arm, counts: Sequence[int]) -> Effects:
        """What the best and random units of a site do, for every count."""
        study, emotions = self.anatomy.study, self.base.shape[1]
        sets = [each for count in counts for each in self._targets(site, count)]
        found = study.project([_edit(each, arm) for each in sets], self.anatomy.frame.reference, self.items)
        change = (found - self.base) / self.gap
        change = change.reshape(len(counts), emotions + self.draws, len(self.items), emotions)
        best = np.stack([change[:, each, :, each] for each in range(emotions)], axis=1)
        random = np.moveaxis(change[:, emotions:], 3, 2)
        counted = self.own if arm == "ablated" else ~self.own
        means = [np.nanmean(np.where(counted, part, np.nan), axis=-2) for part in (best, random)]
        return Effects(tuple(counts), means[0], np.nanmean(means[1], axis=-1).T)

    def _targets(self, site: str, count: int) -> list[Units]:
        """The `count` units that write each emotion's direction most, with what they do more for it, and
        random ones of the same layers to which as much is added."""
        study = self.anatomy.study
        scores = self.anatomy.neurons if site == NEURON else self.anatomy.heads
        shape = study.site_shape(site)
        picked = Selection.from_scores(scores, count, site=site, shape=shape, labels=study.labels)
        picked = with_differences(picked, lambda at: study.evidence if at == NEURON else study.others[at])
        drawn = random_targets(picked, self.draws, study.seed)
        return [target[0] for target in (*targets_of(picked), *drawn)]


def _edit(each: Units, arm: Arm) -> Intervention:
    if arm == "ablated":
        return scale(each.site, each.shape, each.units, 0.0, POSITIONS)
    assert each.vectors is not None, "differences were filled in"
    return add(each.site, each.shape, each.units, each.vectors, POSITIONS)


def analyse(asked: Asked) -> Content:
    """Raises `AffectbenchError` where an emotion has no usable items, or no direction."""
    study = study_of(asked.session, asked.seed)
    items, anatomy = _sample(study, asked.number("items_per_emotion")), Anatomy(study)
    base = study.project([UNTOUCHED], anatomy.frame.reference, items)[0]
    trial = Trial(anatomy, items, base, asked.number("random_draws"))
    curves, findings = [], []
    for site in SITES:
        counts = [count for count in _counts(asked) if count <= study.site_shape(site).units // 2]
        for arm in ARMS:
            found = trial.effects(site, arm, counts)
            means = [_estimate(row, items.clusters) for row in found.best]
            curves.append(_curve(site, arm, found, means))
            findings.append(_finding(site, arm, found, means[-1]))
            if asked.progress is not None:
                asked.progress(len(items))
    n = {"items": len(items), "clusters": len(set(items.clusters)), "identification_items": len(study.items)}
    return Content(n=n, curves=curves, findings=findings)


def study_of(session: Session, seed: int) -> Study:
    """A study of the identification items that the model answers correctly, or of all where an emotion has
    none of these."""
    needs = requests_of(NEURON_NEEDS | HEAD_NEEDS, NEURON, POSITIONS)
    right = session.items("identification").gold[session.usable(True)]
    every = len(set(right.tolist())) == len(session.benchmark.labels)
    found = session.collect(needs, correct_only=every, seed=seed, progress=None)
    return Study(
        evidence=found.evidence(NEURON, POSITIONS),
        shuffled=found.evidence(NEURON, POSITIONS, shuffled=True),
        others={site: found.evidence(site, POSITIONS) for site in (MIDDLE, RESIDUAL, HEAD)},
        engine=session.engine,
        items=found.items,
        readout=found.readout,
        seed=seed,
        ask=lambda edits: session.engine.predict(found.items, found.readout, edits),
    )


def _sample(study: Study, most: int) -> Items:
    """At most so many items of each emotion, the first ones."""
    gold = study.items.gold
    places = [np.flatnonzero(gold == emotion)[:most] for emotion in range(len(study.labels))]
    if not all(place.size for place in places):
        raise AffectbenchError("an emotion has no item", hint="use more items")
    return study.items.at(sorted(np.concatenate(places).tolist()))


def _counts(asked: Asked) -> list[int]:
    counts = asked.settings["units"]
    assert isinstance(counts, list)
    return [int(count) for count in counts]


def _estimate(row: FloatArray, clusters: Sequence[str]) -> Estimate:
    """Mean over items with an interval from clustered standard errors."""
    known = np.isfinite(row)
    mean = float(row[known].mean())
    error = clustered_se(row[known], [c for c, used in zip(clusters, known, strict=True) if used])
    if error is None:
        return Estimate(value=mean)
    return Estimate(value=mean, low=mean - WIDE * error, high=mean + WIDE * error)


def _curve(site: str, arm: Arm, found: Effects, means: Sequence[Estimate]) -> Curve:
    best = Series(
        label=f"best {NAMES[site]}",
        values=[each.value for each in means],
        low=[each.low for each in means],
        high=[each.high for each in means],
    )
    drawn = Series(
        label=f"random {NAMES[site]} (mean and range of draws)",
        values=numbers(found.random.mean(axis=0)),
        low=numbers(found.random.min(axis=0)),
        high=numbers(found.random.max(axis=0)),
    )
    return Curve(
        name=f"{NAMES[site]}-{arm}",
        title=f"{NAMES[site].capitalize()} {arm}",
        x_label=f"{NAMES[site]} of each emotion",
        y_label="change along the emotion, share of the gap",
        x=[float(count) for count in found.counts],
        series=[best, drawn],
        reference=0.0,
        reference_label="no change",
        note="On items of other emotions." if arm == "enhanced" else "On the emotion's own items.",
    )


def _finding(site: str, arm: Arm, found: Effects, mean: Estimate) -> Finding:
    """The largest count, and how often random units move as much."""
    as_much = (np.abs(found.random[:, -1]) >= abs(mean.value)).sum()
    count, units = found.counts[-1], NAMES[site]
    return Finding(
        name=f"{units}-{arm}-moved",
        text=f"Share of the gap that the best {count} {units} move when {arm} (p: against random ones):",
        value=mean,
        p=float((1 + as_much) / (1 + len(found.random))),
    )
