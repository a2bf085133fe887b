"""Ratios of two specificities: their resamples, and intervals that say where there is nothing to divide by.

A percentile bootstrap of a ratio is sound only where its denominator stays clear of 0 (Efron and Tibshirani
1993, chapter 14). Where a resample's denominator is not above 0, its ratio may be anything: it counts below
every other at the lower end and above every other at the upper. An interval that such resamples reach has no
end, and is not given.
"""

from __future__ import annotations

import numpy as np

from affectbench.effects import LEVEL, UNDEFINED_DRAWS
from affectbench.score_models import Estimate
from affectbench.stats import FloatArray


def quotients(above: FloatArray, below: FloatArray) -> FloatArray:
    """(D,) ratios of two statistics in D resamples: NaN where one is undefined, inf where `below` is not
    above 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(below > 0, above / below, np.inf)
    return np.where(np.isnan(above) | np.isnan(below), np.nan, found)


def change(before: FloatArray, after: FloatArray) -> FloatArray:
    """(D,) differences of two ratios in the same resamples; inf where either may be anything."""
    anything = np.isinf(before) | np.isinf(after)
    with np.errstate(invalid="ignore"):
        found = np.where(anything, np.inf, after - before)
    return np.where(np.isnan(before) | np.isnan(after), np.nan, found)


def ratio_estimate(value: float, resamples: FloatArray) -> Estimate:
    """A ratio, or a difference of two, with the percentile interval of its resamples (D,); without where
    undefined ones are over 10 %, or where those that may be anything reach an end of it.

    It has no standard error: such resamples have heavy tails.
    """
    value = round(value, 12) + 0.0
    known = resamples[~np.isnan(resamples)]
    if len(known) < (1 - UNDEFINED_DRAWS) * len(resamples):
        return Estimate(value=value)
    ends = []
    for anything, share in ((-np.inf, LEVEL / 2), (np.inf, 1 - LEVEL / 2)):
        whole = np.where(np.isinf(known), anything, known)
        ends.append(float(np.quantile(whole, share, method="inverted_cdf")))
    if not np.isfinite(ends).all():
        return Estimate(value=value)
    low, high = (round(end, 12) + 0.0 for end in ends)
    return Estimate(value=value, low=low, high=high)
