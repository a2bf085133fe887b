"""The leaderboard: a static site built from result records alone, the same bytes for the same records.

The site opens from disk and under any path, and asks nothing of a network. It is written beside its final
place and moved there when complete, so readers see the old site or the new one.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectbench import __version__
from affectbench.content import builtin_root
from affectbench.errors import AffectbenchError
from affectbench.record import Provenance, Record, canonical_json, cell_id
from affectbench.site_data import CONTROL_REASON, RANK_RULE, Group, Row, calibration_board, groups
from affectbench.site_entry import Entry, entry
from affectbench.site_format import general, interval, number, p_value, spread, thousands
from affectbench.store import Damaged

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

STATIC_ROWS = 200
"""Rows in the page itself, shown without JavaScript; the rest is loaded by a script."""
PAGE_SIZE = 100
MARKER = ".affectbench-site"

Progress = Callable[[int, int], None]


class SiteError(AffectbenchError):
    """The leaderboard site cannot be built or written."""


@dataclass(frozen=True)
class Site:
    """What was written: the index page, the entry pages by cell id, and how many files in all."""

    index: Path
    entries: dict[str, Path]
    n_files: int


def build_site(
    records: Sequence[Record],
    output: Path,
    *,
    damaged: Sequence[Damaged] = (),
    progress: Progress | None = None,
) -> Site:
    """Write the site of these records to a folder, in place of an older site there.

    Args:
        records: in any order, one a cell.
        output: the site's folder; it must be new, empty, or hold a site written by this function.
        damaged: result files that could not be trusted, listed on the index page.
        progress: called with (pages written, pages in all).

    Raises:
        SiteError: two records of one cell, a folder that holds something else, or a failed write.
    """
    records = _in_order(records)
    _check_replaceable(output)
    partial = output.parent / f".{output.name}.{secrets.token_hex(4)}.partial"
    try:
        n_files = 0
        for name, content in _files(records, damaged, progress):
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            n_files += 1
        _move_into_place(partial, output)
    except OSError as error:
        raise SiteError(
            f"cannot write the site to {output}: {error.strerror or error}",
            hint="free space or choose another folder; a site that was there before is intact",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    entries = {cell_id(r.cell): output / "entries" / f"{cell_id(r.cell)}.html" for r in records}
    return Site(index=output / "index.html", entries=entries, n_files=n_files)


def _in_order(records: Sequence[Record]) -> list[Record]:
    by_id: dict[str, Record] = {}
    for record in records:
        name = cell_id(record.cell)
        if name in by_id:
            raise SiteError(f"two records of the cell {name}", hint="keep one of them; a cell has one page")
        by_id[name] = record
    return [by_id[name] for name in sorted(by_id)]


def _check_replaceable(output: Path) -> None:
    if output.is_dir():
        if (output / MARKER).exists() or not any(output.iterdir()):
            return
        raise SiteError(
            f"{output} holds files that are not a leaderboard site; they would be deleted",
            hint="choose a new or an empty folder",
        )
    if output.exists() or output.is_symlink():
        raise SiteError(f"{output} is not a folder", hint="choose a new or an empty folder")


def _move_into_place(partial: Path, output: Path) -> None:
    if not output.exists():
        os.rename(partial, output)
        return
    old = partial.with_suffix(".old")
    os.rename(output, old)
    try:
        os.rename(partial, output)
    except OSError:
        os.rename(old, output)
        raise
    shutil.rmtree(old)


def _files(
    records: Sequence[Record], damaged: Sequence[Damaged], progress: Progress | None
) -> Iterator[tuple[str, bytes]]:
    folder = builtin_root() / "leaderboard"
    environment = _environment(folder / "templates")
    yield MARKER, canonical_json({"records": len(records)}).encode()
    for asset in sorted((folder / "assets").iterdir()):
        yield f"assets/{asset.name}", asset.read_bytes()
    yield from _index(environment, records, damaged)
    template = environment.get_template("entry.html.j2")
    for done, record in enumerate(records, start=1):
        content = entry(record)
        yield f"records/{content.id}.json", record.canonical().encode()
        yield f"entries/{content.id}.html", template.render(_entry_values(content)).encode()
        if progress is not None:
            progress(done, len(records))


def _index(
    environment: Environment, records: Sequence[Record], damaged: Sequence[Damaged]
) -> Iterator[tuple[str, bytes]]:
    board = groups(records)
    shown, more = _split_rows(board, STATIC_ROWS)
    n_more = sum(len(rows) for _, rows in more)
    values = {
        "root": "",
        "n_records": len(records),
        "counts": _counts(records),
        "all_instruments": bool(records) and all(record.model.instrument for record in records),
        "damaged": sorted((item.path.name, item.reason) for item in damaged),
        "filters": _filters(records),
        "shown": shown,
        "n_more": n_more,
        "page_size": PAGE_SIZE,
        "calibration": calibration_board(records),
        "rank_rule": RANK_RULE,
    }
    yield "index.html", environment.get_template("index.html.j2").render(values).encode()
    if n_more:
        yield "assets/more-rows.js", _rows_script(environment, more).encode()


def _split_rows(
    board: Iterable[Group], n_first: int
) -> tuple[list[tuple[Group, list[Row]]], list[tuple[Group, list[Row]]]]:
    first: list[tuple[Group, list[Row]]] = []
    rest: list[tuple[Group, list[Row]]] = []
    for group in board:
        room = max(0, n_first - sum(len(rows) for _, rows in first))
        if group.rows[:room]:
            first.append((group, group.rows[:room]))
        if group.rows[room:]:
            rest.append((group, group.rows[room:]))
    return first, rest


def _rows_script(environment: Environment, parts: Iterable[tuple[Group, list[Row]]]) -> str:
    template = environment.get_template("rows.html.j2")
    return f"window.affectbenchMoreRows = {json.dumps(template.render({'shown': parts}))};\n"


def _counts(records: Sequence[Record]) -> list[str]:
    def counted(number_of: int, singular: str, plural: str) -> str:
        return f"{number_of} {singular if number_of == 1 else plural}"

    counts = [
        counted(len(records), "record", "records"),
        counted(len({record.cell.model for record in records}), "model", "models"),
        counted(len({record.cell.task for record in records}), "task", "tasks"),
        counted(len({record.cell.selector for record in records}), "selector", "selectors"),
        counted(sum(record.control for record in records), "control row", "control rows"),
    ]
    unscored = sum(record.status != "ok" for record in records)
    return counts + ([counted(unscored, "row without a score", "rows without a score")] if unscored else [])


def _filters(records: Sequence[Record]) -> list[tuple[str, str, list[str]]]:
    names = ("model", "task", "selector", "intervention")
    values = [sorted({getattr(record.cell, name) for record in records}) for name in names]
    return [(name, name.capitalize(), found) for name, found in zip(names, values, strict=True)]


def _entry_values(content: Entry) -> dict[str, Any]:
    record = content.record
    opened = next((panel.id for panel in content.panels if panel.operating), "d0")
    hidden = {"command", "seed"}
    return {
        "root": "../",
        "entry": content,
        "opened": opened,
        "hashes": list(record.hashes.model_dump().items()),
        "provenance_rows": [name for name in Provenance.model_fields if name not in hidden],
    }


def _environment(templates: Path) -> Environment:
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
        "spread": spread,
        "heat": _heat,
        "thousands": thousands,
    }
    environment.globals |= {"version": __version__, "control_reason": CONTROL_REASON}
    return environment


def _heat(values: Sequence[float], neutral: float) -> Markup:
    """Attributes that colour a calibration cell by its least favourable value's distance from `neutral`."""
    from markupsafe import Markup

    if not values:
        return Markup("")
    distance = (min(values) - neutral) / (1 - neutral)
    direction = "up" if distance >= 0 else "down"
    return Markup(f'data-heat="{direction}" style="--heat:{0.6 * min(1.0, abs(distance)):.2f}"')
