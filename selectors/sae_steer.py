"""SAE steer: causal features found and weighted on a handful of labelled items.

Formula: features as `sae_causal`, of the items it is given; where none of an emotion passes, as on few
items it may be, the one with the largest effect above 0. Steering adds alpha times the length of the
residual vector along ``sum over f of w[f] W_dec[f]``, w[f] = mean activation of f on the emotion's items.
Source: causal feature steering of arXiv 2604.25866, from 5 labelled examples an emotion there; its equation
is not public. A suite asks for 5 items and 10 draws of them by ``identification: {items: [5], draws: 10}``.
"""

import numpy as np

from affectbench.features import NEEDS, selection, traced_study
from affectbench.selector import Selection, Selector
from affectbench.study import Study


class SaeSteer(Selector):
    name = "sae_steer"
    sites = ("feature",)
    needs = NEEDS

    def select(self, study: Study, budget: int) -> Selection:
        found = traced_study(study)
        units = []
        for own, scores in zip(found.causal, found.scores, strict=True):
            if not own.size and scores.max() > 0:
                own = np.array([scores.argmax()])
            units.append(own[:budget])
        return selection(study, found.scores, units)
