"""Reading, labelling and splitting items."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from example_benchmarks import EMOTIONS, ROOT, benchmark, shipped, tone

from affectbench.dataset import Dataset, DatasetError, load_benchmark
from affectbench.task import SPLITS, Benchmark

DATA = Path(os.environ.get("AFFECTBENCH_DATA", ROOT.parent / "shared" / "data"))


def needs(folder: str) -> Path:
    if not (DATA / folder).is_dir():
        pytest.skip(f"no {folder}/ in {DATA}; set AFFECTBENCH_DATA to run this on real data")
    return DATA


Row = tuple[str, str, str, str]
Spoil = Callable[[list[Row]], list[Row]]


def rows(writers: int = 8, each: int = 2) -> list[Row]:
    """(id, text, emotion, writer): every writer has `each` items of each emotion."""
    return [
        (f"{w}-{e}-{k}", f"I feel {e}, {w} said.", e, f"writer{w}")
        for w in range(writers)
        for e in ("anger", "joy", "sadness")
        for k in range(each)
    ]


def write_table(root: Path, items: list[Row]) -> Path:
    import csv

    (root / "trial").mkdir(exist_ok=True)
    with (root / "trial/items.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("id", "text", "emotion", "writer"), *items])
    return root


def ids(dataset: Dataset) -> dict[str, list[str]]:
    return {name: [example.id for example in dataset.split(name)] for name in SPLITS}


def all_ids(dataset: Dataset) -> list[str]:
    return [example.id for name in SPLITS for example in dataset.split(name)]


def test_cluster_split_is_disjoint_complete_and_independent_of_order(tmp_path: Path) -> None:
    items = rows()
    dataset = load_benchmark(benchmark(), write_table(tmp_path, items))
    clusters = [{example.cluster for example in dataset.split(name)} for name in SPLITS]
    assert [len(found) for found in clusters] == [4, 2, 2]
    assert len(set.union(*clusters)) == 8
    assert sorted(all_ids(dataset)) == sorted(item[0] for item in items)
    assert {example.label for example in dataset.split("test")} == set(EMOTIONS)
    again = load_benchmark(benchmark(), write_table(tmp_path, items[::-1]))
    assert ids(again) == ids(dataset)
    assert again.digest_items == dataset.digest_items
    other = benchmark(split=benchmark().split.model_dump() | {"seed": 5})
    assert load_benchmark(other, tmp_path).digest_items != dataset.digest_items


def test_limits_keep_the_same_items_whatever_the_order(tmp_path: Path) -> None:
    limited = benchmark(limits={"identification": 3, "validation": 1})
    small = load_benchmark(limited, write_table(tmp_path, rows(each=4)))
    counts = {name: [example.label for example in small.split(name)] for name in SPLITS}
    assert {name: {e: counts[name].count(e) for e in EMOTIONS} for name in SPLITS} == {
        "identification": dict.fromkeys(EMOTIONS, 3),
        "validation": dict.fromkeys(EMOTIONS, 1),
        "test": dict.fromkeys(EMOTIONS, 8),
    }
    assert ids(load_benchmark(limited, write_table(tmp_path, rows(each=4)[::-1]))) == ids(small)
    fewer, more = (ids(load_benchmark(limited, tmp_path, limit=k)) for k in (1, 2))
    assert all(set(fewer[name]) <= set(more[name]) for name in SPLITS)
    assert len(fewer["test"]) == 3


def test_dropped_labels_are_counted(tmp_path: Path) -> None:
    items = [*rows(), ("bored", "Well.", "boredom", "writer1")]
    dataset = load_benchmark(benchmark(), write_table(tmp_path, items))
    assert dict(dataset.dropped) == {"label boredom": 1}
    assert "bored" not in all_ids(dataset)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("drop", {"mixed": None, "same": "happiness"}), ("first", {"mixed": "anger", "same": "happiness"})],
)
def test_multi_label_rows(tmp_path: Path, policy: str, expected: dict[str, str | None]) -> None:
    items = [*rows(), ("mixed", "Hm.", "anger,joy", "writer1"), ("same", "Oh.", "joy,happiness", "writer1")]
    root = write_table(tmp_path, items)
    dataset = load_benchmark(benchmark(multi_label=policy), root)
    found = {example.id: example.label for name in SPLITS for example in dataset.split(name)}
    assert {name: found.get(name) for name in expected} == expected
    with pytest.raises(DatasetError, match="several labels: anger, joy"):
        load_benchmark(benchmark(), root)


def change(index: int, column: int, value: str) -> Spoil:
    def changed(items: list[Row]) -> list[Row]:
        row = list(items[index])
        row[column] = value
        return [*items[:index], (row[0], row[1], row[2], row[3]), *items[index + 1 :]]

    return changed


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (change(3, 2, "angr"), ["items.csv:5", "'angr'", "did you mean 'anger'", "label_map"]),
        (change(3, 2, ""), ["items.csv:5", "label is empty"]),
        (change(3, 0, "0-anger-0"), ["items.csv:5", "'0-anger-0' was used before", "items.csv:2"]),
        (lambda items: [(i, t, e, "solo") for i, t, e, _ in items], ["1 different values of writer: solo"]),
        (lambda items: [(i, t, "anger", w) for i, t, _, w in items], ["has items of anger", "at least two"]),
        (
            lambda items: [(i, " ", e, w) for i, _, e, w in items],
            ["items of no label", "text is empty"],
        ),
    ],
)
def test_contradicting_data(tmp_path: Path, spoil: Spoil, parts: list[str]) -> None:
    with pytest.raises(DatasetError) as caught:
        load_benchmark(benchmark(), write_table(tmp_path, spoil(rows())))
    for part in parts:
        assert part in str(caught.value)


def test_empty_text_is_an_item_error(tmp_path: Path) -> None:
    dataset = load_benchmark(benchmark(), write_table(tmp_path, change(3, 1, "  ")(rows())))
    assert [(error.id, error.reason) for error in dataset.errors] == [(rows()[3][0], "the text is empty")]
    assert dataset.errors[0].path.endswith("items.csv:5")


def test_missing_data_and_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AFFECTBENCH_DATA", raising=False)
    with pytest.raises(DatasetError, match="AFFECTBENCH_DATA"):
        load_benchmark(benchmark())
    with pytest.raises(DatasetError, match="there is no folder"):
        load_benchmark(benchmark(), tmp_path)
    write_table(tmp_path, rows())
    monkeypatch.setenv("AFFECTBENCH_DATA", str(tmp_path))
    assert load_benchmark(benchmark()).split("test")
    source = benchmark().source.model_dump()
    with pytest.raises(DatasetError, match=r"no file .*item\.csv.*did you mean 'items\.csv'"):
        load_benchmark(benchmark(source=source | {"files": {"all": "item.csv"}}))
    with pytest.raises(DatasetError, match=r"items\.csv:2: no value for column 'txt'.*did you mean 'text'"):
        load_benchmark(benchmark(source=source | {"columns": source["columns"] | {"text": "txt"}}))


def test_clusters_listed_by_name(tmp_path: Path) -> None:
    lists = {"identification": ["writer0"], "validation": ["writer1"], "test": ["writer2"]}
    listed = benchmark(split={"by": "cluster", "clusters": lists})
    dataset = load_benchmark(listed, write_table(tmp_path, rows(writers=3)))
    assert {name: {e.cluster for e in dataset.split(name)} for name in SPLITS} == {
        k: set(v) for k, v in lists.items()
    }
    with pytest.raises(DatasetError, match="writer 'writer3' is in no split"):
        load_benchmark(listed, write_table(tmp_path, rows(writers=4)))


def given_source(form: str) -> dict[str, Any]:
    columns = {"text": "text", "label": "emotion", "id": "id", "cluster": "writer"}
    return {
        "reader": "table",
        "format": form,
        "files": {name: f"{name}.{form}" for name in SPLITS},
        "columns": columns,
    }


def given_rows(split: int) -> list[dict[str, str]]:
    return [
        {"id": f"{split}-{w}-{e}", "text": f'"{e}",\tit said', "emotion": e, "writer": f"w{split}{w}"}
        for w in range(2)
        for e in EMOTIONS
    ]


@pytest.mark.parametrize("form", ["tsv", "csv", "jsonl", "parquet"])
def test_table_formats_give_the_same_items(tmp_path: Path, form: str) -> None:
    (tmp_path / "trial").mkdir()
    for number, name in enumerate(SPLITS):
        path, items = tmp_path / f"trial/{name}.{form}", given_rows(number)
        if form == "tsv":
            items = [{key: value.replace("\t", " ") for key, value in item.items()} for item in items]
            lines = ["\t".join(items[0]), *("\t".join(item.values()) for item in items)]
            path.write_text("\n".join(lines) + "\n")
        elif form == "jsonl":
            path.write_text("".join(json.dumps(item) + "\n" for item in items))
        else:
            import pandas

            frame = pandas.DataFrame(items)
            frame.to_parquet(path) if form == "parquet" else frame.to_csv(path, index=False)
    dataset = load_benchmark(benchmark(source=given_source(form), split={"by": "given"}), tmp_path)
    for number, name in enumerate(SPLITS):
        found = {e.id: (str(e.text).replace("\t", " "), e.label, e.cluster) for e in dataset.split(name)}
        assert found == {
            row["id"]: (row["text"].replace("\t", " "), row["emotion"], row["writer"])
            for row in given_rows(number)
        }


def test_a_cluster_in_two_given_splits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trial").mkdir()
    for number, name in enumerate(SPLITS):
        items = [item | {"writer": "same"} if k == 0 else item for k, item in enumerate(given_rows(number))]
        (tmp_path / f"trial/{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    with pytest.raises(DatasetError, match=r"writer 'same' is in identification .* and in validation"):
        load_benchmark(benchmark(source=given_source("jsonl"), split={"by": "given"}), tmp_path)


def folder_benchmark() -> Benchmark:
    return benchmark(
        modality="audio",
        prompt="{audio} Emotion:",
        cluster="speaker",
        label_map={"A": "anger", "S": "sadness"},
        source={
            "reader": "folder",
            "files": ["*.wav"],
            "pattern": r"(?P<speaker>s\d)(?P<take>\d)(?P<label>[A-Z])\.wav",
        },
    )


def test_folder_counts_unusable_sound(tmp_path: Path) -> None:
    (tmp_path / "trial").mkdir()
    for speaker in range(3):
        for take in range(3):
            for letter in "AS":
                soundfile.write(tmp_path / f"trial/s{speaker}{take}{letter}.wav", tone(16000), 16000)
    (tmp_path / "trial/s00A.wav").write_bytes(b"RIFF")
    dataset = load_benchmark(folder_benchmark(), tmp_path)
    assert [(error.id, Path(error.path).name) for error in dataset.errors] == [("s00A", "s00A.wav")]
    assert sum(len(dataset.split(name)) for name in SPLITS) == 17
    example = next(e for name in SPLITS for e in dataset.split(name) if e.id == "s11S")
    assert (example.label, example.cluster, dict(example.fields)) == (
        "sadness",
        "s1",
        {"speaker": "s1", "take": "1"},
    )
    assert example.waveform().shape == (8000,)
    for path in (tmp_path / "trial").glob("*.wav"):
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"items could not be used, first .*\.wav"):
        load_benchmark(folder_benchmark(), tmp_path)
    (tmp_path / "trial/readme.wav").touch()
    with pytest.raises(DatasetError, match=r"readme\.wav: the file name does not match"):
        load_benchmark(folder_benchmark(), tmp_path)


@pytest.mark.parametrize("name", ["reference-narratives", "reference-speech", "reference-speaker-sex"])
def test_reference_benchmarks(name: str) -> None:
    task = shipped(name)
    dataset = load_benchmark(task)
    clusters = [{example.cluster for example in dataset.split(split)} for split in SPLITS]
    assert sum(map(len, clusters)) == len(set.union(*clusters))
    assert not dataset.errors
    assert load_benchmark(task).digest_items == dataset.digest_items
    assert all(set(dataset.gold(split)) == set(range(len(task.labels))) for split in SPLITS)
    if task.modality == "audio":
        first = dataset.split("test")[0]
        assert first.waveform().dtype == np.float32
        np.testing.assert_array_equal(first.waveform(), first.waveform())
    if name != "reference-speaker-sex":
        assert [len(dataset.split(split)) for split in SPLITS] == [700, 105, 210]


def test_the_gold_label_of_an_item_is_no_field_of_its_prompt() -> None:
    for name in ("reference-narratives", "reference-speech"):
        assert all(
            "label" not in example.fields for example in load_benchmark(shipped(name), limit=1).split("test")
        )


def test_emodb() -> None:
    dataset = load_benchmark(shipped("emodb"), needs("emodb"), limit=5)
    assert dict(dataset.dropped) == {"label L": 81}
    assert not dataset.errors
    assert {name: {e.cluster for e in dataset.split(name)} for name in SPLITS} == {
        "identification": {"11", "14", "15", "16"},
        "validation": {"09", "10"},
        "test": {"03", "08", "12", "13"},
    }
    letters = {"W": "anger", "E": "disgust", "A": "fear", "F": "happiness", "N": "neutral", "T": "sadness"}
    for example in dataset.split("test"):
        assert example.label == letters[example.id[5]]
    assert dataset.split("test")[0].waveform().size > 8000


def test_goemotions() -> None:
    root = needs("goemotions")
    task = shipped("goemotions")
    whole = load_benchmark(task.model_copy(update={"limits": type(task.limits)(validation=50)}), root)
    files = [root / f"goemotions/ekman_{part}.tsv" for part in ("train", "dev", "test")]
    raw = [[line.split("\t")[1] for line in file.read_text("utf-8").split("\n") if line] for file in files]
    single = [[label for label in labels if "," not in label] for labels in raw]
    assert whole.dropped["several labels"] == sum(map(len, raw)) - sum(map(len, single))
    assert [len(whole.split(name)) for name in ("identification", "test")] == [len(single[0]), len(single[2])]
    happy = [example for example in whole.split("test") if example.label == "happiness"]
    assert len(happy) == single[2].count("3")
    kept = [example.label for example in whole.split("validation")]
    assert {kept.count(label) for label in task.labels} == {50}
