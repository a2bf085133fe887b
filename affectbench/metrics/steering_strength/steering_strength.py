"""Steering strength for the `evaluate` library: `evaluate.load("<path>/steering_strength")`, offline."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np

from affectbench.score import Condition, Outcomes, score_outcomes

DESCRIPTION = """How far does amplification move answers to the targeted emotion? strength = area under
the target-rate shift as a function of alpha, divided by the largest alpha, mean over the targets."""
INPUTS = """
Args:
    predictions: for each item, for each dose, the E answers (label indices; -1 unparsed, -2 error) when label
        0, 1, ... is targeted.
    base_predictions: for each item, the answer without intervention.
    references: for each item, the gold label index.
    clusters: for each item, its speaker, dialogue or document; item ids if items are independent.
    alphas: for each dose, its distance from no intervention; above 0, each once.
    seed: seed of the bootstrap.
    bootstrap_draws: resamples of the clusters.
Returns:
    strength with its 95 % interval, its value for each target, the target-rate shift and collapse at each
    dose, the largest shift that does not collapse. ValueError where the data cannot carry the score.
"""


class SteeringStrength(evaluate.Metric):  # type: ignore[misc]
    """Area under the curve of the target-rate shift over doses; see affectbench.score."""

    def _info(self) -> Any:
        features = {
            "predictions": datasets.Sequence(datasets.Sequence(datasets.Value("int64"))),
            "base_predictions": datasets.Value("int64"),
            "references": datasets.Value("int64"),
            "clusters": datasets.Value("string"),
        }
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features(features),
        )

    def _compute(
        self,
        predictions: list[list[list[int]]],
        base_predictions: list[int],
        references: list[int],
        clusters: list[str],
        alphas: list[float],
        seed: int = 0,
        bootstrap_draws: int = 10_000,
    ) -> dict[str, Any]:
        answers = np.array(predictions).transpose(1, 2, 0)
        n_doses, n_labels, n_items = answers.shape
        if n_doses != len(alphas):
            raise ValueError(f"predictions have {n_doses} doses, alphas {len(alphas)}")
        conditions = tuple(
            Condition(
                arm="amplify",
                dose=alpha,
                alpha=alpha,
                predictions=rows,
                margin=np.full(rows.shape, np.nan),
                draws=np.empty((0, n_items), dtype=np.int64),
            )
            for alpha, rows in zip(alphas, answers, strict=True)
        )
        outcomes = Outcomes(
            labels=tuple(map(str, range(n_labels))),
            items=np.arange(n_items),
            gold=np.array(references),
            clusters=np.array(clusters),
            base=np.array(base_predictions),
            base_margin=np.full((n_items, n_labels), np.nan),
            conditions=conditions,
        )
        scores = score_outcomes(outcomes, seed=seed, bootstrap_draws=bootstrap_draws)
        if scores.status != "ok" or scores.strength is None:
            raise ValueError(scores.reason)
        return {
            "strength": scores.strength.strength.value,
            "strength_low": scores.strength.strength.low,
            "strength_high": scores.strength.strength.high,
            "per_target": scores.strength.per_emotion,
            "target_rate_shift": [dose.trs.value for dose in scores.doses],
            "collapsed": [dose.collapsed for dose in scores.doses],
            "max_target_rate_shift": scores.strength.max_trs,
        }
