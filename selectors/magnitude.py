"""MAD: how much stronger a unit is for an emotion than for the others.

Formula: ``score[e] = mu[e] - mean over e' != e of mu[e']``, mu = mean activation over an emotion's tokens.
Source: arXiv 2601.03115 (magnitude selector); its reference term is not published. The mean of the other
emotions ranks exactly like the unweighted grand mean (it is E / (E - 1) times that difference).
"""

from affectbench.evidence import MEAN
from affectbench.selector import Selector, above_others
from affectbench.sites import FloatArray
from affectbench.study import Study


class Magnitude(Selector):
    name = "magnitude"
    needs = frozenset({MEAN})

    def scores(self, study: Study) -> FloatArray:
        return above_others(study.evidence.mean)
