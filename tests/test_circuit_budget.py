"""Budgets of emotion circuits against the golden vectors of the protocol document (released circuits)."""

from __future__ import annotations

import numpy as np
import pytest

from affectbench.circuit_budget import HEAD_BASE, NEURON_BASE, Split, allocate, split_budget
from affectbench.errors import AffectbenchError

ANGER_ATTENTION = (
    ".010 .005 .020 .012 .043 .014 .001 .023 .036 .095 .102 .137 .350 .720 .862 1.001 1.234 1.468 1.651 "
    "1.822 1.962 2.128 2.244 2.224 2.147 2.018 1.802 1.572"
)
ANGER_HEADS = "2 2 2 2 2 2 2 2 2 2 3 3 4 5 6 6 7 8 9 10 11 11 12 12 11 11 10 9"
ANGER_MLP = (
    ".011 .007 -.020 .014 .048 .018 -.006 .028 .044 .109 .140 .186 .525 .822 .954 1.202 1.450 1.656 1.814 "
    "1.978 2.118 2.267 2.247 2.165 2.021 1.840 1.609 1.256"
)
ANGER_NEURONS = "4 4 4 4 5 4 4 4 4 5 6 6 10 13 14 17 19 22 23 25 26 28 28 27 25 23 21 17"
SURPRISE_MLP = (
    ".0507 .0148 .0009 -.0069 .0116 -.0475 .0600 .0512 -.0195 .0222 .0820 .0647 .4511 .6917 1.0937 1.4693 "
    "1.5902 1.7797 1.8864 2.1318 2.1866 2.3948 2.3764 2.2558 2.1167 1.9357 1.7027 1.3357"
)
SURPRISE_NEURONS = "4 4 4 4 4 4 5 5 4 4 5 5 9 11 15 19 20 22 23 25 26 28 28 27 25 24 21 17"


def numbers(text: str) -> list[float]:
    return [float(word) for word in text.split()]


@pytest.mark.parametrize(
    ("influence", "budget", "base", "width", "expected"),
    [
        (ANGER_ATTENTION, 168, HEAD_BASE, 24, ANGER_HEADS),
        (ANGER_MLP, 392, NEURON_BASE, 8192, ANGER_NEURONS),
        (SURPRISE_MLP, 392, NEURON_BASE, 8192, SURPRISE_NEURONS),
    ],
)
def test_released_plans(influence: str, budget: int, base: int, width: int, expected: str) -> None:
    assert allocate(numbers(influence), budget, base=base, width=width).tolist() == numbers(expected)


def test_the_published_split_and_shares_of_other_models() -> None:
    llama = {"neurons": 28 * 8192, "heads": 28 * 24}
    assert split_budget(560, **llama) == split_budget(560, **llama, fixed=True) == Split(392, 168)
    assert split_budget(70, **llama) == Split(49, 21)
    assert split_budget(1120, **llama) == Split(952, 168)
    assert split_budget(1120, **llama, fixed=True) == Split(784, 336)
    # Half of the heads of a wider model would be 30 % of its share of units.
    assert split_budget(1293, neurons=28 * 18944, heads=28 * 28) == Split(1097, 196)
    assert split_budget(21, neurons=1024, heads=16) == Split(17, 4)
    assert split_budget(6, neurons=4, heads=4) == Split(4, 2)


def test_small_budgets_lower_the_base() -> None:
    influence = [0.0, 0.0, 1.0, 3.0]
    assert allocate(influence, 20, base=4, width=50).tolist() == [4, 4, 5, 7]
    assert allocate(influence, 8, base=4, width=50).tolist() == [1, 1, 2, 4]
    assert allocate(influence, 3, base=4, width=50).sum() == 3
    assert allocate(influence, 0, base=4, width=50).tolist() == [0, 0, 0, 0]


def test_no_influence_at_all_is_uniform() -> None:
    assert allocate([0, -1, -2, 0], 24, base=4, width=50).tolist() == [6, 6, 6, 6]


def test_one_layer_takes_at_most_two_fifths_more() -> None:
    """Of 100 units the base is 20; influence would give all 80 to the last layer, and gives it 40. The rest
    goes to the largest plan that is not full: all others are equal, so to the lowest."""
    assert allocate([0, 0, 0, 0, 1.0], 100, base=4, width=90).tolist() == [44, 4, 4, 4, 44]


def test_full_layers_hand_on_to_the_largest_plans() -> None:
    """The last layer would get 7 and has 6; layer 2 has the next largest plan."""
    assert allocate([0.1, 0.1, 1.0, 2.0], 16, base=2, width=6).tolist() == [2, 2, 6, 6]


def test_every_unit_can_be_had() -> None:
    assert allocate([1.0, 0.0], 12, base=2, width=6).tolist() == [6, 6]
    assert allocate([1.0, 0.0], 8, base=4, width=3 + 1).tolist() == [4, 4]


def test_a_plan_holds_the_budget_whatever_the_numbers() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        layers, width = rng.integers(1, 9), int(rng.integers(1, 40))
        budget = int(rng.integers(0, layers * width + 1))
        influence = rng.normal(size=layers) ** int(rng.integers(1, 4))
        plan = allocate(influence, budget, base=int(rng.integers(0, 5)), width=width)
        assert plan.sum() == budget
        assert plan.min() >= 0
        assert plan.max() <= width


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: allocate([np.nan, 1], 3, base=1, width=9), "cannot part a budget"),
        (lambda: allocate([[1.0]], 3, base=1, width=9), "shape"),
        (lambda: allocate([1.0, 1.0], 19, base=1, width=9), "19 units for 2 layers of 9"),
        (lambda: split_budget(9, neurons=4, heads=4), "9 units"),
    ],
)
def test_impossible_budgets_are_refused(call: object, message: str) -> None:
    with pytest.raises(AffectbenchError, match=message):
        call()  # type: ignore[operator]
