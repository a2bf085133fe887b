"""The pages of the site but for the entries: index, comparisons, methods, models, tasks, and the guide."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from affectbench import __version__
from affectbench.analysis import Analysis
from affectbench.conformance_report import Conformance
from affectbench.figures_board import Mark, Overlap, overlap_bars, pareto
from affectbench.recognition import Improvement, improvements
from affectbench.site_alignment import COLUMNS, RULE, aligned_models, intervention_boards
from affectbench.site_analysis import FIRST, by_kind, whole_or_digits
from affectbench.site_analysis import shown as shown_analysis
from affectbench.site_board import Board, boards_script, cells_board, overall_board
from affectbench.site_conformance import shown
from affectbench.site_data import (
    CONTROL_REASON,
    RANK_RULE,
    CalibrationBoard,
    Group,
    calibration_board,
    groups,
)
from affectbench.site_expressed import expressed_board
from affectbench.site_format import general, interval, measured, number, p_value, slug, spread, thousands
from affectbench.site_identification import fraction_curves, identified_board
from affectbench.site_overall import OVERALL_RULE, overall
from affectbench.site_overlap import Overlaps, overlaps
from affectbench.site_readouts import readouts_board
from affectbench.site_static import static_table
from affectbench.site_summary import Summary
from affectbench.site_transfer import transfer_board
from affectbench.store import Damaged
from affectbench.submission import Submission

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

FIGURES = 4
"""Comparisons drawn on the index page: the first ones."""


class File(NamedTuple):
    """A file of the site: its name, what its content follows from, and how to make it.

    A file with the key of the last build is taken over; one without a key is made each time.
    """

    name: str
    key: str
    make: Callable[[], bytes]


Files = Iterator[File]


@dataclass(frozen=True)
class Contents:
    """All that the boards are made of: summaries in the order of their cells' names, the digests of their
    records by cell name, the cards of submitted methods by name, conformance reports by model, and analyses
    in the order of their names."""

    records: Sequence[Summary]
    digests: Mapping[str, str]
    damaged: Sequence[Damaged]
    cards: Mapping[str, Submission] = field(default_factory=dict)
    conformance: Mapping[str, Conformance] = field(default_factory=dict)
    analyses: Sequence[Analysis] = ()

    @cached_property
    def groups(self) -> list[Group]:
        return groups(self.records)

    @cached_property
    def cells(self) -> Board:
        return cells_board(self.groups)

    @cached_property
    def overall(self) -> list[tuple[str, Board]]:
        """Title and board of real models, then of instruments: they are never averaged together."""
        found: list[tuple[str, Board]] = []
        kinds = (
            ("overall", False, "Overall board"),
            ("instruments", True, "Overall board: calibration instruments"),
        )
        for name, instrument, title in kinds:
            own = [
                group
                for group in self.groups
                if group.record.model.instrument == instrument and group.record.cell.identification is None
            ]
            if own:
                found.append((title, overall_board(name, overall(own))))
        return found

    @cached_property
    def calibration(self) -> CalibrationBoard | None:
        return calibration_board(self.records)

    def rows(self, wanted: Callable[[Group], bool]) -> list[int]:
        """Places in the board of cells of the rows of these groups."""
        found: list[int] = []
        start = 0
        for group in self.groups:
            if wanted(group):
                found += range(start, start + len(group.rows))
            start += len(group.rows)
        return found


def board_files(environment: Environment, contents: Contents) -> Files:
    """Index, guide, the boards' data, and the pages of comparisons, methods, models and tasks."""
    boards = [contents.cells, *(board for _, board in contents.overall)] if contents.records else []
    guide = {"root": "", "rank_rule": RANK_RULE, "overall_rule": OVERALL_RULE}
    yield File("assets/boards.js", "", lambda: boards_script(boards).encode())
    yield _page(environment, "index", "index.html", _index_values(contents))
    yield _page(environment, "guide", "guide.html", guide)
    transfer = {"root": "", "models": transfer_board(contents.records), "n_records": len(contents.records)}
    yield _page(environment, "transfer", "transfer.html", transfer)
    readouts = {"root": "", "tables": readouts_board(contents.records), "n_records": len(contents.records)}
    yield _page(environment, "readouts", "readouts.html", readouts)
    replies = {"root": "", "tables": expressed_board(contents.records), "n_records": len(contents.records)}
    yield _page(environment, "expression", "expression.html", replies)
    yield _page(environment, "recognition", "recognition.html", _recognition(contents))
    found = {"root": "", "found": identified_board(contents.records), "n_records": len(contents.records)}
    yield _page(environment, "identification", "identification.html", found)
    aligned = {
        "root": "",
        "boards": intervention_boards(contents.analyses),
        "models": aligned_models(contents.analyses),
        "rule": RULE,
        "columns": COLUMNS,
    }
    yield _page(environment, "alignment", "alignment.html", aligned)
    yield from _analyses(environment, contents)
    for group in contents.groups:
        yield from _comparison(environment, contents, group)
    yield from _models(environment, contents)
    yield from _tasks(environment, contents)
    yield from _methods(environment, contents)


def _index_values(contents: Contents) -> dict[str, Any]:
    records = contents.records
    return {
        "root": "",
        "n_records": len(records),
        "counts": _counts(records),
        "all_instruments": bool(records) and all(record.model.instrument for record in records),
        "damaged": sorted((item.path.name, item.reason) for item in contents.damaged),
        "overall": [(title, board, static_table(board)) for title, board in contents.overall],
        "cells": static_table(contents.cells) if records else None,
        "calibration": contents.calibration,
        "overall_rule": OVERALL_RULE,
        "models": sorted({record.cell.model for record in records}),
        "tasks": sorted({record.cell.task for record in records}),
        "groups": contents.groups,
        "drawn": [group for group in contents.groups if group.pareto][:FIGURES],
    }


def _recognition(contents: Contents) -> dict[str, Any]:
    """Improvements, model by model."""
    models: dict[str, list[Improvement]] = {}
    for each in improvements(contents.records):
        models.setdefault(each.record.cell.model, []).append(each)
    return {"root": "", "models": list(models.values()), "n_records": len(contents.records)}


def _analyses(environment: Environment, contents: Contents) -> Files:
    index = {"root": "", "kinds": by_kind(contents.analyses), "first": FIRST}
    yield _page(environment, "analyses", "analyses.html", index)
    models = {record.cell.model for record in contents.records}
    tasks = {record.cell.task for record in contents.records}
    for each in contents.analyses:

        def page(each: Analysis = each) -> bytes:
            values = {"root": "../", "shown": shown_analysis(each, models, tasks)}
            return environment.get_template("analysis.html.j2").render(values).encode()

        linked = f"{each.model in models} {each.task in tasks}"
        content = each.canonical().encode()
        digest = hashlib.sha256(content).hexdigest()
        yield File(f"analyses/{each.name}.html", f"{digest} {linked}", page)
        yield File(f"analyses/{each.name}.json", digest, lambda content=content: content)  # type: ignore[misc]


def _comparison(environment: Environment, contents: Contents, group: Group) -> Files:
    digests = "".join(contents.digests[row.id] for row in group.rows)
    key = hashlib.sha256(digests.encode()).hexdigest()
    found = cache(lambda: overlaps(group))
    table = static_table(contents.cells, contents.rows(lambda other: other is group))

    def page() -> bytes:
        shown, matrix = found().matrix()
        values = {
            "root": "../",
            "group": group,
            "overlap": list(zip(shown, matrix, strict=True)) if len(shown) > 1 else [],
            "n_units": len(found().records),
            "table": table,
            "hashes": {name: getattr(group.record.hashes, name) for name in ("task", "protocol", "model")},
        }
        return environment.get_template("comparison.html.j2").render(values).encode()

    yield File(f"comparisons/{group.id}.html", key, page)
    if group.pareto:
        yield File(f"comparisons/{group.id}.svg", key, lambda: pareto(_marks(group)).encode())
    selected = [row.record for row in group.rows if row.record.selection]
    for place, record in enumerate(selected):
        yield File(f"overlap/{record.id}.svg", key, partial(_overlap_figure, found, place))


def _marks(group: Group) -> list[Mark]:
    found = []
    for row in group.rows:
        headline = row.record.headline
        if row.kind != "unscored" and headline is not None and headline.pres is not None:
            name, control = row.record.cell.selector, row.record.control
            found.append(Mark(name, row.id[-8:], headline.spec, headline.pres, control))
    return found


def _overlap_figure(found: Callable[[], Overlaps], place: int) -> bytes:
    whole = found()
    others = [
        Overlap(
            whole.records[other].cell.selector,
            whole.records[other].control,
            float(whole.jaccard[place, other]),
            float(whole.chance[place, other]),
        )
        for other in whole.nearest(place)
    ]
    return overlap_bars(whole.records[place].cell.selector, others).encode()


def _models(environment: Environment, contents: Contents) -> Files:
    for name, own in _by(contents.groups, lambda group: group.record.cell.model):
        rows = contents.rows(lambda group, name=name: group.record.cell.model == name)  # type: ignore[misc]
        table = static_table(contents.cells, rows)
        records = [group.record for group in own]
        values = {"root": "../", "name": name, "groups": own, "model": records[0].model, "table": table}
        values["revisions"] = sorted({(r.model.revision, r.model.dtype, r.hashes.model) for r in records})
        report = contents.conformance.get(name)
        hashes = {record.hashes.model for record in records}
        values["analyses"] = [each for each in contents.analyses if each.model == name]
        values["conformance"] = None if report is None else shown(report, hashes)
        yield _page(environment, "model", f"models/{slug(name)}.html", values)


def _tasks(environment: Environment, contents: Contents) -> Files:
    for name, own in _by(contents.groups, lambda group: group.record.cell.task):
        rows = contents.rows(lambda group, name=name: group.record.cell.task == name)  # type: ignore[misc]
        table = static_table(contents.cells, rows)
        records = [group.record for group in own]
        variants = {record.hashes.task: record.task for record in records}
        values = {"root": "../", "name": name, "groups": own, "task": records[0].task, "table": table}
        values["variants"] = sorted(variants.items(), key=lambda item: (item[1].version, item[0]))
        values["analyses"] = [each for each in contents.analyses if each.task == name]
        yield _page(environment, "task", f"tasks/{slug(name)}.html", values)


def _methods(environment: Environment, contents: Contents) -> Files:
    places: dict[str, list[int]] = {}
    members: dict[str, list[Summary]] = {}
    rows = [row for group in contents.groups for row in group.rows]
    for place, row in enumerate(rows):
        places.setdefault(row.record.cell.selector, []).append(place)
        members.setdefault(row.record.cell.selector, []).append(row.record)
    found = contents.calibration
    known = {name: cells for name, _, cells in found.rows} if found else {}
    for name in sorted(places):
        values = {
            "root": "../",
            "name": name,
            "record": members[name][0],
            "n_records": len(members[name]),
            "versions": sorted({record.hashes.selector for record in members[name]}),
            "calibration": list(zip(found.columns, known.get(name, []), strict=False)) if found else [],
            "table": static_table(contents.cells, places[name]),
            "fractions": fraction_curves(members[name]),
            "card": contents.cards.get(name),
        }
        yield _page(environment, "method", f"methods/{slug(name)}.html", values)


def _by(own: Iterable[Group], key: Callable[[Group], str]) -> list[tuple[str, list[Group]]]:
    found: dict[str, list[Group]] = {}
    for group in own:
        found.setdefault(key(group), []).append(group)
    return sorted(found.items())


def _counts(records: Sequence[Summary]) -> list[str]:
    def counted(number_of: int, singular: str, plural: str) -> str:
        return f"{number_of} {singular if number_of == 1 else plural}"

    counts = [
        counted(len(records), "record", "records"),
        counted(len({record.cell.model for record in records}), "model", "models"),
        counted(len({record.cell.task for record in records}), "task", "tasks"),
        counted(len({record.cell.selector for record in records}), "method", "methods"),
        counted(sum(record.control for record in records), "control row", "control rows"),
    ]
    unscored = sum(record.status != "ok" for record in records)
    return counts + ([counted(unscored, "row without a score", "rows without a score")] if unscored else [])


def _page(environment: Environment, template: str, name: str, values: dict[str, Any]) -> File:
    return File(name, "", lambda: environment.get_template(f"{template}.html.j2").render(values).encode())


def page_environment(templates: Path) -> Environment:
    """The templates with the site's ways of writing numbers; all text is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(templates),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "general": general,
        "p_value": p_value,
        "interval": interval,
        "slug": slug,
        "spread": spread,
        "heat": _heat,
        "thousands": thousands,
        "measured": measured,
        "whole": whole_or_digits,
    }
    environment.globals |= {"version": __version__, "control_reason": CONTROL_REASON}
    return environment


def _heat(values: Sequence[float], neutral: float) -> Markup:
    """Attributes that colour a cell by its least favourable value's distance from `neutral`."""
    from markupsafe import Markup

    if not values:
        return Markup("")
    distance = (min(values) - neutral) / (1 - neutral)
    direction = "up" if distance >= 0 else "down"
    return Markup(f'data-heat="{direction}" style="--heat:{0.6 * min(1.0, abs(distance)):.2f}"')
