"""What a model is asked, how its answer is read back, and what else it must still do."""

import json
from pathlib import Path

import pytest
import yaml
from example_benchmarks import EMOTIONS, ROOT, benchmark, shipped

from affectbench.dataset import DatasetError, Example, parse_answer, prompt_text
from affectbench.preservation_items import choice_items, neutral_texts
from affectbench.task import Benchmark, load_as


def test_prompt_marks_the_items_own_text() -> None:
    example = Example("x", "Text: {person} {audio}", None, "anger", "c", {"person": "Mara"})
    prompt = prompt_text(benchmark(prompt="{person}? Text: {text} Emotion:"), example)
    assert prompt.text == "Mara? Text: Text: {person} {audio} Emotion:"
    assert prompt.content_span is not None
    assert prompt.text[slice(*prompt.content_span)] == example.text
    assert prompt.answer_options == (" anger", " happiness", " sadness")
    with pytest.raises(DatasetError, match=r"\{place\}"):
        prompt_text(benchmark(prompt="{text} {place}"), example)


def test_lettered_options_are_permuted_by_item_id_alone() -> None:
    task = benchmark(prompt="{text}\n{options}\nAnswer:", readout={"kind": "letters"})
    orders = set()
    for k in range(60):
        example = Example(f"item{k}", "Hm.", None, "anger", "c")
        prompt = prompt_text(task, example)
        assert prompt.order is not None
        assert prompt == prompt_text(task, example)
        for label, option in enumerate(prompt.answer_options):
            assert f"{option.strip()}. {EMOTIONS[label]}\n" in prompt.text
            assert prompt.order["ABC".index(option.strip())] == label
        orders.add(prompt.order)
    assert len(orders) == 6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" anger", 0),
        ("Anger.", 0),
        ("**Sadness**, because he cries", 2),
        ("The person feels happiness.", 1),
        ("anger, not sadness", 0),
        ("It is either anger or sadness", -1),
        ("angering", -1),
        ("joy", -1),
        ("", -1),
    ],
)
def test_parse_words(text: str, expected: int) -> None:
    assert parse_answer(text, [f" {emotion}" for emotion in EMOTIONS]) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" B", 0),
        ("b", 0),
        ("(C)", 1),
        ("A.", 2),
        ("A: anger", 2),
        ("The answer is C because", 1),
        ("Answer: B", 0),
        ("A man sounds angry", -1),
        ("A. or B.", -1),
        ("(A) (B)", -1),
        ("D", -1),
        ("", -1),
    ],
)
def test_parse_letters(text: str, expected: int) -> None:
    assert parse_answer(text, [" B", " C", " A"]) == expected


def test_preservation_items() -> None:
    for name in ("reference-narratives", "goemotions", "emodb"):
        task = shipped(name)
        items = choice_items(task)
        assert len({item.id for item in items}) == len(items) >= 40
        assert all(len(set(item.choices)) == 4 and 0 <= item.answer < 4 for item in items)
        assert len({item.answer for item in items}) == 4
        texts = neutral_texts(task)
        assert len(set(texts)) == len(texts) >= 30
        words = " ".join(texts).lower().split()
        assert not set(words) & {
            "anger",
            "disgust",
            "fear",
            "happiness",
            "sadness",
            "surprise",
            "sad",
            "happy",
        }
    with pytest.raises(DatasetError, match="reference-speaker-sex"):
        choice_items(shipped("reference-speech"))
    assert len(neutral_texts(shipped("reference-speech"))) == 64


def test_bad_choice_rows_are_named(tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "tasks/benchmarks/reference-narratives.yaml").read_text())
    items = {"reader": "file", "path": "c.jsonl"}
    content["preservation"]["capability"]["source"] = items
    content["name"] = "trial"
    (tmp_path / "trial.yaml").write_text(yaml.safe_dump(content))
    good: dict[str, object] = {"id": "a", "context": "Snow is", "choices": [" white", " hot"], "answer": 0}
    bads: list[tuple[str | dict[str, object], str]] = [
        ("{", "not JSON"),
        ({"answer": 2}, "answer 2"),
        ({"choices": [" one"]}, "choices"),
    ]
    for bad, part in bads:
        row = bad if isinstance(bad, str) else json.dumps({**good, **bad})
        (tmp_path / "c.jsonl").write_text(json.dumps(good) + "\n" + row + "\n")
        with pytest.raises(DatasetError, match=rf"c\.jsonl:2: .*{part}"):
            choice_items(load_as(tmp_path / "trial.yaml", Benchmark))
