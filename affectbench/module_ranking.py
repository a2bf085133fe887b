"""What selectors of modules share: module types, how far they moved, and what each does to the answers."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from affectbench.errors import AffectbenchError
from affectbench.intervention import UNTOUCHED, Intervention, add, scale
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
    """What a module's change gives to one emotion more than to the others, (emotions, layers, types): what
    the gold label's log-likelihood loses where the module is put back to the base (in the base: gains where
    its change is put in), less the same of the other labels on average; averaged over the items of an
    emotion, minus the mean of that over the other emotions. `groups` (N,): the emotion that each item
    counts for.

    Raises `AffectbenchError` where answers are generated text.
    """
    into_base = study.adaptation.side == "base"
    found = study.predict([UNTOUCHED, *(_alone(study, unit, into_base) for unit in range(study.shape.units))])
    if np.isnan(found.scores[0]).all():
        raise AffectbenchError(
            "what modules do is read from the likelihoods of the answers",
            hint="use the readout `labels` or `letters`",
        )
    drops = effects_of(found.scores[0], found.scores[1:], study.items.gold)
    effects = -drops if into_base else drops
    kept = (found.codes != FAILED).all(axis=0)
    means = [effects[:, kept & (groups == emotion)].mean(axis=1) for emotion in range(len(study.labels))]
    return above_others(np.stack(means)).reshape(len(study.labels), study.shape.layers, study.shape.width)


def _alone(study: Study, unit: int, into_base: bool) -> Intervention:
    units = np.array([unit])
    if into_base:
        return add(MODULE, study.shape, units, np.ones(1))
    return scale(MODULE, study.shape, units, 0.0)
