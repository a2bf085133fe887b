"""Model cards: what they say, whether they can run here, which commit they mean, and whose code they run."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from e2e_content import (
    BENCHMARK,
    CUES,
    PEOPLE,
    PROTOCOL,
    Bench,
    Outcome,
    card,
    tokenizer,
    write_benchmark,
    write_yaml,
)
from huggingface_hub import constants
from tiny_models import family

from affectbench import hub, readiness
from affectbench.errors import AffectbenchError
from affectbench.hub import HubError, commit_of, complete, snapshot
from affectbench.model_card import ModelCard
from affectbench.plan import job_of_names
from affectbench.readiness import GIB, Machine
from affectbench.registry import Registry
from affectbench.store import Store
from affectbench.task import load_as

Cli = Callable[..., Outcome]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHIPPED = [Registry(installed=False).model(each.name) for each in Registry(installed=False).entries("model")]
ON_HUB = [card for card in SHIPPED if card.on_hub]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, no token, and no hub within reach."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    commit_of.cache_clear()
    return folder


def made(**changes: Any) -> ModelCard:
    known = {"kind": "model", "name": "some", "version": 1, "family": "causal_lm", "checkpoint": "owner/some"}
    return ModelCard.model_validate(known | {"modality": "text", "licence": "own"} | changes)


def machine(memory: float = 64, *gpus: float, hub: bool = True) -> Machine:
    found = Machine(int(memory * GIB), tuple(int(gpu * GIB) for gpu in gpus))
    found.__dict__["hub"] = hub
    return found


def cached(cache: Path, weights: int = 10, commit: str = COMMIT, branch: str = "main") -> Path:
    """A checkpoint in the hub's cache."""
    root = cache / "models--owner--some"
    folder = root / "snapshots" / commit
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"0" * weights)
    (root / "refs").mkdir()
    (root / "refs" / branch).write_text(commit)
    return folder


# What cards say.


@pytest.mark.parametrize("found", ON_HUB, ids=lambda found: found.name)
def test_a_shipped_card_tells_what_one_must_know(found: ModelCard) -> None:
    registry = Registry(installed=False)
    registry.find("family", found.family)
    assert found.default_task is not None
    assert registry.benchmark(found.default_task).modality == found.modality
    assert found.sizes.layers
    assert found.sizes.hidden
    assert found.sizes.intermediate
    assert found.facts, "where the facts were found"
    assert found.chat_template
    assert found.licence
    assert not found.instrument


def test_the_papers_models_have_cards() -> None:
    wanted = {
        *("Qwen/Qwen2.5-Omni-7B", "Qwen/Qwen2.5-Omni-3B", "google/gemma-2-2b", "google/gemma-2-9b"),
        *("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.2-3B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
        *("moonshotai/Kimi-Audio-7B-Instruct", "nvidia/audio-flamingo-3-hf", "openbmb/MiniCPM-o-2_6"),
        *("Qwen/Qwen2-Audio-7B", "Qwen/Qwen2-Audio-7B-Instruct"),
        *("fixie-ai/ultravox-v0_5-llama-3_1-8b", "fixie-ai/ultravox-v0_5-llama-3_2-1b"),
    }
    assert wanted <= {found.checkpoint for found in ON_HUB}


def test_what_a_card_tells_people_does_not_change_its_digest() -> None:
    told = made(gated=True, requires=["torch"], sizes={"layers": 2}, chat_template="None.", facts="A guess.")
    assert told.digest == made().digest
    assert made(dtype="bfloat16").digest != made().digest


def test_a_card_is_pinned_by_a_commit_alone(tmp_path: Path) -> None:
    assert made(revision=COMMIT).pinned
    assert not made().pinned
    assert not made(revision="main").pinned
    (tmp_path / "here").mkdir()
    write_yaml(tmp_path / "some.yaml", made(checkpoint="here").model_dump(mode="json"))
    local = load_as(tmp_path / "some.yaml", ModelCard)
    assert local.pinned
    assert not local.on_hub


# What can run here.


def test_a_model_that_fits_runs_where_it_fits(cache: Path) -> None:
    cached(cache)
    seven = made(sizes={"parameters": 7_000_000_000}, dtype="bfloat16", revision=COMMIT)
    for here, place in (
        (machine(64), "yes, CPU"),
        (machine(64, 80), "yes, GPU"),
        (machine(8, 24), "yes, GPU"),
        (machine(8, 12, 12), "yes, several GPUs (--device-map auto)"),
        (machine(8, 12), "no"),
    ):
        assert readiness.readiness(seven, here).word == place
    found = readiness.readiness(seven, machine(8, 12))
    # 7e9 x 2 bytes x 1.1 + 2 GiB = 16.3 GiB.
    assert found.lines == [
        "needs 16.3 GiB, this machine has 8.0 GiB of memory, GPUs: 12.0 GiB: "
        "a GPU of 16.3 GiB, or --device-map auto with an offload_folder in a card (slow)"
    ]


def test_memory_comes_from_the_files_where_the_card_does_not_tell(cache: Path) -> None:
    cached(cache, weights=3 * (1 << 20))
    need = readiness.memory_needed(made(), snapshot("owner/some", None))
    assert need == int(3 * (1 << 20) * 1.1) + 2 * GIB
    assert readiness.memory_needed(made(), None) is None


def test_what_is_missing_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    away = machine(64, hub=False)
    found = readiness.readiness(made(gated=True, requires=["no-such-package>=2", "torch<1"]), away)
    assert found.word == "no"
    text = "\n".join(found.lines)
    assert "licence has to be accepted: accept the licence at https://huggingface.co/owner/some" in text
    assert "the hub does not answer: connect" in text
    assert "needs the package no-such-package>=2: pip install 'no-such-package>=2'" in text
    assert re.search(r"needs torch<1, [\d.]+\S* is installed: pip install 'torch<1'", text)
    assert "revision not pinned: python harness.py pin some" in text
    other = readiness.readiness(made(gated="owner/other"), away)
    assert "https://huggingface.co/owner/other" in other.lines[0]
    monkeypatch.setenv("HF_TOKEN", "not-a-token")
    assert readiness.readiness(made(gated=True), machine(64)).word == "yes"


def test_a_download_is_announced_with_its_size_and_needs_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    known = made(sizes={"parameters": 2 * GIB}, dtype="bfloat16", revision=COMMIT)
    assert readiness.readiness(known, machine(64)).lines == [
        "will be downloaded at the first run: about 4.0 GiB"
    ]
    monkeypatch.setattr(readiness.shutil, "disk_usage", lambda _path: SimpleNamespace(free=GIB))
    found = readiness.readiness(known, machine(64))
    assert found.word == "no"
    assert "4.0 GiB to download, 1.0 GiB of disk free" in found.lines[0]


def test_half_a_download_is_none(cache: Path) -> None:
    folder = cached(cache)
    assert complete(folder)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-1.safetensors").touch()
    assert not complete(folder)
    (folder / "model-2.safetensors").touch()
    assert complete(folder)


def test_the_gpus_are_asked_for_through_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 81559\necho 24564\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert Machine.here().gpus == (81559 << 20, 24564 << 20)
    program.write_text("#!/bin/sh\nexit 9\n")
    assert Machine.here().gpus == ()


def test_list_models_says_who_can_run(run_cli: Cli, tmp_path: Path) -> None:
    write_yaml(tmp_path / "some.yaml", made(title="Some model", gated=True).model_dump(mode="json"))
    code, out, _ = run_cli("list", "models", "--include", tmp_path)
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "yes, CPU" in rows["reference-text"]
    below = out[out.rindex("\nsome\n") :]
    assert "accept the licence" in below
    assert "revision not pinned" in below
    assert "runs here" not in run_cli("list", "selectors")[1]


# Which commit a card means.


def test_the_cache_says_which_commit_a_branch_is_where_the_hub_cannot(cache: Path) -> None:
    with pytest.raises(HubError, match="owner/some@main: which commit that is cannot be told"):
        commit_of("owner/some", None)
    cached(cache)
    assert commit_of("owner/some", None) == COMMIT


def test_the_hub_is_asked_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[tuple[str, str | None]] = []

    class Api:
        def model_info(self, repository: str, *, revision: str | None, timeout: float) -> Any:
            asked.append((repository, revision))
            return SimpleNamespace(sha="f" * 40)

    cached(cache)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert [commit_of("owner/some", "refs/pr/7"), commit_of("owner/some", "refs/pr/7")] == ["f" * 40] * 2
    assert asked == [("owner/some", "refs/pr/7")]


def test_a_run_names_the_commit_of_a_card_that_does_not(cache: Path, tmp_path: Path) -> None:
    write_yaml(tmp_path / "some.yaml", made(default_task="reference-narratives").model_dump(mode="json"))
    job = job_of_names(Registry([tmp_path]), "some", None, ["magnitude"], ["zero-gain"], 0)
    with pytest.raises(HubError):
        job.pinned()
    cached(cache)
    commit_of.cache_clear()
    assert job.pinned().card.revision == COMMIT
    assert job.pinned().pinned() == job.pinned()


def test_pin_prints_the_line_to_write(run_cli: Cli, cache: Path, tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "some.yaml", made().model_dump(mode="json", exclude={"revision"}))
    code, _, err = run_cli("pin", "some", "--include", tmp_path)
    assert code == 1
    assert "cannot be told" in err
    cached(cache)
    commit_of.cache_clear()
    code, out, _ = run_cli("pin", "some", "--include", tmp_path)
    assert (code, out) == (0, f"{path}:\nrevision: {COMMIT}\n")
    with path.open("a") as file:
        file.write(out.splitlines()[1] + "\n")
    assert load_as(path, ModelCard).pinned
    assert "pinned already" in run_cli("pin", "some", "--include", tmp_path)[1]


def test_a_closed_door_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert not hub.reachable()


# A new checkpoint of a known family takes one YAML and no Python.


def test_a_new_checkpoint_takes_one_card(bench: Bench, run_cli: Cli, tmp_path: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    words = tokenizer()
    words.chat_template = "{% for m in messages %}Text {{ m['content'] }}{% endfor %} Emotion :"
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=128, eos_token_id=0,
        pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "weights")
    words.save_pretrained(tmp_path / "weights")
    mine = tmp_path / "mine"
    text = card(name="my-llama", checkpoint="../weights", default_task=BENCHMARK)
    write_yaml(mine / "my-llama.yaml", text)
    assert [path.suffix for path in mine.iterdir()] == [".yaml"]

    places = ("--include", bench.root, "--include", mine, "--data", bench.root / "data")
    what = ("--model", "my-llama", "--intervention", PROTOCOL, "--selector", "magnitude")
    code, _, err = run_cli("run", *places, *what, "--limit", "4", "-o", tmp_path / "results")
    assert code == 0, err
    (record,) = Store(tmp_path / "results").read_all()[0]
    assert (record.model.id, record.model.n_layers, record.model.width) == ("my-llama", 2, 40)
    assert record.status != "error"
    code, out, _ = run_cli("list", "models", "--include", mine)
    assert "yes, CPU" in next(line for line in out.splitlines() if line.startswith("my-llama"))


def test_a_new_checkpoint_that_hears_takes_one_card(bench: Bench, run_cli: Cli, tmp_path: Path) -> None:
    """A checkpoint of the real class, sound files, and two YAML: a card and a benchmark."""
    family("qwen2_audio").write_tiny(tmp_path / "weights")
    mine, sounds = tmp_path / "mine", tmp_path / "data" / "toy-voices"
    sounds.mkdir(parents=True)
    for place, person in enumerate(PEOPLE):
        for pitch, label in zip((220, 440, 880), CUES, strict=True):
            wave = np.sin(np.arange(4000 + 160 * place) * (2 * np.pi * pitch / 16000))
            soundfile.write(sounds / f"{person}_{label}.wav", 0.1 * wave, 16000)
    pattern = r"(?P<speaker>[a-z]+)_(?P<label>[a-z]+)\.wav"
    source = {"reader": "folder", "files": ["*.wav"], "pattern": pattern}
    told = {"name": "toy-voices", "modality": "audio", "data": "toy-voices", "source": source}
    write_benchmark(mine, **told, prompt="{audio} Question : Emotion :")
    card_path = mine / "models" / "my-ears.yaml"
    made_of = {"name": "my-ears", "family": "qwen2_audio", "checkpoint": "../../weights", "modality": "audio"}
    write_yaml(card_path, card(**made_of, default_task="toy-voices"))
    assert not list(mine.rglob("*.py"))

    places = ("--include", bench.root, "--include", mine, "--data", tmp_path / "data")
    what = ("--model", "my-ears", "--intervention", PROTOCOL, "--selector", "magnitude")
    code, _, err = run_cli("run", *places, *what, "--limit", "3", "-o", tmp_path / "results")
    assert code == 0, err
    (record,) = Store(tmp_path / "results").read_all()[0]
    assert (record.model.family, record.task.modality, record.task.n_failed) == ("qwen2_audio", "audio", 0)
    assert record.task.n_items == {"identification": 9, "validation": 6, "test": 9}
    assert record.status != "error"


# Consent.


def test_no_file_can_give_consent(tmp_path: Path) -> None:
    text = made(remote_code=True).model_dump(mode="json")
    for key in ("trusted", "_trusted"):
        write_yaml(tmp_path / "some.yaml", text | {key: True})
        with pytest.raises(AffectbenchError, match=f"unknown key.*{key}|{key}.*unknown key"):
            load_as(tmp_path / "some.yaml", ModelCard)
    assert not made(remote_code=True).trusted
    assert made(remote_code=True).trust().trusted


def test_consent_travels_with_the_card() -> None:
    agreed = made(remote_code=True).trust()
    assert pickle.loads(pickle.dumps(agreed)).trusted
    assert agreed.model_copy(update={"revision": COMMIT}).trusted
    assert agreed.digest == made(remote_code=True).digest
