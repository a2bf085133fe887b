"""Absolute magnitude: MAD of |activation|, blind to a unit's sign.

Formula: ``score[e] = m[e] - mean over e' != e of m[e']``, m = mean |activation| over an emotion's tokens.
Source: ours. Gated activations are signed, and a unit may say "anger" by going negative, where MAD ranks
it last.
"""

from affectbench.evidence import MEAN_ABS
from affectbench.selector import Selector, above_others
from affectbench.sites import FloatArray
from affectbench.study import Study


class MagnitudeAbs(Selector):
    name = "magnitude_abs"
    needs = frozenset({MEAN_ABS})

    def scores(self, study: Study) -> FloatArray:
        return above_others(study.evidence.mean_abs)
