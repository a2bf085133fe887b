"""All that a selector may see and do: the identification split, its statistics, and forward passes on it.

Validation and test items never enter a `Study`, so a selector cannot peek; what it spends is counted.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from affectbench.engine import Predictions
from affectbench.evidence import Evidence
from affectbench.intervention import Intervention
from affectbench.readout import Items, Readout
from affectbench.sites import SiteShape


@dataclass(frozen=True)
class Study:
    """What a selector works with.

    `evidence` and `shuffled` hold statistics (emotions, layers, units) by gold and by permuted labels;
    `items` and `predict` give the identification items and answers to them under any intervention.
    """

    evidence: Evidence
    shuffled: Evidence
    items: Items
    readout: Readout
    seed: int
    ask: Callable[[Sequence[Intervention]], Predictions]

    @property
    def labels(self) -> tuple[str, ...]:
        return self.evidence.labels

    @property
    def site(self) -> str:
        return self.evidence.site

    @property
    def shape(self) -> SiteShape:
        return self.evidence.shape

    def rng(self, purpose: str) -> np.random.Generator:
        """A generator that depends on the study's seed and `purpose` alone."""
        return np.random.default_rng([self.seed, zlib.crc32(purpose.encode())])

    def predict(self, interventions: Sequence[Intervention]) -> Predictions:
        """Answers to the identification items under each intervention, packed; the cost is counted."""
        return self.ask(interventions)
