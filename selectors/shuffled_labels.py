"""Control: MAD on the same activations with the items' labels shuffled.

Formula: as `magnitude`, with mu computed after the items of each gold label were dealt out evenly over all
labels, from a seeded start. A free permutation would leave some of the tie to the emotion to chance.
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

    def scores(self, study: Study) -> FloatArray:
        return above_others(study.shuffled.mean)
