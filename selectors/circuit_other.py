"""Control: the circuit of another emotion.

Formula: as `circuit`, with each emotion's units those of the next label; what is added to them is the
difference of the emotion's own means.
Source: a control of ours; expected specificity at most 0 where a circuit belongs to its emotion, and not to
emotion at large.
"""

from affectbench.anatomy import CIRCUIT_NEEDS, Anatomy
from affectbench.assembly import circuit_selection, of_another_emotion
from affectbench.selector import Selection, Selector
from affectbench.study import Study


class CircuitOther(Selector):
    name = "circuit_other"
    sites = ("component", "neuron", "head")
    needs = CIRCUIT_NEEDS
    control = True

    def select(self, study: Study, budget: int) -> Selection:
        return of_another_emotion(circuit_selection(Anatomy(study), budget))
