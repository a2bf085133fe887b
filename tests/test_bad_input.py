"""Models and data that cannot be used are named, stop nothing else, and are never taken for a result."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from e2e_content import (
    BENCHMARK,
    MODEL,
    PEOPLE,
    PROTOCOL,
    Bench,
    Log,
    Outcome,
    card,
    contents,
    items,
    write_benchmark,
    write_lines,
    write_protocol,
    write_yaml,
)
from safetensors.torch import load_file, save_file
from tiny_models import items as token_items
from tiny_models import readout, tiny_qwen2

from affectbench import run as run_module
from affectbench.engine import Engine
from affectbench.errors import AffectbenchError
from affectbench.evidence import EvidencePass
from affectbench.intervention import AUDIO
from affectbench.model import Prepared
from affectbench.plan import Job, job_of_names
from affectbench.readout import FAILED
from affectbench.record import Record

Run = tuple[list[Record], Log]

# Models that cannot be used.


def toy_checkpoint(bench: Bench, root: Path, name: str) -> Path:
    """A copy of the toy model with a card of its own."""
    write_yaml(root / "models" / f"{name}.yaml", card(name=name, checkpoint=f"checkpoints/{name}"))
    source = bench.root / "models" / "checkpoints" / MODEL
    return Path(shutil.copytree(source, root / "models" / "checkpoints" / name))


def job_of(bench: Bench, root: Path, model: str, *selectors: str, protocol: str = PROTOCOL) -> Job:
    return job_of_names(bench.registry(root), model, BENCHMARK, selectors or ("magnitude",), [protocol], 0)


@pytest.mark.parametrize("statistics", ["all", "correct", "correct_or_all"])
def test_a_model_of_nan_gives_an_error_never_labels(bench: Bench, tmp_path: Path, statistics: str) -> None:
    folder = toy_checkpoint(bench, tmp_path, "nan")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = np.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    asked = {"positions": "answer", "items": statistics, "minimum_items": 1}
    write_protocol(tmp_path, name="asked", statistics=asked)
    records, _ = bench.run(
        job_of(bench, tmp_path, "nan", protocol="asked"), tmp_path / "out", more=[tmp_path]
    )
    assert records[0].status == "error"
    assert records[0].scores is None
    assert "model nan gave no finite score for any of the" in records[0].reason


def test_a_dose_that_overflows_gives_errors_never_labels(bench: Bench, tmp_path: Path) -> None:
    arms = {
        "suppress": {"operation": "scale", "doses": [0]},
        "amplify": {"operation": "scale", "doses": [1e38]},
    }
    write_protocol(tmp_path, name="huge", arms=arms)
    records, _ = bench.run(bench.job(protocol="huge", more=[tmp_path]), tmp_path / "out", more=[tmp_path])
    for record in records:
        assert record.status in ("error", "collapsed")
        assert record.headline is None or record.headline.agg is None
        if record.scores is not None:
            amplified = record.scores.doses[1]
            assert amplified.n_error > 0


def test_an_item_that_fails_leaves_the_statistics_of_the_others_alone() -> None:
    model = tiny_qwen2()
    asked, wanted = readout(model), frozenset({("gate", "content", "mean"), ("gate", "answer", "rate")})
    sound = token_items(model, count=9)
    broken = Prepared(
        "item-999", sound.items[0].ids, sound.items[0].roles.clone(), torch.full((1, 32), torch.nan)
    )
    broken.roles[1] |= AUDIO
    spoilt = replace(
        sound,
        items=(*sound.items, broken),
        gold=np.append(sound.gold, 0),
        clusters=(*sound.clusters, "c99"),
    )
    for correct_only in (False, True):
        passes = [
            EvidencePass(Engine(model), each, asked, wanted, correct_only).run() for each in (sound, spoilt)
        ]
        expected, found = (each.evidence("gate", "content") for each in passes)
        assert found.mean.any()
        np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-6)
        np.testing.assert_array_equal(found.items, expected.items)
        assert passes[1].codes[-1] == FAILED


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def half_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:4000])


def other_shape(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"hidden_size": 32', '"hidden_size": 64'))


def unknown_architecture(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"qwen2"', '"quark9"'))


def broken_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    "spoil",
    [no_config, no_weights, half_weights, other_shape, unknown_architecture, broken_json, no_tokenizer],
)
def test_a_checkpoint_that_cannot_be_loaded_is_named(
    bench: Bench, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    folder = toy_checkpoint(bench, tmp_path, "spoilt")
    spoil(folder)
    records, log = bench.run(job_of(bench, tmp_path, "spoilt"), tmp_path / "out", more=[tmp_path])
    assert records == []
    assert len(log.notes) == 1
    assert log.notes[0].startswith(f"spoilt on {BENCHMARK}: model 'spoilt' could not be loaded from {folder}")
    assert "\n" not in log.notes[0]
    assert not contents(tmp_path / "out")


# Data that cannot be used.


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
    monkeypatch.setattr(run_module, "load_model", None)
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
