"""CAS: the margin by which a unit fires more often for its first emotion than for its second.

Formula: with e1 the emotion of the largest P and e2 the runner-up, ``score[e1] = P[e1] - P[e2]``; 0 for
every other emotion, and 0 on an exact tie. P = share of tokens with activation > 0.
Source: arXiv 2601.03115 (contrastive activation selection, later ConAct).
"""

import numpy as np

from affectbench.evidence import RATE
from affectbench.selector import Selector
from affectbench.sites import FloatArray
from affectbench.study import Study


class Contrast(Selector):
    name = "contrast"
    needs = frozenset({RATE})

    def scores(self, study: Study) -> FloatArray:
        rate = study.evidence.rate
        second, first = np.sort(rate, axis=0)[-2:]
        winner = np.arange(rate.shape[0])[:, None, None] == rate.argmax(axis=0)
        return np.where(winner, first - second, 0.0)
