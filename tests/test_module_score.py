"""Scores of overlays: recalls and intervals against a plain loop, recovery exact at its ends."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from sklearn.metrics import recall_score

from affectbench import module_report
from affectbench.errors import ScoreError
from affectbench.module_report import TESTS, change_lead, margin, verdict_finding
from affectbench.module_score import Quantity, accuracies, over_seeds, recalls, recovery

RNG = np.random.default_rng(0)
GOLD = RNG.integers(0, 4, size=120)
CLUSTERS = [f"frame-{place % 15}" for place in range(120)]


def answers(*shares: float) -> np.ndarray:
    """(K, 3, 120): each condition answers that share of items right, the others wrong."""
    codes = np.zeros((len(shares), 3, 120), dtype=np.int8)
    for row, share in enumerate(shares):
        right = np.random.default_rng(row).random((3, 120)) < share
        codes[row] = np.where(right, GOLD, (GOLD + 1) % 4)
    return codes


def test_recalls_are_those_of_scikit_learn_averaged_over_seeds() -> None:
    codes = answers(0.9, 0.4)
    for found, each in zip(recalls(codes, GOLD, CLUSTERS, 0), codes, strict=True):
        expected = np.mean([recall_score(GOLD, seed, average="macro") for seed in each])
        assert found.value == pytest.approx(expected)
        assert abs(found.draws.mean() - expected) < 0.02


def test_intervals_are_those_of_a_plain_loop_over_clusters_and_seeds() -> None:
    (found,) = recalls(codes := answers(0.6), GOLD, CLUSTERS, 3)
    rng, frames = np.random.default_rng(9), np.array([int(name[6:]) for name in CLUSTERS])
    drawn = []
    for _ in range(3000):
        items = np.concatenate([np.flatnonzero(frames == frame) for frame in rng.integers(15, size=15)])
        seeds = rng.integers(3, size=3)
        right = (codes[0][seeds] == GOLD)[:, items]
        drawn.append(np.mean([right[:, GOLD[items] == label].mean(axis=1) for label in range(4)]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    estimate = found.estimate()
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.012)
    assert found.se == pytest.approx(np.std(drawn), rel=0.08)


def test_recovery_is_exactly_one_of_all_and_zero_of_nothing() -> None:
    base, part, adapted = recalls(answers(0.3, 0.6, 0.95), GOLD, CLUSTERS, 0)
    for moved, expected in ((adapted, 1.0), (base, 0.0)):
        found = recovery(moved, base, adapted)
        assert found is not None
        assert found.value == expected
        assert (found.draws == expected).all()
    between = recovery(part, base, adapted)
    assert between is not None
    assert between.value == (part.value - base.value) / (adapted.value - base.value)


def test_a_gain_within_its_noise_is_not_shared_out() -> None:
    codes = answers(0.5, 0.5)
    codes[1, :, :6] = GOLD[:6]
    base, adapted = recalls(codes, GOLD, CLUSTERS, 0)
    assert recovery(adapted, base, adapted) is None
    assert recovery(base, adapted, adapted) is None


def test_accuracies_count_items_and_pair_with_recalls_by_seed() -> None:
    right = (answers(0.8, 0.2) == GOLD).astype(np.int64)
    high, low = accuracies(right, 0)
    assert (high.value, low.value) == (right[0].mean(), right[1].mean())
    assert (high - low).estimate().low > 0.4  # type: ignore[operator]
    with pytest.raises(ScoreError, match="expected"):
        accuracies(right[0], 0)
    with pytest.raises(ScoreError, match="for 119 items"):
        recalls(answers(0.5), GOLD[:-1], CLUSTERS, 0)


def test_seeds_have_students_interval_and_one_has_none() -> None:
    found = over_seeds([1.0, 2.0, 4.0])
    assert found.value == pytest.approx(7 / 3)
    assert found.low == pytest.approx(7 / 3 - 4.302653 * np.std([1, 2, 4], ddof=1) / np.sqrt(3), rel=1e-5)
    assert over_seeds([1.0]).low is None


def quantity(value: float, spread: float = 0.01, seed: int = 0) -> Quantity:
    return Quantity(value, value + spread * np.random.default_rng(seed).standard_normal(2000))


def test_a_margin_is_over_the_best_of_each_draw() -> None:
    found = {
        "gate": quantity(0.5, seed=1),
        "up": quantity(0.5, seed=2),
        "q": quantity(0.5, seed=3),
        "mlp": quantity(1),
    }
    lead = margin(found)
    best = np.maximum(found["up"].draws, found["q"].draws)
    assert lead.value == 0.0
    assert (lead.draws == found["gate"].draws - best).all()
    assert lead.draws.mean() < 0  # The best of several is above their mean: no type stands out by luck.


def test_leads_in_change_are_students_and_drawn_apart_for_two_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "task": np.array([0.1, 0.2, 0.3, 0.1, 0.2, 0.4]),
        "control": np.array([0.4, 0.1, 0.2, 0.3, 0.3, 0]),
    }
    monkeypatch.setattr(module_report, "_leads", lambda changes, _metric: ({}, values[changes[0]]))
    found = {name: change_lead([name] * 6, 0, place, "relative") for place, name in enumerate(values)}
    for name, lead in found.items():
        assert lead is not None
        expected = ttest_1samp(values[name], 0).confidence_interval()
        assert (lead.estimate().low, lead.estimate().high) == pytest.approx(expected, abs=0.01)
    task, control = (each.draws for each in found.values() if each is not None)
    assert abs(np.corrcoef(task, control)[0, 1]) < 0.1  # Else their difference would look too sure.


def test_the_verdict_needs_every_test_and_more_than_the_control_shows() -> None:
    every = {test: quantity(0.2, seed=place) for place, test in enumerate(TESTS["sound"])}
    assert "stands out here: it is above the best other type in 6 of 6" in verdict_finding(every).text
    one_fails = every | {"transfer": quantity(0.0)}
    assert (
        "does not stand out here: it is above the best other type in 5 of 6"
        in verdict_finding(one_fails).text
    )
    alike = every | {"control-transfer": quantity(0.2, seed=9)}
    text = verdict_finding(alike).text
    assert text.startswith("gate_proj does not stand out here")
    assert "no further than on the control task in Transfer" in text
    assert "Not tested, or nothing to test: Transfer" in verdict_finding({"change": quantity(0.2)}).text
    assert verdict_finding({}).text.startswith("gate_proj does not stand out here")
    assert "No control task was learnt" in verdict_finding(every).text
    assert "No control task was learnt" not in text
