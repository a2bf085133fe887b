"""Module change: modules whose weights the adaptation moved furthest.

Formula: ``score[e] = ||W_adapted - W_base||_F / ||W_base||_F`` of one module type of one layer, the same for
every emotion. Source: the module-wise change analysis of arXiv 2601.15906, whose metric is not public; the
relative norm is our choice, as an absolute one favours large matrices.
"""

from affectbench.module_ranking import change_scores
from affectbench.selector import Selector
from affectbench.sites import FloatArray
from affectbench.study import Study


class ModuleChange(Selector):
    name = "module_change"
    sites = ("module",)

    def scores(self, study: Study) -> FloatArray:
        return change_scores(study)
