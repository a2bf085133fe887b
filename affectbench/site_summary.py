"""What the boards need of a record: all of it but its doses, so that 10,000 of them fit and load at once.

A summary may come from an earlier build of the site, if the record's file still holds the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from affectbench.errors import RecordError
from affectbench.expression_models import ReplyScore
from affectbench.record import (
    Cell,
    Hashes,
    Headline,
    ModelInfo,
    Operating,
    Part,
    Record,
    SelectionInfo,
    Status,
    TaskInfo,
    cell_id,
)
from affectbench.score_models import (
    Calibration,
    Estimate,
    ModuleFindings,
    Necessity,
    Recognition,
    Recovery,
    TransferRatio,
    Untold,
    WordConfound,
)
from affectbench.store import Damaged, Store, read_record

FAMILIES = {
    "mean": "mean activation",
    "mean_abs": "absolute activation",
    "rate": "firing rate",
    "attribution": "attribution",
}


class Replies(Part):
    """Judged replies without their matrices: `amplified` are those of the amplify arm's operating dose;
    `by_dose` has the share expressed at each of its doses."""

    prompting: ReplyScore
    plain: ReplyScore
    amplified: ReplyScore | None
    by_dose: list[tuple[float, float]]


class Recognised(Part):
    """Recognition under one way of amplifying untold, at the `dose` chosen for it; `p_random` places its
    change of UAR among those of random units, `pres` is of the same hook."""

    targeting: Untold
    dose: float
    recognition: Recognition
    p_random: float | None
    pres: Estimate | None


class Summary(Part):
    """A record without its doses, validation, preservation, cost and provenance; `uar` is the baseline's,
    `effects` the effect matrix of the suppress arm at the operating dose, empty where there is none, `words`
    its specificity on the answer-word control, `replies` what was said where replies are judged."""

    id: str
    cell: Cell
    status: Status
    reason: str
    flags: list[str]
    control: bool
    evidence: list[str]
    hashes: Hashes
    model: ModelInfo
    task: TaskInfo
    selection: SelectionInfo | None
    operating: Operating | None
    headline: Headline | None
    word_confound: WordConfound | None
    transfer: TransferRatio | None = None
    calibration: Calibration | None
    uar: Estimate | None
    effects: list[list[float]]
    words: Estimate | None
    replies: Replies | None = None
    recognition: list[Recognised] = Field(default=[])
    modules: ModuleFindings | None = None

    @property
    def necessity(self) -> Necessity | None:
        """What damage to modules took at the suppress arm's operating dose."""
        chosen = self.operating.suppress_dose if self.operating else None
        found = self.modules.necessity if self.modules else []
        return next((each for each in found if each.dose == chosen), None)

    @property
    def recovery(self) -> Recovery | None:
        """What the base has of an adaptation's gain at the amplify arm's operating dose."""
        chosen = self.operating.amplify_dose if self.operating else None
        found = self.modules.recovery if self.modules else []
        return next((each for each in found if each.dose == chosen), None)

    @property
    def family(self) -> str:
        """The selector's family: what it ranks units by."""
        if not self.evidence:
            return "no evidence"
        return " + ".join(FAMILIES.get(name, name) for name in self.evidence)


@dataclass(frozen=True)
class Source:
    """A record to be shown: its summary, its file's bytes and their SHA-256."""

    summary: Summary
    digest: str
    content: Callable[[], bytes]

    def load(self) -> Record:
        """All of the record; that it is valid was checked before."""
        return Record.model_validate_json(self.content())


def summary_of(record: Record) -> Summary:
    """The summary of a record."""
    shared = set(Summary.model_fields) & set(Record.model_fields)
    parts = {name: getattr(record, name) for name in shared}
    return Summary(
        id=cell_id(record.cell),
        uar=_uar(record),
        effects=_effects(record),
        words=_words(record),
        replies=_replies(record),
        recognition=_recognition(record),
        **parts,
    )


def _uar(record: Record) -> Estimate | None:
    found = record.scores.baseline if record.scores else None
    if found is None or found.uar is None:
        return None
    ends = found.uar_interval.model_dump() if found.uar_interval else {}
    return Estimate(value=found.uar, **ends)


def _effects(record: Record) -> list[list[float]]:
    chosen = record.operating.suppress_dose if record.operating else None
    for dose in record.scores.doses if record.scores else ():
        if (dose.arm, dose.dose) == ("suppress", chosen):
            return dose.effect_matrix
    return []


def _words(record: Record) -> Estimate | None:
    doses = record.answer_words.doses if record.answer_words is not None else ()
    return next((dose.spec for dose in doses if dose.arm == "suppress"), None)


def _replies(record: Record) -> Replies | None:
    found = record.expression
    if found is None:
        return None
    chosen = record.operating.amplify_dose if record.operating else None
    steered = [each for each in found.conditions if each.condition == "amplify"]
    return Replies(
        prompting=_bare(found.prompting),
        plain=_bare(found.plain),
        amplified=next((_bare(each) for each in steered if each.dose == chosen), None),
        by_dose=[
            (each.dose, each.accuracy.value) for each in steered if each.dose is not None and each.accuracy
        ],
    )


def _bare(score: ReplyScore) -> ReplyScore:
    return score.model_copy(update={"matrix": [], "low": [], "high": []})


def _recognition(record: Record) -> list[Recognised]:
    found = []
    for targeting, dose in (record.operating.recognition_doses if record.operating else {}).items():
        hook = "union" if targeting == "union" else None
        kept = [p for p in record.preservation if (p.arm, p.dose, p.targeting) == ("amplify", dose, hook)]
        doses = record.scores.doses if record.scores is not None else ()
        for each in (way for d in doses if (d.arm, d.dose) == ("amplify", dose) for way in d.label_free):
            if each.targeting == targeting and each.recognition is not None:
                found.append(
                    Recognised(
                        targeting=targeting,
                        dose=dose,
                        recognition=each.recognition,
                        p_random=each.p_random,
                        pres=kept[0].pres if kept and targeting != "mix" else None,
                    )
                )
    return found


def source_of(record: Record) -> Source:
    """A record that is already in memory."""
    content = record.canonical().encode()
    return Source(summary_of(record), hashlib.sha256(content).hexdigest(), lambda: content)


def read_sources(
    folders: Sequence[Path], known: Mapping[str, Summary] | None = None
) -> tuple[list[Source], list[Damaged]]:
    """All records of results folders, and the files that cannot be trusted.

    Args:
        folders: results folders, each with a folder `records`.
        known: summaries by the SHA-256 of a record file that was found valid before; such a file is not
            parsed again.
    """
    sources: list[Source] = []
    damaged: list[Damaged] = []
    for folder in folders:
        for path in sorted(Store(folder).records.glob("*.json")):
            found = _read_source(path, known or {})
            if isinstance(found, Damaged):
                damaged.append(found)
            else:
                sources.append(found)
    return sources, damaged


def _read_source(path: Path, known: Mapping[str, Summary]) -> Source | Damaged:
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return Damaged(path, f"cannot be read: {error}")
    summary = known.get(digest)
    if summary is None or summary.id != path.stem:
        record = read_record(path)
        if isinstance(record, Damaged):
            return record
        summary = summary_of(record)
    return Source(summary, digest, lambda: _content_at(path, digest))


def _content_at(path: Path, digest: str) -> bytes:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise RecordError(f"{path} changed while the site was built", hint="build the site again")
    return content
