"""All that a selector may see and do: the identification split, its statistics, and forward passes on it.

Validation and test items never enter a `Study`, so a selector cannot peek; what it spends is counted.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from affectbench.engine import Engine
from affectbench.errors import AffectbenchError
from affectbench.evidence import Evidence
from affectbench.intervention import Intervention
from affectbench.projection import projections
from affectbench.readout import Items, Predictions, Readout
from affectbench.sites import FloatArray, SiteShape

if TYPE_CHECKING:
    from torch import Tensor

    from affectbench.adaptation import Adaptation


@dataclass(frozen=True)
class Study:
    """What a selector works with.

    `evidence` and `shuffled` hold statistics (emotions, layers, channels) by gold and by permuted labels;
    `others` and `others_shuffled` those of further sites that the selector needs; `items` and `predict` give
    the identification items and answers to them under any intervention. `neutral`: the same prompts without
    an emotion, where the task has them. `mode`: the protocol's; a selector may follow what was published in
    mode ``paper``.
    """

    evidence: Evidence
    shuffled: Evidence
    items: Items
    readout: Readout
    seed: int
    ask: Callable[[Sequence[Intervention]], Predictions]
    others: Mapping[str, Evidence] = field(default_factory=dict)
    others_shuffled: Mapping[str, Evidence] = field(default_factory=dict)
    engine: Engine | None = None
    neutral: Items | None = None
    mode: Literal["sound", "paper"] = "sound"

    @property
    def labels(self) -> tuple[str, ...]:
        return self.evidence.labels

    @property
    def site(self) -> str:
        return self.evidence.site

    @property
    def shape(self) -> SiteShape:
        return self.evidence.shape

    def statistic(self, need: str, *, shuffled: bool = False) -> FloatArray:
        """What was collected for one of the selector's `needs`, ``STATISTIC`` or ``SITE:STATISTIC``, as an
        array (emotions, layers, channels), by gold or permuted labels.

        Raises `AffectbenchError` where it was not collected.
        """
        site, _, name = need.rpartition(":")
        if not site or site == self.site:
            return (self.shuffled if shuffled else self.evidence).of(name)
        others = self.others_shuffled if shuffled else self.others
        if site not in others:
            raise AffectbenchError(
                f"the evidence pass did not collect {need!r}",
                hint=f"add {need!r} to the selector's `needs`",
            )
        return others[site].of(name)

    def site_shape(self, site: str) -> SiteShape:
        """Layers, units and channels of any site of the model."""
        return self._engine.model.site_shape(site)

    @property
    def adaptation(self) -> Adaptation:
        """What the model's weights were adapted from. Raises `AffectbenchError` where that is not known."""
        return self._engine.model.weight_changes

    def writes(self, site: str, layer: int) -> Tensor:
        """What one unit of activation of each channel adds to the residual stream, (channels, d) float32: of
        `neuron`, `head` and `feature`."""
        return self._engine.model.writes(site, layer)

    def project(
        self, interventions: Sequence[Intervention], vectors: FloatArray, items: Items | None = None
    ) -> FloatArray:
        """Dot products (K, N, V) of the residual stream at the answer position, as it enters the final norm,
        with `vectors` (V, d), on the study's items or on `neutral` ones; the cost is counted."""
        return projections(self._engine, self.items if items is None else items, interventions, vectors)

    @property
    def _engine(self) -> Engine:
        if self.engine is None:
            raise AffectbenchError("this study has statistics and no model", hint="give it an engine")
        return self.engine

    def rng(self, purpose: str) -> np.random.Generator:
        """A generator that depends on the study's seed and `purpose` alone."""
        return np.random.default_rng([self.seed, zlib.crc32(purpose.encode())])

    def predict(self, interventions: Sequence[Intervention]) -> Predictions:
        """Answers to the identification items under each intervention, packed; the cost is counted."""
        return self.ask(interventions)
