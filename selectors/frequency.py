"""LAP: how often a unit fires for an emotion.

Formula: ``score[e] = P[e]``, the share of tokens of emotion e with activation > 0.
Source: Zhao, Schuller, Sisman, arXiv 2601.03115 (frequency selector); ties go to the lower (layer, unit).
"""

from affectbench.evidence import RATE
from affectbench.selector import Selector
from affectbench.sites import FloatArray
from affectbench.study import Study


class Frequency(Selector):
    name = "frequency"
    needs = frozenset({RATE})

    def scores(self, study: Study) -> FloatArray:
        return study.evidence.rate
