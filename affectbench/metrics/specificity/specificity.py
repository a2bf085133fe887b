"""Specificity for the `evaluate` library: `evaluate.load("<path>/specificity")`, offline."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np

from affectbench.score import Condition, Outcomes, score_outcomes

DESCRIPTION = """Does an intervention that targets one emotion move that emotion and no other?
Rows of the effect matrix are targets, columns gold labels, cells changes of recall;
spec = direction * (mean diagonal - mean off-diagonal)."""
INPUTS = """
Args:
    predictions: for each item, the E answers (label indices; -1 unparsed, -2 error) when label 0, 1, ...
        is targeted.
    base_predictions: for each item, the answer without intervention.
    references: for each item, the gold label index.
    clusters: for each item, its speaker, dialogue or document; item ids if items are independent.
    arm: "suppress" or "amplify".
    seed: seed of the bootstrap and of the sign-flip test.
    bootstrap_draws: resamples of the clusters.
Returns:
    spec with its 95 % interval, gap_abs, self and cross effects, change of UAR, collapse, p, effect matrix.
    ValueError where the data cannot carry the score (an emotion without items, one cluster).
"""


class Specificity(evaluate.Metric):  # type: ignore[misc]
    """Signed gap between the effect on the targeted emotion and on the others; see affectbench.score."""

    def _info(self) -> Any:
        features = {
            "predictions": datasets.Sequence(datasets.Value("int64")),
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
        predictions: list[list[int]],
        base_predictions: list[int],
        references: list[int],
        clusters: list[str],
        arm: str = "suppress",
        seed: int = 0,
        bootstrap_draws: int = 10_000,
    ) -> dict[str, Any]:
        answers = np.array(predictions).T
        n_labels, n_items = answers.shape
        condition = Condition(
            arm=arm,
            dose=0.0,
            alpha=1.0,
            predictions=answers,
            margin=np.full(answers.shape, np.nan),
            draws=np.empty((0, n_items), dtype=np.int64),
        )
        outcomes = Outcomes(
            labels=tuple(map(str, range(n_labels))),
            items=np.arange(n_items),
            gold=np.array(references),
            clusters=np.array(clusters),
            base=np.array(base_predictions),
            base_margin=np.full((n_items, n_labels), np.nan),
            conditions=(condition,),
        )
        scores = score_outcomes(outcomes, seed=seed, bootstrap_draws=bootstrap_draws)
        if scores.status != "ok":
            raise ValueError(scores.reason)
        dose = scores.doses[0]
        return {
            "spec": dose.spec.value,
            "spec_low": dose.spec.low,
            "spec_high": dose.spec.high,
            "gap_abs": dose.gap_abs.value,
            "self": dose.self_effect.value,
            "cross": dose.cross_effect.value,
            "uar_base": scores.baseline.uar,
            "uar_change": dose.uar_change.value,
            "collapse_share": dose.collapse_share,
            "collapsed": dose.collapsed,
            "p": dose.p,
            "effect_matrix": dose.effect_matrix,
        }
