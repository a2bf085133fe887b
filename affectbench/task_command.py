"""`verify-task`: look at everything a task would use and send, say what is wrong, compare with before."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from affectbench.dataset import Dataset, DatasetError, load_benchmark
from affectbench.errors import AffectbenchError
from affectbench.examples import MissingDataError
from affectbench.prompts import prompt_text
from affectbench.registry import Registry
from affectbench.sent import Sent, changes, needs_version, read_sent, sent_by
from affectbench.task import SPLITS, Benchmark, ExpressionBenchmark, RecognitionBenchmark, load_as
from affectbench.task_checks import Extreme, TaskReport, all_sounds, examine
from affectbench.yaml_loading import suggest

FORMATS = ("text", "json")
FINE, PROBLEMS, ABSENT = 0, 1, 2
SHOWN = 5
SHOWN_TEXT = 100
RUN_OF_TOKENS = 4


@dataclass(frozen=True)
class TaskRequest:
    """What to verify and how. `golden`: a file of what was sent before; `update` writes it."""

    task: str
    include: Sequence[Path] = ()
    data: Path | None = None
    form: str = "text"
    model: str | None = None
    device: str = "cpu"
    golden: Path | None = None
    update: bool = False


def verify_task(console: Console, request: TaskRequest) -> int:
    """Print the report. Returns 0 where nothing is wrong, 1 where something is, 2 where data are absent.

    Raises `AffectbenchError` for an unknown task, model or format, and for a golden file that is damaged or
    may not be updated.
    """
    if request.form not in FORMATS:
        near = suggest(request.form, FORMATS)
        raise AffectbenchError(
            f"format {request.form!r} does not exist{near}", hint=f"one of {', '.join(FORMATS)}"
        )
    registry = Registry(request.include)
    task = _found(registry, request.task)
    try:
        with _bar("decoding sounds") as advance:
            dataset = load_benchmark(task, request.data, progress=advance)
        with _bar("making sounds") as advance:
            sounds = all_sounds(dataset, advance)
    except DatasetError as error:
        return _without_items(console, task, request.form, error)
    report = examine(dataset, sounds)
    if request.model is not None:
        report = replace(report, first=replace(report.first, full=_as_seen(registry, request, dataset)))
    if request.golden is not None:
        report = _compared(console, report, sent_by(dataset, sounds), request)
    if request.form == "json":
        found = {"status": "problems" if report.problems else "ok", **asdict(report)}
        console.print_json(json.dumps(found), highlight=False)
    else:
        _print(console, task, report)
    return PROBLEMS if report.problems else FINE


def _found(registry: Registry, task: str) -> Benchmark:
    if task.endswith((".yaml", ".yml")):
        return load_as(Path(task), Benchmark)
    return registry.benchmark(task)


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task(what, total=None, visible=False)
        yield lambda done, total: bars.update(bar, completed=done, total=total, visible=True)


def _as_seen(registry: Registry, request: TaskRequest, dataset: Dataset) -> str:
    """The first prompt as the model's tokenizer has it, chat template and all; runs of a token counted."""
    from affectbench.placement import load_model
    from affectbench.plan import Job, card_of, checkpoint_of

    card = card_of(registry, str(request.model))
    task = dataset.benchmark
    if card.modality != task.modality:
        raise AffectbenchError(
            f"model {card.name} is of modality {card.modality}, task {task.name} of {task.modality}",
            hint="python harness.py list models",
        )
    model = load_model(registry, Job(card, checkpoint_of(card), task, (), (), 0), request.device)
    first = dataset.splits["identification"][0]
    ids = model.prepare(first, prompt_text(task, first)).ids.tolist()
    text, plain = "", []
    for token, run in itertools.groupby(ids):
        count = len(list(run))
        plain += [token] * min(count, 1 if count >= RUN_OF_TOKENS else count)
        if count >= RUN_OF_TOKENS:
            text += str(model.tokenizer.decode(plain)) + f" (x {count})"
            plain = []
    return text + str(model.tokenizer.decode(plain))


def _compared(console: Console, report: TaskReport, now: Sent, request: TaskRequest) -> TaskReport:
    """The report, with a problem more for what is sent otherwise; writes the golden file where asked to."""
    path = request.golden
    assert path is not None
    if request.update:
        update_golden(path, now)
        if request.form == "text":
            console.print(escape(f"wrote {path}"), highlight=False, soft_wrap=True)
        return report
    return replace(report, problems=(*report.problems, *differences(read_sent(path), now)))


def update_golden(path: Path, now: Sent) -> None:
    """Write what is sent now. Raises `DatasetError` where it changed and the task's version did not go up."""
    before = read_sent(path) if path.is_file() else None
    if before is not None and needs_version(before, now):
        found = "; ".join(changes(before, now))
        raise DatasetError(
            f"task {now.task} changed although its version is still {now.version}: {found}",
            hint="raise `version` in its YAML, or undo the change; if other data are meant to be there, "
            f"delete {path}",
        )
    now.write(path)


def differences(before: Sent, now: Sent) -> list[str]:
    """What a golden file says against what is sent now, with what to do about it."""
    found = changes(before, now)
    if not found:
        return []
    if needs_version(before, now):
        advice = "raise `version` in the task's YAML, or undo the change"
    else:
        advice = "the version went up: write the golden file anew with --update"
    return [f"sends other than before: {'; '.join(found)}: {advice}"]


def _without_items(console: Console, task: Benchmark, form: str, error: DatasetError) -> int:
    """What can be said where no item could be read."""
    absent = isinstance(error, MissingDataError)
    if form == "json":
        found = {
            "status": "absent" if absent else "problems", "task": task.name, "version": task.version,
            "digest": task.digest, "obtain": task.obtain, "problems": [error.message],
        }  # fmt: skip
        console.print_json(json.dumps(found), highlight=False)
        return ABSENT if absent else PROBLEMS
    _line(
        console,
        f"[bold]{escape(task.name)}[/] version {task.version}, hash {task.digest}: {escape(task.title)}",
    )
    _line(console, f"labels: {escape(', '.join(task.labels))}")
    if isinstance(task, RecognitionBenchmark):
        _line(console, f"prompt: {escape(repr(task.prompt))}")
    elif isinstance(task, ExpressionBenchmark):
        _line(console, f"prompt: {escape(repr((task.elicit.system, task.elicit.user)))}")
    mark = "[yellow]absent[/]" if absent else "[red]problem[/]"
    _line(console, f"{mark} {escape(error.message)}")
    if error.hint:
        _line(console, f"[dim]hint[/] {escape(error.hint)}")
    return ABSENT if absent else PROBLEMS


def _print(console: Console, task: Benchmark, report: TaskReport) -> None:
    _line(
        console,
        f"[bold]{escape(task.name)}[/] version {task.version}, hash {task.digest}: {escape(task.title)}",
    )
    _line(console, f"items hash {report.items_digest}; licence: {escape(task.licence)}")
    console.print(_counts(task, report))
    for reason, count in report.dropped.items():
        _line(console, f"left out: {count} ({escape(reason)})")
    for what, one in (("shortest", report.shortest), ("longest", report.longest)):
        _line(console, f"{what}: {_extreme(one)}")
    _line(console, f"first prompt ({escape(report.first.id)}, answer {report.first.label!r}):")
    _line(console, f"[cyan]{escape(report.first.text)}[/]")
    if report.first.full is not None:
        _line(console, f"as the model gets it:\n[cyan]{escape(report.first.full)}[/]")
    _line(console, escape("options: " + ", ".join(repr(option) for option in report.first.options)))
    for error in report.errors[:SHOWN]:
        _line(console, f"[red]cannot be used[/] {escape(error.path)}: {escape(error.reason)}")
    if len(report.errors) > SHOWN:
        _line(console, f"... and {len(report.errors) - SHOWN} more")
    for text in report.notes:
        _line(console, f"[yellow]note[/] {escape(text)}")
    for text in report.problems:
        _line(console, f"[red]problem[/] {escape(text)}")
    if not report.problems:
        _line(console, "[green]ok[/] nothing is wrong with this task")


def _counts(task: Benchmark, report: TaskReport) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", *SPLITS):
        table.add_column(heading, justify="right" if heading else "left")
    for label in task.labels:
        table.add_row(label, *(str(report.counts[name][label]) for name in SPLITS))
    table.add_row("items", *(str(sum(report.counts[name].values())) for name in SPLITS), style="bold")
    table.add_row(f"{task.cluster}s", *(str(report.clusters[name]) for name in SPLITS))
    return table


def _extreme(one: Extreme) -> str:
    length = f"{one.length:.2f} s" if one.unit == "s" else f"{one.length:.0f} {one.unit}"
    text = (
        ""
        if one.text is None
        else f": {one.text[:SHOWN_TEXT]!r}" + ("..." if len(one.text) > SHOWN_TEXT else "")
    )
    return escape(f"{one.id}, {length}{text}")


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)
