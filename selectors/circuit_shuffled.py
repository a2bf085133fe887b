"""Control: the emotion circuit of permuted labels.

Formula: as `circuit`, with directions and activations from a seeded permutation of the items' labels.
Source: a control of ours; expected specificity 0. It keeps what makes units write much, and layers matter.
"""

from affectbench.anatomy import CIRCUIT_NEEDS, Anatomy
from affectbench.assembly import circuit_selection
from affectbench.selector import Selection, Selector
from affectbench.study import Study


class CircuitShuffled(Selector):
    name = "circuit_shuffled"
    sites = ("component", "neuron", "head")
    needs = CIRCUIT_NEEDS
    control = True
    shuffled = True

    def select(self, study: Study, budget: int) -> Selection:
        return circuit_selection(Anatomy(study, shuffled=True), budget)
