"""Direction: steer the residual stream along what sets an emotion apart.

Formula: ``v[e, layer] = unit(mu[e] - mean over emotions of mu)``, mu = mean residual stream behind the layer
over the emotion's tokens; the units are the middle layers, as many as the budget says.
Source: arXiv 2510.11328 (steering baseline). Where each scenario has an item of every emotion, the difference
of the means is the mean difference within scenarios. In mode ``paper`` layers 11 to 20 of 28, scaled.
"""

from affectbench.anatomy import DIRECTION_NEEDS, Anatomy
from affectbench.assembly import direction_selection
from affectbench.selector import Selection, Selector
from affectbench.study import Study


class Direction(Selector):
    name = "direction"
    sites = ("residual",)
    needs = DIRECTION_NEEDS

    def select(self, study: Study, budget: int) -> Selection:
        return direction_selection(Anatomy(study), budget)
