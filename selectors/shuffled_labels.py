"""Control: MAD on the same activations with the items' labels permuted.

Formula: as `magnitude`, with mu computed after a seeded permutation of the identification items' labels.
Source: a control of ours; expected specificity 0. It keeps what makes MAD prefer some units
(large, variable activations) and removes only their tie to the emotion.
"""

from affectbench.evidence import MEAN
from affectbench.selector import Selector, above_others
from affectbench.sites import FloatArray
from affectbench.study import Study


class ShuffledLabels(Selector):
    name = "shuffled_labels"
    needs = frozenset({MEAN})
    control = True
    shuffled = True

    def scores(self, study: Study) -> FloatArray:
        return above_others(study.shuffled.mean)
