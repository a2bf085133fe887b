"""The three scores as metrics of the evaluate library, loaded by path without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from example_records import example_outcomes

from affectbench.preservation_score import preservation
from affectbench.score import score_outcomes

METRICS = Path(__file__).resolve().parents[1] / "affectbench" / "metrics"


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """evaluate.load by path, with its caches in a temporary folder and its hub access off."""
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
    patch.setenv("HF_HUB_OFFLINE", "1")
    patch.setenv("HF_EVALUATE_OFFLINE", "1")
    import evaluate

    cache = tmp_path_factory.mktemp("metrics")
    yield lambda name: evaluate.load(str(METRICS / name), cache_dir=str(cache))
    patch.undo()


def inputs(outcomes):
    return {
        "base_predictions": outcomes.base.tolist(),
        "references": outcomes.gold.tolist(),
        "clusters": outcomes.clusters.tolist(),
    }


def test_specificity_agrees_with_the_engine(load):
    outcomes = example_outcomes()
    answers = outcomes.conditions[0].predictions.T.tolist()
    found = load("specificity").compute(predictions=answers, **inputs(outcomes), bootstrap_draws=300)
    expected = score_outcomes(outcomes, seed=0, bootstrap_draws=300).doses[0]
    assert found["spec"] == expected.spec.value
    assert (found["spec_low"], found["spec_high"]) == pytest.approx(
        (expected.spec.low, expected.spec.high), abs=0.02
    )
    assert found["gap_abs"] == expected.gap_abs.value
    assert found["effect_matrix"] == expected.effect_matrix
    assert found["p"] == pytest.approx(expected.p)


def test_specificity_says_why_it_has_no_value(load):
    with pytest.raises(ValueError, match="no items with gold label 1"):
        load("specificity").compute(
            predictions=[[0, 0], [0, 1]], base_predictions=[0, 0], references=[0, 0], clusters=["a", "b"]
        )


def test_steering_strength_agrees_with_the_engine(load):
    outcomes = example_outcomes()
    amplify = [c for c in outcomes.conditions if c.arm == "amplify"]
    answers = np.stack([c.predictions for c in amplify]).transpose(2, 0, 1).tolist()
    found = load("steering_strength").compute(
        predictions=answers, **inputs(outcomes), alphas=[c.alpha for c in amplify], bootstrap_draws=300
    )
    expected = score_outcomes(outcomes, seed=0, bootstrap_draws=300)
    assert found["strength"] == expected.strength.strength.value
    assert found["per_target"] == pytest.approx(expected.strength.per_emotion)
    assert found["target_rate_shift"] == [d.trs.value for d in expected.doses if d.arm == "amplify"]


def test_lm_preservation_agrees_with_the_engine(load):
    found = load("lm_preservation").compute(
        predictions=[0, 1, 2, 2],
        base_predictions=[0, 1, 2, 3],
        references=[0, 1, 2, 3],
        kl=0.1,
        degenerate=[0, 0, 0, 0, 1],
        bootstrap_draws=300,
    )
    assert found["pres"] == preservation(0.1, 0.75, 1.0, 0.2)
    assert found["capability_change"] == -0.25
    assert found["capability_change_low"] <= -0.25 <= found["capability_change_high"]


@pytest.mark.slow
def test_metrics_load_in_a_process_that_cannot_open_a_connection(tmp_path):
    code = f"""
import socket
def refuse(*args, **kwargs): raise AssertionError("tried to use the network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import evaluate
for name in ("specificity", "steering_strength", "lm_preservation"):
    assert evaluate.load({str(METRICS)!r} + "/" + name).inputs_description
"""
    environment = {k: v for k, v in os.environ.items() if not k.endswith("OFFLINE")}
    environment |= {"HF_HOME": str(tmp_path), "PYTHONPATH": str(METRICS.parents[1])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=tmp_path)
