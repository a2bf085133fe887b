"""Training on corpora that are not shipped: what is learnt from, what is left behind, and that it runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from corpora import emodb, sound
from e2e_content import Outcome, write_protocol

from affectbench.dataset import load_benchmark
from affectbench.plan import jobs_of_suite
from affectbench.recipes import corpus, speech_corpus, text_corpus
from affectbench.recipes.augmentation import FLOOR, STRETCH, augmented
from affectbench.registry import Registry
from affectbench.store import Store

Cli = Callable[..., Outcome]
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few synthetic items beside the corpus."""
    few = replace(speech_corpus.PLAIN, clips_per_emotion=1, emotion_rows=4, sex_rows=2, text_rows=2)
    monkeypatch.setattr(speech_corpus, "PLAIN", few)
    monkeypatch.setattr(speech_corpus, "ROWS", 4)
    monkeypatch.setattr(text_corpus, "PER_LABEL", 4)
    monkeypatch.setattr(text_corpus, "SYNTHETIC_PER_LABEL", 4)


def weights(folder: Path, task: str) -> bytes:
    return (folder / f"models/trained-{task}/model.safetensors").read_bytes()


@pytest.mark.parametrize("frames", [9, 200])
def test_a_variant_of_a_sound_keeps_what_the_model_needs(frames: int) -> None:
    mel = np.random.default_rng(0).uniform(FLOOR, 1.5, (80, frames)).astype(np.float16)
    for seed in range(20):
        found = augmented(mel, np.random.default_rng(seed))
        assert found.shape[0] == 80
        assert abs(np.log((found.shape[1] + 1) / frames)) < STRETCH + 2 / frames
        assert np.isfinite(found).all()
        assert found.min() >= FLOOR
        assert np.array_equal(found, augmented(mel, np.random.default_rng(seed)))
    assert not np.array_equal(augmented(mel, np.random.default_rng(0))[:, :5], mel[:, :5])


def test_a_louder_sound_has_louder_variants() -> None:
    mel = np.full((80, 50), 0.5, dtype=np.float16)
    soft, loud = (augmented(mel + gain, np.random.default_rng(3)) for gain in (0.0, 0.5))
    assert np.allclose(loud - soft, 0.5, atol=0.1)


def test_every_label_is_drawn_equally_often() -> None:
    labels = np.array([0] * 90 + [3] * 5 + [4] * 5)
    drawn = labels[corpus.balanced(labels, 3000, np.random.default_rng(0))]
    assert np.allclose([np.mean(drawn == label) for label in (0, 3, 4)], 1 / 3, atol=0.03)


def test_recall_is_of_labels_that_occur() -> None:
    gold, said = np.array([0, 0, 0, 0, 2, 2]), np.array([0, 1, 1, 1, 2, 2])
    assert corpus.recall(said, gold) == pytest.approx((25 + 100) / 2)


@pytest.mark.usefixtures("quick")
def test_only_identification_items_of_a_speech_corpus_are_learnt_from(tmp_path: Path, run_cli: Cli) -> None:
    emodb(tmp_path / "data")
    for number, path in enumerate(sorted((tmp_path / "data").rglob("*a01*"))):
        other = path.name[:2] in ("03", "08", "09", "10", "12", "13")
        target = tmp_path / "other" / path.relative_to(tmp_path / "data")
        target.parent.mkdir(parents=True, exist_ok=True)
        sound(target, 300 + number) if other else shutil.copy(path, target)
    made = {}
    for name, data, seed in (("one", "data", 0), ("same", "other", 0), ("seed", "data", 1)):
        options = ("--data", tmp_path / data, "-o", tmp_path / name, "--steps", 2, "--seed", seed)
        code, out, err = run_cli("train", "emodb", *options)
        assert (code, err) == (0, "")
        assert "24 items, 4 speakers" in out
        made[name] = weights(tmp_path / name, "emodb")
    assert made["one"] == made["same"], "validation and test speakers change nothing"
    assert made["one"] != made["seed"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("task", "suite"), [("emodb", "real-speech"), ("goemotions", "real-text")])
def test_a_trained_model_runs_with_its_card(
    task: str, suite: str, tmp_path: Path, corpora: Path, run_cli: Cli
) -> None:
    made = tmp_path / "made"
    code, _, err = run_cli("train", task, "--data", corpora, "-o", made, "--steps", 2)
    assert (code, err) == (0, "")
    registry = Registry([made], installed=False)
    card = registry.model(f"trained-{task}")
    assert not card.instrument
    readme = (made / "models" / card.name / "README.md").read_text(encoding="utf-8")
    benchmark = registry.benchmark(task)
    assert benchmark.licence in readme
    assert f"({len(load_benchmark(benchmark, corpora).splits['identification'])} items" in readme
    assert {job.card.name for job in jobs_of_suite(registry, suite, None)} == {card.name}

    # The untrained-looking model answers few items correctly: all of them serve to identify.
    statistics = {"positions": "answer", "items": "all", "minimum_items": 1}
    write_protocol(tmp_path, name="brief", statistics=statistics, controls={"random_draws": 2})
    options = ("--include", made, "--include", tmp_path, "--data", corpora, "-o", tmp_path / "out")
    chosen = ("--model", card.name, "--selector", "contrast", "--intervention", "brief", "--limit", 1)
    code, out, err = run_cli("run", *chosen, *options)
    assert (code, err) == (0, "")
    assert "1 cells: 1 " in out
    (record,) = Store(tmp_path / "out").read_all()[0]
    assert (record.model.id, record.task.id, record.model.instrument) == (card.name, task, False)
    assert record.scores is not None
    assert record.scores.baseline.n_error == 0


@pytest.mark.parametrize(
    ("task", "problem", "hint"),
    [
        ("emodb", "benchmark emodb needs data that are not shipped", "how to get it: Fetch the archive"),
        ("goemotions", "benchmark goemotions needs data", "how to get it: Put train.tsv"),
        ("crowd-envent", "has the label 'boredom'", "it teaches to answer with the words anger"),
        ("reference-speaker-sex", "asks '{audio} Question: is the speaker", "it teaches the prompt"),
    ],
)
def test_what_cannot_be_learnt_is_refused(
    task: str, problem: str, hint: str, run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AFFECTBENCH_DATA", raising=False)
    code, _, err = run_cli("train", task)
    assert code == 1
    assert problem in err
    assert hint in err
