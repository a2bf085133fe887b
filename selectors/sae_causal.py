"""SAE causal: features whose ablation takes an emotion's answers away.

Formula: ``score[e, f]`` = mean over items of e of (drop of the gold logit - mean drop of the other labels'
logits) when f is set to zero at the answer position, the SAE's error kept. A feature is taken if the 95 %
interval over clusters lies above 0 and the effect beyond the 95th percentile of random features that are as
active; best first. Traced are the 64 features an emotion with the largest first-order effect or the largest
contrast. Source: causal tracing as reconstructed in `docs/sae.md` from arXiv 2604.25866.
"""

from affectbench.features import NEEDS, selection, traced_study
from affectbench.selector import Selection, Selector
from affectbench.study import Study


class SaeCausal(Selector):
    name = "sae_causal"
    sites = ("feature",)
    needs = NEEDS

    def select(self, study: Study, budget: int) -> Selection:
        found = traced_study(study)
        return selection(study, found.scores, [units[:budget] for units in found.causal])
