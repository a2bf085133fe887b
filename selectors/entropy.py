"""LAPE: units whose firing is concentrated on few emotions.

Formula: ``p = P / sum_e P``, ``H = -sum_e p ln p``; ``score[e] = -H`` for the emotion with the largest P,
where that P lies above the 95 % quantile bar of all P values; every other (unit, emotion) and every dead
unit is excluded.
Source: Tang et al., Language-Specific Neurons (RUCAIBox, `identify.py`), as used by arXiv 2601.03115. The
bar is the k-th smallest of all P values, k = round(0.95 n), compared strictly; where more than 5 % of the
values tie at the top, a strict bar would leave nothing, and values equal to it pass.
"""

import numpy as np

from affectbench.evidence import RATE
from affectbench.selector import Selector
from affectbench.sites import FloatArray
from affectbench.study import Study


class Entropy(Selector):
    name = "entropy"
    needs = frozenset({RATE})

    def scores(self, study: Study) -> FloatArray:
        rate = study.evidence.rate
        flat = np.sort(rate, axis=None)
        bar = flat[max(1, round(0.95 * flat.size)) - 1]
        above = rate >= bar if bar == flat[-1] else rate > bar
        best = np.arange(rate.shape[0])[:, None, None] == rate.argmax(axis=0)
        return np.where(best & above & (rate > 0), -entropy(rate), -np.inf)


def entropy(rate: FloatArray) -> FloatArray:
    """Entropy (layers, units) in nats of the firing rates normalised over emotions; 0 for dead units."""
    total = rate.sum(axis=0)
    share = rate / np.where(total > 0, total, 1)
    return -(share * np.log(np.where(share > 0, share, 1))).sum(axis=0)
