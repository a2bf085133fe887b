"""Control: directions of permuted labels.

Formula: as `direction`, from a seeded permutation of the identification items' labels.
Source: a control of ours; expected specificity 0.
"""

from affectbench.anatomy import DIRECTION_NEEDS, Anatomy
from affectbench.assembly import direction_selection
from affectbench.selector import Selection, Selector
from affectbench.study import Study


class DirectionShuffled(Selector):
    name = "direction_shuffled"
    sites = ("residual",)
    needs = DIRECTION_NEEDS
    control = True
    shuffled = True

    def select(self, study: Study, budget: int) -> Selection:
        return direction_selection(Anatomy(study, shuffled=True), budget)
