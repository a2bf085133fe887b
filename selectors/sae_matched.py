"""Control: random features that are as active, and write as much, as the causal ones.

Formula: each feature of `sae_causal` is replaced by one drawn from the 10 features of its layer that are
nearest to it in log firing rate and in log (mean activation x norm of the decoder row), both standardised,
and causal for no emotion. Steered as `sae_causal` is: as long together as the residual vector. Source: a
control of ours (docs/sae.md); expected specificity 0.
"""

import numpy as np

from affectbench.features import NEEDS, nearest_features, selection, traced_study
from affectbench.selector import Selection, Selector
from affectbench.study import Study


class SaeMatched(Selector):
    name = "sae_matched"
    sites = ("feature",)
    needs = NEEDS
    control = True

    def select(self, study: Study, budget: int) -> Selection:
        found, rng = traced_study(study), study.rng(self.name)
        causal = np.unique(np.concatenate(found.causal))
        units = []
        for own in found.causal:
            chosen: list[int] = []
            for unit in own[:budget]:
                near = nearest_features(study, int(unit), np.concatenate([causal, chosen]).astype(np.int64))
                if near.size:
                    chosen.append(int(rng.choice(near)))
            units.append(np.array(chosen, dtype=np.int64))
        return selection(study, found.scores, units)
