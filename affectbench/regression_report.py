"""A finished check as text for the terminal, Markdown for a job summary and JUnit XML for test reports."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

from rich.console import Console
from rich.text import Text

from affectbench.regression import WORST_FIRST, CellCheck, Change, Check, Verdict

QUIET = ("same", "unchanged")
"""Verdicts that are counted and not listed."""
COLOURS = {"improved": "green", "new": "cyan", "moved": "yellow", "missing": "red"}
COLUMNS = ("cell", "verdict", "statistic", "before", "after", "change [95 %]", "p")
TABLE = "    {:<17}  {:>6}  {:>6}  {:<23}  {}"
ADVICE = (
    "Meant? Write a new baseline with --update. A new checkpoint or selector under the old name: "
    "--allow-change model, --allow-change selector, and the scores decide."
)


def headline(check: Check) -> str:
    """One sentence: passed or failed, and the cells by verdict."""
    counts = check.counts
    found = ", ".join(f"{counts[verdict]} {verdict}" for verdict in WORST_FIRST if verdict in counts)
    said = "passed" if check.passed else "FAILED"
    number = f"{len(check.cells)} {'cell' if len(check.cells) == 1 else 'cells'}"
    return f"{said}: {number} against {check.baseline}: {found}"


def print_check(console: Console, check: Check) -> None:
    """The check as a person should see it, in lines that fit a terminal and the log of a build."""
    listed = _listed(check)
    if any(change.verdict not in QUIET for cell in listed for change in cell.changes):
        _print(
            console, TABLE.format("statistic", "before", "  after", "change [95 %]", "p, corrected"), "dim"
        )
    for cell in listed:
        title, *details = _lines(cell)
        style = COLOURS.get(cell.verdict, "red" if cell.failed else "")
        _print(console, title, style)
        for line in details:
            _print(console, line)
    for difference in check.environment:
        _print(console, f"environment: {difference}", "yellow")
    _print(console, headline(check), "bold" if check.passed else "bold red")
    if advice := _advice(check):
        _print(console, advice, "dim")


def _print(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style), highlight=False, soft_wrap=True)


def _lines(cell: CellCheck, *, every_change: bool = False) -> list[str]:
    """A title, and a line for each change that counts and each note."""
    name, verdict = _name(cell), _verdict(cell)
    lines = [f"{verdict}  {name}"]
    for change in cell.changes:
        if every_change or change.verdict not in QUIET:
            lines.append(TABLE.format(*_numbers(change)))
    return [*lines, *(f"    {note}" for note in cell.notes)]


def as_markdown(check: Check) -> str:
    """The check for a job summary or a comment: what to look at first, every cell below in a fold."""
    mark = "✅" if check.passed else "❌"
    lines = [f"### {mark} affectbench check {_plain(headline(check))}", ""]
    listed = [row for cell in _listed(check) for row in _rows(cell)]
    lines += _markdown_table(listed) if listed else []
    lines += [f"- environment: {_plain(difference)}" for difference in check.environment]
    advice = _advice(check)
    lines += ["", advice] if advice else []
    every = [row for cell in check.cells for row in _rows(cell, every_change=True)]
    lines += ["", "<details><summary>All cells</summary>", "", *_markdown_table(every), "</details>", ""]
    lines.append(
        f"A change counts if it is larger than {check.tolerance:g} and p, corrected for all tests, < 0.05."
    )
    return "\n".join(lines) + "\n"


def as_junit(check: Check) -> str:
    """The check as JUnit XML: one test case a cell; a new cell is skipped."""
    failures = sum(cell.failed for cell in check.cells)
    skipped = check.counts.get("new", 0)
    numbers = {
        "tests": str(len(check.cells)),
        "failures": str(failures),
        "errors": "0",
        "skipped": str(skipped),
    }
    root = ElementTree.Element("testsuites", numbers)
    suite = ElementTree.SubElement(root, "testsuite", {"name": "affectbench check"} | numbers)
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("baseline", check.baseline), *(("environment", each) for each in check.environment)):
        ElementTree.SubElement(properties, "property", {"name": name, "value": _xml(value)})
    for each in check.cells:
        cell = each.cell
        name = f"{cell.selector} {cell.intervention} {cell.fraction:g} seed {cell.seed} {cell.identified}"
        name = name.rstrip()
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": f"{cell.model}.{cell.task}", "name": name, "time": "0"}
        )
        said = _xml("\n".join(_lines(each, every_change=True)))
        if each.failed:
            first = _xml("; ".join(_reasons(each)))
            failure = ElementTree.SubElement(case, "failure", {"type": each.verdict, "message": first})
            failure.text = said
        elif each.verdict == "new":
            ElementTree.SubElement(case, "skipped", {"message": "not in the baseline"})
        else:
            ElementTree.SubElement(case, "system-out").text = said
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _listed(check: Check) -> list[CellCheck]:
    """Cells that someone should look at, the worst first."""
    listed = [cell for cell in check.cells if cell.verdict not in QUIET]
    return sorted(listed, key=lambda cell: WORST_FIRST.index(cell.verdict))


def _advice(check: Check) -> str:
    if not check.passed:
        return ADVICE
    better: set[Verdict] = {"improved", "new"}
    return (
        "Better than the baseline, or not in it: --update writes a new one."
        if better & set(check.counts)
        else ""
    )


def _name(cell: CellCheck) -> str:
    found = cell.cell
    name = f"{found.model} · {found.task} · {found.selector} · {found.intervention} {found.fraction:.2%}"
    name += f" {found.identified}" if found.identified else ""
    return name + (f" seed {found.seed}" if found.seed else "")


def _verdict(cell: CellCheck) -> str:
    return cell.verdict + (f": {', '.join(cell.hashes)}" if cell.hashes else "")


def _rows(cell: CellCheck, *, every_change: bool = False) -> Iterator[tuple[str, ...]]:
    """One row a change that counts, or one for the cell; notes come in rows of their own."""
    name, verdict = _name(cell), _verdict(cell)
    shown = [change for change in cell.changes if every_change or change.verdict not in QUIET]
    for change in shown:
        yield (name, verdict, *_numbers(change))
        name, verdict = "", ""
    notes = list(cell.notes)
    if not shown:
        yield (name, verdict, *(notes[:1] or [""]), *[""] * 4)
        notes = notes[1:]
    for note in notes:
        yield ("", "", note, *[""] * 4)


def _numbers(change: Change) -> tuple[str, ...]:
    found = change.difference
    size = "–" if found.size is None else f"{found.size:+.3f}"
    if found.low is not None and found.high is not None:
        size += f" [{found.low:+.3f}, {found.high:+.3f}]"
    return (found.statistic, _number(found.before), _number(found.after), size, _p(change))


def _p(change: Change) -> str:
    if change.p is None:
        return "not tested" if change.difference.size else "–"
    return "< 0.001" if change.p < 0.001 else f"{change.p:.3f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _reasons(cell: CellCheck) -> list[str]:
    """Why a cell failed, in phrases."""
    phrases = [f"{' and '.join(cell.hashes)} changed"] if cell.verdict == "identity changed" else []
    for change in cell.changes:
        if change.verdict == "regressed":
            statistic, before, after, size, p = _numbers(change)
            phrases.append(f"{statistic} {before} → {after}, {size}, p {p}")
    return phrases + list(cell.notes) or [cell.verdict]


def _markdown_table(rows: list[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(COLUMNS) + " |", "| --- | --- | --- | ---: | ---: | ---: | ---: |"]
    return [*lines, *("| " + " | ".join(map(_plain, row)) + " |" for row in rows), ""]


def _plain(text: str) -> str:
    """Names come from files of others: no table break, no HTML, no mention and no link of theirs."""
    one_line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "\\`|*[]@":
        one_line = one_line.replace(sign, f"&#{ord(sign)};")
    return one_line


def _xml(text: str) -> str:
    """Without the control characters that XML cannot hold."""
    return "".join(sign for sign in text if sign >= " " or sign in "\n\t")
