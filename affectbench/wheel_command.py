"""What `wheels` does once its arguments are read: answers of a file, scored by emotion wheels."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
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
from affectbench.yaml_loading import suggest

EXAMPLE = '{"set": "meld", "gold": "joy", "answer": "[happy, excited]"}'
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
    sets: dict[str, list[Row]] = {}
    for where, row in json_rows(answers):
        if "gold" not in row or "answer" not in row:
            raise ScoreError(
                f"{answers}:{where}: expected `gold` and `answer`", hint=f"a row looks like {EXAMPLE}"
            )
        sets.setdefault(str(row.get("set", answers.stem)), []).append(row)
    if not sets:
        raise ScoreError(f"{answers} holds no rows", hint=f"a row looks like {EXAMPLE}")
    found = {name: METRICS[metric](rows, known) for name, rows in sets.items()}
    if format == "json":
        console.print_json(json.dumps({name: _finite(scores) for name, scores in found.items()}))
        return
    table = Table("set", *next(iter(found.values())), box=None, padding=(0, 2, 0, 0))
    for name, scores in found.items():
        table.add_row(name, *(_told(value) for value in scores.values()))
    console.print(table)


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


def _told(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(f"{each:.3f}" for each in value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)
