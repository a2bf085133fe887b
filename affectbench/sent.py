"""What a task sends to a model, as hashes, item by item: a change that nobody meant shows here.

Kept in a file and compared later (`verify-task --golden`), so that a prompt, a label, a split or a sound that
changes without a new `version` of the task fails a test, whatever changed it: the YAML, a reader, a library.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from affectbench.dataset import Dataset, Sound
from affectbench.examples import DatasetError, Example
from affectbench.prompts import plain_prompt, prompt_text
from affectbench.store import write_atomically
from affectbench.task import SPLITS, Benchmark, ExpressionBenchmark

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{8,16}$")]


class Sent(BaseModel):
    """A task's name, version and digest, the first prompt for people, and a hash of what each item sends.

    An item's hash covers its prompt, the possible answers and their order, its label, and its sound.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    version: int
    digest: Digest
    first: str
    items: dict[str, dict[str, Digest]]

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all; the same content gives the same bytes."""
        text = json.dumps(self.model_dump(mode="json"), indent=0, ensure_ascii=False, sort_keys=True)
        write_atomically(path, (text + "\n").encode())


def sent_by(dataset: Dataset, sounds: Mapping[str, Sound]) -> Sent:
    """What the items of a data set send. `sounds`: of all items that have one, by id."""
    task = dataset.benchmark
    found: dict[str, dict[str, str]] = {
        name: {item.id: _digest(task, item, sounds) for item in dataset.splits[name]} for name in SPLITS
    }
    first = prompt_text(task, dataset.splits["identification"][0]).text
    return Sent(task=task.name, version=task.version, digest=task.digest, first=first, items=found)


def read_sent(path: Path) -> Sent:
    """Read a file of `Sent.write`. Raises `DatasetError`."""
    try:
        return Sent.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        problem = str(error).splitlines()[0]
        raise DatasetError(
            f"{path} cannot be read as what a task sent before: {problem}",
            hint="write it with verify-task --golden FILE --update",
        ) from error


def changes(before: Sent, now: Sent) -> list[str]:
    """What is sent that was not sent before, in words; empty where nothing changed."""
    if before.task != now.task:
        return [f"this is what {before.task} sent, not {now.task}"]
    found = []
    if now.version != before.version:
        found.append(f"version {before.version} is now {now.version}")
    if now.digest != before.digest:
        found.append(f"what the task's file says changed ({before.digest} is now {now.digest})")
    if now.first != before.first:
        found.append(f"the first prompt was {before.first!r} and is {now.first!r}")
    old, new = _flat(before), _flat(now)
    for what, ids in (
        ("gone", [key for key in old if key not in new]),
        ("new", [key for key in new if key not in old]),
        ("sent otherwise", [key for key in old if key in new and old[key] != new[key]]),
    ):
        if ids:
            split, name = ids[0]
            found.append(f"{len(ids)} items are {what}, the first {name} ({split})")
    return found


def needs_version(before: Sent, now: Sent) -> bool:
    """Whether something changed although the version did not go up."""
    return before.task == now.task and now.version <= before.version and bool(changes(before, now))


def _flat(sent: Sent) -> dict[tuple[str, str], str]:
    return {(split, item): digest for split, items in sent.items.items() for item, digest in items.items()}


def _digest(task: Benchmark, item: Example, sounds: Mapping[str, Sound]) -> str:
    prompt = prompt_text(task, item)
    sound = sounds[item.id].digest if task.modality == "audio" else None
    row: list[Any] = [prompt.text, prompt.answer_options, prompt.order, item.label, sound]
    if isinstance(task, ExpressionBenchmark):
        row += [prompt.turns, plain_prompt(task, item).turns]
    return hashlib.sha256(json.dumps(row, ensure_ascii=False).encode()).hexdigest()[:8]
