"""The numbers of a record that are published, by name, and how two records of one cell differ in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from affectbench.expression_models import ReplyScore
from affectbench.record import Part, Record
from affectbench.score_models import DoseScore, Estimate

PRECISION = 0.001
"""What is published is read to three decimals; a change below this is none."""
IDENTITY = ("task", "protocol", "model", "selector", "selection", "identification")


class Difference(Part):
    """One published number, or the status, in two records; a side is None where it has no such number."""

    name: str
    before: float | str | None
    after: float | str | None

    @property
    def size(self) -> float:
        """How far the number moved; infinite where it came, went, or is no number."""
        if isinstance(self.before, float) and isinstance(self.after, float):
            return abs(self.after - self.before)
        return float("inf")


def published_numbers(record: Record) -> dict[str, float]:
    """Every published number of a record by a readable name, such as `headline.spec.low`."""
    return dict(_numbers(record))


def differences(before: Record, after: Record, *, above: float = 0.0) -> list[Difference]:
    """Where two records differ by more than `above`: status, numbers, and numbers that one of them lacks."""
    found = []
    if before.status != after.status:
        found.append(Difference(name="status", before=before.status, after=after.status))
    old, new = published_numbers(before), published_numbers(after)
    for name in dict.fromkeys([*old, *new]):
        difference = Difference(name=name, before=old.get(name), after=new.get(name))
        if difference.size > above:
            found.append(difference)
    return found


def changed_identity(before: Record, after: Record) -> list[str]:
    """Which of task, protocol, model, selector, selection and identification are not the same by content."""
    return [name for name in IDENTITY if getattr(before.hashes, name) != getattr(after.hashes, name)]


def _numbers(record: Record) -> Iterator[tuple[str, float]]:
    if record.headline is not None:
        for name in ("spec", "spec_amplify", "strength", "pres", "agg"):
            yield from _estimate(f"headline.{name}", getattr(record.headline, name))
        for name in ("p", "p_random"):
            yield from _value(f"headline.{name}", getattr(record.headline, name))
    if record.word_confound is not None:
        for name in ("suppress", "amplify"):
            yield from _estimate(f"word_confound.{name}", getattr(record.word_confound, name))
        yield from _value("word_confound.uar", record.word_confound.uar)
    if record.transfer is not None:
        yield from _estimate("transfer.ratio", record.transfer.ratio)
    if record.scores is not None:
        yield from _value("baseline.uar", record.scores.baseline.uar)
        for end in ("low", "high"):
            yield from _value(f"baseline.uar.{end}", getattr(record.scores.baseline.uar_interval, end, None))
        yield from _doses("", record.scores.doses, record.task.labels)
    if record.answer_words is not None:
        yield from _doses("answer words ", record.answer_words.doses, record.task.labels)
    for kept in record.preservation:
        for name in ("kl", "capability", "degenerate_rate", "pres"):
            at = f"{kept.arm} {kept.dose:g}{f'.{kept.targeting}' if kept.targeting else ''}"
            yield from _estimate(f"{at}.{name}", getattr(kept, name))
    if record.expression is not None:
        for score in (record.expression.prompting, record.expression.plain, *record.expression.conditions):
            yield from _replies(score, record.task.labels)
    if record.calibration is not None:
        for name in ("auroc", "decoy_auroc", "precision_at_k"):
            yield from _value(f"calibration.{name}", getattr(record.calibration, name))


def _doses(of: str, doses: Sequence[DoseScore], labels: Sequence[str]) -> Iterator[tuple[str, float]]:
    for dose in doses:
        at = f"{of}{dose.arm} {dose.dose:g}"
        for name in ("spec", "self_effect", "cross_effect", "trs"):
            yield from _estimate(f"{at}.{name}", getattr(dose, name))
        yield from _value(f"{at}.uar", dose.uar)
        for each in dose.label_free:
            yield from _estimate(f"{at}.{each.targeting}.uar_change", each.uar_change)
        for label, row in zip(labels, dose.effect_matrix, strict=True):
            for other, value in zip(labels, row, strict=True):
                yield f"{at}.effect.{label}.{other}", value


def _replies(score: ReplyScore, labels: Sequence[str]) -> Iterator[tuple[str, float]]:
    dose = "" if score.dose is None else f" {score.dose:g}"
    at = f"{score.prompt} replies, {score.condition}{dose}"
    for name in ("accuracy", "masked_accuracy", "none", "noun", "stem", "degenerate", "capped", "topicality"):
        yield from _estimate(f"{at}.{name}", getattr(score, name))
    for name in ("distinct_3", "judged_share"):
        yield from _value(f"{at}.{name}", getattr(score, name))
    for aimed, row in zip(score.rows, score.matrix, strict=True):
        for judged, value in zip((*labels, "none"), row, strict=True):
            yield f"{at}.judged.{aimed}.{judged}", value


def _estimate(name: str, estimate: Estimate | None) -> Iterator[tuple[str, float]]:
    if estimate is not None:
        yield name, float(estimate.value)
        yield from _value(f"{name}.low", estimate.low)
        yield from _value(f"{name}.high", estimate.high)


def _value(name: str, value: float | None) -> Iterator[tuple[str, float]]:
    if value is not None:
        yield name, float(value)
