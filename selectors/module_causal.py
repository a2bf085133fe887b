"""Module causal: modules whose adaptation one emotion needs more than the others do.

Formula: ``score[e] = d[e] - mean of d over the other emotions``; d = drop of the gold label's log-likelihood
less the mean drop of the other labels', over an emotion's items, when one module (a type of one layer) is put
back to the base. Source: ours; the one selector of modules that differs between emotions.
"""

from affectbench.module_ranking import causal_scores
from affectbench.selector import Selector
from affectbench.sites import FloatArray
from affectbench.study import Study


class ModuleCausal(Selector):
    name = "module_causal"
    sites = ("module",)

    def scores(self, study: Study) -> FloatArray:
        return causal_scores(study, study.items.gold)
