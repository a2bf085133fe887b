"""Overlays change what they say and nothing else, and leave every byte as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from test_modules import network_of, peft_adapter
from tiny_models import family, items, tiny_card, tiny_experts, tiny_gpt2, tiny_model, tiny_qwen2
from torch import Tensor

from affectbench import tiny
from affectbench.errors import AffectbenchError
from affectbench.held_weights import Held
from affectbench.model import Model
from affectbench.model_card import ModelCard
from affectbench.model_loading import load_from, weights_digest
from affectbench.module_edit import (
    EVERYTHING,
    OPERATIONS,
    FullWeights,
    LoraWeights,
    Overlay,
    Pair,
    damaged,
    merge_adapter,
)
from affectbench.module_loading import base_card, changes_of_card, load_pair
from affectbench.module_types import OTHER, TYPES
from affectbench.registry import Registry
from affectbench.stored_weights import LoraAdapter
from affectbench.task import load_as

MODELS: dict[str, Callable[[], Model]] = {
    "qwen2": tiny_qwen2,
    "phi3": cache(lambda: tiny_model("Phi3", 0)),
    "gpt2": tiny_gpt2,
    "neox": cache(lambda: tiny_model("GPTNeoX", 0)),
    "experts": lambda: tiny_experts("GptOss"),
}


def digest(model: Model) -> str:
    """Of every byte of every weight."""
    found = hashlib.sha256()
    for name, value in model.network.state_dict().items():
        found.update(name.encode() + value.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@torch.no_grad()
def logits(model: Model) -> Tensor:
    return model.logits(model.decode(model.collate(items(model).items)))


def moved(model: Model, names: list[str] | None = None, seed: int = 1) -> FullWeights:
    """An adaptation of these parameters, or of all."""
    random = torch.Generator().manual_seed(seed)
    tensors = {
        name: value.detach() + 0.3 * torch.randn(value.shape, generator=random)
        for name, value in model.network.named_parameters()
        if names is None or name in names
    }
    return FullWeights(tensors, f"moved {seed}")


@torch.no_grad()
def put(model: Model, adapted: FullWeights) -> Callable[[], None]:
    """Write an adaptation by hand; returns what takes it back."""
    parameters = dict(model.network.named_parameters())
    before = {name: parameters[name].detach().clone() for name in adapted.tensors}
    for name, value in adapted.tensors.items():
        parameters[name].copy_(value)

    def undo() -> None:
        with torch.no_grad():
            for name, value in before.items():
                parameters[name].copy_(value)

    return undo


@pytest.fixture(params=MODELS)
def pair(request: pytest.FixtureRequest) -> Pair:
    model = MODELS[request.param]()
    return Pair(model, moved(model))


def test_all_types_adapted_are_the_adapted_model_and_all_reset_the_base(pair: Pair) -> None:
    model, before = pair.model, digest(pair.model)
    plain = logits(model)
    undo = put(model, pair.adapted)  # type: ignore[arg-type]
    expected = logits(model)
    undo()
    with pair.overlaid(Overlay(pair.everything)):
        assert torch.equal(logits(model), expected)
        assert digest(model) != before
    assert not torch.allclose(expected, plain, atol=1e-3)
    adapted = tuple(name for name in pair.everything if name != OTHER)
    with pair.overlaid(Overlay(adapted, adapted, "reset")):
        assert torch.equal(logits(model), plain)
        assert digest(model) == before
    with pair.overlaid(Overlay()):
        assert digest(model) == before
    assert digest(model) == before


@pytest.mark.parametrize("operation", OPERATIONS)
def test_only_the_damaged_type_differs_from_the_adapted_model(pair: Pair, operation: str) -> None:
    model, before = pair.model, digest(pair.model)
    kind = "up"
    with pair.overlaid(Overlay(pair.everything)):
        whole = {name: value.clone() for name, value in model.network.named_parameters()}
    with pair.overlaid(Overlay(pair.everything, (kind,), operation)):  # type: ignore[arg-type]
        inside = {name: value.clone() for name, value in model.network.named_parameters()}
    for piece in pair.modules.pieces:
        same = torch.equal(piece.view(inside[piece.parameter]), piece.view(whole[piece.parameter]))
        assert same == (piece.type != kind)
    for name in pair.modules.others:
        assert torch.equal(inside[name], whole[name])
    assert digest(model) == before


def test_transferring_one_type_is_the_base_with_its_weights_alone(pair: Pair) -> None:
    parameters = dict(pair.model.network.named_parameters())
    base = {name: value.clone() for name, value in parameters.items()}
    for kind in pair.modules.types:
        with pair.overlaid(Overlay((kind,))):
            for piece in pair.modules.pieces:
                after = pair.adapted.read(piece.parameter, base[piece.parameter])
                expected = after if piece.type == kind else base[piece.parameter]
                assert torch.equal(piece.view(parameters[piece.parameter]), piece.view(expected))


def test_noise_and_shuffling_keep_the_size_of_the_change_and_lose_the_change() -> None:
    pair = Pair(model := MODELS["phi3"](), moved(MODELS["phi3"]()))
    for piece in pair.modules.of(TYPES):
        before = dict(model.network.named_parameters())[piece.parameter]
        after = pair.adapted.read(piece.parameter, before)
        base, change = piece.matrices(before), piece.matrices(after) - piece.matrices(before)
        noise = damaged(piece, before, after, "noise", 0) - base
        assert float(noise.norm()) == pytest.approx(float(change.norm()), rel=1e-5)
        assert not torch.allclose(noise, change, atol=1e-2)
        again, other = (damaged(piece, before, after, "noise", seed) - base for seed in (0, 1))
        assert torch.equal(again, noise)
        assert not torch.equal(other, noise)
        shuffled = damaged(piece, before, after, "shuffle", 0) - base
        torch.testing.assert_close(*(torch.linalg.svdvals(each[0]) for each in (shuffled, change)))
        assert not torch.allclose(shuffled, change, atol=1e-2)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_weights_come_back_after_an_error_and_an_interrupt(error: type[BaseException]) -> None:
    pair = Pair(model := tiny_qwen2(), moved(tiny_qwen2()))
    before, folds = digest(model), model.folds
    with pytest.raises(error), pair.overlaid(Overlay(pair.everything, ("gate",), "noise")):
        raise error
    assert (digest(model), model.folds) == (before, folds)
    with pair.overlaid(Overlay(pair.everything)):
        assert model.folds != folds


@pytest.mark.parametrize("restoring", [False, True])
def test_an_interrupt_while_weights_are_written_or_put_back_leaves_the_base(
    restoring: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Pair(model := tiny_qwen2(), moved(tiny_qwen2()))
    count = len(pair.adapted.names)
    before, calls, write, at = digest(model), 0, Held.write, count + 3 if restoring else 3

    def interrupted(self: Held, values: Tensor) -> None:
        nonlocal calls
        calls += 1
        write(self, values)
        if calls == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(Held, "write", interrupted)
    with pytest.raises(KeyboardInterrupt), pair.overlaid(Overlay(pair.everything)):
        assert restoring
    assert calls == (2 * count + 3 if restoring else 6)
    assert digest(model) == before


def test_a_model_adapted_in_its_gates_alone_has_its_whole_change_there() -> None:
    model = tiny_qwen2()
    gates = [f"model.layers.{layer}.mlp.gate_proj.weight" for layer in range(3)]
    pair = Pair(model, moved(model, gates))
    with pair.overlaid(Overlay(pair.everything)):
        adapted = logits(model)
    with pair.overlaid(Overlay(("gate",))):
        assert torch.equal(logits(model), adapted)
    plain = logits(model)
    for kind in TYPES:
        if kind != "gate":
            with pair.overlaid(Overlay((kind,))):
                assert torch.equal(logits(model), plain)
            with pair.overlaid(Overlay(pair.everything, (kind,), "noise")):
                assert torch.equal(logits(model), adapted)


def test_what_cannot_be_laid_over_is_refused_before_anything_changes() -> None:
    model = tiny_model("Qwen2", 0)
    with pytest.raises(AffectbenchError, match="has a weight nowhere, which tiny-qwen2 has not"):
        Pair(model, FullWeights({"nowhere": torch.zeros(1)}, ""))
    with pytest.raises(AffectbenchError, match="overlay of 'gates'"):
        Overlay(("gates",))
    with pytest.raises(AffectbenchError, match="overlay of 'other'"):
        Overlay(damaged=("other",))
    adapted = moved(model, ["model.layers.0.mlp.gate_proj.weight"])
    model.layers[1].mlp.gate_proj.weight = model.layers[0].mlp.gate_proj.weight
    before = digest(model)
    with pytest.raises(AffectbenchError, match="share memory"), Pair(model, adapted).overlaid(Overlay(TYPES)):
        pass
    assert digest(model) == before


@pytest.mark.parametrize(
    ("name", "targets"), [("Qwen2", ["gate_proj", "k_proj"]), ("Phi3", ["gate_up_proj"])]
)
def test_a_merged_adapter_is_what_peft_merges(tmp_path: Path, name: str, targets: list[str]) -> None:
    from peft import PeftModel

    folder = peft_adapter(tmp_path / "adapter", network_of(name, 0), targets, lora_alpha=6)
    words = tiny.tokenizer()
    model = family("causal_lm")(network_of(name, 0), words, tiny_card("causal_lm", "tiny"), None)
    expected = PeftModel.from_pretrained(network_of(name, 0), folder).merge_and_unload().state_dict()
    pair = Pair(model, LoraWeights.of(LoraAdapter.read(folder), model))
    with pair.overlaid(Overlay(EVERYTHING)):
        found = {key: value.clone() for key, value in model.network.state_dict().items()}
    merge_adapter(model, folder)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6)
        assert torch.equal(model.network.state_dict()[key], found[key])


@pytest.fixture
def pair_cards(tmp_path: Path) -> Path:
    """A base, a full checkpoint and an adapter of it, with cards: `pair-full`, `pair-folder`, `pair-lora`."""
    folder = tmp_path / "models"
    kind = family("causal_lm")
    for name, seed in (("before", 0), ("after", 1)):
        kind.write_tiny(folder / name, seed=seed)
    peft_adapter(folder / "lora", kind.load(tiny_card("causal_lm", "t"), str(folder / "before"),
                 device="cpu", dtype=torch.float32).network, ["gate_proj", "o_proj"])  # fmt: skip
    common = {"kind": "model", "version": 1, "family": "causal_lm", "modality": "text", "licence": "own"}
    cards: dict[str, dict[str, Any]] = {
        "pair-base": {"checkpoint": "before"},
        "pair-full": {"checkpoint": "after", "base": "pair-base"},
        "pair-folder": {"checkpoint": "after", "base": "before"},
        "pair-lora": {"checkpoint": "before", "adapter": "lora"},
    }
    for name, keys in cards.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(common | {"name": name} | keys))
    return tmp_path


@pytest.mark.parametrize("name", ["pair-full", "pair-folder", "pair-lora"])
def test_a_pair_is_a_card_and_loads_both_sides(pair_cards: Path, name: str) -> None:
    registry = Registry([pair_cards], installed=False)
    card = registry.model(name)
    pair = load_pair(registry, card)
    base, adapted = (
        load_from(registry, each, str(each.folder), "cpu") for each in (registry.model("pair-base"), card)
    )
    assert torch.equal(logits(pair.model), logits(base))
    with pair.overlaid(Overlay(pair.everything)):
        assert torch.equal(logits(pair.model), logits(adapted))
    assert not torch.allclose(logits(base), logits(adapted), atol=1e-3)
    changes = changes_of_card(registry, card)
    rows = dict(zip(changes.modules.types, changes.values("absolute"), strict=True))
    assert {kind for kind, row in rows.items() if row.any()} == (
        {"gate", "o"} if name == "pair-lora" else set(TYPES)
    )
    state = pair.model.network.state_dict()
    for kind, row in rows.items():
        for piece in pair.modules.of([kind], matrices=True):
            before = state[piece.parameter]
            after = adapted.network.state_dict()[piece.parameter]
            assert row[piece.layer] == pytest.approx(float((after - before).norm()), rel=1e-4, abs=1e-6)


def test_an_adapter_is_part_of_what_a_model_is(pair_cards: Path) -> None:
    registry = Registry([pair_cards], installed=False)
    base, lora = registry.model("pair-base"), registry.model("pair-lora")
    before = weights_digest(lora, str(lora.folder))
    assert before != weights_digest(base, str(base.folder))
    config = pair_cards / "models/lora/adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 9'))
    assert weights_digest(lora, str(lora.folder)) != before


def test_cards_that_are_no_pair_say_so(pair_cards: Path) -> None:
    registry = Registry([pair_cards], installed=False)
    with pytest.raises(AffectbenchError, match="pair-base is no pair: its card names neither"):
        base_card(registry, registry.model("pair-base"))
    path = pair_cards / "models/pair-full.yaml"
    path.write_text(path.read_text().replace("base: pair-base", "base: pair-bas"))
    with pytest.raises(AffectbenchError, match=r"no model 'pair-bas'.*did you mean 'pair-base'"):
        base_card(Registry([pair_cards], installed=False), load_as(path, ModelCard))
    path.write_text(path.read_text() + "adapter: lora\n")
    with pytest.raises(AffectbenchError, match="a card with an `adapter` has its `checkpoint` as base"):
        load_as(path, ModelCard)
    wide = pair_cards / "models/wide"
    network = tiny.random_network(
        kind := tiny.network_class("Qwen2ForCausalLM"),
        tiny.shrunk(kind.config_class, words := tiny.byte_tokenizer(), intermediate_size=40), 0,
    )  # fmt: skip
    tiny.write_checkpoint(wide, network, words)
    path = pair_cards / "models/pair-folder.yaml"
    path.write_text(path.read_text().replace("base: before", "base: wide"))
    with pytest.raises(AffectbenchError, match=r"mlp\S+ is .* in pair-folder and .* in pair-folder"):
        load_pair(registry, load_as(path, ModelCard))
    lora = pair_cards / "models/pair-lora.yaml"
    lora.write_text(lora.read_text().replace("checkpoint: before", "checkpoint: wide"))
    with pytest.raises(AffectbenchError, match=r"changes \S+gate_proj as a matrix \(24, 32\)"):
        load_pair(registry, load_as(lora, ModelCard))
