"""The control task without emotion: what its items say, and that frames of the splits are disjoint."""

from __future__ import annotations

import re

import pytest

from affectbench.dataset import generator_digest, load_benchmark
from affectbench.errands import FORMS, LABELS, SPLITS, examples
from affectbench.registry import Registry


@pytest.mark.parametrize("split", SPLITS)
def test_an_item_asks_what_its_text_says(split: str) -> None:
    for item in examples(split, 24, 0):
        said = dict(re.findall(r"(\w+) carried the (\w+)", item["text"]))
        assert len(said) == 2
        assert said[item["person"]] == item["label"]
        assert set(said.values()) <= set(LABELS)


def test_labels_are_balanced_items_stable_and_frames_disjoint() -> None:
    found = {split: examples(split, 30, 0) for split in SPLITS}
    pairs = {}
    for split, items in found.items():
        assert [item["label"] for item in items] == [label for label in LABELS for _ in range(30)]
        assert len({item["id"] for item in items}) == len(items)
        assert len({item["cluster"] for item in items}) == 7 * 2 * len(FORMS)
        pairs[split] = {frozenset(item["cluster"].split("-")[:2]) for item in items}
        assert len(pairs[split]) == 7
    assert not pairs["identification"] & pairs["validation"] | pairs["test"] & pairs["validation"]
    assert not pairs["identification"] & pairs["test"]
    fewer = examples("test", 5, 0)
    assert all(item in found["test"] for item in fewer)
    assert examples("test", 5, 1) != fewer
    with pytest.raises(ValueError, match="split 'training' is unknown"):
        examples("training", 1, 0)


def test_the_benchmark_reads_them_and_its_hash_covers_their_code() -> None:
    registry = Registry(installed=False)
    errands, stories = (registry.benchmark(f"reference-{name}") for name in ("errands", "narratives"))
    data = load_benchmark(errands)
    assert {split: len(items) for split, items in data.splits.items()} == {
        "identification": 700, "validation": 105, "test": 210
    }  # fmt: skip
    assert generator_digest(errands) != generator_digest(stories)
