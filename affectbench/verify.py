"""Submitting and verifying: evaluate a submission's units, compare with what was claimed, decide.

What is published is always what the verifying machine computed, never the claim. The claim is compared so
that a mistake or an invention is found out:

- the same answers give the same numbers, to the last bit, on the same platform and versions;
- elsewhere, rounding may turn an answer that was nearly a tie. Up to CHANGED of the answers and TOLERANCE in
  a headline score are accepted with a note, beyond either the claim is rejected.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from affectbench.copies import Overlap, overlaps
from affectbench.errors import AffectbenchError, RecordError, UntrustedCodeError
from affectbench.executor import Reporter
from affectbench.outcomes import Array, Outcomes
from affectbench.placement import Options
from affectbench.predictions import from_parquet, size_of
from affectbench.published import PRECISION, Difference, changed_identity, differences
from affectbench.record import Cell, Record, cell_id
from affectbench.registry import Registry
from affectbench.selector import Selection
from affectbench.store import Store, write_atomically
from affectbench.submission import CARD, RESULTS, Folder, SubmissionError, read_folder
from affectbench.submission_archive import pack, staged
from affectbench.submitted import Part, cells_of, check_not_peeked, evaluate, parts_of
from affectbench.verification import CellVerdict, Decision, Result, Verification, hollow, worthless

TOLERANCE = 0.02
CHANGED = 0.01
SIZES = 4
"""A claimed file of predictions may be this many times larger than ours, before it is read."""


@dataclass(frozen=True)
class Evaluated:
    """What running a submission's cells gave: records, and what could not run."""

    parts: Sequence[Part]
    records: Sequence[Record]
    failed: Sequence[str]


def trusted_parts(folder: Folder, parts: Sequence[Part], trust_code: bool) -> list[Part]:
    """The parts with the user's consent to run what code they need: a selector file, files of checkpoints.

    Raises `UntrustedCodeError` where they need code and there is no consent.
    """
    if trust_code:
        return [part.trusted() for part in parts]
    models = dict.fromkeys(part.job.card.name for part in parts if part.remote)
    code = [folder.submission.selector] if folder.submission.selector is not None else []
    code += [f"code that comes with the checkpoint of {model}" for model in models]
    if code:
        raise UntrustedCodeError(
            f"{folder.submission.name} is judged by running {' and '.join(code)}, "
            "which can do all that you can",
            hint="read the files; then add --trust-code",
        )
    return list(parts)


def submit(
    source: Path, registry: Registry, options: Options, reporter: Reporter, *, trust_code: bool
) -> tuple[Evaluated, Path | None]:
    """Evaluate a submission and pack it with its results; returns them and the zip in `options.output`.

    With `options.limit`, nothing is packed: such results are those of another task.
    """
    with staged(source) as folder:
        parts = trusted_parts(folder, parts_of(folder, registry), trust_code)
        check_not_peeked(parts, options)
        done = Evaluated(parts, *evaluate(parts, registry, options, reporter))
        if options.limit is not None:
            return done, None
        shutil.rmtree(folder.root / RESULTS, ignore_errors=True)
        store = Store(options.output)
        for record in done.records:
            for path in (store.record_path(record.cell), store.predictions_path(record.cell)):
                if path.is_file():
                    target = folder.root / RESULTS / path.parent.name / path.name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)
        name = f"{folder.submission.name}-v{folder.submission.version}.zip"
        return done, pack(read_folder(folder.root), options.output / name)


def verify(
    source: Path,
    registry: Registry,
    options: Options,
    reporter: Reporter,
    *,
    published: Sequence[Record],
    trust_code: bool,
) -> tuple[Verification, Sequence[Record]]:
    """Evaluate a submission again into `options.output`, compare, look for copies, and decide.

    Also returns the records that were computed. A submission that cannot be read, or breaks a rule, is
    rejected with the reason. Raises where the fault is not the submission's: `UntrustedCodeError`, data or
    checkpoints that are missing, a full disk.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(staged(source))
            parts = parts_of(folder, registry)
            check_not_peeked(parts, options)
        except AffectbenchError as error:
            if isinstance(error, RecordError) or not _at_fault(error):
                raise
            return _rejected(source.name, str(error)), ()
        parts = trusted_parts(folder, parts, trust_code)
        done = Evaluated(parts, *evaluate(parts, registry, options, reporter))
        if done.failed:
            raise AffectbenchError("could not be evaluated here:\n" + "\n".join(done.failed))
        store = Store(options.output)
        near = overlaps(done.records, published)
        claimed = Store(folder.root / RESULTS)
        return _judged(folder, done, store, claimed, near), done.records


def publish(
    verification: Verification, source: Path, records: Sequence[Record], store: Store, to: Path
) -> None:
    """Copy what was computed here, and the submission's own files, to a folder of published results.

    Raises `SubmissionError` where the submission was not accepted.
    """
    if verification.decision == "reject":
        raise SubmissionError("a rejected submission is not published")
    target = Store(to)
    for record in records:
        if record.status == "error":
            continue
        write_atomically(target.record_path(record.cell), store.record_path(record.cell).read_bytes())
        kept = store.selections / f"{cell_id(record.cell)}.safetensors"
        if kept.is_file():  # Without scores, which are large and are no part of the claim.
            replace(Selection.load(kept), scores=None).save(target.selections / kept.name)
    with staged(source) as folder:
        own = to / "submissions" / folder.submission.name
        for name in (CARD, folder.submission.selector):
            if name is not None:
                write_atomically(own / name, folder.path(name).read_bytes())


def _at_fault(error: AffectbenchError) -> bool:
    """Whether an error is the submission's own; data that are missing here are not."""
    from affectbench.examples import DatasetError

    return not isinstance(error, DatasetError)


def _rejected(name: str, reason: str) -> Verification:
    return Verification(
        submission=name, version=None, decision="reject", reasons=[reason], notes=[], cells=[], overlaps=[],
        provenance=None,
    )  # fmt: skip


def _judged(
    folder: Folder, done: Evaluated, store: Store, claimed: Store, near: list[Overlap]
) -> Verification:
    records, damaged = claimed.read_all() if folder.has_results else ([], [])
    claims = {cell_id(record.cell): record for record in records}
    cells = [
        _verdict(record, claims.pop(cell_id(record.cell), None), store, claimed) for record in done.records
    ]
    cells += [CellVerdict(cell=record.cell, result="unknown") for record in claims.values()]
    cells += [
        CellVerdict(cell=cell, result="not_covered", reason=part.reason)
        for part in done.parts
        if part.path is None
        for cell in cells_of(part)
    ]
    reasons = [f"{item.path.name}: {item.reason}" for item in damaged]
    reasons += _reasons(cells) + _copied(near, len(done.records))
    if any(record.control for record in done.records):
        reasons.append("the selector calls itself a control, which is never ranked")
    notes = _notes(cells, near, folder)
    notes += [f"{_name(each.cell)}: wins nothing: {hollow(each)}" for each in done.records if hollow(each)]
    decision: Decision = "reject" if reasons else "accept_with_note" if notes else "accept"
    return Verification(
        submission=folder.submission.name,
        version=folder.submission.version,
        decision=decision,
        reasons=reasons,
        notes=notes,
        cells=cells,
        overlaps=near,
        provenance=done.records[0].provenance if done.records else None,
    )


def _verdict(found: Record, claim: Record | None, store: Store, claimed: Store) -> CellVerdict:
    """One evaluated cell beside its claim."""
    spec = found.headline.spec.value if found.headline is not None else None
    common: dict[str, Any] = {"cell": found.cell, "spec": spec}
    if found.status == "error":
        return CellVerdict(**common, result="failed", reason=found.reason)
    common["worthless"] = worthless(found)
    if claim is None:
        return CellVerdict(**common, result="unclaimed")
    changed = changed_identity(claim, found)
    if changed:
        reason = f"claimed for another {' and '.join(changed)}"
        return CellVerdict(**common, result="differs", reason=reason)
    moved = differences(claim, found)
    share = _changed_answers(found, claim, store, claimed)
    result: Result = "same"
    if moved or share:
        result = "close" if _within(moved) and (share is None or share <= CHANGED) else "differs"
    large = [each for each in moved if each.size > PRECISION]
    reason = "" if result == "same" else _environment(claim, found)
    return CellVerdict(**common, result=result, reason=reason, differences=large, changed_answers=share)


def _environment(claim: Record, found: Record) -> str:
    """What differs between the two machines: a difference in scores without one is no rounding."""
    names = ("platform", "torch", "transformers", "numpy", "threads", "batch_size")
    pairs = {name: (getattr(claim.provenance, name), getattr(found.provenance, name)) for name in names}
    pairs["device"] = (claim.model.device, found.model.device)
    changed = [f"{name.replace('_', ' ')} {old} → {new}" for name, (old, new) in pairs.items() if old != new]
    return ", ".join(changed) or "claimed on an equal machine with equal versions"


def _within(moved: Sequence[Difference]) -> bool:
    """Whether every headline score, and every share of replies that express what was aimed at, is within the
    tolerance; tests are not held to it, being steps."""
    held = [
        each
        for each in moved
        if each.name == "status"
        or ("replies, " in each.name and each.name.endswith(".accuracy"))
        or (
            each.name.startswith(("headline.", "calibration."))
            and not each.name.endswith((".p", ".p_random"))
        )
    ]
    return all(each.size <= TOLERANCE for each in held)


def _changed_answers(found: Record, claim: Record, store: Store, claimed: Store) -> float | None:
    """Share of all answers under the targets' interventions that are not the claimed ones."""
    if found.hashes.predictions == claim.hashes.predictions:
        return 0.0
    mine, theirs = store.predictions_path(found.cell), claimed.predictions_path(claim.cell)
    if not (mine.is_file() and theirs.is_file()):
        return None
    try:
        if any(big > SIZES * own for own, big in zip(size_of(mine), size_of(theirs), strict=True)):
            return None
        return changed_share(from_parquet(mine), from_parquet(theirs))
    except RecordError:
        return None


def changed_share(mine: Mapping[str, Outcomes], theirs: Mapping[str, Outcomes]) -> float | None:
    """Share of answers that differ between two sets of predictions of one cell; None if items differ."""
    changed: list[Array] = []
    for split, own in mine.items():
        other = theirs.get(split)
        if other is None or own.items.tolist() != other.items.tolist():
            return None
        pairs = zip(own.conditions, other.conditions, strict=False)
        changed += [(a.predictions != b.predictions).ravel() for a, b in pairs]
    return float(np.concatenate(changed).mean()) if changed else None


def _reasons(cells: Sequence[CellVerdict]) -> list[str]:
    found = []
    for each in cells:
        if each.result in ("differs", "failed", "unknown"):
            told = [_told(difference) for difference in each.differences[:3]]
            why = "; ".join(filter(None, [*told, each.reason])) or "other answers"
            found.append(f"{_name(each.cell)}: {each.result}: {why}")
    if not any(each.result in ("same", "close", "unclaimed") for each in cells) and not found:
        found.append("no cell could be evaluated")
    return found


def _notes(cells: Sequence[CellVerdict], near: Sequence[Overlap], folder: Folder) -> list[str]:
    notes = []
    counts = {result: sum(each.result == result for each in cells) for result in ("close", "not_covered")}
    if counts["close"]:
        notes.append(f"{counts['close']} cells are within the tolerance, not equal")
    if counts["not_covered"]:
        notes.append(f"{counts['not_covered']} cells of the suite are not covered: no aggregate over them")
    if not folder.has_results:
        notes.append("no results were claimed, so there was nothing to compare")
    notes += [
        f"{each.cell} shares {each.share:.0%} of its units with {each.selector} ({each.original})"
        for each in near
        if each.copied
    ]
    return notes


def _copied(near: Sequence[Overlap], cells: int) -> list[str]:
    """Selectors whose published units this submission has in every cell that can be compared."""
    copied: dict[str, set[str]] = {}
    for each in near:
        if each.copied:
            copied.setdefault(each.selector, set()).add(each.cell)
    compared = {each.cell for each in near}
    return [
        f"a copy of {selector}: at least 95 % of its units, in {len(own)} of {cells} cells"
        for selector, own in sorted(copied.items())
        if own == compared
    ]


def _told(difference: Difference) -> str:
    def shown(value: float | str | None) -> str:
        return "nothing" if value is None else f"{value:.4f}" if isinstance(value, float) else value

    return f"{difference.name} claimed {shown(difference.before)}, found {shown(difference.after)}"


def _name(cell: Cell) -> str:
    return f"{cell.model} · {cell.task} · {cell.intervention} {cell.fraction:g} {cell.identified}".rstrip()
