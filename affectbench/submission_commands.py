"""What `new`, `submit`, `verify`, `gates` and `export` do once their arguments are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from affectbench.content import builtin_root
from affectbench.errors import AffectbenchError
from affectbench.registry import Registry
from affectbench.store import Store, write_atomically
from affectbench.tables import WIDE

if TYPE_CHECKING:
    from affectbench.submission import Submission
    from affectbench.submitted import Part


def scaffold(console: Console, name: str, output: Path | None, include: Sequence[Path]) -> None:
    """Write a new selector's files and say what to do with them."""
    from affectbench.scaffold import new_selector

    folder = output or Path(name)
    for path in new_selector(name, folder, Registry(include)):
        _say(console, str(path))
    _say(console, f"\nTest:    python -m pytest {folder}")
    _say(
        console, f"Try:     python harness.py run --include {folder} --model reference-text --selector {name}"
    )
    _say(console, f"Submit:  python harness.py submit {folder} --trust-code")


def submit_folder(
    console: Console,
    folder: Path,
    *,
    include: Sequence[Path],
    data: Path | None,
    limit: int | None,
    device: str,
    trust_code: bool,
    dry_run: bool,
    output: Path | None,
) -> None:
    """Validate, say what will be judged, run, and pack."""
    from affectbench.placement import Options
    from affectbench.progress import Terminal
    from affectbench.run import command_line
    from affectbench.submission_archive import staged
    from affectbench.submitted import parts_of
    from affectbench.verify import submit, trusted_parts

    registry = Registry(include)
    with staged(folder) as checked:
        submission = checked.submission
        parts = parts_of(checked, registry)
        wide(console).print(judged_table(parts))
        for line in terms(submission, parts):
            _say(console, line)
        if dry_run:
            return
        trusted_parts(checked, parts, trust_code)
    suffix = "" if limit is None else f"-limit{limit}"
    target = output or Path("results") / f"{submission.name}{suffix}"
    options = Options(target, device=device, data=data, limit=limit, command=command_line())
    with Terminal(console) as terminal:
        done, packed = submit(folder, registry, options, terminal, trust_code=trust_code)
    for failure in done.failed:
        _say(console, f"could not run: {failure}")
    for record in done.records:
        if record.status == "error":
            _say(console, f"error: {record.cell.model} on {record.cell.task}: {record.reason}")
    if done.failed or any(record.status == "error" for record in done.records):
        raise AffectbenchError(
            "not every cell has a result", hint="put this right and run the same command again"
        )
    _say(console, f"\n{len(done.records)} cells. Look:  python harness.py table {target} --operating")
    if packed is None:
        _say(console, "Not packed: results of a limited run are those of another task.")
    else:
        needs = submission.selector is not None or any(part.remote for part in parts)
        trust = " --trust-code" if needs else ""
        _say(console, f"Packed:  {packed}  (check it: python harness.py verify {packed}{trust})")


def judged_table(parts: Sequence[Part]) -> Table:
    """What will be judged: the cells of a submission, and those that it does not cover."""
    from affectbench.submitted import cells_of

    table = Table(box=None, padding=(0, 2, 0, 0), title="what will be judged", title_justify="left")
    for name in ("model", "task", "intervention", "units an emotion", ""):
        table.add_column(name)
    for part in parts:
        for cell in cells_of(part):
            row = (cell.model, cell.task, cell.intervention, f"{cell.fraction:.2%} of {cell.site}")
            note = "" if part.path is not None else f"not covered: {part.reason}"
            table.add_row(*map(escape, (*row, note)), style=None if part.path is not None else "dim")
    return table


def terms(submission: Submission, parts: Sequence[Part]) -> list[str]:
    """The terms of judging in sentences: what is declared, and what each split is for."""
    covered = sum(part.size for part in parts if part.path is not None)
    total = sum(part.size for part in parts)
    budget = submission.budget
    took = [f"{budget.labelled_items} labelled items"]
    took += [f"{budget.forward_passes} forward passes"] if budget.forward_passes is not None else []
    took += [f"{budget.gpu_hours:g} GPU hours"] if budget.gpu_hours is not None else []
    return [
        f"\n{covered} of {total} cells of suite {submission.suite}",
        f"declared: found on {'; '.join(submission.identification.data)}, with {', '.join(took)}",
        "judged:   operating doses on the validation split, every reported number on the test split,",
        "          beside random units of the same layers; no item of either may have found the units",
        "not judged: scores over cells that are not covered; nothing is averaged over them\n",
    ]


def verify_submission(
    console: Console,
    source: Path,
    *,
    include: Sequence[Path],
    data: Path | None,
    device: str,
    trust_code: bool,
    against: Path | None,
    output: Path | None,
    to: Path | None,
) -> bool:
    """Verify, write the report as JSON and Markdown, and publish on request; False where it is rejected."""
    from affectbench.placement import Options
    from affectbench.progress import Terminal
    from affectbench.run import command_line
    from affectbench.verify import publish, verify

    target = output or Path("results") / f"verified-{source.stem if source.is_file() else source.name}"
    published = against or builtin_root() / "leaderboard" / "results"
    if against is not None and not (against / "records").is_dir():
        raise AffectbenchError(f"{against} holds no records", hint="a folder of published results")
    options = Options(target, device=device, data=data, command=command_line())
    with Terminal(console) as terminal:
        found, records = verify(
            source,
            Registry(include),
            options,
            terminal,
            published=Store(published).read_all()[0],
            trust_code=trust_code,
        )
    write_atomically(target / "verification.json", found.as_json().encode())
    write_atomically(target / "verification.md", found.as_markdown().encode())
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("model", "task", "intervention", "result", "specificity", "worth nothing because"):
        table.add_column(name)
    for each in found.cells:
        spec = "–" if each.spec is None else f"{each.spec:+.3f}"
        cell = each.cell
        row = (cell.model, cell.task, cell.intervention, each.result, spec, each.worthless)
        table.add_row(*map(escape, row))
    if found.cells:
        wide(console).print(table)
    colour = {"accept": "green", "accept_with_note": "yellow", "reject": "red"}[found.decision]
    console.print(f"\n[bold {colour}]{found.decision.replace('_', ' ')}[/]")
    for text in [*found.reasons, *found.notes]:
        _say(console, f"- {text}")
    _say(console, f"Report: {target / 'verification.md'}")
    if to is not None and found.decision != "reject":
        publish(found, source, records, Store(target), to)
        _say(console, f"Published to {to}")
    return found.decision != "reject"


def gate_change(
    console: Console,
    base: Path,
    head: Path,
    *,
    markdown: Path | None,
    include: Sequence[Path],
    data: Path | None,
) -> bool:
    """Run the gates on a change of published results; False where one fails."""
    from affectbench.delta import report
    from affectbench.gates import Change, run_gates

    if not head.is_dir():
        raise AffectbenchError(f"there is no folder {head}", hint="the published results after the change")
    change = Change(base, head, Registry(include), data)
    gates = run_gates(change)
    for gate in gates:
        console.print(
            f"[{'green' if gate.passed else 'red'}]{'pass' if gate.passed else 'FAIL'}[/]  {gate.name}"
        )
        for text in gate.problems:
            _say(console, f"      {text}")
        for text in gate.notes:
            _say(console, f"      note: {text}")
    if markdown is not None:
        write_atomically(markdown, report(change, gates).encode())
        _say(console, f"Report: {markdown}")
    return all(gate.passed for gate in gates)


def export_records(
    console: Console, results: Path, form: str, output: Path | None, organization: str
) -> None:
    """Write records for other tools. Damaged files are named and left out."""
    from affectbench.export import export
    from affectbench.tables import read_records

    records, damaged = read_records(results)
    for sentence in damaged:
        Console(stderr=True).print(f"[yellow]left out[/] {escape(sentence)}", soft_wrap=True)
    target = output or Path("export") / (results.name if form == "eee" else f"{results.name}.{form}")
    for path in export(records, form, target, organization=organization):
        _say(console, str(path))


def wide(console: Console) -> Console:
    """The terminal as it is; for a file or a pipe, one whose tables are not cut."""
    return console if console.is_terminal else Console(width=WIDE)


def _say(console: Console, text: str) -> None:
    console.print(escape(text), highlight=False, soft_wrap=True)
