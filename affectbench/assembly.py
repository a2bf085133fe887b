"""Emotion circuits as selections: directions to steer along, and units parted among layers by influence."""

from __future__ import annotations

import numpy as np

from affectbench.anatomy import Anatomy
from affectbench.circuit import ATTENTION_PLACE, MLP_PLACE, best_of_layers
from affectbench.circuit_budget import HEAD_BASE, NEURON_BASE, allocate, split_budget
from affectbench.directions import PUBLISHED_STEERED, middle_layers, scaled_layers
from affectbench.errors import AffectbenchError
from affectbench.selector import Selection
from affectbench.sites import COMPONENT, HEAD, NEURON, RESIDUAL, FloatArray
from affectbench.study import Study

BASES = {NEURON: NEURON_BASE, HEAD: HEAD_BASE}
PLACES = {NEURON: MLP_PLACE, HEAD: ATTENTION_PLACE}
"""The sublayer whose influence parts the units of a kind."""


def direction_selection(anatomy: Anatomy, budget: int) -> Selection:
    """The directions behind the layers in the middle of the model, `budget` of them; in mode ``paper`` behind
    layers 11 to 20 of 28, as a share of the depth.

    Raises:
        AffectbenchError: the study is of another site than `residual`.
    """
    study = anatomy.study
    _check_site(study, (RESIDUAL,))
    layers = middle_layers(study.shape.layers, budget)
    if study.mode == "paper":
        layers = scaled_layers(*PUBLISHED_STEERED, study.shape.layers)[:budget]
    units = np.arange(layers.start, layers.stop, dtype=np.int64)
    vectors = tuple(each.ravel() for each in anatomy.directions[:, MLP_PLACE, layers.start : layers.stop])
    return Selection(study.site, study.shape, study.labels, (units,) * len(study.labels), vectors=vectors)


def circuit_selection(anatomy: Anatomy, budget: int) -> Selection:
    """The units of each layer that write the emotion's direction most, as many as the influence of their
    sublayer gives the layer: neurons and heads, or one kind where the study's site holds one alone.

    Raises:
        AffectbenchError: the study's site holds neither.
    """
    study = anatomy.study
    _check_site(study, (COMPONENT, NEURON, HEAD))
    budgets = _budgets(study, budget)
    scores = np.concatenate([_scores(anatomy, site) for site in budgets], axis=2)
    chosen = []
    for emotion, effects in enumerate(anatomy.effects):
        units = []
        for site, count in budgets.items():
            shape = study.site_shape(site)
            counts = allocate(effects[PLACES[site]], count, base=BASES[site], width=shape.width)
            found = best_of_layers(_scores(anatomy, site)[emotion], counts)
            units.append(study.shape.within(site, found) if study.shape.kinds else found)
        joined = np.concatenate(units)
        order = np.argsort(-scores[emotion].ravel()[joined], kind="stable")
        chosen.append(joined[order])
    flat = scores.reshape(len(scores), -1)
    return Selection(study.site, study.shape, study.labels, tuple(chosen), flat)


def of_another_emotion(selection: Selection) -> Selection:
    """The same circuits, each given to the emotion before its own: as many, as central to some emotion."""
    moved = (*selection.units[1:], selection.units[0])
    scores = None if selection.scores is None else np.roll(selection.scores, -1, axis=0)
    return Selection(selection.site, selection.shape, selection.labels, moved, scores)


def _budgets(study: Study, budget: int) -> dict[str, int]:
    """Units of each kind, in the order in which they stand in a layer."""
    if study.site != COMPONENT:
        return {study.site: budget}
    neurons, heads = study.site_shape(NEURON).units, study.site_shape(HEAD).units
    split = split_budget(budget, neurons=neurons, heads=heads, fixed=study.mode == "paper")
    return {NEURON: split.neurons, HEAD: split.heads}


def _scores(anatomy: Anatomy, site: str) -> FloatArray:
    return anatomy.neurons if site == NEURON else anatomy.heads


def _check_site(study: Study, sites: tuple[str, ...]) -> None:
    if study.site not in sites:
        raise AffectbenchError(
            f"there is no such selection at site {study.site!r}",
            hint=f"use a protocol of site {' or '.join(sites)}",
        )
