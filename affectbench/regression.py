"""Two sets of results, cell by cell: what moved, what cannot be compared, and whether a build should fail."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from affectbench import stats
from affectbench.baseline import Results
from affectbench.differences import (
    BASE_UAR,
    STATISTICS,
    Difference,
    headline_values,
    paired_differences,
    same_items,
    unpaired_difference,
)
from affectbench.effects import LEVEL
from affectbench.record import Cell, Record
from affectbench.word_differences import CONFOUNDS, confound_differences

TOLERANCE = 0.02
"""A smaller change fails no build, however significant."""
ROUNDING = 1e-6
"""Other threads or batches move sums by less; such a difference is no test that the others pay for."""
DRAWS = 10_000
Verdict = Literal["identity changed", "missing", "regressed", "moved", "improved", "new", "unchanged", "same"]
FAILING: frozenset[str] = frozenset({"regressed", "identity changed", "missing"})
SCORE_HASHES = ("selector", "model")
"""Scores can still be set side by side where these changed; not where the task or the protocol did."""
WORST_FIRST: tuple[Verdict, ...] = (
    *("identity changed", "missing", "regressed", "moved", "improved"),
    *("new", "unchanged", "same"),
)
BETTER = {"error": 0, "insufficient": 1, "collapsed": 2, "ok": 3}


@dataclass(frozen=True)
class Change:
    """A tested difference. `p` is corrected for all tests of the check, None where size alone decided."""

    difference: Difference
    p: float | None
    verdict: Verdict


@dataclass(frozen=True)
class CellCheck:
    """The verdict on one cell, the names of the hashes that changed, and what else there is to say."""

    cell: Cell
    verdict: Verdict
    hashes: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether this cell alone fails the check."""
        return self.verdict in FAILING


@dataclass(frozen=True)
class Check:
    """A finished check: cells in the baseline's order, then new ones; and how the environment differs."""

    baseline: str
    cells: tuple[CellCheck, ...]
    environment: tuple[str, ...]
    tolerance: float

    @property
    def passed(self) -> bool:
        """No cell regressed, changed its identity or went missing."""
        return not any(cell.failed for cell in self.cells)

    @property
    def counts(self) -> dict[Verdict, int]:
        """Cells by verdict."""
        return dict(Counter(cell.verdict for cell in self.cells))


@dataclass(frozen=True)
class _Pair:
    before: Record
    after: Record
    hashes: tuple[str, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]


def compare(
    baseline: Results,
    results: Results,
    *,
    tolerance: float = TOLERANCE,
    allowed: Collection[str] = (),
    seed: int = 0,
    draws: int = DRAWS,
) -> Check:
    """Compare results with a baseline.

    Args:
        baseline, results: what was, and what is.
        tolerance: the smallest change of a statistic that counts.
        allowed: `model` and `selector`: hashes that may change; the scores then decide.
        seed, draws: of sign flips and bootstrap.

    Raises:
        RecordError: predictions that are damaged.
    """
    matched = _matched(baseline.records, results.records)
    pairs = [
        _pair(old, new, baseline, results, seed, draws) if new is not None else None for old, new in matched
    ]
    corrected = iter(_corrected([d for pair in pairs if pair for d in pair.differences], seed, draws))
    cells = []
    for (old, _), pair in zip(matched, pairs, strict=True):
        if pair is None:
            cells.append(CellCheck(old.cell, "missing", notes=("not in the results",)))
        else:
            p = [next(corrected) for _ in pair.differences]
            cells.append(_judged(pair, p, tolerance, allowed))
    used = {id(new) for _, new in matched if new is not None}
    fresh = [record for record in results.records if id(record) not in used]
    cells += [CellCheck(record.cell, "new", notes=("not in the baseline",)) for record in fresh]
    environment = _environment([pair for pair in pairs if pair])
    return Check(baseline.name, tuple(cells), environment, tolerance)


def _matched(before: Sequence[Record], after: Sequence[Record]) -> list[tuple[Record, Record | None]]:
    """Each baseline record with the same cell's; it is the same where its protocol now names another site."""

    def names(record: Record) -> tuple[object, ...]:
        cell = record.cell
        names = cell.model, cell.task, cell.selector, cell.intervention
        return *names, cell.fraction, cell.seed, cell.identification

    exact = {record.cell: record for record in after}
    by_name = {names(record): record for record in after}
    return [(old, exact.get(old.cell) or by_name.get(names(old))) for old in before]


def _pair(before: Record, after: Record, baseline: Results, results: Results, seed: int, draws: int) -> _Pair:
    changed = [
        name
        for name in ("task", "protocol", "identification", *SCORE_HASHES)
        if getattr(before.hashes, name) != getattr(after.hashes, name)
    ]
    notes: list[str] = []
    if not changed and before.hashes.selection != after.hashes.selection:
        notes.append("other units were selected")
    if _doses(before) != _doses(after):
        notes.append(f"operating doses {_doses(before)} → {_doses(after)}")
    differences: list[Difference] = []
    if set(changed) <= set(SCORE_HASHES) and not _same_scores(before, after):
        differences, said = _differences(before, after, baseline, results, seed, draws)
        notes += said
    return _Pair(before, after, tuple(changed), tuple(differences), tuple(notes))


def _doses(record: Record) -> str:
    doses = (record.operating.suppress_dose, record.operating.amplify_dose) if record.operating else ()
    return " and ".join("none" if dose is None else f"{dose:g}" for dose in doses) or "none"


def _same_scores(before: Record, after: Record) -> bool:
    same_answers = before.hashes.predictions and before.hashes.predictions == after.hashes.predictions
    values = [(headline_values(record), record.word_confound) for record in (before, after)]
    return bool(same_answers) and values[0] == values[1]


def _differences(
    before: Record, after: Record, baseline: Results, results: Results, seed: int, draws: int
) -> tuple[list[Difference], list[str]]:
    found: dict[str, Difference] = {}
    notes = []
    if before.scores is not None and after.scores is not None:
        answers = baseline.answers(before), results.answers(after)
        one, two = (each["test"].ordered() if each else None for each in answers)
        if one is None or two is None:
            notes.append("no predictions to pair: intervals compared")
        elif not same_items(one, two):
            notes.append("the two runs answered different items: intervals compared")
        else:
            paired = paired_differences(before, after, one, two, seed=seed, draws=draws)
            found = {difference.statistic: difference for difference in paired}
        words, said = confound_differences(before, after, *answers, seed=seed, draws=draws)
    else:
        words, said = [], []
    every = [found.get(name) or unpaired_difference(before, after, name) for name in STATISTICS]
    return [each for each in every if (each.before, each.after) != (None, None)] + words, notes + said


def _corrected(differences: Sequence[Difference], seed: int, draws: int) -> list[float | None]:
    """p of each difference, corrected over all of them.

    Max-T (Westfall and Young) within a family of cells that share their clusters, Holm within the differences
    of intervals, Bonferroni over these families. None where there is no test, or where so few clusters cannot
    reach significance whatever they show.
    """
    families: dict[str, list[int]] = {}
    for place, difference in enumerate(differences):
        if difference.method != "size" and abs(difference.size or 0.0) > ROUNDING:
            families.setdefault(difference.family, []).append(place)
    p: list[float | None] = [None] * len(differences)
    for places in families.values():
        members = [differences[place] for place in places]
        for place, value in zip(places, _family_p(members, len(families), seed, draws), strict=True):
            p[place] = value
    return p


def _family_p(members: Sequence[Difference], families: int, seed: int, draws: int) -> list[float | None]:
    table = [member.clusters for member in members if member.clusters is not None]
    if table:
        if families * 2.0 ** (1 - len(table[0])) > LEVEL:
            return [None] * len(members)
        raw = stats.max_t(np.stack(table, axis=1), draws=draws, seed=seed)
    else:
        raw = stats.holm([_normal_p(member.size or 0.0, member.se or 0.0) for member in members])
    return [min(1.0, families * float(value)) for value in raw]


def _normal_p(size: float, se: float) -> float:
    """Two-sided; an error of 0 makes any difference certain."""
    return math.erfc(abs(size) / se / math.sqrt(2)) if se > 0 else 0.0


def _judged(pair: _Pair, p: Sequence[float | None], tolerance: float, allowed: Collection[str]) -> CellCheck:
    control = pair.before.control
    changes = tuple(
        Change(difference, value, _verdict(difference, value, tolerance, control=control))
        for difference, value in zip(pair.differences, p, strict=True)
    )
    notes, found = list(pair.notes), {change.verdict for change in changes}
    old, new = pair.before.status, pair.after.status
    if new == "error":
        notes.append(f"ended in an error: {pair.after.reason}")
        found.add("regressed")
    elif old != new:
        notes.append(f"status {old} → {new}" + (f": {pair.after.reason}" if pair.after.reason else ""))
        found.add("moved" if control else "improved" if BETTER[new] > BETTER[old] else "regressed")
    if set(pair.hashes) - set(allowed):
        found.add("identity changed")
    found.add("unchanged" if changes else "same")
    verdict = next(each for each in WORST_FIRST if each in found)
    return CellCheck(pair.after.cell, verdict, pair.hashes, changes, tuple(notes))


def _verdict(difference: Difference, p: float | None, tolerance: float, *, control: bool) -> Verdict:
    size = difference.size
    if size is not None and (abs(size) <= max(tolerance, ROUNDING) or (p is not None and p >= LEVEL)):
        return "unchanged"
    # A control has no effect to lose: only the model below it can get worse.
    if control and difference.statistic != BASE_UAR:
        return "moved"
    fallen = difference.after is None if size is None else size < 0
    worse = fallen != (difference.statistic in CONFOUNDS.values())
    return "regressed" if worse else "improved"


def _environment(pairs: Iterable[_Pair]) -> tuple[str, ...]:
    """Versions, device and threads that differ, with the number of cells."""
    names = ("affectbench", "python", "torch", "transformers", "lm_eval", "numpy", "platform", "threads")
    found: Counter[str] = Counter()
    for pair in pairs:
        old, new = pair.before, pair.after
        states = [
            {name: getattr(each.provenance, name) for name in (*names, "batch_size")}
            | {"device": each.model.device}
            for each in (old, new)
        ]
        found.update(
            f"{name.replace('_', ' ')} {states[0][name]} → {states[1][name]}"
            for name in states[0]
            if states[0][name] != states[1][name]
        )
    return tuple(f"{text} ({count} {'cell' if count == 1 else 'cells'})" for text, count in found.items())
