"""MAD: how much stronger a unit is for an emotion than for the others.

Formula: ``score[e] = mu[e] - mean over e' != e of mu[e']``, mu = mean activation over the tokens of an emotion.
Source: arXiv 2601.03115 (magnitude selector); its reference term is not published. The mean of the other emotions
ranks exactly like the unweighted grand mean (it is E / (E - 1) times that difference).
"""

from affectbench.evidence import MEAN
from affectbench.selector import Selector
from affectbench.sites import FloatArray
from affectbench.study import Study


class Magnitude(Selector):
    name = "magnitude"
    needs = frozenset({MEAN})

    def scores(self, study: Study) -> FloatArray:
        mean = study.evidence.mean
        others = (mean.sum(axis=0) - mean) / (mean.shape[0] - 1)
        return mean - others
