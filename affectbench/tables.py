"""Records as a table: text for people, JSON, CSV and Markdown for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from affectbench.errors import AffectbenchError
from affectbench.expressed import TEXTS as EXPRESSION_TEXTS
from affectbench.expressed import expressed_rows
from affectbench.readouts import TEXTS as READOUT_TEXTS
from affectbench.readouts import readout_rows
from affectbench.recognition import flat_recognition, recognition_rows, shown_recognition
from affectbench.record import Record
from affectbench.record_rows import rows
from affectbench.score_models import Estimate
from affectbench.site_summary import Summary, summary_of
from affectbench.store import Store
from affectbench.yaml_loading import suggest

FORMATS = ("text", "json", "csv", "md")
TEXT = ("model", "task", "identified_on", "selector", "intervention", "arm", "status")
OF_MODULES = ("module_share", "necessity", "recovery")
NUMBERS = ("dose", "self", "cross", "spec", "p", "trs", "strength", "pres", "agg", *OF_MODULES)
SHOWN = (*TEXT[:-1], *NUMBERS, "status")
WIDE = 150
Row = dict[str, Any]
Shape = Callable[[Row], Row]


def print_table(
    console: Console, results: Path, form: str, *, operating_only: bool, top: int | None = None
) -> None:
    """Print every cell of a results folder. Damaged files are named and left out."""
    check_format(form)
    found = all_rows(console, read_records(results))
    if operating_only:
        found = [row for row in found if row["operating"] or row["status"] in ("error", "insufficient")]
    if top is not None:
        found = sorted(found, key=lambda row: (row["agg"] is None, -(row["agg"] or 0.0)))[:top]
    if form == "json":
        print(json.dumps(found, indent=1, allow_nan=False))
    elif form == "csv":
        print(as_csv(found), end="")
    elif form == "md":
        print(as_markdown(found), end="")
    else:
        wide = console if console.is_terminal else Console(width=WIDE)
        wide.print(as_text(found))


def print_readouts(console: Console, results: Path, form: str) -> None:
    """Print the same units under each task and the answer-word control, one row for each set of units."""
    found = readout_rows(_summaries(results, form))
    if not found:
        raise AffectbenchError(
            f"no cell in {results} has a score", hint="see why: python harness.py table --format json"
        )
    _print_estimates(console, found, READOUT_TEXTS, form)


def print_expression(console: Console, results: Path, form: str) -> None:
    """Print the share of replies that express what was aimed at, one row for each way of making them."""
    found = expressed_rows(_summaries(results, form))
    if not found:
        raise AffectbenchError(
            f"no cell in {results} is of a task of expression",
            hint="run one: python harness.py run emotion-circuits",
        )
    _print_estimates(console, found, EXPRESSION_TEXTS, form)


def print_recognition(console: Console, results: Path, form: str) -> None:
    """Print accuracy and macro-F1 before and after amplifying untold, one row for each method and rule."""
    found = recognition_rows(_summaries(results, form))
    if not found:
        raise AffectbenchError(
            f"no cell in {results} was amplified untold at a dose chosen on validation",
            hint="run a protocol with `targeting`: python harness.py run sae-steering",
        )
    _print(console, found, form, flat_recognition, shown_recognition)


def _summaries(results: Path, form: str) -> list[Summary]:
    check_format(form)
    records, damaged = read_records(results)
    _warn(damaged)
    return [summary_of(record) for record in records]


def _print_estimates(console: Console, found: Sequence[Row], texts: Sequence[str], form: str) -> None:
    """Print rows whose columns but for `texts` are estimates; rows of controls are dim."""
    _print(console, found, form, lambda row: flat(row, texts), shown)


def _print(console: Console, found: Sequence[Row], form: str, told: Shape, seen: Shape) -> None:
    """Print at least one row, as `told` to programs or `seen` by people."""
    if form == "json":
        print(json.dumps([told(row) for row in found], indent=1, allow_nan=False))
    elif form == "csv":
        print(as_csv([told(row) for row in found]), end="")
    elif form == "md":
        rows_shown = [seen(row) for row in found]
        names = list(rows_shown[0])
        lines = [names, ["---"] * len(names), *(list(row.values()) for row in rows_shown)]
        print("".join(f"| {' | '.join(line)} |\n" for line in lines), end="")
    else:
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
        for name in seen(found[0]):
            table.add_column(name)
        for row in found:
            table.add_row(*map(escape, seen(row).values()), style="dim" if row["control"] else None)
        (console if console.is_terminal else Console(width=WIDE)).print(table)


def flat(row: dict[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """A row for programs: three columns for each estimate, one for each of `texts`."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if name in texts:
            found[name] = value
            continue
        known = value if isinstance(value, Estimate) else None
        found |= {name: known and known.value, f"{name} low": known and known.low}
        found[f"{name} high"] = known and known.high
    return found


def shown(row: dict[str, Any]) -> dict[str, str]:
    """A row for people: estimates with their intervals; `control` is left to the caller."""
    return {name: _shown(value) for name, value in row.items() if name != "control"}


def _shown(value: Any) -> str:
    if not isinstance(value, Estimate):
        return "–" if value is None else str(value)
    if value.low is None or value.high is None:
        return f"{value.value:.2f}"
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"


def read_records(results: Path) -> tuple[list[Record], list[str]]:
    """Records of a folder, and one sentence for each file that is not to be trusted."""
    if not (results / "records").is_dir():
        raise AffectbenchError(
            f"{results} holds no records", hint="run a suite first: python harness.py run quickstart"
        )
    records, damaged = Store(results).read_all()
    return records, [f"{item.path}: {item.reason}" for item in damaged]


def all_rows(console: Console, found: tuple[list[Record], list[str]]) -> list[dict[str, Any]]:
    """Flat rows of all records; warns of damaged files on the error stream."""
    records, damaged = found
    _warn(damaged)
    return [row for record in records for row in rows(record)]


def check_format(form: str) -> None:
    """Raises `AffectbenchError` for a format that is not known."""
    if form not in FORMATS:
        raise AffectbenchError(
            f"format {form!r} is not known{suggest(form, FORMATS)}", hint=", ".join(FORMATS)
        )


def _warn(damaged: Sequence[str]) -> None:
    warnings = Console(stderr=True)
    for sentence in damaged:
        warnings.print(f"[yellow]left out[/] {escape(sentence)}", soft_wrap=True)


def as_csv(found: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV with a header; missing values are empty."""
    stream = io.StringIO()
    columns = list(found[0]) if found else list(SHOWN)
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in found)
    return stream.getvalue()


def as_markdown(found: Sequence[dict[str, Any]]) -> str:
    """Rows as a Markdown table of the main columns."""
    shown = _columns(found, SHOWN)
    lines = ["| " + " | ".join(shown) + " |", "|" + " --- |" * len(shown)]
    lines += [
        "| " + " | ".join(_cell(row[name]).replace("|", r"\|") for name in shown) + " |" for row in found
    ]
    return "\n".join(lines) + "\n"


def as_text(found: Sequence[dict[str, Any]]) -> Table:
    """Rows as a terminal table of the main columns; a star marks significance, dim rows are controls.

    A text column that says the same in every row goes into the caption.
    """
    texts = _columns(found, TEXT[1:])
    same = {name: found[0][name] for name in texts if found and len({row[name] for row in found}) == 1}
    shown = [name for name in _columns(found, SHOWN) if name not in same]
    caption = ", ".join(f"{name} {value}" for name, value in same.items() if value is not None)
    table = Table(
        box=None, padding=(0, 1, 0, 0), header_style="bold", caption=caption, caption_justify="left"
    )
    for name in shown:
        table.add_column(name, justify="right" if name in NUMBERS else "left", no_wrap=name in NUMBERS)
    for row in found:
        cells = {name: escape(_cell(row[name])) for name in shown}
        cells["spec"] += "*" if row["significant"] else " "
        table.add_row(*cells.values(), style="dim" if row["control"] else None)
    return table


def _columns(found: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    """The columns to show: where units were identified only if some were identified elsewhere, and what only
    cells of modules have where it is there."""
    hidden = {name for name in OF_MODULES if all(row[name] is None for row in found)}
    if all(row["identified_on"] == row["task"] for row in found):
        hidden.add("identified_on")
    return [name for name in names if name not in hidden]


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
