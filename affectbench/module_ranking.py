"""What selectors of modules share: module types, how far they moved, and what each does to the answers."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from affectbench.errors import AffectbenchError
from affectbench.intervention import UNTOUCHED, scale
from affectbench.module_types import members
from affectbench.readout import FAILED, IntArray
from affectbench.selector import Selection, Selector, above_others
from affectbench.sites import MODULE, FloatArray
from affectbench.study import Study
from affectbench.tracing import effects_of


class ModuleType(Selector):
    """All layers of a module type, or of a group of them (`members`), the same for every emotion, so by
    construction specific to none. The types of a layer stand together, the first layer first."""

    sites = (MODULE,)
    whole = True
    kind: ClassVar[str] = ""

    def select(self, study: Study, budget: int) -> Selection:
        """Raises `AffectbenchError` for a model that has no such modules."""
        types = study.adaptation.types
        own = np.array([types.index(each) for each in members(self.kind, types)])
        units = (np.arange(study.shape.layers)[:, None] * study.shape.width + own).ravel()
        return Selection(study.site, study.shape, study.labels, (units,) * len(study.labels))


def change_scores(study: Study) -> FloatArray:
    """The Frobenius norm of each module's change over that of its base, (emotions, layers, types)."""
    relative = np.nan_to_num(study.adaptation.changes("relative"), nan=-np.inf)
    return np.repeat(relative[None], len(study.labels), axis=0)


def causal_scores(study: Study, groups: IntArray) -> FloatArray:
    """What putting a module back to the base takes from each emotion more than from the others, (emotions,
    layers, types): drop of the gold label's log-likelihood less the mean drop of the other labels', averaged
    over the items of an emotion, minus the mean of that over the other emotions. `groups` (N,): the emotion
    that each item counts for.

    Raises `AffectbenchError` where answers are generated text.
    """
    resets = [scale(MODULE, study.shape, np.array([unit]), 0.0) for unit in range(study.shape.units)]
    found = study.predict([UNTOUCHED, *resets])
    if np.isnan(found.scores[0]).all():
        raise AffectbenchError(
            "what modules do is read from the likelihoods of the answers",
            hint="use the readout `labels` or `letters`",
        )
    effects = effects_of(found.scores[0], found.scores[1:], study.items.gold)
    kept = (found.codes != FAILED).all(axis=0)
    means = [effects[:, kept & (groups == emotion)].mean(axis=1) for emotion in range(len(study.labels))]
    return above_others(np.stack(means)).reshape(len(study.labels), study.shape.layers, study.shape.width)
