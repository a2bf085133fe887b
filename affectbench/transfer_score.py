"""The transfer ratio: how much of the effect of a benchmark's own units do units from another one have there?

Specificity (suppress arm, at the operating dose) of units identified on A and tested on B, over that of units
identified on B, on the same items of B: those of the labels that both benchmarks have. The interval is a
percentile bootstrap over the clusters of these items (Efron and Tibshirani 1993). Both specificities are of
one resample, for they share what is hard about an item.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from affectbench import stats
from affectbench.effects import Tally, estimate_of, rounded, tally_outcomes
from affectbench.errors import ScoreError
from affectbench.outcomes import Outcomes, of_labels
from affectbench.ratios import quotients, ratio_estimate
from affectbench.score_models import Estimate, TransferRatio
from affectbench.stats import FloatArray


def transfer_ratio(
    moved: Outcomes, own: Outcomes, doses: tuple[float, float], *, seed: int, draws: int = 10_000
) -> TransferRatio:
    """The ratio with its interval, and the specificity that it is over.

    Args:
        moved: answers on the test split under the transferred units; its labels are the shared ones.
        own: those under the units of the tested benchmark, with all its labels.
        doses: of the suppress arm, for the one and for the other.
        seed, draws: of the bootstrap.

    Raises:
        ScoreError: the two are of different items, or lack these doses.
    """
    pair = moved.ordered(), of_labels(own, moved.labels).ordered()
    if not np.array_equal(pair[0].items, pair[1].items):
        raise ScoreError("the two results are of different items", hint="run both cells again")
    above, below = (_tally(each, dose) for each, dose in zip(pair, doses, strict=True))
    width = above.table.shape[1]

    def both(sums: FloatArray) -> FloatArray:
        halves = above.statistics(sums[:, :width]), below.statistics(sums[:, width:])
        return np.stack([half[:, 2] for half in halves], axis=1)

    table = np.concatenate([above.table, below.table], axis=1)
    value, reached = map(rounded, both(table.sum(axis=0, dtype=np.float64)[None])[0])
    if reached <= 0:
        reason = f"its own units do nothing to the shared labels: specificity {reached:.3f}"
        return TransferRatio(own=Estimate(value=reached), reason=reason)
    if len(table) < 2:
        return TransferRatio(ratio=Estimate(value=rounded(value / reached)), own=Estimate(value=reached))
    resampled = stats.bootstrap(table, both, draws=draws, seed=seed)
    return TransferRatio(
        ratio=ratio_estimate(value / reached, quotients(resampled[:, 0], resampled[:, 1])),
        own=estimate_of(reached, resampled[:, 1]),
    )


def _tally(outcomes: Outcomes, dose: float) -> Tally:
    chosen = tuple(c for c in outcomes.conditions if (c.arm, c.dose) == ("suppress", dose))
    if not chosen:
        raise ScoreError(f"there are no answers at suppress dose {dose:g}", hint="run the cell again")
    return tally_outcomes(replace(outcomes, conditions=chosen))
