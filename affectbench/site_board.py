"""A board as the page's script gets it: columns of whole numbers and short lists of names, not rows of HTML.

Numbers are in thousandths, as they are shown. Text is an index into a list of its distinct values; a column
that is the same for a whole group has one value a group. 10,000 rows take about 1 MB.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from affectbench.record import Cell, file_part, protocol_parts
from affectbench.score_models import Estimate
from affectbench.site_data import Group, Row
from affectbench.site_format import Scale, general, shared_scale, slug, thousandths
from affectbench.site_overall import Overall, Standing
from affectbench.word_score import is_high

Kind = Literal["rank", "text", "measure", "number", "p", "plain", "status"]
Order = Literal["ascending", "descending"]
KINDS = ("scored", "control", "unscored")


@dataclass(frozen=True)
class Column:
    """One column: how it is drawn, its first sort order, and its values in the form of its kind.

    rank: `v` and `tied`; text and plain: `d` distinct values and `i` indices (`h`: links by value), for text
    also by group (`by_group`); measure: `v`, `lo`, `hi` and the ends of the common axis; number: `v`; p: `v`
    and `yes` for significant; status: `v`, `why` and `flags`, each an index into its list.
    """

    key: str
    title: str
    kind: Kind
    first: Order
    shown: bool = True
    help: str = ""
    filter: bool = False
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Board:
    """A board: its columns, the kind of each row, and the groups that the rows fall into, if any."""

    id: str
    columns: list[Column]
    kinds: list[int]
    groups: list[dict[str, Any]]
    digests: str = ""

    @cached_property
    def group_of(self) -> list[int]:
        """The place of each row's group."""
        return [place for place, group in enumerate(self.groups) for _ in range(group["rows"])]

    def payload(self) -> dict[str, Any]:
        """The board as JSON data. `digests` holds 8 characters a row, the ends of the cells' names.

        The ends of intervals are distances from the value: a fifth fewer bytes than the ends themselves.
        """
        columns = [{k: v for k, v in vars(column).items() if v not in ("", False)} for column in self.columns]
        for column in columns:
            if column["kind"] == "measure":
                column["data"] = _as_distances(column["data"])
        parts = {"columns": columns, "kinds": "".join(map(str, self.kinds)), "groups": self.groups}
        return parts | {"digests": self.digests}


def _as_distances(measure: dict[str, Any]) -> dict[str, Any]:
    rows = list(zip(measure["v"], measure["lo"], measure["hi"], strict=True))
    return measure | {
        "lo": [None if low is None else value - low for value, low, _ in rows],
        "hi": [None if high is None else high - value for value, _, high in rows],
    }


def boards_script(boards: Iterable[Board]) -> str:
    """The script file that hands the boards to a page; a script, as a page from disk may fetch nothing."""
    payload = {board.id: board.payload() for board in boards}
    text = json.dumps(payload, separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False)
    return f"window.affectbenchBoards={text};\n".replace("</", "<\\/").replace("\u2028", "\\u2028")


def cells_board(groups: Sequence[Group]) -> Board:
    """Every record as a row, by group, in the order of rank."""
    rows = [row for group in groups for row in group.rows]
    heads = [row.record.headline for row in rows]
    specs, strengths = [h.spec if h else None for h in heads], [h.strength if h else None for h in heads]
    number = _number_columns(rows)
    columns = [
        _ranks([row.rank for row in rows], [row.tied for row in rows]),
        _text("selector", "Method", [row.record.cell.selector for row in rows], help="Selector"),
        _by_group("model", "Model", [g.record.cell.model for g in groups], links="models", filter=True),
        _by_group("task", "Task", [g.record.cell.task for g in groups], links="tasks", filter=True),
        _measure("spec", "Specificity", specs, help="Suppress arm, operating dose"),
        _words(rows),
        _measure("strength", "Strength", strengths, help="Amplify arm, all doses"),
        *number[:2],
        *_module_columns(rows),
        _p("p", "p", [h.p if h else None for h in heads], [bool(h and h.significant) for h in heads]),
        _measure(
            "amplify", "Specificity, amplify", [h.spec_amplify if h else None for h in heads],
            help="Amplify arm, operating dose",
        ),
        _plain("dose", "Dose", [_doses(row) for row in rows], help="From validation: suppress / amplify"),
        _status([row.record.status for row in rows], [_why(row) for row in rows],
                [", ".join(_flags(row)) for row in rows]),
        *number[2:],
        _text("family", "Selector family", [row.record.family for row in rows], shown=False, filter=True),
        *_group_columns(groups),
    ]  # fmt: skip
    return Board(
        id="cells",
        columns=columns,
        kinds=[KINDS.index(row.kind) for row in rows],
        groups=[_group(group) for group in groups],
        digests="".join(row.id[-8:] for row in rows),
    )


def overall_board(name: str, board: Overall) -> Board:
    """Every method as a row, with its means over all comparisons and its specificity in each."""
    rows = board.standings
    columns = [
        _ranks([row.rank for row in rows], [row.tied for row in rows]),
        _text("selector", "Method", [row.method for row in rows], links="methods"),
        _measure("spec", "Mean specificity", [row.spec for row in rows], help="Suppress arm, operating dose"),
        _measure("strength", "Mean strength", [row.strength for row in rows], help="Amplify arm, all doses"),
        _measure("pres", "Mean preser­vation", [row.pres for row in rows], help="The lower of both arms"),
        _plain("significant", "Signif­icant", [f"{row.n_significant} of {len(row.by_group)}" for row in rows],
               help="In how many comparisons the specificity is significant"),
        _plain("coverage", "Scored", [f"{row.n_scored} of {len(row.by_group)}" for row in rows]),
        *_standing_columns(board.groups, rows),
        _status([_standing_status(row) for row in rows], [_short(row.problem) for row in rows],
                [""] * len(rows)),
        _text("family", "Selector family", [row.family for row in rows], shown=False, filter=True),
    ]  # fmt: skip
    kinds = [1 if row.control else 2 if row.spec is None else 0 for row in rows]
    return Board(id=name, columns=columns, kinds=kinds, groups=[])


def _standing_status(row: Standing) -> str:
    if row.n_scored < len(row.by_group):
        return "partial"
    return "ok"


def _standing_columns(groups: Sequence[Group], rows: Sequence[Standing]) -> list[Column]:
    """Specificity in each comparison, on one axis; shown at first where they are few."""
    found = [[_spec(row.by_group[place]) for row in rows] for place in range(len(groups))]
    scale = shared_scale(spec for column in found for spec in column)
    differing = [len(set(each)) > 1 for each in zip(*(_details(g.record.cell) for g in groups), strict=True)]
    columns = []
    for place, (group, specs) in enumerate(zip(groups, found, strict=True)):
        cell = group.record.cell
        details = _details(cell)
        help = f"Specificity on {cell.model}, {cell.task}, {' · '.join(details)}"
        told = (each for each, differs in zip(details, differing, strict=True) if differs)
        title = " · ".join((cell.model, cell.task, *told))
        columns.append(_measure(f"g{place}", title, specs, shown=len(groups) <= 8, help=help, scale=scale))
    return columns


def _details(cell: Cell) -> tuple[str, str, str]:
    """How a cell was run."""
    return cell.intervention, f"{general(100 * cell.fraction)} %", f"seed {cell.seed}"


def _spec(row: Row | None) -> Estimate | None:
    headline = row.record.headline if row and row.kind != "unscored" else None
    return headline.spec if headline else None


def _number_columns(rows: Sequence[Row]) -> list[Column]:
    heads = [row.record.headline for row in rows]
    found = [row.record.calibration for row in rows]
    auroc = [item.auroc if item else None for item in found]
    decoy = [item.decoy_auroc if item else None for item in found]
    lower = "The lower of both arms at the operating doses"
    return [
        _measure("pres", "Preser­vation", [h.pres if h else None for h in heads], help=lower),
        _measure("agg", "Aggre­gate", [h.agg if h else None for h in heads], help="Harmonic mean of the axes"),
        _number(
            "p_random", "p against random units", [h.p_random if h else None for h in heads], shown=False
        ),
        _measure("uar", "UAR without intervention", [row.record.uar for row in rows], shown=False),
        _number("auroc", "AUROC of known units", auroc, shown=False),
        _number("decoy_auroc", "AUROC against decoys", decoy, shown=False),
    ]


def _group_columns(groups: Sequence[Group]) -> list[Column]:
    shown: list[tuple[str, str, Callable[[Group], str], bool]] = [
        ("modality", "Modality", lambda g: g.record.model.modality, True),
        ("site", "Site", lambda g: g.record.cell.site, True),
        ("intervention", "Intervention", lambda g: g.record.cell.intervention, True),
        ("positions", "Positions", lambda g: g.record.cell.positions, False),
        ("targeting", "Targeting", lambda g: g.record.cell.targeting, False),
        ("fraction", "Units, %", lambda g: general(100 * g.record.cell.fraction), False),
        ("seed", "Seed", lambda g: str(g.record.cell.seed), False),
        ("identified", "Units identified", lambda g: g.record.cell.identified or "on this task", True),
    ]
    return [
        _by_group(key, title, [value(group) for group in groups], shown=False, filter=filtered)
        for key, title, value, filtered in shown
    ]


def _group(group: Group) -> dict[str, Any]:
    record = group.record
    cell, task = record.cell, record.task
    before, after = (cell.model, cell.task), protocol_parts(cell)
    origin = f" · units {cell.identified}" if cell.identified else ""
    targeting = "" if cell.targeting == "all_items" else f", {cell.targeting} targeting"
    unscored = f", {group.n_unscored} without a score" if group.n_unscored else ""
    return {
        "id": group.id,
        "before": "".join(f"{file_part(part)}__" for part in before),
        "after": "".join(f"__{file_part(part)}" for part in after),
        "rows": len(group.rows),
        "title": [cell.model, f"{task.id} v{task.version}", f"{cell.intervention}{targeting}"],
        "sub": f"{cell.intervention} · {general(100 * cell.fraction)} % · seed {cell.seed}{origin}",
        "instrument": record.model.instrument,
        "facts": (
            f"{task.n_items.get('test', 0)} test items in {task.n_clusters.get('test', 0)} clusters · "
            f"{task.metric.upper()} without intervention {group.baseline}, chance {task.chance:.3f} · "
            f"{len(group.rows)} rows{unscored}"
        ),
    }


def _words(rows: Sequence[Row]) -> Column:
    """Word confounds of the suppress arm; hidden at first where there is none."""
    found = [row.record.word_confound for row in rows]
    ratios = [item.suppress if item else None for item in found]
    help = "Specificity where only the words are demanded, over specificity: near 1 is the word alone"
    return _measure(
        "word", "Word confound", ratios, shown=any(ratios), help=help, scale=shared_scale(ratios, least=1.0)
    )


def _module_columns(rows: Sequence[Row]) -> list[Column]:
    """How large the selected modules are, and what damage to them takes from emotion alone; none where no row
    is of modules."""
    if not any(row.record.modules for row in rows):
        return []
    found = [row.record.necessity for row in rows]
    shares = [100 * float(np.mean(each.share)) if (each := row.record.modules) else None for row in rows]
    help = "Drop of UAR less the drop of the capability: suppress arm, operating dose"
    return [
        _measure("necessity", "Necessity", [each.difference if each else None for each in found], help=help),
        _measure(
            "necessity_random", "Necessity of random modules", shown=False, help="Mean over the draws",
            values=[each.random.difference if each and each.random else None for each in found],
        ),
        *_recovery_columns(rows),
        _number("weights", "Weights, %", shares, help="Of the weights of all modules, mean over emotions"),
    ]  # fmt: skip


def _recovery_columns(rows: Sequence[Row]) -> list[Column]:
    """What the base recovers with modules put in; none where no row is of a base."""
    found = [row.record.recovery for row in rows]
    if not any(found):
        return []
    random = [each.random if each else None for each in found]
    return [
        _measure(
            "recovery", "Recovery", [each.share if each else None for each in found],
            help="Share of what the adaptation gained in UAR: amplify arm, operating dose",
        ),
        _measure(
            "recovery_random", "Recovery of random modules", random, shown=False, help="Mean over the draws"
        ),
    ]  # fmt: skip


def _flags(row: Row) -> list[str]:
    found = [flag.replace("_", " ") for flag in row.record.flags]
    confound = row.record.word_confound
    return [*found, "word"] if confound and is_high(confound.suppress) else found


def _why(row: Row) -> str:
    record = row.record
    if record.status != "ok":
        return record.reason
    return "" if row.rank else "no rank: " + _short(row.unranked)


def _short(reason: str) -> str:
    return reason.split(": ")[0].split(";")[0] if not reason.startswith("partial") else reason


def _doses(row: Row) -> str:
    chosen = row.record.operating
    if chosen is None:
        return "–"
    return f"{general(chosen.suppress_dose)} / {general(chosen.amplify_dose)}"


def _coded(values: Sequence[str]) -> dict[str, Any]:
    distinct = sorted(set(values))
    place = {value: index for index, value in enumerate(distinct)}
    return {"d": distinct, "i": [place[value] for value in values]}


def _text(
    key: str, title: str, values: Sequence[str], *, shown: bool = True, help: str = "", filter: bool = False,
    links: str = "",
) -> Column:  # fmt: skip
    data = _coded(values)
    if links:
        data["h"] = [f"{links}/{slug(value)}.html" for value in data["d"]]
    return Column(key, title, "text", "ascending", shown, help, filter, data)


def _by_group(
    key: str, title: str, values: Sequence[str], *, shown: bool = True, filter: bool = False, links: str = ""
) -> Column:
    column = _text(key, title, values, shown=shown, filter=filter, links=links)
    column.data["by_group"] = True
    return column


def _plain(key: str, title: str, values: Sequence[str], *, help: str = "") -> Column:
    return Column(key, title, "plain", "descending", True, help, False, _coded(values))


def _measure(
    key: str,
    title: str,
    values: Sequence[Estimate | None],
    *,
    shown: bool = True,
    help: str = "",
    scale: Scale | None = None,
) -> Column:
    scale = scale or shared_scale(values)
    data = {
        "v": [thousandths(value.value) if value else None for value in values],
        "lo": [thousandths(value.low) if value else None for value in values],
        "hi": [thousandths(value.high) if value else None for value in values],
        "axis": [thousandths(scale.low), thousandths(scale.high)],
    }
    return Column(key, title, "measure", "descending", shown, help, False, data)


def _number(
    key: str, title: str, values: Sequence[float | None], *, shown: bool = True, help: str = ""
) -> Column:
    data = {"v": [thousandths(value) for value in values]}
    return Column(key, title, "number", "descending", shown, help, False, data)


def _p(key: str, title: str, values: Sequence[float | None], significant: Sequence[bool]) -> Column:
    shown = [None if value is None else 0 if value < 0.001 else thousandths(value) for value in values]
    data = {"v": shown, "yes": [int(value) for value in significant]}
    help = "Suppress arm: smallest Holm-adjusted p over the emotions"
    return Column(key, title, "p", "ascending", True, help, False, data)


def _ranks(ranks: Sequence[int | None], tied: Sequence[bool]) -> Column:
    data = {"v": list(ranks), "tied": [int(value) for value in tied]}
    return Column("rank", "Rank", "rank", "ascending", True, "Within a comparison", False, data)


def _status(status: Sequence[str], why: Sequence[str], flags: Sequence[str]) -> Column:
    data = {**_coded(status), "why": _coded(why), "flags": _coded(flags)}
    return Column("status", "Status", "status", "ascending", True, "", True, data)
