"""Predictions -> specificity and steering strength, with intervals, tests and random controls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from affectbench import stats
from affectbench.effects import (
    LEVEL,
    N_TOTALS,
    Inference,
    Tally,
    direction,
    effects,
    estimate_of,
    infer,
    tally_outcomes,
)
from affectbench.errors import ScoreError
from affectbench.label_free import label_free_scores
from affectbench.outcomes import ERROR, UNPARSED, Array, Condition, Outcomes, base_of
from affectbench.score_models import (
    Arm,
    Baseline,
    DoseScore,
    EmotionScore,
    Interval,
    RandomControl,
    Scores,
    StrengthScore,
)
from affectbench.stats import FloatArray

__all__ = ["Condition", "Outcomes", "Resampled", "score_baseline", "score_outcomes", "scored"]

COLLAPSE = 0.5
"""A condition whose most frequent answer gains more than this share is flagged as collapsed."""


@dataclass(frozen=True)
class Resampled:
    """Specificity by condition and strength in the resamples (D,) that their intervals come from; in row d
    all are of one resample of clusters."""

    spec: dict[tuple[Arm, float], FloatArray]
    strength: FloatArray | None


def score_outcomes(outcomes: Outcomes, *, seed: int, bootstrap_draws: int = 10_000) -> Scores:
    """The scores of `scored` alone."""
    return scored(outcomes, seed=seed, bootstrap_draws=bootstrap_draws)[0]


def scored(
    outcomes: Outcomes, *, seed: int, bootstrap_draws: int = 10_000
) -> tuple[Scores, Resampled | None]:
    """Score one cell on one split.

    Args:
        outcomes: predictions of all conditions.
        seed: seed of the cluster bootstrap and of the sign-flip test.
        bootstrap_draws: resamples, and the number of sign patterns.

    Returns:
        Scores; `insufficient` with a reason where the data cannot carry them: a label without items or a
        baseline without one parsed answer (no doses are scored), fewer than two clusters or too few for
        every resample to hold all emotions (doses are scored, intervals are None). With the resamples, None
        where there are no intervals.

    Raises:
        ScoreError: no conditions, or fewer than 100 draws, which cannot hold a 95 % interval.
    """
    if not outcomes.conditions:
        raise ScoreError("there is no condition to score")
    if bootstrap_draws < 100:
        raise ScoreError(f"at least 100 bootstrap draws are needed, got {bootstrap_draws}")
    outcomes = outcomes.ordered()
    baseline = score_baseline(outcomes)
    reason = _unscorable(outcomes, baseline)
    doses: list[DoseScore] = []
    strength = resampled = None
    if not reason:
        tally = tally_outcomes(outcomes)
        inference = infer(tally, seed, bootstrap_draws)
        reason = inference.reason
        doses = [_dose_score(outcomes, tally, inference, k) for k in range(len(outcomes.conditions))]
        doses = [
            dose.model_copy(update={"label_free": label_free_scores(outcomes, each, seed, bootstrap_draws)})
            for dose, each in zip(doses, outcomes.conditions, strict=True)
        ]
        strength = _strength_score(outcomes, tally, inference, doses)
        if inference.resamples is not None and baseline.uar is not None:
            interval = _uar_interval(baseline.uar, tally, seed, bootstrap_draws)
            baseline = baseline.model_copy(update={"uar_interval": interval})
        resampled = _resampled(tally, inference, doses)
    found = Scores(
        labels=list(outcomes.labels),
        baseline=baseline,
        doses=doses,
        strength=strength,
        status="insufficient" if reason else "ok",
        reason=reason,
        seed=seed,
        bootstrap_draws=bootstrap_draws,
    )
    return found, resampled


def _resampled(tally: Tally, inference: Inference, doses: list[DoseScore]) -> Resampled | None:
    if inference.resamples is None:
        return None
    width = N_TOTALS + 3 * tally.n_labels
    # Copies: views would keep all statistics of all resamples in memory.
    spec = {(d.arm, d.dose): inference.resamples[:, k * width + 2].copy() for k, d in enumerate(doses)}
    strength = None if tally.strength_weights is None else inference.resamples[:, -1].copy()
    return Resampled(spec, strength)


def _uar_interval(uar: float, tally: Tally, seed: int, draws: int) -> Interval:
    """Percentiles of the UAR without intervention, in the resamples that all scores are computed in."""
    n_labels = tally.n_labels

    def uars(sums: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore"):  # A resample without an item of some label has no UAR.
            recalls: FloatArray = sums[:, n_labels:] / sums[:, :n_labels]
        return np.asarray(recalls.mean(axis=1, keepdims=True))

    found = estimate_of(uar, stats.bootstrap(tally.table[:, : 2 * n_labels], uars, draws=draws, seed=seed))
    return Interval(low=found.low, high=found.high)


def score_baseline(outcomes: Outcomes) -> Baseline:
    """Recall, accuracy and confusion without intervention."""
    n_labels = len(outcomes.labels)
    gold = outcomes.gold.astype(np.int64)  # int8 codes would overflow in the product below
    n_gold = np.bincount(gold, minlength=n_labels)
    parsed = outcomes.base >= 0
    pairs = gold[parsed] * n_labels + outcomes.base[parsed]
    confusion = np.bincount(pairs, minlength=n_labels**2).reshape(n_labels, n_labels)
    recall = [float(confusion[e, e] / n) if n else None for e, n in enumerate(n_gold)]
    known = [value for value in recall if value is not None]
    return Baseline(
        uar=float(np.mean(known)) if len(known) == n_labels else None,
        accuracy=float(np.trace(confusion) / len(outcomes.gold)),
        recall=recall,
        n_items=len(outcomes.gold),
        n_clusters=stats.cluster_codes(outcomes.clusters)[1],
        n_unparsed=int((outcomes.base == UNPARSED).sum()),
        n_error=int((outcomes.base == ERROR).sum()),
        confusion=confusion.tolist(),
    )


def _unscorable(outcomes: Outcomes, baseline: Baseline) -> str:
    empty = [label for label, recall in zip(outcomes.labels, baseline.recall, strict=True) if recall is None]
    if empty:
        return f"no items with gold label {', '.join(empty)}: the effect matrix would have an empty column"
    own_base = any(condition.base is not None for condition in outcomes.conditions)
    if (outcomes.base < 0).all() and not own_base:
        return "the model without intervention gives no item a label: there is nothing to change"
    return ""


def _dose_score(outcomes: Outcomes, tally: Tally, inference: Inference, k: int) -> DoseScore:
    condition, n_labels = outcomes.conditions[k], len(outcomes.labels)
    first = k * (N_TOTALS + 3 * n_labels)
    matrix = tally.unpack(tally.table.sum(axis=0, dtype=np.float64)[None])[0][0, k]
    found = effects(matrix, tally.direction[k])
    random, gaps = _random_control(outcomes, condition, float(inference.point[first + 2]))
    emotions = _emotion_scores(outcomes, inference, k, gaps)
    spec, corrected = inference.estimate(first + 2), inference.corrected(first + 2)
    p = _smallest_p(emotions)
    base = base_of(outcomes, condition)
    share = _largest_share(condition.predictions).max() - _largest_share(base[None])[0]
    collapsed = bool(share > COLLAPSE) and condition.base is None
    margins = condition.margin[np.isfinite(condition.margin)]
    baseline_uar = float(np.mean([e.base_recall for e in emotions]))
    return DoseScore(
        arm="amplify" if tally.direction[k] > 0 else "suppress",
        dose=float(condition.dose),
        alpha=float(condition.alpha),
        effect_matrix=matrix.tolist(),
        self_effect=inference.estimate(first),
        cross_effect=inference.estimate(first + 1),
        cross_row=found.cross_row.tolist(),
        cross_column=effects(matrix.T, 1.0).cross_row.tolist(),
        gap=float(found.self_effect - found.cross_effect),
        spec=spec,
        spec_corrected=corrected,
        gap_abs=inference.estimate(first + 3),
        uar=baseline_uar + float(inference.point[first + 4]),
        uar_change=inference.estimate(first + 4),
        collapse_share=float(share),
        collapsed=collapsed,
        n_unparsed=int((condition.predictions == UNPARSED).sum()),
        n_error=int((condition.predictions == ERROR).sum()),
        emotions=emotions,
        trs=inference.estimate(first + 5),
        flip_rate=float((condition.predictions != base).mean()),
        margin_mean=float(margins.mean(dtype=np.float64)) if margins.size else None,
        random=random,
        p=p,
        significant=_significant(spec.value, corrected, p, random) and not collapsed,
    )


def _smallest_p(emotions: list[EmotionScore]) -> float | None:
    """The smallest Holm-adjusted p among emotions that moved as claimed, 1 if none did; None if untested."""
    tested = [emotion for emotion in emotions if emotion.p_holm is not None]
    claimed = [emotion.p_holm for emotion in tested if emotion.p_holm is not None and emotion.spec.value > 0]
    return min(claimed, default=1.0) if tested else None


def _significant(spec: float, corrected: Interval, p: float | None, random: RandomControl | None) -> bool:
    """Positive, away from 0 in the test and the corrected interval, and above what random units do."""
    if p is None or corrected.low is None or random is None:
        return False
    return bool(spec > 0 and p < LEVEL and corrected.low > 0 and random.p < LEVEL)


def _largest_share(answers: Array) -> FloatArray:
    """(M, N) codes -> (M,) share of the most frequent label among all items, unparsed ones included."""
    counts = [int(np.bincount(row[row >= 0], minlength=1).max()) for row in answers]
    return np.array(counts, dtype=np.float64) / len(answers.T)


def _emotion_scores(
    outcomes: Outcomes, inference: Inference, k: int, random_gaps: FloatArray | None
) -> list[EmotionScore]:
    n_labels = len(outcomes.labels)
    first = k * (N_TOTALS + 3 * n_labels) + N_TOTALS
    base = base_of(outcomes, outcomes.conditions[k])
    p = None if inference.p is None else inference.p[k]
    adjusted = None if p is None else stats.holm(p)
    scores = []
    for e, label in enumerate(outcomes.labels):
        spec = inference.estimate(first + n_labels + e)
        own = outcomes.gold == e
        scores.append(
            EmotionScore(
                label=label,
                n_items=int(own.sum()),
                base_recall=float((base[own] == e).mean()),
                self_effect=inference.estimate(first + e),
                spec=spec,
                trs=inference.estimate(first + 2 * n_labels + e),
                p=None if p is None else float(p[e]),
                p_holm=None if adjusted is None else float(adjusted[e]),
                z_random=None if random_gaps is None else z_score(spec.value, random_gaps[:, e]),
                p_random=None if random_gaps is None else control_p(spec.value, random_gaps[:, e]),
            )
        )
    return scores


def z_score(value: float, controls: FloatArray) -> float | None:
    """(value - mean) / sd of (R,) control values; None where they do not vary."""
    sd = float(controls.std(ddof=1))
    return float((value - controls.mean()) / sd) if sd > 1e-12 else None


def control_p(value: float, controls: FloatArray) -> float:
    """(b + 1) / (R + 1), b = control values at or above the value."""
    return float(((controls >= value - 1e-12).sum() + 1) / (len(controls) + 1))


def _random_control(
    outcomes: Outcomes, condition: Condition, spec: float
) -> tuple[RandomControl | None, FloatArray | None]:
    """The random draws as a reference for the whole cell, and their (R, E) signed row gaps for each emotion.

    None for both with fewer draws than emotions: rows of one control must come from different draws.
    """
    n_draws, n_labels = len(condition.draws), len(outcomes.labels)
    if n_draws < n_labels:
        return None, None
    change, shift = _draw_effects(outcomes, condition)
    rows = (np.arange(n_draws)[:, None] + np.arange(n_labels)) % n_draws
    sign = direction(condition)
    controls = effects(change[rows], sign)
    specs = sign * (controls.self_effect - controls.cross_effect)
    shifts = shift[rows, np.arange(n_labels)].mean(axis=1)
    every_target = effects(np.repeat(change[:, None, :], n_labels, axis=1), sign)
    control = RandomControl(
        n_draws=n_draws,
        spec=specs.tolist(),
        spec_mean=float(specs.mean()),
        spec_sd=float(specs.std(ddof=1)),
        z=z_score(spec, specs),
        p=control_p(spec, specs),
        trs_mean=float(shifts.mean()),
        trs_sd=float(shifts.std(ddof=1)),
        self_mean=float(controls.self_effect.mean()),
        cross_mean=float(controls.cross_effect.mean()),
    )
    return control, sign * every_target.row_gap


def _draw_effects(outcomes: Outcomes, condition: Condition) -> tuple[FloatArray, FloatArray]:
    """(R, E) change of recall under each draw, and (R, E) shift of the rate of each label as a target."""
    n_labels = len(outcomes.labels)
    label = np.arange(n_labels)[:, None]
    own = outcomes.gold == label
    base = base_of(outcomes, condition) == label
    hits = (condition.draws[:, None, :] == label).astype(np.int8) - base.astype(np.int8)
    change = (hits * own).sum(axis=2) / own.sum(axis=1)
    if condition.arm == "suppress":
        return change, -change
    return change, (hits * ~own).sum(axis=2) / (~own).sum(axis=1)


def _strength_score(
    outcomes: Outcomes, tally: Tally, inference: Inference, doses: list[DoseScore]
) -> StrengthScore | None:
    if tally.strength_weights is None:
        return None
    curves = np.array([[emotion.trs.value for emotion in dose.emotions] for dose in doses])
    slopes = _margin_slopes(outcomes)
    uncollapsed = [dose.trs.value for dose in doses if dose.arm == "amplify" and not dose.collapsed]
    return StrengthScore(
        strength=inference.estimate(len(inference.point) - 1),
        # Rounded like every estimate: the last digits of a sum depend on the processor's order of adding.
        per_emotion=np.round(tally.strength_weights @ curves, 12).tolist(),
        slope=round(float(slopes.mean()), 12) if slopes.size else None,
        anti_steerable_share=float((slopes < 0).mean()) if slopes.size else None,
        max_trs=max(uncollapsed, default=None),
    )


def _margin_slopes(outcomes: Outcomes) -> FloatArray:
    """Slopes of margin on alpha for each (target, item) whose margin is known at 0 and every amplify dose."""
    amplify = [condition for condition in outcomes.conditions if condition.arm == "amplify"]
    if any(condition.base is not None for condition in amplify):
        return np.empty(0)  # The margins without intervention are of another question.
    margins = np.stack([outcomes.base_margin.T, *(condition.margin for condition in amplify)])
    known = np.isfinite(margins).all(axis=0)
    return stats.line([0.0, *(condition.alpha for condition in amplify)], margins[:, known])[0]
