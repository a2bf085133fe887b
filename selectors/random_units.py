"""Control: units drawn at random.

Formula: ``score[e]`` is uniform noise, independent for each emotion, seeded by the study.
Source: a control of ours; expected specificity 0.
"""

from affectbench.selector import Selector
from affectbench.sites import FloatArray
from affectbench.study import Study


class RandomUnits(Selector):
    name = "random"
    sites = ("gate", "neuron", "feature", "head", "component", "module")
    control = True

    def scores(self, study: Study) -> FloatArray:
        shape = (len(study.labels), study.shape.layers, study.shape.width)
        return study.rng(self.name).random(shape)
