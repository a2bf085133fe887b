"""Readers of rows, lines, paths and hub data sets, and what they say of data that contradict the YAML."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from corpora import lines, own_cache, sound, table, write_sound_cells
from example_benchmarks import benchmark, tone
from pydantic import ValidationError

from affectbench.dataset import DatasetError, load_benchmark
from affectbench.task import SPLITS, Benchmark

COLUMNS = {"text": "said", "label": "emotion", "cluster": "who"}


def tables(**source: Any) -> Benchmark:
    """A benchmark on items.csv, whose column `part` gives the split."""
    columns = COLUMNS | {"split": "part"} | source.pop("columns", {})
    basis = {"reader": "table", "format": "csv", "files": {"all": "items.csv"}, "columns": columns}
    values = {"train": "identification", "dev": "validation", "eval": "test", "spare": None}
    split = source.pop("split", {"by": "given"})
    return benchmark(source=basis | {"split_values": values} | source, split=split)


def people(parts: str = "train dev eval") -> list[tuple[str, str, str, str]]:
    return [
        (f"{part} {label}", label, f"{part}-{k}", part)
        for part in parts.split()
        for k, label in enumerate(("anger", "joy"))
    ]


def write(root: Path, rows: list[tuple[str, ...]]) -> Path:
    table(root / "trial/items.csv", ("said", "emotion", "who", "part"), rows)
    return root


def texts(task: Benchmark, root: Path) -> dict[str, list[str | None]]:
    dataset = load_benchmark(task, root)
    return {name: sorted(str(item.text) for item in dataset.split(name)) for name in SPLITS}


class TestRows:
    def test_a_column_gives_the_split_and_null_drops_its_rows(self, tmp_path: Path) -> None:
        write(tmp_path, people("train dev eval spare"))
        dataset = load_benchmark(tables(), tmp_path)
        assert texts(tables(), tmp_path)["validation"] == ["dev anger", "dev joy"]
        assert dict(dataset.dropped) == {"split spare": 2}

    def test_an_unknown_split_is_named(self, tmp_path: Path) -> None:
        write(tmp_path, [*people(), ("x", "anger", "a", "evla")])
        with pytest.raises(DatasetError, match=r"items\.csv:8: the split 'evla' is not known.*'eval'"):
            load_benchmark(tables(), tmp_path)

    def test_a_cluster_in_two_given_splits_stays_in_the_later_one(self, tmp_path: Path) -> None:
        write(tmp_path, [*people(), ("both", "anger", "eval-0", "train"), ("two", "joy", "dev-1", "train")])
        with pytest.raises(DatasetError, match=r"'eval-0' is in test .*train|so are 1 more"):
            load_benchmark(tables(), tmp_path)
        dropping = tables(split={"by": "given", "overlap": "drop"})
        assert dict(load_benchmark(dropping, tmp_path).dropped) == {
            "writer also in test": 1,
            "writer also in validation": 1,
        }
        assert texts(dropping, tmp_path)["identification"] == ["train anger", "train joy"]

    def test_rows_are_kept_by_whole_cells_and_the_rest_is_counted(self, tmp_path: Path) -> None:
        write(tmp_path, [*people(), ("train angers", "anger", "q", "train"), ("", "", "", "")])
        kept = tables(keep={"said": r"\w+ (anger|joy)"})
        assert dict(load_benchmark(kept, tmp_path).dropped) == {"`keep` for said": 2}
        with pytest.raises(DatasetError, match=r"no value for column 'sad'.*did you mean 'said'"):
            load_benchmark(tables(keep={"sad": "x"}), tmp_path)

    def test_templates_join_cells_and_the_name_of_the_table(self, tmp_path: Path) -> None:
        write(tmp_path, people())
        joined = tables(columns={"text": "{file}: {said}, said {who}", "id": "{part}/{emotion}"})
        dataset = load_benchmark(joined, tmp_path)
        item = dataset.split("test")[0]
        assert (item.id, item.text) == ("eval/anger", "items: eval anger, said eval-0")
        with pytest.raises(DatasetError, match="no value for column 'whom'"):
            load_benchmark(tables(columns={"text": "{whom}"}), tmp_path)

    def test_columns_of_labels_that_are_on_or_off(self, tmp_path: Path) -> None:
        rows = [
            (f"{p}{k}", k == 0, int(k == 1), "true" if k == 1 else "0", p) for p in "ide" for k in range(3)
        ]
        header = ("said", "anger", "joy", "delight", "part")
        table(tmp_path / "trial/items.csv", header, rows)
        source = {
            "columns": {"label": ["anger", "joy", "delight"], "cluster": "said"},
            "split_values": {"i": "identification", "d": "validation", "e": "test"},
        }
        mapped = {"joy": "happiness", "delight": "happiness", "none": "sadness"}
        task = tables(**source).model_copy(update={"label_map": mapped})
        found = {item.text: item.label for item in load_benchmark(task, tmp_path).split("test")}
        assert found == {"e0": "anger", "e1": "happiness", "e2": "sadness"}
        table(tmp_path / "trial/items.csv", header, [("x", 2, 0, 0, "i")])
        with pytest.raises(DatasetError, match="column 'anger' should be 0 or 1, found '2'"):
            load_benchmark(task, tmp_path)

    def test_a_delimiter_of_ones_own_without_quoting(self, tmp_path: Path) -> None:
        rows = [("said", "emotion", "who", "part"), *((f'"{a}, b', b, c, d) for a, b, c, d in people())]
        lines(tmp_path / "trial/items.csv", rows, "|")
        task = tables(format="tsv", delimiter="|", replace={", b": ";", ";": "."})
        assert texts(task, tmp_path)["test"] == ['"eval anger.', '"eval joy.']

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"split_values": {}}, "give both"),
            ({"columns": {"split": None}}, "give both"),
            ({"keep": {"said": "("}}, "not a regular expression"),
            ({"format": "jsonl", "delimiter": ";"}, "a jsonl file has none"),
            ({"files": dict.fromkeys(SPLITS, "a.csv")}, "a column says which split"),
            ({"split": {"by": "cluster", "fractions": dict.fromkeys(SPLITS, 1 / 3)}}, "expected `by: given`"),
        ],
    )
    def test_keys_that_contradict_each_other(self, changes: dict[str, Any], reason: str) -> None:
        with pytest.raises(ValidationError, match=reason):
            tables(**changes)


def test_a_split_by_a_field_keeps_whole_clusters(tmp_path: Path) -> None:
    rows = [
        (f"{s}{d}{k}", label, f"{s}{d}", s)
        for s in "xyz"
        for d in "12"
        for k, label in enumerate(("anger", "joy"))
    ]
    write(tmp_path, rows)
    split = {
        "by": "cluster",
        "field": "part",
        "clusters": dict(zip(SPLITS, (["x"], ["y"], ["z"]), strict=True)),
    }
    source = {"columns": {"split": None, "fields": {"part": "part"}}, "split_values": {}}
    dataset = load_benchmark(tables(split=split, **source), tmp_path)
    assert {name: {item.cluster for item in dataset.split(name)} for name in SPLITS} == {
        "identification": {"x1", "x2"}, "validation": {"y1", "y2"}, "test": {"z1", "z2"},
    }  # fmt: skip
    write(tmp_path, [*rows, ("astray", "joy", "x1", "z")])
    with pytest.raises(DatasetError, match=r"writer 'x1' is in identification .* and in test"):
        load_benchmark(tables(split=split, **source), tmp_path)
    with pytest.raises(ValidationError, match=r"source\.columns\.fields has no 'part'"):
        tables(split=split, columns={"split": None}, split_values={})


LINES = {
    "reader": "lines",
    "files": ["labels/*.txt"],
    "pattern": r"(?P<id>(?P<session>s\d)_\d+)\t(?P<sex>[FM])\t(?P<label>\w+)",
    "fields": {"speaker": "{session}{sex}"},
    "audio": "{session}/{id}.wav",
}


def of_lines(**changes: Any) -> Benchmark:
    return benchmark(
        modality="audio", prompt="{audio} Emotion:", cluster="speaker", source=LINES | changes,
        split={"by": "cluster", "fractions": {"identification": 0.5, "validation": 0.25, "test": 0.25}},
    )  # fmt: skip


class TestLines:
    def test_lines_that_match_are_items_and_others_are_passed_over(self, tmp_path: Path) -> None:
        root = tmp_path / "trial"
        (root / "labels").mkdir(parents=True)
        for session in range(2):
            text = b"% a comment with a stray byte: \xe9\n"
            for k, (sex, label) in enumerate([("F", "anger"), ("F", "joy"), ("M", "anger"), ("M", "joy")]):
                text += f"s{session}_{k}\t{sex}\t{label}\r\n".encode()
                sound(root / f"s{session}/s{session}_{k}.wav", 10 * session + k)
            (root / f"labels/{session}.txt").write_bytes(text)
        dataset = load_benchmark(of_lines(), tmp_path)
        items = {item.id: item for name in SPLITS for item in dataset.split(name)}
        assert len(items) == 8
        assert (items["s1_2"].label, items["s1_2"].cluster) == ("anger", "s1M")
        assert items["s1_2"].audio == root / "s1/s1_2.wav"
        assert dict(items["s0_1"].fields) == {"session": "s0", "sex": "F", "speaker": "s0F"}

    def test_a_file_without_an_item_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "trial/labels").mkdir(parents=True)
        with pytest.raises(DatasetError, match=r"no file in .* matches labels/\*\.txt"):
            load_benchmark(of_lines(), tmp_path)
        (tmp_path / "trial/labels/a.txt").write_text("s1_1 F anger\n")
        with pytest.raises(DatasetError, match=r"a\.txt: no line matches"):
            load_benchmark(of_lines(), tmp_path)

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"audio": "{sesion}.wav"}, "no group 'sesion'; did you mean 'session'"),
            ({"pattern": r"(?P<label>\w+)"}, "no group .*id"),
            ({"audio": None}, "no audio in a benchmark of modality audio"),
            ({"fields": {}}, "no group .*speaker"),
        ],
    )
    def test_groups_that_are_not_there(self, changes: dict[str, Any], reason: str) -> None:
        with pytest.raises(ValidationError, match=reason):
            of_lines(**changes)


def test_a_pattern_with_a_slash_is_one_of_paths(tmp_path: Path) -> None:
    for speaker in "abc":
        for label in ("anger", "sadness"):
            sound(tmp_path / f"trial/{speaker}/{label}/1.wav", ord(speaker) + len(label))
    source = {"reader": "folder", "files": ["*/*/*.wav"], "pattern": r"(?P<who>\w)/(?P<label>\w+)/\d\.wav"}
    task = benchmark(modality="audio", prompt="{audio}", cluster="who", source=source)
    dataset = load_benchmark(task, tmp_path)
    assert {item.id for name in SPLITS for item in dataset.split(name)} == {
        f"{speaker}/{label}/1" for speaker in "abc" for label in ("anger", "sadness")
    }
    sound(tmp_path / "trial/a/anger/b.wav", 1)
    with pytest.raises(DatasetError, match=r"b\.wav: the path does not match"):
        load_benchmark(task, tmp_path)


def encoded(form: str, rate: int = 22_050, channels: int = 2, **more: Any) -> bytes:
    target = io.BytesIO()
    soundfile.write(target, tone(rate, channels=channels), rate, format=form, **more)
    return target.getvalue()


def from_hub(**changes: Any) -> Benchmark:
    source = {
        "reader": "hub", "path": "nobody/trial", "splits": {"all": "train"},
        "columns": {"audio": "audio", "label": "emotion", "cluster": "speaker"},
    }  # fmt: skip
    return benchmark(modality="audio", prompt="{audio}", source=source | changes)


class TestHub:
    @pytest.fixture(autouse=True)
    def _cache(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        with own_cache(tmp_path_factory.mktemp("cache")):
            yield

    def test_sounds_in_cells_are_decoded_and_a_bad_one_is_counted(self, tmp_path: Path) -> None:
        forms = [encoded(form) for form in ("WAV", "FLAC", "OGG", "MP3")]
        sounds = [*forms, *(encoded("WAV", 16_000 + k, 1) for k in range(5)), b"no sound", None]
        write_sound_cells(tmp_path / "trial/data", sounds, [("anger", "joy")[k // 3 % 2] for k in range(11)])
        dataset = load_benchmark(from_hub(), tmp_path)
        items = {item.id: item for name in SPLITS for item in dataset.split(name)}
        assert len(items) == 9
        wave = items["train-0000001"].waveform()
        np.testing.assert_allclose(wave[400:7600], tone(16_000)[400:7600, 0], atol=0.01)
        again = pickle.loads(pickle.dumps(items["train-0000001"]))  # As it goes to another process.
        np.testing.assert_array_equal(again.waveform(), wave)
        reasons = {error.path: error.reason for error in dataset.errors}
        assert "decoded" in reasons["nobody/trial, split train, row 9"]
        assert "no sound" in reasons["nobody/trial, split train, row 10"]

    def test_what_is_not_there_is_named(self, tmp_path: Path) -> None:
        sounds = [encoded("WAV")] * 6
        write_sound_cells(tmp_path / "trial/data", sounds, [("anger", "joy")[k // 3 % 2] for k in range(6)])
        with pytest.raises(DatasetError, match=r"no column 'emotions'; did you mean 'emotion'"):
            load_benchmark(from_hub(columns={"audio": "audio", "label": "emotions"}), tmp_path)
        with pytest.raises(DatasetError, match=r"split trian: .*"):
            load_benchmark(from_hub(splits={"all": "trian"}), tmp_path)
        with pytest.raises(DatasetError, match=r"configuration other, split train"):
            load_benchmark(from_hub(name="other"), tmp_path)

    def test_rows_of_json_lines_are_read_and_filtered_as_those_of_a_table(self, tmp_path: Path) -> None:
        (tmp_path / "trial").mkdir()
        rows = [
            dict(zip(("said", "emotion", "who", "part"), row, strict=True))
            for row in people("train dev eval x")
        ]
        (tmp_path / "trial/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        values = {"train": "identification", "dev": "validation", "eval": "test"}
        source = {
            "reader": "hub", "path": "nobody/trial", "splits": {"all": "train"}, "keep": {"part": "[^x]+"},
            "columns": COLUMNS | {"split": "part"}, "split_values": values,
        }  # fmt: skip
        task = benchmark(source=source, split={"by": "given"})
        assert texts(task, tmp_path)["test"] == ["eval anger", "eval joy"]
        assert dict(load_benchmark(task, tmp_path).dropped) == {"`keep` for part": 2}


def test_keys_that_are_not_used_leave_the_digest_alone() -> None:
    plain = tables()
    spelled_out = tables(keep={}, replace={}, delimiter=None, split={"by": "given", "overlap": "error"})
    assert spelled_out.digest == plain.digest
    assert tables(keep={"said": ".*"}).digest != plain.digest
    assert tables(split={"by": "given", "overlap": "drop"}).digest != plain.digest
    assert tables().model_copy(update={"obtain": "ask", "label_notes": "so"}).digest == plain.digest
