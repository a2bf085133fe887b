"""The overlap of selections, from the units that records list: exact for small sets, close for large ones."""

from __future__ import annotations

import numpy as np
import pytest

from affectbench.overlap import LISTED, by_chance, comparable, jaccard, listed_units, parse_units


def test_small_sets_are_listed_whole_whatever_their_order() -> None:
    assert listed_units(np.array([7, 0, 300])) == listed_units([300, 7, 0]) == "0 7 300"
    assert parse_units("0 7 300") == [0, 7, 300]
    assert listed_units([]) == ""
    assert parse_units("") == []


def test_the_overlap_of_whole_lists_is_exact() -> None:
    one, other = comparable([([1, 2, 3], 3), ([2, 3, 4, 5], 4)])
    assert jaccard(one, other) == 2 / 5
    assert jaccard(frozenset(), frozenset()) is None


@pytest.mark.parametrize("shared", [0, 500, 1500, 2000])
def test_the_overlap_of_large_sets_is_within_three_standard_errors(shared: int) -> None:
    order = np.random.default_rng(shared).permutation(500_000)
    sets = [order[:2000], order[2000 - shared : 4000 - shared]]
    true = shared / (4000 - shared)
    lists = [(parse_units(listed_units(units)), len(units)) for units in sets]
    assert [len(units) for units, _ in lists] == [LISTED, LISTED]
    found = jaccard(*comparable(lists))
    assert found is not None
    assert abs(found - true) <= 3 * (true * (1 - true) / LISTED) ** 0.5 + 1e-12


def test_a_small_set_is_compared_with_a_large_one_where_both_are_complete() -> None:
    large = np.arange(10_000)
    lists = [(parse_units(listed_units(units)), len(units)) for units in (large, large[:200])]
    found = jaccard(*comparable(lists))
    assert found == pytest.approx(0.02, abs=0.03)


def test_random_sets_overlap_as_much_as_chance_says() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        sets = [frozenset(rng.choice(400, size=size, replace=False).tolist()) for size in (40, 80)]
        found.append(jaccard(*sets))
    assert np.mean(np.array(found, dtype=float)) == pytest.approx(by_chance(40, 80, 400), abs=0.005)
    assert by_chance(0, 0, 10) == 0
