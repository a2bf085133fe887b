"""What `answers` and `wheels` do once their arguments are read: open answers, scored by emotion wheels."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from affectbench.emotion_wheel import (
    Wheels,
    closed_set_recall,
    hit_rate,
    open_vocabulary,
    parse_list,
    sentiment,
)
from affectbench.errors import AffectbenchError, ScoreError
from affectbench.table_rows import json_rows
from affectbench.tables import WIDE
from affectbench.yaml_loading import suggest

if TYPE_CHECKING:
    from affectbench.open_answers import Asking

EXAMPLE = '{"set": "meld", "gold": "joy", "answer": "[happy, excited]"}'
SPREAD = " sd"
"""Ends the name of a score's standard deviation over samples."""
Row = Mapping[int | str, Any]


def score_wheels(console: Console, answers: Path, metric: str, wheels: Path | None, format: str) -> None:
    """Print a score for each set of a JSON-lines file, and for all of it.

    Raises `AffectbenchError` for an unknown metric, wheels that are missing, or rows that do not fit.
    """
    if metric not in METRICS:
        raise AffectbenchError(
            f"metric {metric!r} does not exist{suggest(metric, METRICS)}",
            hint=f"metrics: {', '.join(METRICS)}",
        )
    if wheels is None and metric != "sentiment":
        raise AffectbenchError(
            f"metric {metric!r} groups labels by emotion wheels",
            hint="add --wheels FILE, the official wheel_mapping.npz converted to JSON (docs/modules.md)",
        )
    known = None if wheels is None else Wheels.read(wheels)
    found = {
        name: _scored([METRICS[metric](rows, known) for rows in samples], errors)
        for name, (samples, errors) in _sets(answers).items()
    }
    if format == "json":
        console.print_json(json.dumps({name: _finite(scores) for name, scores in found.items()}))
        return
    columns = [name for name in next(iter(found.values())) if not name.endswith(SPREAD)]
    table = Table("set", *columns, box=None, padding=(0, 2, 0, 0))
    for name, scores in found.items():
        cells = (_told(scores[each], scores.get(each + SPREAD)) for each in columns)
        table.add_row(name, *cells)
    (console if console.is_terminal else Console(width=WIDE)).print(table)


def _sets(path: Path) -> dict[str, tuple[list[list[Row]], int]]:
    """The rows of each set, and how many have an error in place of an answer. Answers that were drawn
    (`sample` above 0) are a set beside the best ones, sample by sample."""
    found: dict[str, dict[int, list[Row]]] = {}
    errors: dict[str, int] = {}
    for where, row in json_rows(path):
        if "gold" not in row or not {"answer", "error"} & set(row):
            raise ScoreError(
                f"{path}:{where}: expected `gold` and `answer`", hint=f"a row looks like {EXAMPLE}"
            )
        sample = row.get("sample", 0)
        if isinstance(sample, bool) or not isinstance(sample, int):
            raise ScoreError(
                f"{path}:{where}: sample {sample!r}",
                hint="a number: 0 is the best answer, drawn ones are above",
            )
        name = f"{row.get('set', path.stem)}{', drawn' if sample else ''}"
        errors[name] = errors.get(name, 0) + ("answer" not in row)
        if "answer" in row:
            found.setdefault(name, {}).setdefault(sample, []).append(row)
    if empty := set(errors) - set(found):
        raise ScoreError(f"{path}: all rows of {min(empty)} have errors in place of answers")
    if not found:
        raise ScoreError(f"{path} holds no rows", hint=f"a row looks like {EXAMPLE}")
    return {name: (list(samples.values()), errors[name]) for name, samples in found.items()}


def _scored(samples: Sequence[Mapping[str, Any]], errors: int) -> dict[str, Any]:
    """The scores of a set; of several samples, each score's mean with its standard deviation over them."""
    found = dict(samples[0])
    if len(samples) > 1:
        for name, value in samples[0].items():
            if not isinstance(value, int):
                values = np.array([each[name] for each in samples], dtype=float)
                found[name] = values.mean(axis=0).tolist()
                if values.ndim == 1:
                    found[name + SPREAD] = float(values.std(ddof=1))
    return found | {"samples": len(samples), "errors": errors}


def ask_openly(
    console: Console,
    model: str,
    task: str | None,
    asking: Asking,
    *,
    include: Sequence[Path],
    data: Path | None,
    limit: int | None,
    device: str,
    threads: int,
    trust_code: bool,
    output: Path | None,
) -> None:
    """Write a model's open answers, and say where they are and how many failed.

    Raises `AffectbenchError` as `Answering` does.
    """
    import torch

    from affectbench.open_answers import Answering
    from affectbench.plan import job_of_names
    from affectbench.registry import Registry

    registry = Registry(include)
    job = job_of_names(registry, model, task, (), (), 0)
    job = job.trusted() if trust_code else job
    path = output or Path("results") / "answers" / f"{job.card.name}-{job.benchmark.name}.jsonl"
    if threads:
        torch.set_num_threads(threads)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        bar = bars.add_task("loading", total=None)
        failed = Answering(registry, job, asking, path, device, data, limit).run(
            lambda done, total: bars.update(bar, completed=done, total=total, description="answers"),
            lambda text: console.print(f"[yellow]note[/] {escape(text)}", highlight=False, soft_wrap=True),
        )
    if failed:
        console.print(f"[yellow]note[/] {failed} items have an error in place of an answer")
    for text in (f"Answers: {path}", f"Scores:  python harness.py wheels {path} --wheels wheel_mapping.json"):
        console.print(escape(text), highlight=False, soft_wrap=True)


def _hits(rows: Sequence[Row], wheels: Wheels | None) -> dict[str, Any]:
    assert wheels is not None
    gold = [_text(row["gold"]) for row in rows]
    answers = [_labels(row["answer"], wheels) for row in rows]
    found = hit_rate(wheels, gold, answers)
    return {
        "hit rate": found.value, "coverage": found.coverage, "labels an answer": found.length,
        "precision": found.precision, "closed-set UAR": closed_set_recall(gold, answers), "n": found.n,
        "wheels": list(found.wheels),
    }  # fmt: skip


def _open(rows: Sequence[Row], wheels: Wheels | None) -> dict[str, Any]:
    assert wheels is not None
    gold = [_labels(row["gold"], wheels) for row in rows]
    answers = [_labels(row["answer"], wheels) for row in rows]
    found, middle = (open_vocabulary(wheels, gold, answers, level) for level in ("level1", "level2"))
    return {
        "F": found.f, "precision": found.precision, "recall": found.recall, "F, middle ring": middle.f,
        "counted": min(found.counted), "n": found.n, "wheels": list(found.wheels),
    }  # fmt: skip


def _sentiment(rows: Sequence[Row], _wheels: Wheels | None) -> dict[str, Any]:
    gold, answers = ([_number(row[key]) for row in rows] for key in ("gold", "answer"))
    return asdict(sentiment(gold, answers))


METRICS: dict[str, Callable[[Sequence[Row], Wheels | None], dict[str, Any]]] = {
    "hit": _hits,
    "open": _open,
    "sentiment": _sentiment,
}


def _labels(value: Any, wheels: Wheels) -> list[str]:
    """A list, a printed list, or free text in which known labels are looked for."""
    if isinstance(value, list):
        return [_text(each) for each in value]
    text = _text(value)
    return parse_list(text) if text.strip().startswith("[") else wheels.labels_in(text)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ScoreError(f"expected a label, found {value!r}", hint=f"a row looks like {EXAMPLE}")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ScoreError(f"expected a number, found {value!r}", hint="sentiments are signed numbers")
    return float(value)


def _finite(scores: dict[str, Any]) -> dict[str, Any]:
    """Scores as JSON: what is no number, such as the hit rate of a wheel that counts no item, is null."""

    def each(value: Any) -> Any:
        return None if isinstance(value, float) and value != value else value

    return {
        name: [each(one) for one in value] if isinstance(value, list) else each(value)
        for name, value in scores.items()
    }


def _told(value: Any, spread: float | None = None) -> str:
    if isinstance(value, list):
        return " ".join(f"{each:.3f}" for each in value)
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if spread is None else f"{text} ± {spread:.3f}"
