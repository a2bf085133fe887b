"""`verify-task` says what is in a task and what is wrong with it; golden files notice what changes in it."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from corpora import BUILDERS, own_cache
from e2e_content import Outcome
from example_benchmarks import ROOT, benchmark, shipped

from affectbench.dataset import load_benchmark
from affectbench.task_checks import TaskReport, all_sounds, examine

Cli = Callable[..., Outcome]
DATA = Path(os.environ.get("AFFECTBENCH_DATA", ROOT.parent / "shared" / "data"))
Row = tuple[str, str, str, str]


def rows() -> list[Row]:
    """(id, text, emotion, writer): eight writers, each with one text of each emotion."""
    return [
        (f"{w}-{e}", f"Number {w} wrote {e}.", e, f"w{w}")
        for w in range(8)
        for e in ("anger", "joy", "sadness")
    ]


def looked_at(root: Path, items: list[Row], **keys: Any) -> TaskReport:
    (root / "trial").mkdir(exist_ok=True)
    with (root / "trial/items.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("id", "text", "emotion", "writer"), *items])
    dataset = load_benchmark(benchmark(**keys), root)
    return examine(dataset, all_sounds(dataset))


class TestTexts:
    def test_a_sound_task_has_nothing_to_report(self, tmp_path: Path) -> None:
        report = looked_at(tmp_path, rows(), split=spread(3, 3, 2))
        assert report.counts == {
            "identification": {"anger": 3, "happiness": 3, "sadness": 3},
            "validation": {"anger": 3, "happiness": 3, "sadness": 3},
            "test": {"anger": 2, "happiness": 2, "sadness": 2},
        }
        assert report.clusters == {"identification": 3, "validation": 3, "test": 2}
        assert report.problems == report.same == report.near == ()
        assert report.notes == (
            "fewer than 20 identification items, which protocols ask for, of anger, happiness, sadness",
            "test has 2 writers: little can be said of others",
        )
        assert (report.shortest.length, report.longest.length) == (19, 23)
        assert report.first.text == "Text: Number 0 wrote anger. Emotion:"

    def test_the_same_text_is_found_with_its_splits_and_labels(self, tmp_path: Path) -> None:
        items = [
            *rows(),
            ("copy", "Number 0 wrote anger.", "sadness", "w7"),
            ("near", "number 1 wrote JOY", "joy", "w1"),
        ]
        report = looked_at(tmp_path, items, split=spread(3, 3, 2))
        (same,), (near,) = report.same, report.near
        assert (same.ids, same.splits, same.labels) == (
            ("0-anger", "copy"), ("identification", "test"), ("anger", "sadness"),
        )  # fmt: skip
        assert (near.ids, near.splits) == (("1-joy", "near"), ("identification",))
        notes = " | ".join(report.notes)
        assert "1 text in two splits, first 0-anger, copy" in notes
        assert "1 text under several labels" in notes
        assert "1 text more than once in one split, first 1-joy, near" in notes
        assert report.problems == ()

    def test_punctuation_alone_is_not_the_same_as_other_punctuation(self, tmp_path: Path) -> None:
        items = [*rows(), ("a", "?!", "joy", "w1"), ("b", "...", "anger", "w1")]
        assert looked_at(tmp_path, items, split=spread(3, 3, 2)).near == ()

    def test_what_is_missing_or_uneven(self, tmp_path: Path) -> None:
        items = [row for row in rows() if row[3] not in ("w6", "w7") or row[2] != "joy"]
        items += [(f"x{k}", f"more {k}", "anger", "w0") for k in range(30)] + [("empty", " ", "joy", "w0")]
        report = looked_at(tmp_path, items, split=spread(3, 3, 2))
        assert [problem.split(",")[0] for problem in report.problems] == [
            "1 item cannot be used",
            "test has no item of happiness",
        ]
        assert "items.csv:54: the text is empty" in report.problems[0]
        assert "identification is uneven: 33 items of one label, 3 of another" in report.notes

    def test_one_test_cluster_is_too_few(self, tmp_path: Path) -> None:
        report = looked_at(tmp_path, rows(), split=spread(4, 3, 1))
        assert report.problems == (
            "test has 1 writer: there is no interval over it, and every cell will be insufficient",
        )

    def test_speakers_in_two_splits_are_named_where_items_cluster_by_something_else(
        self, tmp_path: Path
    ) -> None:
        source = benchmark().source.model_dump()
        source["columns"]["fields"] = {"speaker": "emotion"}
        report = looked_at(tmp_path, rows(), split=spread(3, 3, 2), source=source)
        assert {group.what for group in report.speakers} == {
            "speaker anger",
            "speaker joy",
            "speaker sadness",
        }
        assert "3 speakers in two splits; items cluster by writer" in report.notes


def spread(*sizes: int) -> dict[str, Any]:
    """The first writers to identification, the next to validation, the rest to test."""
    names = iter(f"w{k}" for k in range(8))
    return {
        "by": "cluster",
        "clusters": {
            split: [next(names) for _ in range(size)]
            for split, size in zip(("identification", "validation", "test"), sizes, strict=True)
        },
    }


def noise(seed: int) -> Any:
    return np.random.default_rng(seed).integers(-9000, 9000, 1600 + seed, dtype=np.int16)


def sounds(root: Path) -> Path:
    (root / "trial").mkdir()
    for speaker in range(3):
        for number, label in enumerate(("anger", "joy", "sadness")):
            soundfile.write(root / f"trial/s{speaker}-{label}.wav", noise(3 * speaker + number), 16_000)
    return root


SOUND_TASK: dict[str, Any] = {
    "modality": "audio",
    "prompt": "{audio} Emotion:",
    "cluster": "speaker",
    "source": {"reader": "folder", "files": ["*.*"], "pattern": r"(?P<speaker>s\d)b?-(?P<label>\w+)\.\w+"},
    "split": {"by": "cluster", "clusters": {"identification": ["s0"], "validation": ["s1"], "test": ["s2"]}},
}


class TestSounds:
    def test_the_same_sound_in_another_container_is_a_leak(self, tmp_path: Path) -> None:
        soundfile.write(sounds(tmp_path) / "trial/s2b-anger.flac", noise(0), 16_000)
        dataset = load_benchmark(benchmark(**SOUND_TASK), tmp_path)
        report = examine(dataset, all_sounds(dataset))
        assert [group.ids for group in report.same] == [("s0-anger", "s2b-anger")]
        assert report.problems[-1] == (
            "1 sound in two splits, first s0-anger, s2b-anger (identification, test)"
        )
        assert (report.shortest.id, report.longest.id) == ("s0-anger", "s2-sadness")
        assert report.longest.length == pytest.approx(1608 / 16_000)

    def test_damaged_files_are_counted_and_named(self, tmp_path: Path) -> None:
        (sounds(tmp_path) / "trial/s1b-joy.wav").write_bytes(b"RIFF")
        seen: list[tuple[int, int]] = []
        dataset = load_benchmark(benchmark(**SOUND_TASK), tmp_path, progress=lambda *now: seen.append(now))
        report = examine(dataset, all_sounds(dataset))
        assert [Path(error.path).name for error in report.errors] == ["s1b-joy.wav"]
        assert "s1b-joy.wav: the sound file cannot be decoded" in report.problems[0]
        assert seen == [(done, 10) for done in range(1, 11)]


class TestCommand:
    def test_a_shipped_task_that_needs_no_data(self, run_cli: Cli) -> None:
        code, out, _ = run_cli("verify-task", "reference-narratives")
        assert code == 0
        for part in ("700", "answer 'anger'", "Question: how does", shipped("reference-narratives").digest):
            assert part in out

    def test_absent_data_say_how_to_get_them(self, run_cli: Cli, tmp_path: Path) -> None:
        code, out, _ = run_cli("verify-task", "ravdess", "--data", tmp_path)
        assert code == 2
        assert "zenodo.org/records/1188976" in out
        code, out, _ = run_cli("verify-task", "ravdess", "--data", tmp_path, "--format", "json")
        found = json.loads(out)
        assert (code, found["status"]) == (2, "absent")
        assert found["obtain"] == shipped("ravdess").obtain

    def test_problems_exit_with_one_and_are_in_the_json(self, run_cli: Cli, tmp_path: Path) -> None:
        BUILDERS["savee"](tmp_path)
        (tmp_path / "savee/AudioData/DC/a01.wav").write_bytes(b"none")
        code, out, _ = run_cli("verify-task", "savee", "--data", tmp_path, "--format", "json")
        found = json.loads(out)
        assert (code, found["status"]) == (1, "problems")
        assert found["errors"][0]["path"].endswith("savee/AudioData/DC/a01.wav")
        assert found["counts"]["identification"]["anger"] == 1
        assert "test has 1 speaker: little can be said of others" in found["notes"]
        code, out, _ = run_cli("verify-task", "savee", "--data", tmp_path)
        assert code == 1
        assert "savee/AudioData/DC/a01.wav: the sound file cannot be decoded" in out

    def test_data_that_contradict_the_task_are_a_problem(self, run_cli: Cli, tmp_path: Path) -> None:
        BUILDERS["savee"](tmp_path)
        (tmp_path / "savee/ALL/KL_x01.wav").write_bytes(b"")
        code, out, _ = run_cli("verify-task", "savee", "--data", tmp_path)
        assert code == 1
        assert "unknown label 'x'" in out

    def test_speakers_who_are_in_two_splits_by_design_are_a_note(self, run_cli: Cli, corpora: Path) -> None:
        code, out, _ = run_cli("verify-task", "meld", "--data", corpora)
        assert code == 0
        assert "note 1 speaker in two splits; items cluster by dialogue" in out

    @pytest.mark.parametrize(
        ("name", "counts", "note"),
        [
            ("emodb", (212, 69, 173), "test has 4 speakers"),
            ("goemotions", (1400, 350, 906), "texts in two splits"),
        ],
    )
    def test_real_corpora(self, run_cli: Cli, name: str, counts: tuple[int, ...], note: str) -> None:
        if not (DATA / name).is_dir():
            pytest.skip(f"no {name}/ in {DATA}; set AFFECTBENCH_DATA to run this on real data")
        code, out, _ = run_cli("verify-task", name, "--data", DATA, "--format", "json")
        found = json.loads(out)
        assert (code, found["status"], found["errors"]) == (0, "ok", [])
        assert tuple(sum(labels.values()) for labels in found["counts"].values()) == counts
        assert note in " ".join(found["notes"])

    def test_the_first_prompt_through_a_model(self, run_cli: Cli) -> None:
        code, out, _ = run_cli("verify-task", "reference-speaker-sex", "--model", "reference-audio")
        assert code == 0
        first = load_benchmark(shipped("reference-speaker-sex")).split("identification")[0]
        counted = int(re.findall(r"<\|AUDIO\|> \(x (\d+)\)", out)[0])
        assert counted == pytest.approx(first.waveform().size / 640, abs=1)  # 25 a second.
        code, _, err = run_cli("verify-task", "reference-speaker-sex", "--model", "reference-text")
        assert code == 1
        assert "modality text" in err

    def test_wrong_requests(self, run_cli: Cli, tmp_path: Path) -> None:
        assert "did you mean 'savee'" in run_cli("verify-task", "savvee")[2]
        assert "did you mean 'json'" in run_cli("verify-task", "savee", "--format", "jsn")[2]
        assert "--update needs --golden" in run_cli("verify-task", "savee", "--update")[2]
        task = ("verify-task", "reference-narratives", "--golden")
        assert "with verify-task --golden FILE --update" in run_cli(*task, tmp_path / "none.json")[2]
        (tmp_path / "bad.json").write_text("{}")
        assert "cannot be read as what a task sent" in run_cli(*task, tmp_path / "bad.json")[2]

    def test_list_tells_what_is_absent(
        self, run_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "ravdess").mkdir()
        monkeypatch.setenv("AFFECTBENCH_DATA", str(tmp_path))
        _, out, _ = run_cli("list", "tasks")
        states = {line.split()[0]: line.split()[-1] for line in out.splitlines() if "built-in" in line}
        assert states["ravdess"] == "here"
        assert states["crema-d"] == "absent"
        assert (states["carer"], states["reference-speech"]) == ("hub", "shipped")
        assert "zenodo" not in out
        assert shipped("crema-d").obtain.split()[1] in out


@pytest.fixture
def own_task(tmp_path: Path) -> Path:
    """A task of one's own with its data, so that its YAML may be changed."""
    text = (ROOT / "tasks/benchmarks/savee.yaml").read_text()
    preservation = (ROOT / "tasks/data/english-preservation.yaml").resolve()
    for name in ("english-preservation.yaml", "everyday-choices.jsonl", "neutral-english.jsonl"):
        (tmp_path / name).write_bytes((preservation.parent / name).read_bytes())
    path = tmp_path / "savee.yaml"
    path.write_text(text.replace("../data/english-preservation.yaml", "english-preservation.yaml"))
    BUILDERS["savee"](tmp_path)
    return path


class TestGolden:
    """What a task sends is kept; a change needs a new version, and a new file."""

    def test_a_silent_change_of_the_prompt_fails_until_the_version_is_raised(
        self, own_task: Path, run_cli: Cli
    ) -> None:
        golden = own_task.parent / "golden.json"
        ask = ("verify-task", own_task, "--data", own_task.parent, "--golden", golden)
        assert run_cli(*ask, "--update")[0] == 0
        assert run_cli(*ask)[0] == 0
        written = golden.read_bytes()
        own_task.write_text(own_task.read_text().replace("how does the speaker feel", "how does he feel"))
        code, out, _ = run_cli(*ask)
        assert code == 1
        assert "28 items are sent otherwise" in out
        assert "raise `version`" in out
        code, _, err = run_cli(*ask, "--update")
        assert code == 1
        assert "changed although its version is still 1" in err
        assert golden.read_bytes() == written
        own_task.write_text(own_task.read_text().replace("version: 1", "version: 2"))
        code, out, _ = run_cli(*ask)
        assert code == 1
        assert "version 1 is now 2" in out
        assert "write the golden file anew with --update" in out
        assert run_cli(*ask, "--update")[0] == 0
        assert run_cli(*ask)[0] == 0

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("sa: sadness", "sa: fear", "4 items are sent otherwise"),
            ("validation: [JK], test: [KL]", "validation: [KL], test: [JK]", "14 items are gone"),
            ("kind: labels", "kind: generate", "what the task's file says changed"),
            ("sadness, surprise]", "surprise, sadness]", "28 items are sent otherwise"),
        ],
    )
    def test_labels_splits_and_readout_count_too(
        self, own_task: Path, run_cli: Cli, old: str, new: str, said: str
    ) -> None:
        golden = own_task.parent / "golden.json"
        ask = ("verify-task", own_task, "--data", own_task.parent, "--golden", golden)
        run_cli(*ask, "--update")
        assert old in own_task.read_text()
        own_task.write_text(own_task.read_text().replace(old, new))
        code, out, _ = run_cli(*ask)
        assert code == 1
        assert said in out

    def test_another_sound_under_the_same_name_is_noticed_and_prose_is_not(
        self, own_task: Path, run_cli: Cli
    ) -> None:
        golden = own_task.parent / "golden.json"
        ask = ("verify-task", own_task, "--data", own_task.parent, "--golden", golden)
        run_cli(*ask, "--update")
        own_task.write_text(own_task.read_text().replace("title: SAVEE", "title: Surrey"))
        assert run_cli(*ask)[0] == 0
        soundfile.write(own_task.parent / "savee/ALL/KL_a01.wav", noise(5), 16_000)
        assert "1 items are sent otherwise, the first ALL/KL_a01 (test)" in run_cli(*ask)[1]


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_cache(tmp_path_factory.mktemp("cache")):
        yield
