"""Control: `module_causal` with the items' labels permuted.

Formula: that of ``module_causal``, an item counted for the emotion of another item, which is still judged by
its own gold label's log-likelihood. Source: a control of ours; expected specificity 0.
"""

from affectbench.module_ranking import causal_scores
from affectbench.selector import Selector
from affectbench.sites import FloatArray
from affectbench.study import Study


class ModuleShuffled(Selector):
    name = "module_shuffled"
    sites = ("module",)
    control = True
    shuffled = True

    def scores(self, study: Study) -> FloatArray:
        return causal_scores(study, study.rng(self.name).permutation(study.items.gold))
