"""Circuit neurons: how much a neuron writes along its emotion's direction in the residual stream.

Formula: ``score[e] = H[e] * (w_down . v[e])``, H = mean activation over the emotion's tokens, w_down = the
neuron's column of down_proj, v[e] = unit difference of the emotion's mean residual stream behind the layer to
the mean over emotions. Over a layer the scores sum to what its MLP adds along v[e].
Source: arXiv 2510.11328 (local components; neither contrasted nor taken absolutely, as released), ranked over
all layers here. A unit that fires for an emotion and writes elsewhere scores 0.
"""

from affectbench.anatomy import NEURON_NEEDS, Anatomy
from affectbench.selector import Selector
from affectbench.sites import FloatArray
from affectbench.study import Study


class CircuitNeurons(Selector):
    name = "circuit_neurons"
    sites = ("neuron",)
    needs = NEURON_NEEDS

    def scores(self, study: Study) -> FloatArray:
        return Anatomy(study).neurons
