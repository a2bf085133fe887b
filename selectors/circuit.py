"""Emotion circuit: the units that write an emotion's direction, most of them in the layers that matter most.

Formula: scores as `circuit_neurons` and `circuit_heads`, ranked within a layer. Each layer gets a base, and
the rest by ``I[layer] = mean over a of (s(a) - s(0)) / a``, s = projection of the end of the residual stream
on the emotion's reference direction, a = the length of what is added along the local direction to what the
layer's attention (for heads) or MLP (for neurons) writes; I < 0 counts as 0.
Source: arXiv 2510.11328 (circuit assembly), whose released plans come out exactly. The stream is read before
the final norm. In mode ``sound`` the reference is of the longest run of layers whose directions agree, and
heads are at most a quarter of all heads; in mode ``paper`` of layers 21 to 25 of 28, and heads are 30 %.
"""

from affectbench.anatomy import CIRCUIT_NEEDS, Anatomy
from affectbench.assembly import circuit_selection
from affectbench.selector import Selection, Selector
from affectbench.study import Study


class Circuit(Selector):
    name = "circuit"
    sites = ("component", "neuron", "head")
    needs = CIRCUIT_NEEDS

    def select(self, study: Study, budget: int) -> Selection:
        return circuit_selection(Anatomy(study), budget)
