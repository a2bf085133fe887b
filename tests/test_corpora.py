"""The shipped benchmarks read their corpora as these are distributed; small made-up folders stand in."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from corpora import BUILDERS, DROPPED, EXPECTED
from example_benchmarks import ROOT, shipped

from affectbench.dataset import Dataset, load_benchmark
from affectbench.examples import MissingDataError
from affectbench.prompts import prompt_text
from affectbench.task import SPLITS, ExpressionBenchmark, RecognitionBenchmark

DATA = Path(os.environ.get("AFFECTBENCH_DATA", ROOT.parent / "shared" / "data"))
CORPORA = sorted(
    path.stem for path in (ROOT / "tasks/benchmarks").glob("*.yaml") if shipped(path.stem).obtain
)


def counts(dataset: Dataset) -> tuple[dict[str, int], ...]:
    return tuple(dict(Counter(item.label for item in dataset.split(name))) for name in SPLITS)


def test_every_shipped_corpus_has_a_folder_here() -> None:
    assert sorted(BUILDERS) == CORPORA


@pytest.mark.parametrize("name", CORPORA)
class TestShipped:
    def test_items_labels_and_splits_are_those_of_the_corpus(self, corpora: Path, name: str) -> None:
        dataset = load_benchmark(shipped(name), corpora)
        assert not dataset.errors
        assert dict(dataset.dropped) == DROPPED.get(name, {})
        if name in EXPECTED:
            assert counts(dataset) == EXPECTED[name]
        else:
            assert [len(dataset.split(split)) for split in SPLITS] == [156, 52, 52]

    def test_no_cluster_and_no_item_is_in_two_splits(self, corpora: Path, name: str) -> None:
        dataset = load_benchmark(shipped(name), corpora)
        for key in ("id", "cluster"):
            sets = [{getattr(item, key) for item in dataset.split(split)} for split in SPLITS]
            assert sum(map(len, sets)) == len(set.union(*sets))

    def test_every_sound_is_decoded_and_every_prompt_holds_its_item(self, corpora: Path, name: str) -> None:
        task = shipped(name)
        dataset = load_benchmark(task, corpora)
        items = [item for split in SPLITS for item in dataset.split(split)]
        if task.modality == "audio":
            assert set(dataset.sounds) == {item.id for item in items}
            assert len({sound.digest for sound in dataset.sounds.values()}) == len(items)
            assert {round(sound.seconds, 3) for sound in dataset.sounds.values()} == {0.1}
            assert items[0].waveform().shape == (1600,)
        for item in items:
            text = prompt_text(task, item).text
            words = (
                [item.label, item.fields["event"]] if isinstance(task, ExpressionBenchmark) else [item.text]
            )
            assert all((word or "{audio}") in text for word in words)
            assert "{text}" not in text

    def test_people_are_told_where_it_comes_from(self, corpora: Path, name: str) -> None:
        task = shipped(name)
        assert all([task.title, task.description, task.licence, task.citation, task.obtain, task.protocol])
        assert task.metric == "uar"
        if isinstance(task, RecognitionBenchmark) and task.label_map:
            assert task.label_notes
        with pytest.raises(MissingDataError, match=r"how to get it: \S") as caught:
            load_benchmark(task, corpora / "nothing")
        assert task.obtain in str(caught.value)


def labels_by_id(corpora: Path, name: str) -> dict[str, tuple[str, str, str]]:
    dataset = load_benchmark(shipped(name), corpora)
    return {item.id: (split, item.label, item.cluster) for split in SPLITS for item in dataset.split(split)}


def test_iemocap_reads_the_evaluation_files_of_each_dialogue(corpora: Path) -> None:
    found = labels_by_id(corpora, "iemocap")
    assert found["Ses05M_script01_1_F002"] == ("test", "happiness", "Ses05M_script01_1")  # Excited.
    assert found["Ses04F_impro01_M001"] == ("validation", "happiness", "Ses04F_impro01")
    items = load_benchmark(shipped("iemocap"), corpora).split("test")
    assert {item.fields["speaker"] for item in items} == {"5F", "5M"}


def test_meld_finds_the_sound_of_each_utterance_and_keeps_dialogues_of_splits_apart(corpora: Path) -> None:
    found = labels_by_id(corpora, "meld")
    assert found["dev_sent_emo-dia0-utt3"] == ("validation", "happiness", "dev_sent_emo-0")
    item = next(i for i in load_benchmark(shipped("meld"), corpora).split("test") if "dia1-utt0" in i.id)
    assert item.audio == corpora / "meld/test_sent_emo/dia1_utt0.flac"
    text = load_benchmark(shipped("meld-text"), corpora).split("test")[0]
    assert text.text == 'Oh, anger again, "te" number 0!'


def test_text_corpora_give_the_text_that_people_wrote(corpora: Path) -> None:
    texts = {
        "isear": 'When I once met joy with \\11005\\", and left.',
        "semeval-2018": '@you & me  "dev 1 #fear',
        "empathetic-dialogues": 'Then, in valid, I said "angry',
        "crowd-envent": 'I felt ..., "again", 13',
        "goemotions": '[NAME] is in dev of fear, "they say',
        "carer": "i feel love in test",
    }
    for name, text in texts.items():
        dataset = load_benchmark(shipped(name), corpora)
        assert text in {item.text for split in SPLITS for item in dataset.split(split)}, name


def test_a_damaged_and_a_missing_sound_are_counted_with_their_paths(tmp_path: Path) -> None:
    BUILDERS["meld"](tmp_path)
    (tmp_path / "meld/dev_sent_emo/dia0_utt1.flac").write_bytes(b"no sound")
    (tmp_path / "meld/test_sent_emo/dia1_utt0.flac").unlink()
    dataset = load_benchmark(shipped("meld"), tmp_path)
    found = {Path(error.path).relative_to(tmp_path).as_posix(): error.reason for error in dataset.errors}
    assert set(found) == {"meld/dev_sent_emo/dia0_utt1.flac", "meld/test_sent_emo/dia1_utt0.flac"}
    assert "missing" in found["meld/test_sent_emo/dia1_utt0.flac"]
    assert sum(len(dataset.split(split)) for split in SPLITS) == 40


def test_crowd_envent_as_it_was_published() -> None:
    if not (DATA / "crowd_envent").is_dir():
        pytest.skip(f"no crowd_envent/ in {DATA}; set AFFECTBENCH_DATA to run this on real data")
    task = shipped("crowd-envent")
    dataset = load_benchmark(task.model_copy(update={"limits": type(task.limits)()}), DATA)
    items = [item for split in SPLITS for item in dataset.split(split)]
    found = Counter(item.label for item in items)
    assert found == dict.fromkeys(task.labels, 550) | {"guilt": 275, "shame": 275}
    assert [len(dataset.split(split)) for split in SPLITS] == [3960, 1320, 1320]
    first = next(item for item in items if item.id == "215")
    assert first.label == "anger"
    assert str(first.text).endswith("...")
    assert "angry" not in str(first.text)
    order = "anger boredom disgust fear guilt joy pride relief sadness shame surprise trust neutral"
    assert list(task.labels) == order.split(), "the order of the feature dumps, not of the alphabet"
    raw = pd.read_csv(DATA / "crowd_envent/generation.csv")
    assert len(raw) == 6600
    assert (raw["generated_text"] != raw["hidden_emo_text"]).sum() > 100
    majority = max(found.values()) / len(items)
    assert majority == pytest.approx(550 / 6600)


def test_prompts_of_crowd_envent_differ_in_their_demonstrations_alone(corpora: Path) -> None:
    """They end in "Answer:", list no options, and no label's answer begins as another's does."""
    seen = {}
    for name in ("crowd-envent", "crowd-envent-anger-relief", "crowd-envent-fear-pride"):
        task = shipped(name)
        item = load_benchmark(task, corpora).split("test")[0]
        prompt = prompt_text(task, item)
        before, *demonstrations, query = prompt.text.split(" Context: ")
        assert query == f"{item.text} Answer:"
        assert len(demonstrations) == 2
        seen[name] = (before, item.id, tuple(part.split(" Answer: ")[1] for part in demonstrations))
        assert len(set(prompt.answer_options)) == 13
    assert len({(before, item) for before, item, _ in seen.values()}) == 1
    assert [labels for _, _, labels in seen.values()] == [
        ("joy", "sadness"), ("anger", "relief"), ("fear", "pride"),
    ]  # fmt: skip


def test_the_page_on_corpora_lists_each_with_its_classes_and_licence() -> None:
    page = (ROOT / "docs/corpora.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in page.splitlines()
        if line.startswith("| `")
    ]
    listed = {cells[0].strip("`"): cells for cells in rows if len(cells) == 6}
    assert sorted(listed) == CORPORA
    for name, cells in listed.items():
        task = shipped(name)
        assert cells[1].split("`")[1].startswith(f"{task.data}/") or task.source.reader == "hub"
        assert int(cells[2].split()[0]) == len(task.labels)
        words = cells[4].split(" (")[0].replace("agreement with ", "").split()
        assert any(word.lower().strip(".") in task.licence.lower() for word in words)


def test_the_command_for_melds_clips_is_a_shell_script(tmp_path: Path) -> None:
    page = (ROOT / "docs/corpora.md").read_text(encoding="utf-8")
    script = page.split("```sh\n")[1].split("```")[0]
    assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).returncode == 0
    for folder in ("train_splits", "dev_splits_complete", "output_repeated_splits_test"):
        (tmp_path / "MELD.Raw" / folder).mkdir(parents=True)
        (tmp_path / "MELD.Raw" / folder / "dia0_utt0.mp4").touch()
    (tmp_path / "ffmpeg").write_text('#!/bin/bash\nfor last; do :; done\n[ -f "$6" ] && touch "$last"\n')
    (tmp_path / "ffmpeg").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-e"], input=script, text=True, cwd=tmp_path, env={"PATH": path})
    assert done.returncode == 0
    source = shipped("meld").source.model_dump()
    for table in source["files"].values():
        assert (tmp_path / "data/meld" / table.removesuffix(".csv") / "dia0_utt0.flac").is_file()
