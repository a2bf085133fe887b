"""The items of a benchmark's preservation section: neutral documents and multiple-choice questions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from affectbench.examples import ChoiceItem, DatasetError
from affectbench.table_rows import json_rows
from affectbench.task import Benchmark
from affectbench.task_parts import GeneratedItems, Seed, Text

EXAMPLE_ROW = '{"id": "q1", "context": "Snow is", "choices": [" white", " hot"], "answer": 0}'


def neutral_texts(benchmark: Benchmark) -> list[str]:
    """Neutral documents, one string each. Raises `DatasetError` for a malformed file."""
    items = benchmark.preservation.neutral
    if isinstance(items, GeneratedItems):
        from affectbench.generators import narratives, speech

        generate = narratives.language_text if items.module == "narratives" else speech.language_text
        return list(generate(items.n, items.seed, held_out=True))
    rows = _rows(benchmark.file(items.path), items.n)
    for where, row in rows:
        if not isinstance(row.get("text"), str) or not row["text"]:
            raise DatasetError(f"{where}: expected a key `text` with a document")
    return [row["text"] for _, row in rows]


def choice_items(benchmark: Benchmark) -> list[ChoiceItem]:
    """Multiple-choice items. Raises `DatasetError` for a malformed file, or another capability."""
    capability = benchmark.preservation.capability
    if capability.kind != "multiple_choice":
        raise DatasetError(
            f"{benchmark.name}: its capability is benchmark {capability.task}, not multiple choice"
        )
    items = capability.source
    if isinstance(items, GeneratedItems):
        from affectbench.generators import narratives

        generated = narratives.cloze(items.n, items.seed)
        return [_choice(f"{benchmark.name}: generated item {i}", row) for i, row in enumerate(generated)]
    return [_choice(where, row) for where, row in _rows(benchmark.file(items.path), items.n)]


class _ChoiceRow(BaseModel):
    id: Text
    context: Text
    choices: Annotated[tuple[Text, ...], Field(min_length=2)]
    answer: Seed


def _choice(where: str, row: Mapping[str, Any]) -> ChoiceItem:
    try:
        choice = _ChoiceRow.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DatasetError(
            f"{where}: {place}: {first['msg']}", hint=f"a row looks like {EXAMPLE_ROW}"
        ) from error
    if choice.answer >= len(choice.choices):
        raise DatasetError(f"{where}: answer {choice.answer} is no index of {len(choice.choices)} choices")
    return ChoiceItem(choice.id, choice.context, choice.choices, choice.answer)


def _rows(path: Path, n: int | None) -> list[tuple[str, dict[str, Any]]]:
    """The first `n` rows of a JSON lines file, each with its place."""
    rows = [
        (f"{path}:{number}", {str(key): value for key, value in row.items()})
        for number, row in json_rows(path)
    ]
    if len(rows) < (n or 1):
        raise DatasetError(f"{path}: {len(rows)} rows, but the benchmark asks for {n or 'at least 1'}")
    return rows[:n]
