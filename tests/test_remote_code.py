"""Code that comes with a checkpoint is run only where its card asks for it and the user agrees."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from e2e_content import BENCHMARK, PROTOCOL, Bench, Outcome, card, write_yaml
from remote_standins import CODE, REMOTE_FAMILIES, WRITERS, remote_card, tiny_remote
from tiny_models import family

from affectbench.checkpoint import weights_of
from affectbench.conformance import Target, verify
from affectbench.errors import AffectbenchError, UntrustedCodeError
from affectbench.identity import checkpoint_digest
from affectbench.placement import load_model
from affectbench.plan import Job, job_of_names
from affectbench.registry import Registry
from affectbench.store import Store

Cli = Callable[..., Outcome]
BRINGS_CODE = ("ultravox", "minicpm_o")


@pytest.fixture(params=BRINGS_CODE)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def checkpoint(name: str, tmp_path: Path) -> Path:
    """A stand-in under a name of its own, so that its code was never imported from there."""
    WRITERS[name](tmp_path / "made")
    return Path(shutil.move(tmp_path / "made", tmp_path / f"{name}-{tmp_path.name}"))


@pytest.fixture
def witness(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the checkpoint's code leaves wherever it is run."""
    monkeypatch.setenv("AFFECTBENCH_WITNESS", str(tmp_path / "witness"))
    return tmp_path / "witness"


def job(family_name: str, folder: Path, **changes: Any) -> Job:
    registry = Registry(installed=False)
    known = job_of_names(registry, "reference-text", None, ["magnitude"], ["zero-gain"], 0)
    mine = remote_card(family_name, str(folder)).model_copy(update=changes)
    return replace(known, card=mine, source=str(folder))


def load(asked: Job) -> Any:
    return load_model(Registry(installed=False), asked, "cpu")


def test_nothing_is_run_without_consent(name: str, checkpoint: Path, witness: Path) -> None:
    with pytest.raises(UntrustedCodeError, match="which can do all that you can") as caught:
        load(job(name, checkpoint))
    assert str(checkpoint) in str(caught.value)
    assert "--trust-code" in str(caught.value)
    assert not witness.exists()


def test_consent_alone_does_not_do(name: str, checkpoint: Path, witness: Path) -> None:
    """A card that does not ask for code gets none, whatever the user said."""
    for kind in (name, "causal_lm"):
        with pytest.raises(AffectbenchError, match="remote_code: true"):
            load(job(kind, checkpoint, remote_code=False).trusted())
    assert not witness.exists()


def test_with_both_it_is_run(name: str, checkpoint: Path, witness: Path) -> None:
    model = load(job(name, checkpoint).trusted())
    assert witness.exists()
    assert model.parameters == sum(weight.numel() for weight in model.whole.parameters())
    assert model.parameters > sum(weight.numel() for weight in model.network.parameters())


def test_another_version_of_the_code_is_refused(name: str, checkpoint: Path) -> None:
    other = next(kind for kind in BRINGS_CODE if kind != name)
    with pytest.raises(AffectbenchError, match=r"has no .*: |has no .*pin the card's revision"):
        load(job(other, checkpoint).trusted())


def test_the_code_is_part_of_the_models_identity(name: str, checkpoint: Path) -> None:
    before = checkpoint_digest(checkpoint)
    (code,) = checkpoint.glob("modeling_*.py")
    code.write_text(code.read_text() + "\n# Changed.\n")
    assert checkpoint_digest(checkpoint) != before


def test_the_command_line_asks_for_consent(
    checkpoint: Path, witness: Path, name: str, bench: Bench, run_cli: Cli, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    told = {"name": "standin", "family": name, "checkpoint": str(checkpoint), "remote_code": True}
    write_yaml(mine / "standin.yaml", card(**told, default_task=BENCHMARK))
    places = ("--include", bench.root, "--include", mine, "--data", bench.root / "data")
    what = ("--model", "standin", "--intervention", PROTOCOL, "--selector", "magnitude", "--limit", "2")
    command = ("run", *places, *what, "-o", tmp_path / "results")
    code, out, _ = run_cli("list", "models", "--include", mine)
    assert "standin\n  comes with code of its own: read it, then run with --trust-code" in out
    code, _, err = run_cli(*command)
    assert code == 1
    assert "--trust-code" in err
    assert not witness.exists()
    code, _, err = run_cli(*command, "--trust-code")
    assert code == 0, err
    assert witness.exists()
    (record,) = Store(tmp_path / "results").read_all()[0]
    assert record.model.family == name


def test_examining_a_checkpoint_asks_for_consent(
    checkpoint: Path, witness: Path, name: str, run_cli: Cli, tmp_path: Path
) -> None:
    told = {"name": "standin", "family": name, "checkpoint": str(checkpoint), "remote_code": True}
    path = write_yaml(tmp_path / "standin.yaml", card(**told))
    command = ("verify-model", path, "--checkpoint", "--only", "gate")
    code, _, err = run_cli(*command)
    assert code == 1
    assert "--trust-code" in err
    assert not witness.exists()
    assert run_cli(*command, "--trust-code")[0] == 0
    assert witness.exists()


# Kimi-Audio: its decoder is transformers', its speech tokens are made by a package.


@pytest.fixture
def kimi(tmp_path: Path) -> Path:
    WRITERS["kimi_audio"](tmp_path / "kimi")
    return tmp_path / "kimi"


def forget_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [module for module in sys.modules if module.startswith("kimia_infer")]:
        monkeypatch.delitem(sys.modules, module)


def test_kimis_package_is_not_imported_without_consent(kimi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(CODE)
    forget_package(monkeypatch)
    with pytest.raises(UntrustedCodeError):
        load(job("kimi_audio", kimi))
    with pytest.raises(AffectbenchError, match="remote_code: true"):
        load(job("kimi_audio", kimi, remote_code=False).trusted())
    assert not [module for module in sys.modules if module.startswith("kimia_infer")]
    assert load(job("kimi_audio", kimi).trusted()).blank.shape == (32,)


def test_kimi_says_what_to_install(kimi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_package(monkeypatch)
    monkeypatch.setitem(sys.modules, "kimia_infer", None)
    with pytest.raises(AffectbenchError, match="needs the package kimia_infer") as caught:
        load(job("kimi_audio", kimi).trusted())
    assert "pip install git+https://github.com/MoonshotAI/Kimi-Audio.git" in str(caught.value)


def test_kimis_tokens_and_features_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = tiny_remote("kimi_audio")
    one_too_few = lambda speech, sr: torch.zeros(1, 12, dtype=torch.long)  # noqa: E731
    monkeypatch.setattr(model.speech_tokens, "tokenize", one_too_few)
    with pytest.raises(AffectbenchError, match="12 speech tokens for 13 features"):
        model.audio_embeddings(np.zeros(16_000, dtype=np.float32))


def test_weights_are_read_by_the_beginning_of_their_names(kimi: Path) -> None:
    found = weights_of(str(kimi), None, "model.vq_adaptor.layers.")
    assert set(found) == {f"{layer}.{kind}" for layer in (0, 3, 4) for kind in ("weight", "bias")}
    with pytest.raises(AffectbenchError, match=r"no weights model\.nothing"):
        weights_of(str(kimi), None, "model.nothing.")


@pytest.mark.parametrize("kind", REMOTE_FAMILIES)
def test_a_stand_in_passes_what_every_wrapper_must(kind: str, tmp_path: Path) -> None:
    """`test_families` compares it with the stand-in's own forward too, which no other class has."""
    tiny_remote(kind)  # Puts the package of Kimi-Audio into reach.
    WRITERS[kind](tmp_path)
    target = Target(remote_card(kind, str(tmp_path)).trust(), str(tmp_path))
    asked = ("sites", "statistics", "zeroing", "packed", "audio_heard", "audio_alone", "wrapped", "reload")
    found = {check.id: check for check in verify(Registry(installed=False), target, only=asked).checks}
    assert not [check for check in found.values() if check.status == "failed"]
    assert {check for check in asked if found[check].status == "skipped"} == {"wrapped", "reload"}
    assert "a part of the checkpoint's class" in found["wrapped"].reason


@pytest.mark.parametrize("kind", REMOTE_FAMILIES)
def test_a_family_without_a_tiny_instance_says_why(kind: str, tmp_path: Path) -> None:
    with pytest.raises(AffectbenchError, match="its class comes with the checkpoint"):
        family(kind).write_tiny(tmp_path)
