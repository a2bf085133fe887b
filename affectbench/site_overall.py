"""The overall board: methods down, all comparisons across, and no mean over less than all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from affectbench.score_models import Estimate
from affectbench.site_data import CONTROL_REASON, Group, Row, ranks

OVERALL_RULE = (
    "Means run over every comparison (model, task, protocol, fraction, seed) of the board, but for those of "
    "units that were identified elsewhere; a method that "
    "lacks a score in one has no mean and no rank. The interval of a mean is the mean of the ends: right if "
    "all errors go together, too wide otherwise. Ranks follow the same rule as within a comparison."
)


@dataclass(frozen=True)
class Standing:
    """One method over all comparisons of a board; the means are None where `problem` says why."""

    method: str
    control: bool
    family: str
    rank: int | None
    tied: bool
    problem: str
    n_scored: int
    n_significant: int
    spec: Estimate | None
    strength: Estimate | None
    pres: Estimate | None
    by_group: list[Row | None]


@dataclass(frozen=True)
class Overall:
    """Standings: ranked ones, then controls and methods that cannot be ranked; groups are the columns."""

    groups: list[Group]
    standings: list[Standing]


def overall(groups: Sequence[Group]) -> Overall:
    """The overall board of these groups."""
    rows: dict[tuple[bool, str], list[Row | None]] = {}
    for place, group in enumerate(groups):
        for row in group.rows:
            key = (row.record.control, row.record.cell.selector)
            rows.setdefault(key, [None] * len(groups))[place] = row
    found = [_standing(name, control, by_group) for (control, name), by_group in rows.items()]
    found.sort(key=_order)
    ranked = [standing for standing in found if not standing.problem]
    places = ranks([standing.spec for standing in ranked if standing.spec])
    placed = [
        Standing(**(vars(standing) | {"rank": rank, "tied": places.count(rank) > 1}))
        for standing, rank in zip(ranked, places, strict=True)
    ]
    return Overall(list(groups), placed + [standing for standing in found if standing.problem])


def _standing(method: str, control: bool, by_group: list[Row | None]) -> Standing:
    headlines = [row.record.headline if row and row.kind != "unscored" else None for row in by_group]
    known = [headline for headline in headlines if headline is not None]
    complete = len(known) == len(by_group)
    versions = {row.record.hashes.selector for row in by_group if row}
    first = next(row for row in by_group if row)
    problem = ""
    if not complete:
        problem = f"partial: scored in {len(known)} of {len(by_group)}"
    elif len(versions) > 1:
        problem = f"{len(versions)} versions of its code: not one method"
    whole = known if not problem else []
    spec = mean_estimate([headline.spec for headline in whole])
    if control:
        problem = problem or CONTROL_REASON
    elif not problem and (spec is None or spec.low is None):
        problem = "no interval"
    elif not problem and spec is not None and spec.low is not None and spec.low <= 0:
        problem = "not above 0: the interval of the mean includes it"
    return Standing(
        method=method,
        control=control,
        family=first.record.family,
        rank=None,
        tied=False,
        problem=problem,
        n_scored=len(known),
        n_significant=sum(headline.significant for headline in known),
        spec=spec,
        strength=mean_estimate([headline.strength for headline in whole]),
        pres=mean_estimate([headline.pres for headline in whole]),
        by_group=by_group,
    )


def mean_estimate(estimates: Sequence[Estimate | None]) -> Estimate | None:
    """The mean of estimates, with the mean of their ends as its interval; None unless all are there."""
    known = [estimate for estimate in estimates if estimate is not None]
    if not known or len(known) < len(estimates):
        return None
    lows = [estimate.low for estimate in known if estimate.low is not None]
    highs = [estimate.high for estimate in known if estimate.high is not None]
    complete = len(lows) == len(highs) == len(known)
    return Estimate(
        value=sum(estimate.value for estimate in known) / len(known),
        low=sum(lows) / len(known) if complete else None,
        high=sum(highs) / len(known) if complete else None,
    )


def _order(standing: Standing) -> tuple[bool, bool, float, str]:
    value = standing.spec.value if standing.spec else float("-inf")
    return (bool(standing.problem), standing.spec is None, -value, standing.method)
