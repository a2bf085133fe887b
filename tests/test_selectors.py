"""Built-in selectors against the golden values of the protocol document, and the rules all of them share."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from affectbench.controls import layer_matched
from affectbench.errors import AffectbenchError
from affectbench.evidence import Evidence
from affectbench.selector import Selection, Selector
from affectbench.sites import SiteShape
from affectbench.study import Study

LABELS = ("A", "B", "C")
P = np.array([[0.90, 0.60, 0.40, 0.02, 0], [0.88, 0.10, 0.35, 0.02, 0], [0.86, 0.10, 0.01, 0.30, 0]])[
    :, None, :
]


def module(name: str) -> Any:
    path = Path(__file__).parent.parent / "selectors" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"selector_under_test_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def selector(name: str) -> Selector:
    found = [v for v in vars(module(name)).values() if isinstance(v, type) and issubclass(v, Selector)]
    return next(cls for cls in found if cls is not Selector)()


def study(seed: int = 0, **sums: np.ndarray) -> Study:
    """A study whose evidence has exactly these statistics."""
    shape = SiteShape(*next(iter(sums.values())).shape[1:]) if sums else SiteShape(2, 50)
    ones = np.ones(len(LABELS))
    evidence = Evidence(LABELS, "gate", "all", shape, np.full(3, 9), ones, sums)
    return Study(evidence, evidence, SimpleNamespace(), SimpleNamespace(), seed, SimpleNamespace())  # type: ignore[arg-type]


def test_frequency_orders_by_rate() -> None:
    picked = selector("frequency").select(study(rate=P), 5)
    assert picked.units[0].tolist() == [0, 1, 2, 3, 4]


def test_entropy_in_nats() -> None:
    found = module("entropy").entropy(P)[0]
    np.testing.assert_allclose(found, [1.0984, 0.7356, 0.7519, 0.4438, 0], atol=5e-5)


def test_entropy_keeps_only_units_above_the_bar_and_no_dead_one() -> None:
    picked = selector("entropy").select(study(rate=P), 5)
    assert [units.tolist() for units in picked.units] == [[0], [], []]


def test_entropy_passes_units_that_tie_at_the_top() -> None:
    rate = np.zeros((3, 1, 10))
    rate[0, 0, :3] = 1.0
    assert selector("entropy").select(study(rate=rate), 5).units[0].tolist() == [0, 1, 2]


def test_contrast_gives_a_unit_to_one_emotion() -> None:
    found = selector("contrast").scores(study(rate=P))[:, 0]
    expected = np.zeros((3, 5))
    expected[0, :3] = [0.02, 0.50, 0.05]
    expected[2, 3] = 0.28
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "statistic"),
    [("magnitude", "mean"), ("magnitude_abs", "mean_abs"), ("attribution", "attribution")],
)
def test_mean_difference_to_the_other_emotions(name: str, statistic: str) -> None:
    mean = np.array([1.2, 0.1, 0.2])[:, None, None]
    found = selector(name).scores(study(**{statistic: mean})).ravel()
    np.testing.assert_allclose(found, [1.05, -0.60, -0.45])
    np.testing.assert_allclose(found, 1.5 * (mean.ravel() - mean.mean()))


def test_planted_units_are_recovered_by_every_published_selector() -> None:
    rng = np.random.default_rng(0)
    rate = rng.uniform(0, 0.3, size=(3, 2, 50))
    planted = rng.permutation(100)[:15].reshape(3, 5)
    for label, units in enumerate(planted):
        rate.reshape(3, -1)[label, units] = rng.uniform(0.9, 1.0, size=5)
    for name in ("frequency", "entropy", "contrast"):
        picked = selector(name).select(study(rate=rate), 5)
        assert [set(units) for units in picked.units] == [set(row) for row in planted], name
    picked = selector("magnitude").select(study(mean=rate), 5)
    assert [set(units) for units in picked.units] == [set(row) for row in planted]


def test_random_depends_on_the_seed_alone() -> None:
    first, again = (selector("random_units").select(study(seed=3), 9) for _ in range(2))
    other = selector("random_units").select(study(seed=4), 9)
    assert first.digest == again.digest != other.digest


def test_ties_go_to_the_lower_unit() -> None:
    scores = np.zeros((3, 2, 4))
    scores[:, 1, 2] = 1
    picked = Selection.from_scores(scores, 3, site="gate", shape=SiteShape(2, 4), labels=LABELS)
    assert picked.units[0].tolist() == [6, 0, 1]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.full((3, 2, 4), np.nan), "24 scores that are NaN"),
        (np.full((3, 2, 4), np.inf), "24 scores that are NaN"),
        (np.zeros((3, 8)), "shape"),
    ],
)
def test_impossible_scores_are_refused(scores: np.ndarray, message: str) -> None:
    with pytest.raises(AffectbenchError, match=message):
        Selection.from_scores(scores, 3, site="gate", shape=SiteShape(2, 4), labels=LABELS)


def test_selection_survives_a_file_and_damage_is_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    picked = Selection.from_scores(
        rng.normal(size=(3, 2, 4)), 3, site="gate", shape=SiteShape(2, 4), labels=LABELS
    )
    path = tmp_path / "selection.safetensors"
    picked.save(path)
    loaded = Selection.load(path)
    assert loaded.digest == picked.digest
    np.testing.assert_allclose(loaded.scores, picked.scores, rtol=1e-6)
    content = bytearray(path.read_bytes())
    place = content.find(
        int(picked.units[0][0]).to_bytes(8, "little"), 8 + int.from_bytes(content[:8], "little")
    )
    content[place] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(AffectbenchError):
        Selection.load(path)


def test_random_draws_match_layers_and_spare_no_unit() -> None:
    shape = SiteShape(4, 100)
    rng = np.random.default_rng(1)
    units = tuple(
        np.concatenate([rng.choice(100, 6, replace=False), 300 + rng.choice(100, 2, replace=False)])
        for _ in LABELS
    )
    picked = Selection("gate", shape, LABELS, units)
    draws = layer_matched(picked, 20, seed=0)
    assert len({tuple(draw) for draw in draws}) == 20
    for draw in draws:
        assert shape.histogram(draw).tolist() == [6, 0, 0, 2]
    counts = np.bincount(np.concatenate(layer_matched(picked, 2000, seed=1)), minlength=400)
    np.testing.assert_allclose(counts[:100], 2000 * 6 / 100, atol=5 * np.sqrt(2000 * 0.06))


def test_equal_histograms_share_their_draws() -> None:
    shape = SiteShape(2, 1000)
    one = Selection("gate", shape, ("A",), (np.array([1, 2, 3]),))
    two = Selection("gate", shape, ("A",), (np.array([7, 8, 9]),))
    same = [
        np.array_equal(a, b)
        for a, b in zip(layer_matched(one, 20, 0), layer_matched(two, 20, 0), strict=True)
    ]
    assert np.mean(same) > 0.8
