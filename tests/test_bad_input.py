"""Data that cannot be used are named, stop nothing else, and are never taken for a result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
from e2e_content import (
    BENCHMARK,
    MODEL,
    PEOPLE,
    PROTOCOL,
    Bench,
    Log,
    Outcome,
    benchmark,
    contents,
    items,
    write_benchmark,
    write_lines,
    write_protocol,
    write_yaml,
)
from example_benchmarks import tone

from affectbench import placement
from affectbench.dataset import load_benchmark
from affectbench.errors import AffectbenchError
from affectbench.record import Record
from affectbench.task import RecognitionBenchmark

Run = tuple[list[Record], Log]


def run_on(bench: Bench, root: Path, rows: list[dict[str, str]], **changes: Any) -> Run:
    """Run one selector on a benchmark with these rows."""
    write_lines(root / "data" / "trial" / "items.jsonl", rows)
    write_benchmark(root, name="trial", data="trial", **changes)
    job = bench.job("magnitude", task="trial", more=[root])
    return bench.run(job, root / "out", more=[root], data=root / "data")


def one_person(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [row | {"speaker": "mara"} for row in rows]


def all_joyful(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [row | {"emotion": "joy"} for row in rows]


def no_speakers(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{key: row[key] for key in ("id", "text", "emotion")} for row in rows]


def one_more(**changes: str) -> Callable[[list[dict[str, str]]], list[dict[str, str]]]:
    return lambda rows: [*rows, rows[0] | {"id": "one-more"} | changes]


BY_FRACTION = {"by": "cluster", "fractions": {"identification": 0.4, "validation": 0.2, "test": 0.4}}


@pytest.mark.parametrize(
    ("spoil", "changes", "parts"),
    [
        (one_person, {"split": BY_FRACTION}, ["1 different values of speaker: mara", "at least 3"]),
        (one_person, {}, ["1 different values of speaker: mara", "at least 3"]),
        (lambda rows: [], {}, ["benchmark trial: 0 different values of speaker: none"]),
        (lambda rows: rows[:36], {}, ["split test has items of no label", "at least two labels"]),
        (all_joyful, {}, ["items of joy", "at least two labels"]),
        (one_more(emotion="angr"), {}, ["items.jsonl:73", "angr", "did you mean 'anger'"]),
        (one_more(id="mara-stole"), {}, ["items.jsonl:73", "mara-stole", "items.jsonl:1"]),
        (no_speakers, {}, ["items.jsonl:1", "speaker"]),
        (one_more(speaker="zoe"), {}, ["speaker 'zoe' is in no split"]),
    ],
)  # fmt: skip
def test_contradicting_data_are_named_before_a_model_is_loaded(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[list[dict[str, str]]], list[dict[str, str]]],
    changes: dict[str, Any],
    parts: list[str],
) -> None:
    monkeypatch.setattr(placement, "load_model", None)
    records, log = run_on(bench, tmp_path, spoil(items()), **changes)
    assert records == []
    for part in parts:
        assert part in log.notes[0]


def test_too_few_speakers_to_test_is_insufficient_not_a_number(bench: Bench, tmp_path: Path) -> None:
    only = {"identification": list(PEOPLE[:8]), "validation": list(PEOPLE[8:11]), "test": list(PEOPLE[11:])}
    records, _ = run_on(bench, tmp_path, items(), split={"by": "cluster", "clusters": only})
    assert records[0].status == "insufficient"
    assert "2 clusters" in records[0].reason
    assert records[0].headline is None
    assert records[0].scores is not None
    assert not any(dose.significant for dose in records[0].scores.doses)
    assert {dose.spec.low for dose in records[0].scores.doses} == {None}


def test_an_emotion_without_test_items_is_insufficient(bench: Bench, tmp_path: Path) -> None:
    rows = [row for row in items() if row["speaker"] not in PEOPLE[6:] or row["emotion"] != "joy"]
    records, _ = run_on(bench, tmp_path, rows)
    assert records[0].status == "insufficient"
    assert "no items with gold label joy" in records[0].reason


def test_unusable_items_are_told_and_flagged(bench: Bench, tmp_path: Path) -> None:
    rows = items()
    rows[0]["text"] = ""
    records, log = run_on(bench, tmp_path, rows)
    assert records[0].flags == ["failed_items"]
    assert "1 items of trial cannot be used; the first: mara-stole" in log.notes[0]
    assert "the text is empty" in log.notes[0]
    assert records[0].task.n_items["identification"] == 23


def test_positions_that_the_items_do_not_have(bench: Bench, tmp_path: Path) -> None:
    write_protocol(
        tmp_path, name="heard", statistics={"positions": "audio", "items": "all", "minimum_items": 1}
    )
    with pytest.raises(
        AffectbenchError, match=rf"protocol heard works at audio positions; benchmark {BENCHMARK}"
    ):
        bench.job("magnitude", protocol="heard", more=[tmp_path])


def test_a_job_that_cannot_run_does_not_stop_the_next(
    bench: Bench, tmp_path: Path, run_cli: Callable[..., Outcome]
) -> None:
    write_benchmark(tmp_path, name="lost", data="nowhere")
    suite = {"models": [MODEL], "tasks": {"text": ["lost", BENCHMARK]}, "interventions": [PROTOCOL]}
    content = {"kind": "suite", "name": "two", "version": 1, "selectors": ["magnitude"]} | suite
    write_yaml(tmp_path / "tasks" / "suites" / "two.yaml", content)
    code, out, err = run_cli(
        "run", "two", "--include", bench.root, "--include", tmp_path, "--data", bench.root / "data",
        "-o", tmp_path / "out",
    )  # fmt: skip
    assert code == 1
    assert "1 cells: 1 ok" in out
    assert "1 of 2 jobs could not run" in err
    assert f"there is no folder {bench.root / 'data' / 'nowhere'}" in err
    assert len(contents(tmp_path / "out")) == 1


BINARY = bytes(range(256))


@pytest.mark.parametrize(
    ("form", "content", "said"),
    [
        ("jsonl", '\n{"id": "é"}\n'.encode("latin1"), "items.jsonl:2: not UTF-8 text"),
        ("jsonl", b"[1]\n", "items.jsonl:1: expected a JSON object"),
        ("jsonl", b'{"id": "a", "text": null}\n', "items.jsonl:1: no value for column 'text'"),
        ("csv", "é,b\n".encode("latin1"), "items.jsonl:1: cannot be read as csv"),
        ("tsv", BINARY, "items.jsonl:1: cannot be read as tsv"),
        ("parquet", BINARY, "items.jsonl: cannot be read as parquet"),
    ],
)
def test_a_table_that_cannot_be_read(
    bench: Bench, tmp_path: Path, form: str, content: bytes, said: str
) -> None:
    path = write_lines(tmp_path / "data" / "trial" / "items.jsonl", [])
    path.write_bytes(content)
    source = benchmark()["source"] | {"format": form}
    write_benchmark(tmp_path, name="trial", data="trial", source=source)
    job = bench.job("magnitude", task="trial", more=[tmp_path])
    _, log = bench.run(job, tmp_path / "out", more=[tmp_path], data=tmp_path / "data")
    assert said in log.notes[0]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("neutral", b"", "neutral.jsonl: 0 rows"),
        ("neutral", b'{"texts": "a"}\n', "neutral.jsonl:1: expected a key"),
        ("choices", b"", "choices.jsonl: 0 rows"),
        ("choices", "\"é\"".encode("latin1"), "choices.jsonl:1: not UTF-8 text"),
        ("choices", b'{"id": "q", "context": "a", "choices": ["b"], "answer": 0}', "jsonl:1: choices"),
        ("choices", b'{"id": "q", "context": "a", "choices": ["b", "c"], "answer": 2}', "no index of 2"),
    ],
)  # fmt: skip
def test_preservation_files_that_cannot_be_used(
    bench: Bench, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    path = write_benchmark(tmp_path, name="trial").parent / f"{name}.jsonl"
    path.write_bytes(content)
    job = bench.job("magnitude", task="trial", more=[tmp_path])
    records, log = bench.run(job, tmp_path / "out", more=[tmp_path])
    assert records[0].status == "error"
    assert said in records[0].reason
    assert log.passes == 0, "nothing long was computed first"


def test_a_capability_that_the_model_cannot_hear(bench: Bench, tmp_path: Path) -> None:
    heard = {"kind": "benchmark", "task": "reference-speaker-sex"}
    write_benchmark(tmp_path, name="trial", preservation=benchmark()["preservation"] | {"capability": heard})
    job = bench.job("magnitude", task="trial", more=[tmp_path])
    records, _ = bench.run(job, tmp_path / "out", more=[tmp_path])
    assert "model toy takes text; benchmark reference-speaker-sex is audio" in records[0].reason


def test_a_prompt_longer_than_the_model_takes(bench: Bench, tmp_path: Path) -> None:
    rows = items()
    rows[0]["text"] *= 40
    records, log = run_on(bench, tmp_path, rows)
    assert records[0].flags == ["failed_items"]
    assert "204 tokens, the model takes 96" in log.notes[0]


def test_sound_files_that_are_missing_or_damaged(tmp_path: Path) -> None:
    sounds = tmp_path / "trial"
    sounds.mkdir()
    rows = []
    for row in items():
        soundfile.write(sounds / f"{row['id']}.wav", tone(16000, 0.1)[:, 0], 16000)
        rows.append(row | {"file": f"{row['id']}.wav"})
    (sounds / "mara-stole.wav").unlink()
    (sounds / "mara-won.wav").write_bytes(b"RIFF")
    write_lines(sounds / "items.jsonl", rows)
    columns = {"audio": "file", "label": "emotion", "id": "id", "cluster": "speaker"}
    source = benchmark()["source"] | {"columns": columns}
    heard = RecognitionBenchmark.model_validate(
        benchmark(modality="audio", data="trial", source=source, prompt="{audio} Emotion :")
    )
    found = load_benchmark(heard, tmp_path)
    assert {error.id: Path(error.path).name for error in found.errors} == {
        "mara-stole": "mara-stole.wav",
        "mara-won": "mara-won.wav",
    }
    assert all(error.reason for error in found.errors)
    assert len(found.splits["identification"]) == 22
