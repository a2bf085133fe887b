"""The answer-word control beside the task: is it the emotion, or only the word?

The control is scored by the functions that score the task. The ratio is that of two specificities, with an
interval from resamples of both sets of clusters, drawn independently of each other.
Source: ours. None is given where the task's own interval holds 0: there is nothing to divide by (`ratios`).
"""

from __future__ import annotations

from collections.abc import Sequence

from affectbench.effects import resampled_spec
from affectbench.outcomes import Condition, Outcomes
from affectbench.ratios import quotients, ratio_estimate
from affectbench.record import Operating
from affectbench.score import score_baseline, score_outcomes
from affectbench.score_models import ARMS, AnswerWords, Arm, DoseScore, Estimate, Scores, WordConfound

HIGH = 0.5
"""A confound that lies above this with its whole interval is flagged: most of the effect is on the words."""


def bar(n_labels: int) -> float:
    """The least UAR of a model that can do the control: half-way from chance to perfect."""
    return (1 + 1 / n_labels) / 2


def is_able(control: Outcomes) -> bool:
    """Whether the untouched model can do the control; else effects on it would say nothing."""
    uar = score_baseline(control).uar
    return uar is not None and uar >= bar(len(control.labels))


def is_high(found: Estimate | None) -> bool:
    """Whether a confound is above `HIGH` with its whole interval."""
    return found is not None and found.low is not None and found.low > HIGH


def score_answer_words(
    control: Outcomes,
    task: Outcomes,
    scores: Scores,
    operating: Operating,
    *,
    seed: int,
    bootstrap_draws: int = 10_000,
) -> tuple[AnswerWords, WordConfound]:
    """Score the control, and the task against it.

    Args:
        control: its answers under the operating doses' conditions, none where the model cannot do it.
        task: the task's answers on the test split.
        scores: what `score_outcomes` made of the task.
        operating: the doses to compare at.
        seed, bootstrap_draws: as there.
    """
    least = bar(len(control.labels))
    baseline = score_baseline(control)
    if not is_able(control):
        reason = (
            f"not able: UAR {baseline.uar or 0:.3f} on the control without intervention, {least:.3f} needed"
        )
        words = AnswerWords(baseline=baseline, doses=[])
        return words, WordConfound(uar=baseline.uar, bar=least, reason=reason)
    doses = []
    if control.conditions:
        doses = score_outcomes(control, seed=seed, bootstrap_draws=bootstrap_draws).doses
    ratios: dict[Arm, Estimate | None] = {}
    reasons = []
    for arm in ARMS:
        dose = getattr(operating, f"{arm}_dose")
        above, below = _at(doses, arm, dose), _at(scores.doses, arm, dose)
        found = _ratio(above, below, control, task, seed, bootstrap_draws)
        ratios[arm] = None if isinstance(found, str) else found
        if isinstance(found, str):
            reasons.append(f"{arm}: {found}")
    return AnswerWords(baseline=baseline, doses=doses), WordConfound(
        suppress=ratios["suppress"],
        amplify=ratios["amplify"],
        uar=baseline.uar,
        bar=least,
        reason="; ".join(reasons),
    )


def _ratio(
    above: DoseScore | None, below: DoseScore | None, control: Outcomes, task: Outcomes, seed: int, draws: int
) -> Estimate | str:
    """The ratio of one arm's scores on the control and on the task, or why there is none."""
    if below is None:
        return "no operating dose"
    if above is None:
        return f"the control was not run at dose {below.dose:g}"
    if below.spec.low is None:
        return "the task's specificity has no interval"
    if below.spec.low <= 0:
        return (
            "the task's specificity is not above 0 with its whole interval, so there is nothing to divide by"
        )
    # Different seeds: equal ones would give two sets of as many clusters the same resamples.
    numerator = resampled_spec(control, _condition(control, above), seed + 1, draws)
    denominator = resampled_spec(task, _condition(task, below), seed, draws)
    return ratio_estimate(above.spec.value / below.spec.value, quotients(numerator, denominator))


def _at(doses: Sequence[DoseScore], arm: Arm, dose: float | None) -> DoseScore | None:
    return next((found for found in doses if (found.arm, found.dose) == (arm, dose)), None)


def _condition(outcomes: Outcomes, dose: DoseScore) -> Condition:
    return next(c for c in outcomes.conditions if (c.arm, c.dose) == (dose.arm, dose.dose))
