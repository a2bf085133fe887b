"""What follows from predictions and preservation: the operating dose of each arm, chosen on validation, and
the headline reported there on test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from affectbench.effects import estimate_of
from affectbench.label_free import macro_f1_of
from affectbench.outcomes import ANSWER_WORDS, Outcomes
from affectbench.preservation_score import aggregate, aggregates, resampled_preservation
from affectbench.record import Headline, Operating, ValidationPoint
from affectbench.score import Resampled, score_outcomes, scored
from affectbench.score_models import Arm, DoseScore, Estimate, PreservationScore, Scores, Untold
from affectbench.stats import FloatArray
from affectbench.word_score import score_answer_words

KEEP = 0.9
"""The least preservation an operating dose should have."""
CHECK_DRAWS = 200
"""Bootstrap draws on validation, whose intervals nobody reports."""


def judged(
    outcomes: Mapping[str, Outcomes],
    kept: list[PreservationScore],
    seed: int,
    carried: Operating | None = None,
) -> dict[str, Any]:
    """The parts of a record that follow from predictions and preservation alone: status, scores, headline.

    Without answers on validation, operating doses are `carried`: they were chosen on another benchmark.
    """
    scores, resampled = scored(outcomes["test"], seed=seed)
    points, operating = operating_of(outcomes, kept, seed, carried)
    headline = headline_of(scores, resampled, operating, kept) if scores.status == "ok" else None
    if scores.status != "ok":
        status, reason = "insufficient", scores.reason
    elif headline is None:
        status, reason = "collapsed", operating.reason
    else:
        doses = {("suppress", operating.suppress_dose), ("amplify", operating.amplify_dose)}
        fallen = [dose for dose in scores.doses if (dose.arm, dose.dose) in doses and dose.collapsed]
        status = "collapsed" if fallen else "ok"
        reason = ", ".join(f"{dose.arm} {dose.dose:g} collapses the answers" for dose in fallen)
    parts = {
        "status": status,
        "reason": reason,
        "scores": scores,
        "validation": points,
        "operating": operating,
        "preservation": kept,
        "headline": headline,
    }
    if ANSWER_WORDS in outcomes:
        words, confound = score_answer_words(
            outcomes[ANSWER_WORDS], outcomes["test"], scores, operating, seed=seed
        )
        parts |= {"answer_words": words, "word_confound": confound}
    return parts


def operating_of(
    outcomes: Mapping[str, Outcomes],
    kept: list[PreservationScore],
    seed: int,
    carried: Operating | None = None,
) -> tuple[list[ValidationPoint], Operating]:
    """The conditions on validation, and the doses chosen from them; without any, `carried`."""
    if "validation" not in outcomes:
        return [], carried if carried is not None else choose_operating([])
    points = _validation(outcomes["validation"], kept, seed)
    doses = recognition_doses(outcomes["validation"], kept)
    return points, choose_operating(points).model_copy(update={"recognition_doses": doses})


def recognition_doses(outcomes: Outcomes, kept: Sequence[PreservationScore]) -> dict[Untold, float]:
    """For each way to amplify untold, the dose of largest macro-F1 among those that preserve at least 0.9, or
    the one that preserves most; the smaller of equals. Preservation that was not measured bars nothing."""
    pres = {(each.dose, each.targeting): each.pres for each in kept if each.arm == "amplify"}
    found: dict[Untold, list[tuple[bool, float, float, float]]] = {}
    for condition in sorted(outcomes.conditions, key=lambda each: each.dose):
        for way in condition.steered:
            name = cast(Untold, way.targeting)
            score = pres.get((condition.dose, "union" if name == "union" else None))
            keeps = score is None or score.value >= KEEP
            reached = macro_f1_of(outcomes.gold, way.answers, len(outcomes.labels))
            order = reached if keeps or score is None else score.value
            found.setdefault(name, []).append((keeps, order, -condition.dose, condition.dose))
    return {name: max(every)[-1] for name, every in found.items()}


def _validation(outcomes: Outcomes, kept: list[PreservationScore], seed: int) -> list[ValidationPoint]:
    told = [score for score in kept if score.targeting is None]
    pres = {(score.arm, score.dose): score.pres.value if score.pres else None for score in told}
    checked = score_outcomes(outcomes, seed=seed, bootstrap_draws=CHECK_DRAWS)
    return [
        ValidationPoint(
            arm=dose.arm,
            dose=dose.dose,
            spec=dose.spec.value,
            pres=pres[dose.arm, dose.dose],
            collapsed=dose.collapsed,
        )
        for dose in checked.doses
    ]


def choose_operating(points: Sequence[ValidationPoint]) -> Operating:
    """For each arm the dose of largest spec among those that preserve at least 0.9 and do not collapse.

    An arm where no dose preserves that much takes the one that preserves most, and `reason` says so. An arm
    where every dose collapses, or that has none, has no operating dose.
    """
    reasons: list[str] = []
    suppress = _choose([p for p in points if p.arm == "suppress"], "suppress", reasons)
    amplify = _choose([p for p in points if p.arm == "amplify"], "amplify", reasons)
    return Operating(suppress_dose=suppress, amplify_dose=amplify, reason="; ".join(reasons))


def _choose(points: list[ValidationPoint], arm: str, reasons: list[str]) -> float | None:
    standing = [p for p in points if not p.collapsed]
    if not standing:
        reasons.append(f"{arm}: every dose collapses the answers" if points else f"{arm}: not run")
        return None
    kept = [p for p in standing if p.pres is not None and p.pres >= KEEP]
    if kept:
        reasons.append(f"{arm}: largest specificity on validation with preservation >= {KEEP}")
        return max(kept, key=lambda p: p.spec).dose
    measured = [p for p in standing if p.pres is not None]
    if measured:
        reasons.append(f"{arm}: no dose keeps preservation >= {KEEP}, so the one that keeps most")
        return max(measured, key=lambda p: p.pres or 0.0).dose
    reasons.append(f"{arm}: largest specificity on validation; preservation was not measured")
    return max(standing, key=lambda p: p.spec).dose


def headline_of(
    scores: Scores,
    resampled: Resampled | None,
    operating: Operating,
    preservation: Sequence[PreservationScore],
) -> Headline | None:
    """The three axes at the operating doses; None where the suppress arm has none.

    `pres` is the lower of the two arms' preservation, and None, like `agg`, if an arm lacks it. A dose that
    collapses on test takes no aggregate. In each resample the lower arm is found anew; `agg` joins the
    `resampled` specificity and strength, of one resample of clusters, with a resample of preservation.
    """
    suppress = _dose(scores, "suppress", operating.suppress_dose)
    amplify = _dose(scores, "amplify", operating.amplify_dose)
    if suppress is None:
        return None
    reported = [dose for dose in (suppress, amplify) if dose is not None]
    told = [score for score in preservation if score.targeting is None]
    kept = [p for dose in reported for p in told if (p.arm, p.dose) == (dose.arm, dose.dose)]
    pres, drawn = _lower(kept, scores) if len(kept) == len(reported) else (None, None)
    strength = scores.strength.strength if scores.strength else None
    ranked = scores.status == "ok" and amplify is not None and not any(d.collapsed for d in reported)
    agg = None
    if ranked and strength is not None and pres is not None:
        agg = _aggregate(suppress, strength, pres, resampled, drawn)
    return Headline(
        spec=suppress.spec,
        spec_amplify=amplify.spec if amplify else None,
        strength=strength,
        pres=pres,
        agg=agg,
        p=suppress.p,
        p_random=suppress.random.p if suppress.random else None,
        significant=suppress.significant,
    )


def _lower(kept: Sequence[PreservationScore], scores: Scores) -> tuple[Estimate | None, FloatArray | None]:
    """The lowest preservation of these conditions, and its resamples; None where one was not measured."""
    known = [score.pres.value for score in kept if score.pres is not None]
    if len(known) < len(kept):
        return None, None
    counts = [score.counts for score in kept]
    drawn = np.min(resampled_preservation(counts, seed=scores.seed, draws=scores.bootstrap_draws), axis=0)
    return estimate_of(min(known), drawn), drawn


def _aggregate(
    suppress: DoseScore,
    strength: Estimate,
    pres: Estimate,
    resampled: Resampled | None,
    drawn: FloatArray | None,
) -> Estimate:
    value = aggregate(suppress.spec.value, strength.value, pres.value) or 0.0
    if resampled is None or resampled.strength is None or drawn is None:
        return Estimate(value=value)
    spec = resampled.spec["suppress", suppress.dose]
    return estimate_of(value, aggregates(spec, resampled.strength, drawn[: len(spec)]))


def _dose(scores: Scores, arm: Arm, dose: float | None) -> DoseScore | None:
    return next((d for d in scores.doses if d.arm == arm and d.dose == dose), None)
