"""How far the headline of a cell moved between two runs, and by how much it could move by chance.

With the same items in both, the test is paired: under the hypothesis that nothing changed, the two runs'
answers to any cluster could be swapped. Every statistic tested here is a sum over clusters once the items are
fixed, so a swap flips the sign of a cluster's share of the difference. Otherwise intervals are compared.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from affectbench import stats
from affectbench.effects import LEVEL, N_TOTALS, Tally, tally_outcomes
from affectbench.outcomes import Outcomes
from affectbench.record import Record
from affectbench.stats import FloatArray

SPECIFICITY, STRENGTH, PRESERVATION, BASE_UAR = "specificity", "strength", "preservation", "base UAR"
STATISTICS = (SPECIFICITY, STRENGTH, PRESERVATION, BASE_UAR)
NORMAL_QUANTILE = 1.959963984540054
"""Of 97.5 %."""
Method = Literal["paired", "intervals", "size"]


@dataclass(frozen=True)
class Difference:
    """One statistic of one cell in two runs.

    Attributes:
        before, after: its values, None where a run has none.
        method: `paired` test over clusters; `intervals` of the two runs; `size` alone without known errors.
        low, high: 95 % interval of after - before, not corrected.
        clusters: (C,) what each cluster adds to the difference, or to a multiple of it; with `paired`.
        se: standard error of the difference; with `intervals`.
        family: tests over the same clusters are corrected together; with `paired`.
    """

    statistic: str
    before: float | None
    after: float | None
    method: Method = "size"
    low: float | None = None
    high: float | None = None
    clusters: FloatArray | None = None
    se: float | None = None
    family: str = ""

    @property
    def size(self) -> float | None:
        """after - before; None where one is missing."""
        return None if self.before is None or self.after is None else self.after - self.before


def headline_values(record: Record) -> dict[str, float | None]:
    """The compared statistics of a record: at its operating doses, on the test split."""
    head = record.headline
    return {
        SPECIFICITY: head.spec.value if head else None,
        STRENGTH: head.strength.value if head and head.strength else None,
        PRESERVATION: head.pres.value if head and head.pres else None,
        BASE_UAR: record.scores.baseline.uar if record.scores else None,
    }


def same_items(one: Outcomes, two: Outcomes) -> bool:
    """Whether two runs answered the same items, with the same gold labels and clusters."""
    return one.labels == two.labels and all(
        np.array_equal(getattr(one, name), getattr(two, name)) for name in ("items", "gold", "clusters")
    )


def items_digest(answers: Outcomes) -> str:
    """sha256 of items and clusters: tests over the same ones are corrected together."""
    return hashlib.sha256(
        "\0".join([*map(str, answers.items), *map(str, answers.clusters)]).encode()
    ).hexdigest()


def unpaired_difference(before: Record, after: Record, statistic: str) -> Difference:
    """From the records alone: the errors of the two runs are taken for independent, which is cautious."""
    one, two = headline_values(before)[statistic], headline_values(after)[statistic]
    errors = _standard_error(before, statistic), _standard_error(after, statistic)
    if one is None or two is None or errors[0] is None or errors[1] is None:
        return Difference(statistic, one, two)
    se, change = math.hypot(errors[0], errors[1]), two - one
    reach = NORMAL_QUANTILE * se
    return Difference(statistic, one, two, "intervals", change - reach, change + reach, se=se)


def paired_differences(
    before: Record, after: Record, one: Outcomes, two: Outcomes, *, seed: int, draws: int
) -> list[Difference]:
    """Specificity, strength and base UAR of two runs over the same items; intervals by cluster bootstrap.

    Args:
        before, after: the records.
        one, two: their answers on the test split, sorted by item.
        seed, draws: of the bootstrap.
    """
    old, new = _Measure.of(before, one), _Measure.of(after, two)
    width = old.tally.table.shape[1]

    def difference(sums: FloatArray) -> FloatArray:
        return new.statistics(sums[:, width:]) - old.statistics(sums[:, :width])

    table = np.concatenate([old.tally.table, new.tally.table], axis=1)
    # A resample without any item of an emotion has no statistic; NaN is left out below.
    resampled = stats.bootstrap(table, difference, draws=draws, seed=seed)
    clusters = new.by_cluster() - old.by_cluster()
    values = headline_values(before), headline_values(after)
    found = []
    for place, name in enumerate((SPECIFICITY, STRENGTH, BASE_UAR)):
        if values[0][name] is None or values[1][name] is None:
            found.append(Difference(name, values[0][name], values[1][name]))
            continue
        defined = resampled[:, place][np.isfinite(resampled[:, place])]
        low, high = (
            np.quantile(defined, [LEVEL / 2, 1 - LEVEL / 2]).round(12) if len(defined) else (None, None)
        )
        found.append(
            Difference(
                name, values[0][name], values[1][name], "paired",
                low=None if low is None else float(low), high=None if high is None else float(high),
                clusters=clusters[:, place], family=items_digest(one),
            )
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class _Measure:
    """Specificity, strength and base UAR of one run, from the same tally that its scores were made of."""

    tally: Tally
    suppress: int | None
    """Which condition is the operating suppress dose."""

    @classmethod
    def of(cls, record: Record, answers: Outcomes) -> _Measure:
        dose = record.operating.suppress_dose if record.operating else None
        places = [k for k, c in enumerate(answers.conditions) if (c.arm, c.dose) == ("suppress", dose)]
        return cls(tally_outcomes(answers), places[0] if places else None)

    def statistics(self, sums: FloatArray) -> FloatArray:
        """(D, T) sums over clusters -> (D, 3); NaN where a statistic is not defined."""
        n_labels = self.tally.n_labels
        found = self.tally.statistics(sums)
        nothing = np.full(len(sums), np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            uar = (sums[:, n_labels : 2 * n_labels] / sums[:, :n_labels]).mean(axis=1)
        first = None if self.suppress is None else self.suppress * (N_TOTALS + 3 * n_labels)
        spec = nothing if first is None else found[:, first + 2]
        strength = nothing if self.tally.strength_weights is None else found[:, -1]
        return np.stack([spec, strength, uar], axis=1)

    def by_cluster(self) -> FloatArray:
        """(C, 3) what each cluster adds; columns sum to the statistics, which are linear for fixed items."""
        return self.statistics(self.tally.by_cluster())


def _standard_error(record: Record, statistic: str) -> float | None:
    head, scores = record.headline, record.scores
    if statistic == BASE_UAR:
        return _uar_error(record)
    if head is None or scores is None:
        return None
    if statistic == SPECIFICITY:
        return head.spec.se
    if statistic == STRENGTH:
        return head.strength.se if head.strength else None
    return head.pres.se if head.pres else None


def _uar_error(record: Record) -> float | None:
    """sqrt(sum_e r_e (1 - r_e) / n_e) / E: items counted as independent, for lack of anything better."""
    scores = record.scores
    if scores is None or not scores.doses or scores.baseline.uar is None:
        return None
    spread = [e.base_recall * (1 - e.base_recall) / e.n_items for e in scores.doses[0].emotions]
    return math.sqrt(sum(spread)) / len(spread)
