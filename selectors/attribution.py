"""Attribution: how much a unit's activation raises the margin of its own emotion, to first order.

Formula: ``A[e] = mean over tokens of emotion e of a * dm/da``, m = log-likelihood of the gold label minus
the best other label's; ``score[e] = A[e] - mean over e' != e of A[e']``.
Source: attribution patching to a zero baseline (gradient x activation; Nanda 2023; Kramar et al., arXiv
2403.00745), contrasted between emotions as in the other selectors. Unlike activation statistics it asks
what a unit does.
"""

from affectbench.evidence import ATTRIBUTION
from affectbench.selector import Selector, above_others
from affectbench.sites import FloatArray
from affectbench.study import Study


class Attribution(Selector):
    name = "attribution"
    needs = frozenset({ATTRIBUTION})

    def scores(self, study: Study) -> FloatArray:
        return above_others(study.evidence.attribution)
