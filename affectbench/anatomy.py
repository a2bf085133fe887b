"""What a study shows of emotion circuits: directions, what units write along them, influence of sublayers.

All but the influence follows from one evidence pass. The influence is measured: a step along the emotion's
direction is added to what a sublayer writes, and the end of the residual stream is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from affectbench.circuit import (
    ATTENTION_PLACE,
    MLP_PLACE,
    STRENGTHS,
    Frame,
    contributions,
    frame,
    head_contributions,
    influence,
)
from affectbench.directions import check_directions, differences, unit
from affectbench.intervention import UNTOUCHED, Intervention, add
from affectbench.sites import ATTENTION, HEAD, MIDDLE, NEURON, RESIDUAL, FloatArray, SiteShape
from affectbench.study import Study

DIRECTION_NEEDS = frozenset({f"{MIDDLE}:mean", f"{RESIDUAL}:mean"})
INFLUENCE_NEEDS = DIRECTION_NEEDS | {f"{MIDDLE}:rms", f"{RESIDUAL}:rms"}
NEURON_NEEDS = DIRECTION_NEEDS | {f"{NEURON}:mean"}
HEAD_NEEDS = DIRECTION_NEEDS | {f"{HEAD}:mean"}
CIRCUIT_NEEDS = INFLUENCE_NEEDS | NEURON_NEEDS | HEAD_NEEDS
PLACES = MIDDLE, RESIDUAL
"""Where a layer's two directions are read, in the order of their axis."""
SUBLAYERS = ATTENTION, RESIDUAL
"""Where something is added to what attention and the MLP of a layer write."""


@dataclass(frozen=True)
class Anatomy:
    """The circuits of a study's emotions; with `shuffled`, what the same makes of permuted labels."""

    study: Study
    shuffled: bool = False

    def _statistic(self, key: str) -> FloatArray:
        """(E, layers, channels)"""
        return self.study.statistic(key, shuffled=self.shuffled)

    @cached_property
    def directions(self) -> FloatArray:
        """Unit directions (E, places, layers, d): each emotion's mean minus the mean over emotions."""
        means = np.stack([self._statistic(f"{place}:mean") for place in PLACES], axis=1)
        found = differences(means)
        check_directions(found, self.study.labels)
        return unit(found)

    @cached_property
    def frame(self) -> Frame:
        """The directions turned to one side, and the reference of each emotion."""
        return frame(self.directions, self.study.mode)

    def _writes(self, site: str, layer: int) -> FloatArray:
        return np.asarray(self.study.writes(site, layer), dtype=np.float64)

    @cached_property
    def neurons(self) -> FloatArray:
        """(E, layers, neurons): what each neuron adds along the direction behind its layer."""
        active = self._statistic(f"{NEURON}:mean")
        rows = [
            contributions(active[:, layer], self._writes(NEURON, layer), self.directions[:, MLP_PLACE, layer])
            for layer in range(active.shape[1])
        ]
        return np.stack(rows, axis=1)

    @cached_property
    def heads(self) -> FloatArray:
        """(E, layers, heads): what each head adds along the direction behind its layer's attention."""
        active = self._statistic(f"{HEAD}:mean")
        along = self.directions[:, ATTENTION_PLACE]
        count = self.study.site_shape(HEAD).width
        rows = [
            head_contributions(active[:, layer], self._writes(HEAD, layer), along[:, layer], count)
            for layer in range(active.shape[1])
        ]
        return np.stack(rows, axis=1)

    @cached_property
    def doses(self) -> FloatArray:
        """Length of what is added at each place, (places, layers, strengths): a share of the root mean square
        of the residual stream there, averaged over emotions."""
        size = np.stack([self._statistic(f"{place}:rms").mean(axis=(0, 2)) for place in PLACES])
        found: FloatArray = size[..., None] * np.array(STRENGTHS)
        return found

    @cached_property
    def effects(self) -> FloatArray:
        """Influence of each sublayer, (E, places, layers), on prompts without emotion where the task has
        some, else on its items. All steps run packed."""
        grid = list(np.ndindex(len(self.study.labels), *self.doses.shape))
        steps = [self._step(emotion, place, layer, at) for emotion, place, layer, at in grid]
        found = self.study.project([UNTOUCHED, *steps], self.frame.reference, self.study.neutral)
        means = np.nanmean(found, axis=1)
        moved = [means[1 + row, emotion] for row, (emotion, *_) in enumerate(grid)]
        return influence(np.reshape(moved, (-1, *self.doses.shape)), means[0], self.doses)

    def _step(self, emotion: int, place: int, layer: int, at: int) -> Intervention:
        site = SUBLAYERS[place]
        shape: SiteShape = self.study.site_shape(site)
        step = self.doses[place, layer, at] * self.frame.local[emotion, place, layer]
        return add(site, shape, np.array([layer]), step, "answer")
