"""Predictions that contradict themselves are refused before they are scored; those of some labels alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from example_records import example_outcomes

from affectbench.errors import ScoreError
from affectbench.outcomes import ERROR, OTHER, UNPARSED, Condition, Outcomes, of_labels
from affectbench.score import score_outcomes


def _broken(field: str, value) -> Outcomes:
    return replace(example_outcomes(), **{field: value})


def score(outcomes: Outcomes, draws: int = 100) -> None:
    score_outcomes(outcomes, seed=0, bootstrap_draws=draws)


def test_contradictory_input_is_refused_and_named():
    outcomes = example_outcomes()
    condition = outcomes.conditions[0]
    nan_hole = condition.margin.copy()
    nan_hole[0, 0] = np.nan
    parsed = condition.predictions.copy()
    parsed[0, 0] = 1
    cases = [
        ("items", np.full(140, "same"), "more than once: same"),
        ("gold", outcomes.gold[:-1], r"gold has shape \(139,\)"),
        ("base", outcomes.base + 7, "base holds codes 7"),
        ("base", outcomes.base.astype(float), "integer codes"),
        ("base_margin", np.full((140, 7), np.inf), "infinite"),
        ("conditions", (condition, condition), "comes twice: suppress 0"),
        ("labels", ("only",), "2 labels"),
    ]
    for field, value, message in cases:
        with pytest.raises(ScoreError, match=message):
            _broken(field, value)
    for field, value, message in [
        ("alpha", 0.0, "alpha above 0"),
        ("arm", "boost", "'suppress' or 'amplify'"),
        ("predictions", np.full((7, 140), -4), "holds codes -4"),
        ("draws", np.zeros((3, 5), dtype=int), r"draws has shape \(3, 5\)"),
    ]:
        with pytest.raises(ScoreError, match=message):
            _broken("conditions", (replace(condition, **{field: value}),))
    with pytest.raises(ScoreError, match="NaN for 1 parsed"):
        _broken("conditions", (replace(condition, predictions=parsed, margin=nan_hole),))
    with pytest.raises(ScoreError, match="share one alpha"):
        score(_broken("conditions", (outcomes.conditions[1], replace(outcomes.conditions[2], alpha=0.5))))
    with pytest.raises(ScoreError, match="no condition"):
        score(_broken("conditions", ()))
    with pytest.raises(ScoreError, match="at least 100"):
        score(outcomes, draws=10)


def test_of_labels_against_a_loop() -> None:
    rng = np.random.default_rng(3)
    labels, n = ("a", "b", "c", "d"), 40
    base = rng.integers(-2, 4, n)
    condition = Condition(
        "suppress",
        0.0,
        1.0,
        rng.integers(-2, 4, (4, n)),
        np.full((4, n), np.nan),
        rng.integers(0, 4, (5, n)),
    )
    whole = Outcomes(
        labels, np.array([f"i{k:02}" for k in range(n)]), rng.integers(0, 4, n), np.arange(n) % 7, base,
        np.full((n, 4), np.nan), (condition,),
    )  # fmt: skip
    found = of_labels(whole, ("d", "b"))
    assert found.labels == ("d", "b")
    names = {UNPARSED: UNPARSED, ERROR: ERROR, 3: 0, 1: 1, 0: OTHER, 2: OTHER}
    kept = [k for k in range(n) if whole.gold[k] in (1, 3)]
    assert found.items.tolist() == [f"i{k:02}" for k in kept]
    assert found.gold.tolist() == [names[int(whole.gold[k])] for k in kept]
    assert found.base.tolist() == [names[int(base[k])] for k in kept]
    for row, target in enumerate((3, 1)):
        told = [names[int(condition.predictions[target, k])] for k in kept]
        assert found.conditions[0].predictions[row].tolist() == told
    assert found.conditions[0].draws.shape == (5, len(kept))
