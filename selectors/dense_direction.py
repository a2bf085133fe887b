"""Dense direction: the difference of means of the residual stream, as long as SAE features steer.

Formula: ``v[e] = mu[e] - mean over emotions of mu`` of the stream behind a layer, scaled so that what is
added at dose 1 is as long as the stream; the layers where |v[e]| is the largest part of the stream's root
mean square, as many as the budget says, share that length. Source: the dense baseline of `docs/sae.md`:
what does picking features add to a difference of means?
"""

import numpy as np

from affectbench.evidence import MEAN, RMS
from affectbench.selector import Selection, Selector
from affectbench.study import Study


class DenseDirection(Selector):
    name = "dense_direction"
    sites = ("residual",)
    needs = frozenset({MEAN, RMS})

    def select(self, study: Study, budget: int) -> Selection:
        mean, width = study.evidence.mean, study.shape.size
        away = mean - mean.mean(axis=0)
        length = np.linalg.norm(away, axis=2)
        share = length / np.maximum(study.evidence.rms.mean(axis=0)[:, 0] * np.sqrt(width), 1e-12)
        units, vectors = [], []
        for own, lengths, shares in zip(away, length, share, strict=True):
            layers = np.argsort(-shares, kind="stable")[:budget]
            layers = layers[lengths[layers] > 0].astype(np.int64)
            units.append(layers)
            directions = own[layers] / lengths[layers, None]
            vectors.append((directions * np.sqrt(width / max(1, layers.size))).ravel())
        return Selection(study.site, study.shape, study.labels, tuple(units), share, vectors=tuple(vectors))
