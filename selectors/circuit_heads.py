"""Circuit heads: how much an attention head writes along its emotion's direction in the residual stream.

Formula: ``score[e] = (W_o[head] z[e, head]) . v[e]``, z = mean output of the head over the emotion's tokens,
v[e] = unit difference of the emotion's mean residual stream behind attention to the mean over emotions. It is
by how much the projection falls when the head is zeroed, for all heads from one pass.
Source: arXiv 2510.11328 (local components), ranked over all layers here. The published code reruns the model
for every head and projects what a norm makes of the stream on a direction of the stream itself.
"""

from affectbench.anatomy import HEAD_NEEDS, Anatomy
from affectbench.selector import Selector
from affectbench.sites import FloatArray
from affectbench.study import Study


class CircuitHeads(Selector):
    name = "circuit_heads"
    sites = ("head",)
    needs = HEAD_NEEDS

    def scores(self, study: Study) -> FloatArray:
        return Anatomy(study).heads
