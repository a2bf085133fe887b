"""Directions of emotions: grouping, stability, and signs."""

from __future__ import annotations

import numpy as np
import pytest

from affectbench.directions import (
    aligned,
    check_directions,
    differences,
    grouped_differences,
    middle_layers,
    neighbours,
    reference_directions,
    scaled_layers,
    stable_layers,
    unit,
)
from affectbench.errors import AffectbenchError

rng = np.random.default_rng(0)


def turning(angles: list[float]) -> np.ndarray:
    """Directions (1, 1, layers, 2) of one emotion, each layer's turned by `angles` degrees from the last."""
    at = np.radians(np.cumsum(angles))
    return np.stack([np.cos(at), np.sin(at)], axis=-1)[None, None]


def test_groups_cancel_what_their_items_share() -> None:
    """Items are a large context of their group plus a small offset of their emotion."""
    offsets = rng.normal(size=(6, 2, 3, 16))
    contexts = 100 * rng.normal(size=(40, 1, 2, 3, 16))
    found = grouped_differences(contexts + offsets)
    np.testing.assert_allclose(found, offsets - offsets.mean(axis=0), atol=1e-11)


def test_raw_differences_sum_to_zero_over_emotions() -> None:
    activations = rng.normal(size=(30, 6, 4, 16))
    found = grouped_differences(activations)
    np.testing.assert_allclose(found.sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(found, differences(activations.mean(axis=0)), atol=1e-12)


def test_unit_length_and_zero_stays_zero() -> None:
    found = unit(np.array([[3.0, 4.0], [0.0, 0.0]]))
    assert found.tolist() == [[0.6, 0.8], [0.0, 0.0]]


def test_stable_layers_are_the_longest_run_of_alike_neighbours() -> None:
    """Cosine 0.9 is 25.8 degrees."""
    directions = turning([0, 10, 60, 20, 25, 5, 40, 0, 0])
    np.testing.assert_allclose(neighbours(directions), np.cos(np.radians([10, 60, 20, 25, 5, 40, 0, 0])))
    assert stable_layers(directions) == range(2, 6)


def test_of_equal_runs_the_upper_one_and_without_any_the_best_pair() -> None:
    assert stable_layers(turning([0, 10, 60, 20, 80])) == range(2, 4)
    assert stable_layers(turning([0, 50, 40, 70])) == range(1, 3)
    assert stable_layers(turning([0])) == range(1)


def test_published_layers_scale_with_depth() -> None:
    assert stable_layers(np.ones((6, 2, 28, 4)), "paper") == range(21, 26)
    assert scaled_layers(11, 21, 28) == range(11, 21)
    assert scaled_layers(11, 21, 4) == range(2, 3)
    assert [len(scaled_layers(21, 26, layers)) for layers in (1, 2, 4, 80)] == [1, 1, 1, 14]
    assert middle_layers(28, 10) == range(9, 19)
    assert [middle_layers(layers, 1).start for layers in (1, 2, 3, 4)] == [0, 1, 1, 2]
    assert middle_layers(4, 2) == range(1, 3)


def test_reference_is_the_unit_sum_after_turning_signs() -> None:
    axis = unit(rng.normal(size=(6, 8)))
    signs = np.where(rng.random((6, 2, 5)) < 0.5, -1.0, 1.0)
    directions = signs[..., None] * axis[:, None, None] * rng.uniform(0.1, 9, size=(6, 2, 5, 1))
    found = reference_directions(directions, range(1, 4))
    np.testing.assert_allclose(found, axis * signs[:, 0, 1, None], atol=1e-12)
    np.testing.assert_allclose(
        unit(aligned(directions, found)), np.broadcast_to(found[:, None, None], directions.shape), atol=1e-12
    )


def test_layers_outside_the_run_do_not_count() -> None:
    directions = rng.normal(size=(3, 2, 6, 8))
    other = directions.copy()
    other[:, :, [0, 1, 5]] = rng.normal(size=(3, 2, 3, 8))
    np.testing.assert_array_equal(*(reference_directions(each, range(2, 5)) for each in (directions, other)))


def test_an_emotion_without_a_direction_is_named() -> None:
    directions = rng.normal(size=(3, 2, 4, 8))
    check_directions(directions, ("anger", "joy", "fear"))
    directions[1, 0, 2] = 0
    with pytest.raises(AffectbenchError, match="'joy' has no direction at layer 2"):
        check_directions(directions, ("anger", "joy", "fear"))
