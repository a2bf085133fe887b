"""The control tasks without emotion: what their items say, and that frames of the splits are disjoint."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import combinations
from types import ModuleType
from typing import Any

import pytest

from affectbench import errands, needs
from affectbench.dataset import generator_digest, load_benchmark
from affectbench.registry import Registry

Items = dict[str, list[dict[str, Any]]]
TASKS = [errands, needs]
SPLITS = ("identification", "validation", "test")


def names(task: ModuleType) -> str:
    return task.__name__.split(".")[-1]


def clusters(items: Items, split: str, part: Callable[[str], object] = str) -> set[object]:
    return {part(item["cluster"]) for item in items[split]}


@pytest.mark.parametrize("split", SPLITS)
def test_an_errand_asks_what_its_text_says(split: str) -> None:
    for item in errands.examples(split, 24, 0):
        said = dict(re.findall(r"(\w+) carried the (\w+)", item["text"]))
        assert len(said) == 2
        assert said[item["person"]] == item["label"]
        assert set(said.values()) <= set(errands.LABELS)


@pytest.mark.parametrize("split", SPLITS)
def test_a_need_asks_what_its_text_says(split: str) -> None:
    doing = {use: tool for tool, use in needs.USES.items()}
    verbs = "|".join(needs.VERBS[split])
    distracted = 0
    for item in needs.examples(split, 40, 0):
        found = re.findall(rf"(\w+) (?:{verbs}) ([a-z ]+)\.", item["text"])
        said = {person: doing[use] for person, use in found}
        assert said[item["person"]] == item["label"]
        distracted += len(said) - 1
    assert 0.2 < distracted / 280 < 0.4


def test_frames_are_as_many_as_their_parts_allow_and_disjoint() -> None:
    found: dict[ModuleType, Items] = {
        task: {split: task.examples(split, 30, 0) for split in SPLITS} for task in TASKS
    }
    for split in SPLITS:
        assert len(clusters(found[errands], split)) == 7 * 2 * len(errands.FORMS)
        frames = 7 * len(needs.VERBS[split]) * len(needs.SURROUNDINGS[split])
        assert len(clusters(found[needs], split)) == frames
        # Not only the sentence: two people of one split never meet in another.
        assert len(clusters(found[errands], split, people)) == 7
    for one, other in combinations(SPLITS, 2):
        assert not clusters(found[errands], one, people) & clusters(found[errands], other, people)
        assert not clusters(found[needs], one) & clusters(found[needs], other)


def people(cluster: str) -> frozenset[str]:
    return frozenset(cluster.split("-")[:2])


@pytest.mark.parametrize("task", TASKS, ids=names)
class TestBoth:
    def test_labels_are_balanced_and_ids_differ(self, task: ModuleType) -> None:
        for split in SPLITS:
            items = task.examples(split, 30, 0)
            assert [item["label"] for item in items] == [label for label in task.LABELS for _ in range(30)]
            assert len({item["id"] for item in items}) == len(items)

    def test_fewer_items_are_some_of_more_and_seeds_differ(self, task: ModuleType) -> None:
        fewer, more = task.examples("test", 5, 0), task.examples("test", 30, 0)
        assert all(item in more for item in fewer)
        assert task.examples("test", 5, 1) != fewer

    def test_an_unknown_split_is_refused(self, task: ModuleType) -> None:
        with pytest.raises(ValueError, match="split 'training' is unknown"):
            task.examples("training", 1, 0)

    def test_the_benchmark_reads_them_and_its_hash_covers_their_code(self, task: ModuleType) -> None:
        registry = Registry(installed=False)
        control, stories = (registry.benchmark(f"reference-{name}") for name in (names(task), "narratives"))
        data = load_benchmark(control)
        assert {split: len(items) for split, items in data.splits.items()} == {
            "identification": 700, "validation": 105, "test": 210
        }  # fmt: skip
        assert generator_digest(control) != generator_digest(stories)
