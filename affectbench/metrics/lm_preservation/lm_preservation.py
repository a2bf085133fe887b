"""LM preservation for the `evaluate` library: `evaluate.load("<path>/lm_preservation")`, offline."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np

from affectbench.preservation_score import paired_rates, preservation

DESCRIPTION = """What is left of the language model under an intervention? pres = harmonic mean of exp(-KL),
min(1, capability / capability without intervention) and 1 - degenerate rate; 0 if one of them is 0."""
INPUTS = """
Args:
    predictions: for each capability item, the answer under the intervention.
    base_predictions: for each capability item, the answer without intervention.
    references: for each capability item, the right answer.
    kl: mean over tokens of KL(without || with intervention) on fixed neutral text, nats.
    degenerate: for each open generation under the intervention, whether it is degenerate (0/1).
    seed: seed of the bootstrap.
    bootstrap_draws: resamples of the items.
Returns:
    pres, the two capabilities, their paired difference with its 95 % interval, the degenerate rate. pres is
    None if the model has no capability to keep.
"""


class LMPreservation(evaluate.Metric):  # type: ignore[misc]
    """Harmonic mean of the three parts; see affectbench.preservation_score."""

    def _info(self) -> Any:
        features = {
            name: datasets.Value("int64") for name in ("predictions", "base_predictions", "references")
        }
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features(features),
        )

    def _compute(
        self,
        predictions: list[int],
        base_predictions: list[int],
        references: list[int],
        kl: float,
        degenerate: list[int],
        seed: int = 0,
        bootstrap_draws: int = 10_000,
    ) -> dict[str, Any]:
        gold = np.array(references)
        capability, capability_base, change = paired_rates(
            "capability",
            np.array(predictions) == gold,
            np.array(base_predictions) == gold,
            seed=seed,
            draws=bootstrap_draws,
        )
        degenerate_rate = float(np.mean(degenerate))
        return {
            "pres": preservation(kl, capability, capability_base, degenerate_rate),
            "capability": capability,
            "capability_base": capability_base,
            "capability_change": change.value,
            "capability_change_low": change.low,
            "capability_change_high": change.high,
            "degenerate_rate": degenerate_rate,
        }
