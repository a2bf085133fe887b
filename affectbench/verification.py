"""What a verification found: cell by cell, and the decision with its reasons, as JSON and as Markdown."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Literal

from pydantic import Field

from affectbench.copies import Overlap
from affectbench.published import Difference
from affectbench.record import Cell, Part, Provenance, Record, canonical_json, cell_id
from affectbench.site_data import unranked_reason
from affectbench.store import write_atomically
from affectbench.submission import Submission

Decision = Literal["accept", "accept_with_note", "reject"]
Result = Literal["same", "close", "differs", "unclaimed", "not_covered", "failed", "unknown"]
RESULTS: dict[Result, str] = {
    "same": "every number is the same",
    "close": "within the tolerance",
    "differs": "not what was claimed",
    "unclaimed": "evaluated; no result was claimed",
    "not_covered": "no units were submitted for it",
    "failed": "could not be evaluated",
    "unknown": "claimed, but no cell of the suite",
}
SHOWN = 8


class CellVerdict(Part):
    """One cell: what came of it, where it differs from the claim, and why it may be worth nothing.

    `worthless` says why the cell wins nothing (collapsed, constant, not significant); empty where it ranks.
    `changed_answers` is the share of answers that differ from the claimed ones; None where that is unknown.
    """

    cell: Cell
    result: Result
    worthless: str = ""
    reason: str = ""
    spec: float | None = None
    differences: list[Difference] = Field(default_factory=list)
    changed_answers: float | None = None


class Verification(Part):
    """The outcome of one verification."""

    schema_version: Literal[1] = 1
    submission: str
    version: int | None
    decision: Decision
    reasons: list[str]
    notes: list[str]
    cells: list[CellVerdict]
    overlaps: list[Overlap]
    provenance: Provenance | None

    def as_json(self) -> str:
        return canonical_json(self.model_dump(mode="json"))

    def as_markdown(self) -> str:
        """A report for a comment; whatever a submission wrote is shown as text."""
        title = f"## {markdown(self.submission)}" + (f", version {self.version}" if self.version else "")
        lines = [title, "", f"**{self.decision.replace('_', ' ')}**", ""]
        lines += [f"- {markdown(text)}" for text in [*self.reasons, *self.notes]]
        if self.cells:
            lines += ["", "| cell | result | specificity | changed answers | worth nothing because |"]
            lines += ["| --- | --- | --- | --- | --- |", *(_row(each) for each in self.cells)]
        moved = [each for each in self.cells if each.differences]
        for each in moved:
            lines += ["", f"Differences in {markdown(cell_id(each.cell))}:", ""]
            lines += ["| number | claimed | found |", "| --- | --- | --- |"]
            lines += [
                f"| {markdown(d.name)} | {_shown(d.before)} | {_shown(d.after)} |"
                for d in each.differences[:SHOWN]
            ]
            if len(each.differences) > SHOWN:
                lines.append(f"\nand {len(each.differences) - SHOWN} more")
        return "\n".join(lines) + "\n"


def write_submission_schemas(folder: Path) -> list[Path]:
    """Write the JSON Schemas of `submission.yaml` and of a verification, for editors and validators."""
    written = []
    for name, model in (("submission", Submission), ("verification", Verification)):
        path = folder / f"{name}.schema.json"
        write_atomically(path, canonical_json(model.model_json_schema()).encode())
        written.append(path)
    return written


def hollow(record: Record) -> str:
    """What is wrong with an effect whatever its size: it ignores the target, or it is a collapse."""
    reasons = []
    doses = record.scores.doses if record.scores is not None else []
    if doses and all(dose.spec.value == 0 for dose in doses):
        reasons.append("specificity is exactly 0 at every dose: the answers do not depend on the target")
    chosen = record.operating
    if chosen is not None and None in (chosen.suppress_dose, chosen.amplify_dose):
        reasons.append(f"no aggregate: {chosen.reason}")
    return "; ".join(reasons)


def worthless(record: Record) -> str:
    """Why a record can win nothing on the board; empty where it can."""
    return hollow(record) or unranked_reason(record)


def markdown(text: str) -> str:
    """Text of a stranger in Markdown: no markup, no table cell, no mention, no link comes of it."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*_{}\[\]()#|~@!:])", r"\\\1", html.escape(line, quote=False))


def _row(each: CellVerdict) -> str:
    cell = each.cell
    name = f"{cell.model} · {cell.task} · {cell.intervention} {cell.fraction:g}"
    result = RESULTS[each.result] + (f" ({each.reason})" if each.reason else "")
    changed = "–" if each.changed_answers is None else f"{each.changed_answers:.2%}"
    shown = [name, result, _shown(each.spec), changed, each.worthless or "–"]
    return "| " + " | ".join(text if text == "–" else markdown(text) for text in shown) + " |"


def _shown(value: float | str | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else markdown(value)
