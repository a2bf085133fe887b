"""Each shipped task sends to a model what it sent before: prompts, answers, labels, splits and sounds.

`tests/golden` holds hashes, item by item: of the shipped generators in full, of other corpora on the made-up
folders of `corpora.py`. A change that is meant: raise the task's `version`, then
``python -m pytest tests/test_golden.py --update-golden``. Where a made-up folder changes, first
delete the file.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from example_benchmarks import ROOT, shipped

from affectbench.dataset import load_benchmark
from affectbench.sent import Sent, read_sent, sent_by
from affectbench.task import SPLITS
from affectbench.task_checks import all_sounds
from affectbench.task_command import differences, update_golden

GOLDEN = ROOT / "tests/golden"
TASKS = sorted(path.stem for path in (ROOT / "tasks/benchmarks").glob("*.yaml"))


def sent(name: str, data: Path) -> Sent:
    dataset = load_benchmark(shipped(name), data)
    return sent_by(dataset, all_sounds(dataset))


@pytest.mark.parametrize("name", TASKS)
def test_what_a_shipped_task_sends_is_what_it_sent_before(
    name: str, corpora: Path, request: pytest.FixtureRequest
) -> None:
    now = sent(name, corpora)
    if request.config.getoption("--update-golden"):
        update_golden(GOLDEN / f"{name}.json", now)
    assert differences(read_sent(GOLDEN / f"{name}.json"), now) == []


def test_no_file_is_left_of_a_task_that_is_gone() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.json")) == TASKS


def test_generators_are_compared_item_by_item() -> None:
    known = read_sent(GOLDEN / "reference-narratives.json")
    assert [len(known.items[name]) for name in SPLITS] == [700, 105, 210]
    assert len({digest for items in known.items.values() for digest in items.values()}) > 990
