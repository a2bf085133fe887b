"""Models that cannot be used are named, stop nothing else, and never turn into labels."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from e2e_content import (
    BENCHMARK,
    MODEL,
    PROTOCOL,
    Bench,
    Log,
    card,
    contents,
    write_protocol,
    write_yaml,
)
from safetensors.torch import load_file, save_file
from tiny_models import items as token_items
from tiny_models import readout, tiny_qwen2

from affectbench.batch import Prepared
from affectbench.engine import Engine
from affectbench.evidence import EvidencePass
from affectbench.intervention import AUDIO
from affectbench.plan import Job, job_of_names
from affectbench.readout import FAILED
from affectbench.record import Record

Run = tuple[list[Record], Log]


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


@pytest.mark.parametrize("name", ["Модель", "___", "My Model (v2)"])
def test_any_folder_name_serves_as_a_model(bench: Bench, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(bench.root / "models" / "checkpoints" / MODEL, tmp_path / name)
    job = job_of_names(bench.registry(), str(folder), BENCHMARK, ["magnitude"], [PROTOCOL], 0)
    records, _ = bench.run(job, tmp_path / "out")
    assert records[0].status == "ok"


def test_a_chat_template_that_hides_the_content(bench: Bench, tmp_path: Path) -> None:
    folder = toy_checkpoint(bench, tmp_path, "chatty")
    template = "{{ messages[0]['content'] | upper }}"
    (folder / "chat_template.jinja").write_text(template)
    write_protocol(tmp_path, name="inside", positions="content")
    job = job_of(bench, tmp_path, "chatty", protocol="inside")
    records, _ = bench.run(job, tmp_path / "out", more=[tmp_path])
    assert records[0].status == "error"
    assert "protocol inside works at content positions; no identification item has any" in records[0].reason
