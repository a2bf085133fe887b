"""Preservation, the aggregate, recovery of planted units, and the choice of operating doses."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from example_records import LABELS, example_outcomes, example_record

from affectbench.errors import ScoreError
from affectbench.operating import choose_operating, headline_of
from affectbench.preservation_score import (
    PreservationOutcomes,
    aggregate,
    harmonic,
    paired_rates,
    preservation,
    score_preservation,
)
from affectbench.record import Operating, ValidationPoint
from affectbench.recovery import auroc, recovery
from affectbench.score import score_outcomes

MEASURED = PreservationOutcomes(
    arm="amplify",
    dose=2.0,
    kl=0.05,
    nll=1100.0,
    nll_base=1000.0,
    n_tokens=500,
    n_bytes=2000,
    capability=[1, 1, 0, 1, 0, 0, 1, 1],
    capability_base=[1, 1, 1, 1, 0, 1, 1, 1],
    capability_task="cloze",
    degenerate=[0, 0, 0, 1],
    degenerate_base=[0, 0, 0, 0],
)


def test_harmonic_means_of_worked_examples():
    assert [harmonic(t) for t in ((2, 1, 2), (2, 2, 0), (1, 1, 2))] == pytest.approx([1.5, 0, 1.2])
    assert aggregate(0.2, 0.5, 0.9) == pytest.approx(0.369863, abs=1e-6)
    assert aggregate(1.4, 0.5, 0.9) == aggregate(1.0, 0.5, 0.9)
    assert aggregate(-0.1, 0.5, 0.9) == 0
    assert aggregate(0.2, None, 0.9) is None
    for values in ([], [-1.0], [math.nan]):
        with pytest.raises(ScoreError):
            harmonic(values)


def test_preservation_of_an_untouched_model_is_one():
    same = replace(MEASURED, kl=0.0, nll=1000.0, capability=MEASURED.capability_base, degenerate=[0, 0, 0, 0])
    found = score_preservation(same, seed=0)
    assert (found.pres, found.perplexity_change) == (1.0, 0.0)
    assert (found.capability_change.value, found.capability_change.low, found.capability_change.high) == (
        0,
        0,
        0,
    )


def test_preservation_parts():
    found = score_preservation(MEASURED, seed=0)
    assert found.bits_per_byte == pytest.approx(1100 / math.log(2) / 2000)
    assert found.perplexity_change == pytest.approx(math.exp(1100 / 500) / math.exp(1000 / 500) - 1)
    assert (found.capability, found.capability_base, found.degenerate_rate) == (5 / 8, 7 / 8, 0.25)
    assert found.capability_change.value == pytest.approx(-2 / 8)
    assert found.pres == pytest.approx(3 / (1 / math.exp(-0.05) + 7 / 5 + 1 / 0.75))


def test_capability_interval_is_that_of_the_paired_difference():
    rng = np.random.default_rng(0)
    base = rng.random(400) < 0.8
    now = base & (rng.random(400) < 0.95)
    change = paired_rates("cloze", now, base, seed=0, draws=4000)[2]
    difference = now.astype(int) - base
    assert change.se == pytest.approx(difference.std(ddof=1) / 20, rel=0.05)
    assert change.low < difference.mean() < change.high < 0


def test_preservation_is_missing_where_a_part_is():
    assert preservation(0.1, None, None, 0.0) is None
    assert preservation(0.1, 0.5, 0.0, 0.0) is None
    assert preservation(0.1, 0.5, 0.5, None) is None
    assert preservation(0.1, 0.5, 0.5, 1.0) == 0
    found = score_preservation(replace(MEASURED, degenerate=None, degenerate_base=None), seed=0)
    assert (found.pres, found.degenerate_rate) == (None, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kl": -0.1}, "negative"),
        ({"kl": math.nan}, "finite"),
        ({"nll": 1e9}, "perplexity"),
        ({"n_tokens": 0}, "no text"),
        ({"capability": [1, 0]}, "same items"),
        ({"capability": [2] * 8}, "one 0 or 1"),
        ({"degenerate_base": None}, "both are needed"),
    ],
)
def test_impossible_measurements_are_refused(change, message):
    with pytest.raises(ScoreError, match=message):
        score_preservation(replace(MEASURED, **change), seed=0)


def test_auroc_matches_sklearn_with_ties():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    truth, scores = rng.random(200) < 0.2, rng.integers(0, 8, 200).astype(float)
    assert auroc(scores[truth], scores[~truth]) == pytest.approx(roc_auc_score(truth, scores))


def test_recovery_of_a_perfect_a_useless_and_a_reversed_ranking():
    planted, decoys = [[0, 1], [2, 3]], [[4], [5]]
    perfect = np.zeros((2, 10))
    perfect[0, [0, 1]] = perfect[1, [2, 3]] = 1
    found = recovery(perfect, planted, decoys)
    assert (found.auroc, found.decoy_auroc, found.precision_at_k) == (1, 1, 1)
    flat = recovery(np.zeros((2, 10)), planted, decoys)
    assert (flat.auroc, flat.decoy_auroc) == (0.5, 0.5)
    assert flat.precision_at_k == pytest.approx(0.2)
    assert recovery(-perfect, planted, decoys).auroc == 0


def test_recovery_leaves_out_emotions_without_planted_units():
    found = recovery(np.eye(3, 6), [[0], [], [1]], [[], [], []])
    assert found.auroc_per_emotion == [1.0, None, pytest.approx(0.4)]
    assert found.auroc == pytest.approx(0.7)
    assert found.precision_per_emotion[1] is None
    assert found.decoy_auroc is None


def test_recovery_refuses_contradictions():
    scores = np.zeros((1, 4))
    for planted, decoys, message in [
        ([[4]], [[]], "outside 0..3"),
        ([[0]], [[0]], "planted and as decoy"),
        ([[]], [[]], "nothing to recover"),
        ([[0], [1]], [[]], "disagree"),
    ]:
        with pytest.raises(ScoreError, match=message):
            recovery(scores, planted, decoys)
    with pytest.raises(ScoreError, match="NaN"):
        recovery(scores * np.nan, [[0]], [[]])


def point(arm, dose, spec, pres, collapsed=False):
    return ValidationPoint(arm=arm, dose=dose, spec=spec, pres=pres, collapsed=collapsed)


def test_operating_dose_is_the_most_specific_that_preserves_and_stands():
    points = [
        point("suppress", 0.0, 0.2, 0.95),
        point("amplify", 1.5, 0.1, 0.99),
        point("amplify", 2.0, 0.3, 0.91),
        point("amplify", 4.0, 0.5, 0.5),
        point("amplify", 8.0, 0.9, 0.95, collapsed=True),
    ]
    found = choose_operating(points)
    assert (found.suppress_dose, found.amplify_dose) == (0.0, 2.0)


def test_operating_dose_where_nothing_preserves_collapses_or_is_measured():
    found = choose_operating([point("suppress", 0.0, 0.2, 0.4), point("suppress", 0.5, 0.1, 0.6)])
    assert found.suppress_dose == 0.5
    assert found.amplify_dose is None
    assert "no dose keeps" in found.reason
    assert "amplify: not run" in found.reason
    assert choose_operating([point("suppress", 0.0, 0.2, 0.4, collapsed=True)]).suppress_dose is None
    unmeasured = choose_operating([point("suppress", 0.0, 0.2, None), point("suppress", 0.5, 0.3, None)])
    assert unmeasured.suppress_dose == 0.5
    assert "not measured" in unmeasured.reason


def test_headline_takes_the_worse_preservation_and_no_aggregate_without_all_three_axes():
    record = example_record()
    operating = Operating(suppress_dose=0.0, amplify_dose=2.0, reason="")
    kept = {(p.arm, p.dose): p.pres for p in record.preservation}
    found = headline_of(record.scores, operating, record.preservation)
    assert found.pres == min(kept["suppress", 0.0], kept["amplify", 2.0])
    assert found.agg == pytest.approx(aggregate(found.spec.value, found.strength.value, found.pres))
    assert headline_of(record.scores, operating, record.preservation[:1]).agg is None
    only_suppress = Operating(suppress_dose=0.0, amplify_dose=None, reason="")
    assert headline_of(record.scores, only_suppress, record.preservation).agg is None
    neither = Operating(suppress_dose=None, amplify_dose=2.0, reason="")
    assert headline_of(record.scores, neither, record.preservation) is None


def test_headline_of_a_collapsed_test_dose_has_no_aggregate():
    outcomes = example_outcomes()
    always = np.repeat(np.arange(len(LABELS))[:, None], len(outcomes.items), axis=1)
    collapsed = tuple(replace(c, predictions=always) if c.dose == 2 else c for c in outcomes.conditions)
    scores = score_outcomes(replace(outcomes, conditions=collapsed), seed=0, bootstrap_draws=200)
    operating = Operating(suppress_dose=0.0, amplify_dose=2.0, reason="")
    found = headline_of(scores, operating, example_record().preservation)
    assert found.pres is not None
    assert found.agg is None
