"""Answers corrected for the prior that a prompt lends to its labels, and means with clustered intervals.

Demonstrations of two emotions make a model answer these more often, whatever it reads. With p(e | x) the
probability of label e among the labels, and q(e) its mean over items whose labels are known to have the
shares s(e), corrected answers are argmax p(e | x) s(e) / q(e) (Saerens et al. 2002, "Adjusting the outputs
of a classifier to new a priori probabilities"; for equal s, the batch calibration of Zhou et al. 2023). With
q of a prompt without content it is the contextual calibration of Zhao et al. 2021.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from affectbench.errors import ScoreError
from affectbench.score_models import Estimate
from affectbench.sites import FloatArray
from affectbench.stats import bootstrap, cluster_codes

LOST = -1
"""Code of an item without finite scores."""


def probabilities(scores: npt.ArrayLike) -> FloatArray:
    """(N, E) probabilities among the labels from logits or log-likelihoods (N, E); NaN where one is not
    finite."""
    values = np.asarray(scores, dtype=np.float64)
    found = np.full(values.shape, np.nan)
    known = np.isfinite(values).all(axis=1)
    shifted = np.exp(values[known] - values[known].max(axis=1, keepdims=True))
    found[known] = shifted / shifted.sum(axis=1, keepdims=True)
    return found


def label_prior(scores: npt.ArrayLike) -> FloatArray:
    """(E,) mean probability of each label over items with scores (N, E); items without are left out.

    Raises `ScoreError` where no item has finite scores.
    """
    found = probabilities(scores)
    known = found[np.isfinite(found).all(axis=1)]
    if not len(known):
        raise ScoreError("no item has finite scores, so there is no prior", hint="use readout `labels`")
    return np.asarray(known.mean(axis=0))


def corrected(scores: npt.ArrayLike, prior: npt.ArrayLike, shares: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """(N,) answers after correction for `prior` (E,), where labels have `shares` (E,); a label without share
    is never answered, an item without scores is `LOST`."""
    found, share = probabilities(scores), np.asarray(shares, dtype=np.float64)
    weights = np.divide(share, np.asarray(prior, dtype=np.float64), out=np.zeros_like(share), where=share > 0)
    lost = np.isnan(found).any(axis=1)
    return np.asarray(np.where(lost, LOST, np.nan_to_num(found * weights).argmax(axis=1)), dtype=np.int64)


def clustered_mean(values: npt.ArrayLike, clusters: Sequence[str], *, draws: int, seed: int) -> Estimate:
    """Mean over items (N,) with its 95 % percentile interval over resampled clusters, where there are two."""
    each = np.asarray(values, dtype=np.float64)
    groups, count = cluster_codes(np.array(clusters))
    table = np.zeros((count, 2))
    np.add.at(table, groups, np.stack([each, np.ones(len(each))], axis=1))

    def ratio(sums: FloatArray) -> FloatArray:
        return np.asarray(sums[:, :1] / sums[:, 1:])

    value = float(ratio(table.sum(axis=0)[None])[0, 0])
    if count < 2:
        return Estimate(value=value)
    low, high = np.quantile(bootstrap(table, ratio, draws=draws, seed=seed), [0.025, 0.975])
    return Estimate(value=value, low=float(low), high=float(high))
