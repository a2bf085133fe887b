"""Ways of making a model express an emotion, side by side: told to, steered, or neither.

All rows of one task and model were decoded and judged alike, so that they compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from affectbench.expression_models import ReplyScore
from affectbench.score_models import Estimate
from affectbench.site_summary import Summary

PROMPT, PLAIN = "prompt", "plain"
NAMES = {PROMPT: "told to, nothing edited", PLAIN: "not told to, nothing edited"}
MEASURES = ("expressed", "without words", "none", "noun", "degenerate", "on topic")
TEXTS = ("model", "task", "method", "protocol", "fraction", "dose", "control")
"""Columns of `expressed_rows` that are no estimates; the others are `MEASURES`."""
Value = Estimate | str | float | bool | None


@dataclass(frozen=True)
class Way:
    """One way: `method` is a selector, `prompt` or `plain`; `score` the replies to plain prompts at the
    amplify arm's operating dose, None with its reason `why`. `record` is the entry, of a baseline any that
    has it."""

    method: str
    record: Summary
    dose: float | None
    score: ReplyScore | None
    why: str = ""

    @property
    def baseline(self) -> bool:
        return self.method in NAMES

    @property
    def control(self) -> bool:
        return self.record.control and not self.baseline

    @property
    def protocol(self) -> str:
        return "" if self.baseline else self.record.cell.intervention

    @property
    def by_dose(self) -> list[tuple[float, float]]:
        """Dose and share expressed at it; empty for a baseline."""
        assert self.record.replies is not None, "only records with replies are here"
        return [] if self.baseline else self.record.replies.by_dose

    def measures(self) -> dict[str, Estimate | None]:
        """What is known of its replies, by the names of `MEASURES`."""
        if self.score is None:
            return dict.fromkeys(MEASURES)
        found = self.score
        values = (found.accuracy, found.masked_accuracy, found.none, found.noun, found.degenerate)
        return dict(zip(MEASURES, (*values, found.topicality), strict=True))


def expressed(records: Sequence[Summary]) -> list[list[Way]]:
    """All ways of each (model, task), by content: the two baselines, methods by share expressed, controls."""
    with_replies = [record for record in records if record.replies is not None]
    grouped = groupby(sorted(with_replies, key=_key), key=_key)
    return [_ways(list(members)) for _, members in grouped]


def _key(record: Summary) -> tuple[bool, str, str, str, str]:
    hashes = record.hashes
    return (record.model.instrument, record.cell.model, record.cell.task, hashes.model, hashes.task)


def _ways(records: list[Summary]) -> list[Way]:
    first = records[0]
    assert first.replies is not None, "only records with replies are here"
    baselines = [
        Way(PROMPT, first, None, first.replies.prompting),
        Way(PLAIN, first, None, first.replies.plain),
    ]
    return baselines + sorted((_way(record) for record in records), key=_order)


def _way(record: Summary) -> Way:
    assert record.replies is not None, "only records with replies are here"
    dose = record.operating.amplify_dose if record.operating else None
    why = (
        "" if record.replies.amplified else record.reason or "no dose of the amplify arm keeps the text whole"
    )
    return Way(record.cell.selector, record, dose, record.replies.amplified, why)


def _order(way: Way) -> tuple[bool, bool, float, str, str]:
    share = way.score.accuracy if way.score is not None else None
    return (way.control, share is None, -(share.value if share else 0.0), way.record.id, way.protocol)


def expressed_rows(records: Sequence[Summary]) -> list[dict[str, Value]]:
    """One row a way: model, task, method, protocol, fraction, dose and `MEASURES`."""
    return [
        {
            "model": way.record.cell.model,
            "task": way.record.cell.task,
            "method": way.method,
            "protocol": way.protocol or None,
            "fraction": None if way.baseline else way.record.cell.fraction,
            "dose": way.dose,
            "control": way.control,
            **way.measures(),
        }
        for ways in expressed(records)
        for way in ways
    ]
