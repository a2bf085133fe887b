"""The alignment board: what switching emotion units off takes from alignment with EEG, and how models align.

It is made of stored analyses alone: one row for each ``eeg-intervention``, one table for each
``eeg-alignment``. Rows compare where task, recordings (or planted model), protocol, draws
and seed are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from affectbench.analysis import Analysis, Table, Value
from affectbench.figures_analysis import curve_figure, matrix_figure
from affectbench.score_models import Estimate
from affectbench.site_data import ranks
from affectbench.site_format import MISSING
from affectbench.stats import benjamini_hochberg

INTERVENTION, ALIGNMENT = "eeg-intervention", "eeg-alignment"
SUMMARY = "summary"
MATRICES = (
    *("by-measure", "ranks", "agreement", "agreement-models"),
    *("affect-families-1", "affect-families-2", "affect-families-3"),
)
CURVES = ("depth-geometric", "depth-covariance")
"""Figures of an alignment that stand on the board; all others are on its own page."""
LEVEL = 0.05
COLUMNS = (
    *("own, affective", "own, neutral", "random, affective", "random, neutral"),
    *("as loud, affective", "as loud, neutral"),
)
"""Columns of the board that are shown as they are in the summary, in percent."""
CONTROLS = {"selector": "control: selector", "model": "control: weights"}
RULE = (
    "Ranked by how much more of its alignment a model loses in affective than in neutral pieces, beyond "
    "random units of the same layers. A row is ranked where that is above 0 over subjects (sign flips, "
    "corrected by Benjamini and Hochberg for all rows that are no controls), where at most 5 % of the "
    "draws of either kind reach it, and where its own emotion's units take more than those of other "
    "emotions (95 % interval above 0). Going down, a new rank starts at the first row whose interval lies "
    "wholly below that of the first row of the current rank; rows of one rank are tied (=)."
)


@dataclass(frozen=True)
class Row:
    """One model under one selector. `values` are the columns of the summary's first row, `others` the
    same of further measures; `rank` is None where `unranked` says why."""

    analysis: Analysis
    control: str
    values: dict[str, Value]
    others: dict[str, dict[str, Value]]
    corrected: float | None = None
    rank: int | None = None
    tied: bool = False
    unranked: str = ""

    @property
    def selector(self) -> str:
        return str(self.analysis.settings.get("selector", ""))

    @property
    def untouched(self) -> Estimate | None:
        """How the model aligns as it is."""
        return _estimate(self.values.get("untouched"))

    @property
    def beyond(self) -> Estimate | None:
        return self.lost("beyond random")

    def other(self, measure: str) -> Estimate | None:
        """What a further measure says of "beyond random", in percent of what it says of the untouched
        model."""
        found = self.others.get(measure, {})
        return _percent(found.get("beyond random"), found.get("untouched"))

    def lost(self, column: str) -> Estimate | None:
        """A column in percent of the untouched model's alignment; None where that is not above 0, for
        nothing can be lost then."""
        return _percent(self.values.get(column), self.untouched)

    def p(self, column: str) -> float | None:
        """A column's p."""
        found = self.values.get(column)
        return float(found) if isinstance(found, int | float) else None


@dataclass(frozen=True)
class Board:
    """Rows that compare: ranked ones, others, controls, and those without a score. They are ranked by
    `measure`; of `further` measures each row has what is "beyond random"."""

    task: str
    protocol: str
    measure: str
    further: list[str]
    rows: list[Row]

    @property
    def simulated(self) -> bool:
        """Whether nobody listened."""
        return "recordings" not in self.rows[0].analysis.hashes.inputs

    @property
    def answer_known(self) -> bool:
        """Whether the listeners hear emotion units that were planted: then what is right is known."""
        return bool(self.rows[0].analysis.settings.get("answer_known"))

    @property
    def weak(self) -> bool:
        """Whether affect was guessed from sounds, and the units of all emotions were switched off at once."""
        return self.rows[0].analysis.settings.get("affect") == "weak"

    @property
    def instrument(self) -> bool:
        """Whether all of its models were built to calibrate."""
        return all(row.analysis.instrument for row in self.rows)


@dataclass(frozen=True)
class Models:
    """How the models of one analysis align: its figures for the board, as (title, note, SVG)."""

    analysis: Analysis
    figures: list[tuple[str, str, str]]


def intervention_boards(analyses: Sequence[Analysis]) -> list[Board]:
    """The boards of all analyses of units that were switched off, by task and protocol."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for each in analyses:
        if each.kind == INTERVENTION:
            groups.setdefault(_key(each), []).append(_row(each))
    return [_board(rows) for _, rows in sorted(groups.items())]


def aligned_models(analyses: Sequence[Analysis]) -> list[Models]:
    """What each analysis of alignment says of models and measures."""
    found = [each for each in analyses if each.kind == ALIGNMENT]
    return [Models(each, _figures(each)) for each in sorted(found, key=lambda each: (each.task, each.name))]


def _figures(analysis: Analysis) -> list[tuple[str, str, str]]:
    tag = analysis.hashes.record[:8]
    matrices = {matrix.name: matrix for matrix in analysis.matrices}
    curves = {curve.name: curve for curve in analysis.curves}
    return [
        *(
            (found.title, found.note, matrix_figure(f"{name}-{tag}", found))
            for name in MATRICES
            if (found := matrices.get(name)) is not None
        ),
        *(
            (drawn.title, drawn.note, curve_figure(f"{name}-{tag}", drawn))
            for name in CURVES
            if (drawn := curves.get(name)) is not None
        ),
    ]


def _key(analysis: Analysis) -> tuple[str, ...]:
    inputs, settings = analysis.hashes.inputs, analysis.settings
    hashes = [inputs.get(name, "") for name in ("task", "planted", "recordings", "protocol")]
    return (analysis.task, str(settings.get("protocol", "")), *hashes, str(settings.get("draws", "")),
            str(analysis.seed))  # fmt: skip


def _row(analysis: Analysis) -> Row:
    control = CONTROLS.get(str(analysis.settings.get("control", "")), "")
    error = next((finding.text for finding in analysis.findings if finding.name == "error"), "")
    summary = next((table for table in analysis.tables if table.name == SUMMARY), None)
    if summary is None or not summary.rows:
        reason = error or "no summary: made by another version"
        return Row(analysis, control, {}, {}, unranked=reason)
    first, *rest = [_by_column(summary, row) for row in summary.rows]
    others = {str(each.get("measure")): each for each in rest}
    return Row(analysis, control, first, others)


def _by_column(table: Table, row: Sequence[Value]) -> dict[str, Value]:
    return {column.name: value for column, value in zip(table.columns, row, strict=True)}


def _board(rows: Sequence[Row]) -> Board:
    rows = _corrected(rows)
    ranked = sorted((row for row in rows if not row.unranked), key=_order)
    places = ranks([row.beyond for row in ranked if row.beyond is not None])
    ranked = [
        replace(row, rank=rank, tied=places.count(rank) > 1) for row, rank in zip(ranked, places, strict=True)
    ]
    others = sorted((row for row in rows if row.unranked), key=_order)
    first = rows[0].analysis
    measure = next((str(row.values.get("measure")) for row in rows if row.values), MISSING)
    further = list(dict.fromkeys(name for row in rows for name in row.others))
    return Board(first.task, str(first.settings.get("protocol", "")), measure, further, [*ranked, *others])


def _order(row: Row) -> tuple[bool, bool, float, str]:
    return (not row.values, bool(row.control), -row.beyond.value if row.beyond else 0.0, row.analysis.name)


def _corrected(rows: Sequence[Row]) -> list[Row]:
    """Rows with their corrected p, and with the reason why they have no rank, if so."""
    tested = {
        row.analysis.name: p for row in rows if not row.control and (p := row.p("p, subjects")) is not None
    }
    corrected = benjamini_hochberg(list(tested.values())) if tested else ()
    by_name = {name: float(p) for name, p in zip(tested, corrected, strict=True)}
    found = [replace(row, corrected=by_name.get(row.analysis.name)) for row in rows]
    return [replace(row, unranked=row.unranked or _reason(row)) for row in found]


def _reason(row: Row) -> str:
    if row.control:
        return row.control
    beyond = row.beyond
    if beyond is None and row.untouched is not None:
        return "not aligned"
    if beyond is None or beyond.low is None or row.corrected is None:
        return "no interval"
    if beyond.value <= 0:
        return "not above 0"
    if row.corrected > LEVEL:
        return "not told from 0"
    drawn = [p for name in ("p, draws", "p, as loud") if (p := row.p(name)) is not None]
    if not drawn or max(drawn) > LEVEL:
        return "as random units"
    others = row.lost("beyond other emotions")
    return "as other emotions" if others is not None and (others.low or 0) <= 0 else ""


def _percent(value: Value, whole: Value) -> Estimate | None:
    part, of = _estimate(value), _estimate(whole)
    if part is None or of is None or of.low is None or of.low <= 0:
        return None
    low, high = (None if each is None else 100 * each / of.value for each in (part.low, part.high))
    return Estimate(value=100 * part.value / of.value, low=low, high=high)


def _estimate(value: Value) -> Estimate | None:
    return value if isinstance(value, Estimate) else None
