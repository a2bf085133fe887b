"""Control: MAD on the same activations with the items' labels permuted.

Formula: as `magnitude`, with mu computed after a seeded permutation of the labels of the identification items.
Source: control of metrics.md section 7; expected specificity 0. It keeps what makes MAD prefer some units (large,
variable activations) and removes only their tie to the emotion.
"""

from affectbench.evidence import MEAN
from affectbench.selector import Selector
from affectbench.sites import FloatArray
from affectbench.study import Study


class ShuffledLabels(Selector):
    name = "shuffled_labels"
    needs = frozenset({MEAN})
    control = True

    def scores(self, study: Study) -> FloatArray:
        mean = study.shuffled.mean
        others = (mean.sum(axis=0) - mean) / (mean.shape[0] - 1)
        return mean - others
