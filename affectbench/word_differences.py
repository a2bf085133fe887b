"""How far the word confound of a cell moved between two runs, and by how much it could move by chance.

The confound is a ratio, N / T: specificity on the answer-word control over that on the task. If nothing
changed between two runs, their answers to any cluster of either could be swapped. With dN = N1 - N0, dT =
T1 - T0, and the pooled ratio R = (N0 + N1) / (T0 + T1), which no swap changes,

    dN - R dT  =  (N1/T1 - N0/T0) * 2 T0 T1 / (T0 + T1)

so the left side has the sign of the difference and is 0 where the ratios are equal. It is a sum over the
clusters of both sets, and a swap flips the sign of a cluster's share: the sign-flip test of the other
statistics serves for this one too, and is exact. Where only the ratio is unchanged, and not the answers, it
is cautious: shares that do not average 0 widen its reference. Source: ours, from the algebra above.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from affectbench import stats
from affectbench.differences import NORMAL_QUANTILE, Difference, items_digest, same_items
from affectbench.effects import Tally, tally_outcomes
from affectbench.outcomes import ANSWER_WORDS, Outcomes
from affectbench.ratios import change, quotients, ratio_estimate
from affectbench.record import Record
from affectbench.score_models import ARMS, Arm, Estimate
from affectbench.stats import FloatArray

CONFOUNDS: dict[Arm, str] = {"suppress": "word confound", "amplify": "confound, amplify"}
"""Names of the compared statistics, by arm. The larger, the worse."""

Answers = Mapping[str, Outcomes]
"""By split: `test`, and the control's."""


def confound_differences(
    before: Record, after: Record, one: Answers, two: Answers, *, seed: int, draws: int
) -> tuple[list[Difference], list[str]]:
    """The confound of each arm that has one in both runs; and what is to be said where it came or went.

    Paired where both runs answered the same items of the task and of the control, else from the intervals.
    A ratio that came or went is no difference: that the task's specificity moved is tested by itself.

    Args:
        before, after: the records.
        one, two: their answers, by split.
        seed, draws: of the bootstrap.
    """
    found, notes = [], []
    for arm in ARMS:
        old, new = _ratio(before, arm), _ratio(after, arm)
        if old is None or new is None:
            if old is not new:
                notes.append(_came_or_went(after if new is None else before, arm, gone=new is None))
        elif before.hashes.answer_words != after.hashes.answer_words:
            notes.append(f"{CONFOUNDS[arm]}: the control asks something else now: not compared")
        else:
            sides = _sides(before, after, one, two, arm)
            found.append(
                _unpaired(old, new, arm) if sides is None else _paired(old, new, arm, *sides, seed, draws)
            )
    return found, notes


def _ratio(record: Record, arm: Arm) -> Estimate | None:
    return getattr(record.word_confound, arm) if record.word_confound is not None else None


def _came_or_went(without: Record, arm: Arm, *, gone: bool) -> str:
    known = without.word_confound.reason if without.word_confound is not None else ""
    why = f": {known}" if known else ""
    return f"{CONFOUNDS[arm]}: none {'any more' if gone else 'before'}{why}"


@dataclass(frozen=True)
class _Side:
    """Specificity on one set of items under the operating dose of each run; `digest` names the set."""

    old: Tally
    new: Tally
    digest: str

    def resampled(self, seed: int, draws: int) -> FloatArray:
        """(draws, 2) of the two runs in the same resamples of clusters."""
        width = self.old.table.shape[1]

        def both(sums: FloatArray) -> FloatArray:
            halves = self.old.statistics(sums[:, :width]), self.new.statistics(sums[:, width:])
            return np.stack([half[:, 2] for half in halves], axis=1)

        table = np.concatenate([self.old.table, self.new.table], axis=1)
        return stats.bootstrap(table, both, draws=draws, seed=seed)

    def by_cluster(self) -> tuple[FloatArray, FloatArray]:
        """(C,) each: what a cluster adds to the specificity of either run."""
        old, new = (tally.statistics(tally.by_cluster())[:, 2] for tally in (self.old, self.new))
        return old, new


def _sides(before: Record, after: Record, one: Answers, two: Answers, arm: Arm) -> tuple[_Side, _Side] | None:
    """The control and the task; None where answers are missing or the two runs answered other items."""
    sides = []
    for split in (ANSWER_WORDS, "test"):
        if split not in one or split not in two:
            return None
        old, new = one[split].ordered(), two[split].ordered()
        first, second = _tally(old, before, arm), _tally(new, after, arm)
        if not same_items(old, new) or first is None or second is None:
            return None
        sides.append(_Side(first, second, items_digest(old)))
    return sides[0], sides[1]


def _tally(outcomes: Outcomes, record: Record, arm: Arm) -> Tally | None:
    dose = getattr(record.operating, f"{arm}_dose", None)
    chosen = tuple(c for c in outcomes.conditions if (c.arm, c.dose) == (arm, dose))
    return tally_outcomes(replace(outcomes, conditions=chosen)) if chosen else None


def _paired(
    old: Estimate, new: Estimate, arm: Arm, control: _Side, task: _Side, seed: int, draws: int
) -> Difference:
    # Different seeds: equal ones would give two sets of as many clusters the same resamples.
    above, below = control.resampled(seed + 1, draws), task.resampled(seed, draws)
    ratios = [quotients(above[:, run], below[:, run]) for run in (0, 1)]
    interval = ratio_estimate(new.value - old.value, change(*ratios))
    n0, n1 = control.by_cluster()
    t0, t1 = task.by_cluster()
    pooled = (n0.sum() + n1.sum()) / (t0.sum() + t1.sum())
    return Difference(
        CONFOUNDS[arm], old.value, new.value, "paired", low=interval.low, high=interval.high,
        clusters=np.concatenate([n1 - n0, -pooled * (t1 - t0)]), family=control.digest + task.digest,
    )  # fmt: skip


def _unpaired(old: Estimate, new: Estimate, arm: Arm) -> Difference:
    """From the intervals: an error is the wider half of one, over the normal quantile, which is cautious."""
    reaches = [_reach(each) for each in (old, new)]
    if reaches[0] is None or reaches[1] is None:
        return Difference(CONFOUNDS[arm], old.value, new.value)
    size, reach = new.value - old.value, math.hypot(reaches[0], reaches[1])
    ends = size - reach, size + reach
    return Difference(CONFOUNDS[arm], old.value, new.value, "intervals", *ends, se=reach / NORMAL_QUANTILE)


def _reach(found: Estimate) -> float | None:
    if found.low is None or found.high is None:
        return None
    return max(found.value - found.low, found.high - found.value)
