"""The control task of knowledge without emotion: what its items say, and that frames of the splits differ."""

from __future__ import annotations

import re

import pytest

from affectbench.dataset import generator_digest, load_benchmark
from affectbench.needs import LABELS, SURROUNDINGS, USES, VERBS, examples
from affectbench.registry import Registry


@pytest.mark.parametrize("split", VERBS)
def test_an_item_asks_what_its_text_says(split: str) -> None:
    doing = {use: tool for tool, use in USES.items()}
    verbs = "|".join(VERBS[split])
    distracted = 0
    for item in examples(split, 40, 0):
        found = re.findall(rf"(\w+) (?:{verbs}) ([a-z ]+)\.", item["text"])
        said = {person: doing[use] for person, use in found}
        assert said[item["person"]] == item["label"]
        distracted += len(said) - 1
    assert 0.2 < distracted / 280 < 0.4


def test_labels_are_balanced_items_stable_and_frames_disjoint() -> None:
    found = {split: examples(split, 30, 0) for split in VERBS}
    for split, items in found.items():
        assert [item["label"] for item in items] == [label for label in LABELS for _ in range(30)]
        assert len({item["id"] for item in items}) == len(items)
        assert len({item["cluster"] for item in items}) == 7 * len(VERBS[split]) * len(SURROUNDINGS[split])
    clusters = [{item["cluster"] for item in items} for items in found.values()]
    assert not clusters[0] & clusters[1] | clusters[0] & clusters[2] | clusters[1] & clusters[2]
    fewer = examples("test", 5, 0)
    assert all(item in found["test"] for item in fewer)
    assert examples("test", 5, 1) != fewer
    with pytest.raises(ValueError, match="split 'training' is unknown"):
        examples("training", 1, 0)


def test_the_benchmark_reads_them_and_its_hash_covers_their_code() -> None:
    registry = Registry(installed=False)
    needs, stories = (registry.benchmark(f"reference-{name}") for name in ("needs", "narratives"))
    data = load_benchmark(needs)
    assert {split: len(items) for split, items in data.splits.items()} == {
        "identification": 700, "validation": 105, "test": 210
    }  # fmt: skip
    assert generator_digest(needs) != generator_digest(stories)
