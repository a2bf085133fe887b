"""What must hold of the analyses in a folder of published results before and after a change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from affectbench.analysis import Analysis, AnalysisStore
from affectbench.submission import MARKUP, texts_of
from affectbench.task_parts import NAME_PATTERN


def analysis_problems(base: Path, head: Path) -> Iterator[str]:
    """What is wrong with the analyses of `head`, in sentences; `base` holds what was published before.

    Each must fit the schema under its seal, and hold no markup. One that was published stays, and says the
    same as long as it is made from the same inputs by the same code with the same settings.
    """
    after, damaged = AnalysisStore(head).read_all()
    for item in damaged:
        yield f"{item.path.name}: {item.reason}"
    found = {each.name: each for each in after}
    for name, each in found.items():
        for key in ("model", "task"):
            value = getattr(each, key)
            if value and not re.fullmatch(NAME_PATTERN, value):
                yield f"{name}: {key} {value!r} is no name"
        for text in texts_of(each.model_dump(mode="json")):
            if MARKUP.search(text):
                yield f"{name}: markup in {text[:60]!r}"
    for before in AnalysisStore(base).read_all()[0]:
        now = found.get(before.name)
        if now is None:
            yield f"{before.name}: published, and not in the change"
        elif _made_alike(before, now) and before.hashes.record != now.hashes.record:
            yield f"{before.name}: says something else, though it is made from the same by the same code"


def _made_alike(one: Analysis, other: Analysis) -> bool:
    return (one.hashes.inputs, one.hashes.code, one.settings, one.seed) == (
        other.hashes.inputs,
        other.hashes.code,
        other.settings,
        other.seed,
    )
