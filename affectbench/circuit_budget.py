"""How many neurons and heads of each layer enter an emotion circuit.

The rule is that of arXiv 2510.11328 as released, for any number of layers and heads: a base for every layer,
the rest by the influence of the layer's sublayer on the emotion's reference direction.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from affectbench.errors import AffectbenchError
from affectbench.sites import UnitArray

NEURON_BASE, HEAD_BASE = 4, 2
"""Units of a kind that every layer gets before influence counts."""
HEAD_PART = 0.3
"""Share of a circuit's units that are heads."""
HEADS_AT_MOST = 0.25
"""Share of a model's heads that a circuit may hold: 168 of the published model's 672."""
MOST_OF_THE_BUDGET = 0.4
"""Share of a kind's budget that influence may add to one layer."""


class Split(NamedTuple):
    """Units of each kind in a circuit."""

    neurons: int
    heads: int


def split_budget(budget: int, *, neurons: int, heads: int, fixed: bool = False) -> Split:
    """Part `budget` units among the `neurons` and `heads` of a model.

    Heads get 30 % of the budget, and with `fixed` that is all; else at most a quarter of all heads, for a
    budget that is a share of a model's units would take most heads of one that has few. Both give 392 and 168
    for the published 560 units of 229,376 neurons and 672 heads.

    Raises:
        AffectbenchError: there are not as many units.
    """
    if budget > neurons + heads:
        raise AffectbenchError(
            f"a circuit of {budget} units in a model of {neurons} neurons and {heads} heads",
            hint="lower the protocol's `fractions`",
        )
    wanted = budget - round((1 - HEAD_PART) * budget)
    most = heads if fixed else int(HEADS_AT_MOST * heads)
    chosen = max(min(wanted, most), budget - neurons)
    return Split(budget - chosen, chosen)


def allocate(influence: npt.ArrayLike, budget: int, *, base: int, width: int) -> UnitArray:
    """Units of one kind for each layer, shape (layers,); they sum to `budget`.

    Every layer gets `base` units (1, then 0, where the budget is too small for that). The rest is given in
    proportion to `influence` (layers,), whose negative entries count as 0: whole units first, then one each
    by the largest fractional part, the lower layer first. Influence adds at most 0.4 of the budget to a
    layer, and no layer gives more than the `width` units it has; what such a layer could not take goes to the
    layers with the largest plan, limits of influence aside where all have reached theirs.

    Raises:
        AffectbenchError: `influence` is not one row of finite numbers, or there are too few units.
    """
    weights = np.asarray(influence, dtype=np.float64)
    if weights.ndim != 1 or not weights.size or not np.isfinite(weights).all():
        raise AffectbenchError(
            f"influence of shape {weights.shape} cannot part a budget",
            hint="give one finite number for each layer",
        )
    if not 0 <= budget <= width * weights.size:
        raise AffectbenchError(
            f"a budget of {budget} units for {weights.size} layers of {width}",
            hint="a circuit holds every unit once at most",
        )
    base = next(each for each in (base, 1, 0) if each * weights.size <= budget and each <= width)
    weights = np.maximum(weights, 0)
    if not weights.any():
        weights = np.ones_like(weights)
    added = _shares(weights / weights.sum() * (budget - base * weights.size), budget - base * weights.size)
    most = int(MOST_OF_THE_BUDGET * budget)
    plan: UnitArray = np.minimum(base + np.minimum(added, most), width)
    for limit in (min(base + most, width), width):
        _fill(plan, weights, budget, limit)
    return plan


def _shares(exact: npt.NDArray[np.float64], total: int) -> UnitArray:
    """Whole numbers that sum to `total`, near `exact`, which does too."""
    whole = np.floor(exact).astype(np.int64)
    order = np.argsort(whole - exact, kind="stable")
    whole[order[: total - int(whole.sum())]] += 1
    return whole


def _fill(plan: UnitArray, weights: npt.NDArray[np.float64], budget: int, limit: int) -> None:
    """Give what is missing of `budget` to the layers with the largest plan, up to `limit` each; of equal
    plans to the one with the larger weight."""
    for layer in np.lexsort((-weights, -plan)):
        missing = budget - int(plan.sum())
        plan[layer] += max(0, min(missing, limit - int(plan[layer])))
