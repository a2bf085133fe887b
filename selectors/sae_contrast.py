"""SAE contrast: features that are more active for an emotion than for any other.

Formula: ``score[e] = m[e] - max over e' != e of m[e']``, m = mean activation of a feature over an emotion's
tokens. Steered by the features' mean activations, as long together as the residual vector. Source: the
selectivity of `docs/sae.md`, a reconstruction of arXiv 2604.25866. It asks what a feature reads and not
what it does: features that correlate with an emotion and do nothing rank as high.
"""

from affectbench.evidence import MEAN
from affectbench.features import margin_to_next, selection
from affectbench.selector import Selection, Selector
from affectbench.sites import FloatArray
from affectbench.study import Study


class SaeContrast(Selector):
    name = "sae_contrast"
    sites = ("feature",)
    needs = frozenset({MEAN})

    def scores(self, study: Study) -> FloatArray:
        return margin_to_next(study.evidence.mean)

    def select(self, study: Study, budget: int) -> Selection:
        scores = self.scores(study)
        plain = Selection.from_scores(scores, budget, site=study.site, shape=study.shape, labels=study.labels)
        return selection(study, scores, plain.units)
