"""Benchmarks of expression: what their YAML may say, their items in groups, and what is put to a model."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from example_benchmarks import ROOT, shipped

from affectbench.dataset import load_benchmark
from affectbench.examples import DatasetError, RenderedPrompt
from affectbench.prompt_tokens import PromptTokens
from affectbench.prompts import plain_prompt, prompt_text
from affectbench.registry import Registry
from affectbench.scenarios import EMOTIONS, VALENCES
from affectbench.task import SPLITS, Benchmark, ExpressionBenchmark, TaskFileError, load_as

OWN: dict[str, Any] = {
    "kind": "expression",
    "name": "trial",
    "version": 1,
    "licence": "own",
    "source": {"reader": "scenarios", "files": {"all": "rows.jsonl"}},
    "labels": list(EMOTIONS),
    "elicit": {"system": "Say it with {emotion}.", "user": "{scenario} {event}"},
    "plain": {"system": "Say it.", "user": "{scenario} {event}"},
    "readout": {"kind": "judge", "judge": "replies", "max_new_tokens": 10},
    "preservation": {
        "neutral": {"reader": "generator", "module": "narratives", "n": 3, "seed": 1},
        "capability": {"kind": "multiple_choice", "source": {"reader": "generator", "module": "narratives",
                                                             "n": 3, "seed": 1}},
        "prompts": ["Once"],
    },
}  # fmt: skip
ROW = (
    '{"theme": "Work", "scenario": "I made box %(k)d.", "event": {"positive": "It came.", "neutral": "It'
    ' stood.", "negative": "It fell."}, "skeleton_id": "w-%(k)d"%(split)s}\n'
)


def written(folder: Path, rows: str, **changes: Any) -> Path:
    (folder / "rows.jsonl").write_text(rows, encoding="utf-8")
    path = folder / "trial.yaml"
    path.write_text(yaml.safe_dump(OWN | changes), encoding="utf-8")
    return path


def scenarios(splits: dict[str, int], named: bool = True) -> str:
    places = [split for split, count in splits.items() for _ in range(count)]
    return "".join(
        ROW % {"k": k, "split": f', "split": "{split}"' if named else ""} for k, split in enumerate(places)
    )


def trial(folder: Path, **changes: Any) -> ExpressionBenchmark:
    return load_as(written(folder, scenarios({"identification": 5, "validation": 2, "test": 3}), **changes),
                   ExpressionBenchmark)  # fmt: skip


def test_each_scenario_and_outcome_is_asked_for_every_emotion(tmp_path: Path) -> None:
    data = load_benchmark(trial(tmp_path))
    assert [len(data.split(name)) for name in SPLITS] == [5 * 18, 2 * 18, 3 * 18]
    item = next(each for each in data.split("test") if each.id == "w-7__negative__fear")
    assert (item.label, item.cluster, item.fields["valence"]) == ("fear", "w-7", "negative")
    assert item.text == "I made box 7.\nIt fell."


def test_a_limit_keeps_whole_groups(tmp_path: Path) -> None:
    found = load_benchmark(trial(tmp_path), limit=4).split("test")
    pairs = {each.id.rpartition("__")[0] for each in found}
    assert len(pairs) == 4
    assert {each.id for each in found} == {f"{pair}__{emotion}" for pair in pairs for emotion in EMOTIONS}


def test_held_out_scenarios_are_a_share_of_identification_and_none_of_test(tmp_path: Path) -> None:
    written(tmp_path, scenarios({"": 10}, named=False))
    (tmp_path / "later.jsonl").write_text(
        scenarios({"": 4}, named=False).replace("box", "cup").replace("w-", "t-")
    )
    files = {"identification": "rows.jsonl", "test": "later.jsonl"}
    source = {"reader": "scenarios", "files": files, "held_out": 0.2}
    task = load_as(written(tmp_path, scenarios({"": 10}, named=False), source=source), ExpressionBenchmark)
    data = load_benchmark(task)
    clusters = [{each.cluster for each in data.split(name)} for name in SPLITS]
    assert [len(found) for found in clusters] == [8, 2, 4]
    assert all(name.startswith("t-") for name in clusters[2])


def test_a_scenario_without_a_split_is_refused(tmp_path: Path) -> None:
    task = load_as(written(tmp_path, scenarios({"": 4}, named=False)), ExpressionBenchmark)
    with pytest.raises(DatasetError, match="scenario w-0 has no split"):
        load_benchmark(task)


def test_prompts_differ_in_the_demanded_emotion_alone(tmp_path: Path) -> None:
    task = trial(tmp_path)
    items = [each for each in load_benchmark(task).split("test") if each.id.startswith("w-7__neutral")]
    assert {prompt_text(task, each).text for each in items} == {
        f"Say it with {emotion}.\nI made box 7. It stood.\nReply:" for emotion in EMOTIONS
    }
    assert {plain_prompt(task, each).text for each in items} == {"Say it.\nI made box 7. It stood.\nReply:"}
    prompt = prompt_text(task, items[0])
    start, end = prompt.content_span or (0, 0)
    assert prompt.text[start:end] == "I made box 7. It stood."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"elicit": {"system": "Say it.", "user": "{event}"}}, r"elicit: .*\{emotion\} stands nowhere"),
        ({"plain": {"system": "{emotion}.", "user": "{event}"}}, r"plain.system: \{emotion\} is no field"),
        ({"plain": {"system": "Now.", "user": "{evnt}"}}, r"plain.user: \{evnt\} is no field.*'event'"),
        ({"flat": "{user}"}, r"flat: expected \{system\} and \{user\}"),
        ({"source": {"reader": "scenarios", "files": {"test": "rows.jsonl"}}}, r"source.files: expected all"),
        ({"source": {"reader": "scenarios", "files": {"all": "raws.jsonl"}}},
         r"trial.yaml:\d+: source.files.all: there is no file .*'rows.jsonl'"),
        ({"readout": {"kind": "labels"}}, r"readout"),
        ({"label_map": {"joy": "happiness"}}, r"label_map: unknown key"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_its_place(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(TaskFileError, match=message):
        load_as(written(tmp_path, scenarios({"identification": 3}), **changes), Benchmark)


def test_it_is_found_among_the_tasks(tmp_path: Path) -> None:
    trial(tmp_path)
    registry = Registry([tmp_path], installed=False)
    assert isinstance(registry.benchmark("trial"), ExpressionBenchmark)
    assert {"scenarios", "sev", "trial"} <= {entry.name for entry in registry.entries("benchmark")}


def test_our_own_task_has_the_items_of_its_design() -> None:
    task = shipped("scenarios")
    data = load_benchmark(task)
    pairs = {"identification": 120, "validation": 16, "test": 36}
    assert {name: len(data.split(name)) for name in SPLITS} == {name: 6 * n for name, n in pairs.items()}
    assert {each.fields["valence"] for each in data.split("test")} == set(VALENCES)


CHATML = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML


class Spoken(PromptTokens):
    def __init__(self, template: str) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(ROOT / "models/reference/reference-text")
        self.tokenizer.chat_template = template


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHATML, "<system>Be sad.</system><user>I fell.</user><assistant>"),
        (NO_SYSTEM, "<user>Be sad.\n\nI fell.</user><assistant>"),
    ],
)
def test_a_chat_template_gets_the_system_line_where_it_takes_one(template: str, expected: str) -> None:
    prompt = RenderedPrompt("flat", (0, 4), ("x",), None, ("Be sad.", "I fell."))
    text, span = Spoken(template).render(prompt)
    assert text == expected
    assert text[slice(*(span or ()))] == "I fell."
