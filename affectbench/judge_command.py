"""`train-judge`: train a local judge, say how often it is right, write it with its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

CARD = """\
# yaml-language-server: $schema=../schema/judge.schema.json
# A local judge; `python harness.py train-judge` wrote it.
kind: judge
name: {name}
version: 1
title: {title}
licence: {licence}
reader: local
checkpoint: {name}
"""


@dataclass(frozen=True)
class JudgeRequest:
    """What to train a judge on: a file of labelled texts, or where None replies that are generated. It is
    measured on `tests`, files with the same
    keys, and on the test texts of `tasks` whose labels it knows."""

    name: str
    output: Path
    texts: Path | None
    tests: Sequence[Path]
    tasks: Sequence[str]
    data: Path | None
    text_key: str
    label_key: str
    group_key: str
    licence: str


def train_judge(console: Console, request: JudgeRequest) -> None:
    """Write ``OUTPUT/NAME.yaml`` and the folder ``OUTPUT/NAME``. Raises `AffectbenchError` for files that
    hold no labelled texts, and where nothing can be written."""
    from affectbench.dataset import load_benchmark
    from affectbench.judges.judgement import NONE_LABEL
    from affectbench.recipes.judge import (
        Labelled,
        labelled_by_task,
        measure,
        own_neutral,
        own_replies,
        read_labelled,
        train,
    )
    from affectbench.registry import Registry
    from affectbench.store import write_atomically

    keys = (request.text_key, request.label_key, request.group_key)
    tests: dict[str, Labelled] = {}
    if request.texts is None:
        data, tests["other draws of generated replies"] = own_replies()
        origin = "trained on generated replies"
    else:
        data = read_labelled(request.texts, *keys)
        origin = f"trained on {request.texts.name}"
    tests |= {path.name: read_labelled(path, *keys) for path in request.tests}
    labels = sorted(set(data.labels) - {NONE_LABEL})
    for name in request.tasks:
        task = Registry().benchmark(name)
        tests[f"{name}, shared labels"] = labelled_by_task(load_benchmark(task, request.data), labels)
    classifier = train(data, own_neutral(), origin)
    for name, test in tests.items():
        found = measure(classifier, test)
        _say(
            console,
            f"{name}: {found.n} texts, {found.accuracy:.2%} as labelled, {found.none:.2%} as none; "
            f"without emotion words {found.masked_accuracy:.2%}, {found.masked_none:.2%}",
        )
    classifier.save(request.output / request.name)
    card = request.output / f"{request.name}.yaml"
    text = CARD.format(name=request.name, title=f"Local judge, {origin}", licence=request.licence)
    write_atomically(card, text.encode())
    _say(console, f"wrote {card}")


def _say(console: Console, text: str) -> None:
    console.print(escape(text), highlight=False, soft_wrap=True)
