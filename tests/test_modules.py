"""Module types are found and split in every family; changes equal numpy's and torch's own."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_models import tiny_experts, tiny_model
from torch import Tensor, nn

from affectbench import tiny
from affectbench.errors import AffectbenchError
from affectbench.model import Model
from affectbench.module_change import METRICS, Change, change_of, low_rank_change, together, top_singular
from affectbench.module_pairs import changes_between, changes_of_adapter
from affectbench.module_types import TYPES, Modules, locate, members, modules_of
from affectbench.stored_weights import LoraAdapter, StoredWeights

QWEN = {  # (hidden, intermediate, layers, outputs of k), LoRA parameters of gate and of all, share of attn
    "0.5B": ((896, 4864, 24, 128), 2_211_840, 8_798_208, 0.2458),
    "1.5B": ((1536, 8960, 28, 256), 4_702_208, 18_464_768, 0.2360),
    "3B": ((2048, 11008, 36, 256), 7_520_256, 29_933_568, 0.2463),
    "7B": ((3584, 18944, 28, 512), 10_092_544, 40_370_176, 0.2500),
    "14B": ((5120, 13824, 48, 1024), 14_548_992, 68_812_800, 0.3657),
    "32B": ((5120, 27648, 64, 1024), 33_554_432, 134_217_728, 0.2500),
}
FULL_SHARES = {
    "0.5B": 0.2923, "1.5B": 0.2941, "3B": 0.2925, "7B": 0.2913, "14B": 0.2571, "32B": 0.2903,
}  # fmt: skip


def qwen(hidden: int, intermediate: int, layers: int, small: int) -> Modules:
    """The modules of a Qwen2.5 of this size, from names and shapes alone."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (151936, hidden)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.self_attn.{name}_proj.weight": (small, hidden) for name in ("k", "v")}
        shapes |= {f"{at}.self_attn.{name}_proj.weight": (hidden, hidden) for name in ("q", "o")}
        shapes |= {f"{at}.mlp.{name}_proj.weight": (intermediate, hidden) for name in ("gate", "up")}
        shapes[f"{at}.mlp.down_proj.weight"] = (hidden, intermediate)
    config = SimpleNamespace(num_hidden_layers=layers, hidden_size=hidden, model_type="qwen2")
    return locate(shapes, config)


@pytest.mark.parametrize("size", QWEN)
def test_lora_parameters_of_qwen_are_those_of_the_protocol(size: str) -> None:
    dims, gate, everything, attention = QWEN[size]
    modules = qwen(*dims)
    assert modules.lora_parameters(["gate"], 16) == gate
    assert modules.lora_parameters(TYPES, 16) == everything
    assert modules.lora_parameters(members("attn"), 16) / everything == pytest.approx(attention, abs=5e-5)
    assert modules.share(["gate"]) == pytest.approx(FULL_SHARES[size], abs=5e-5)


def piece_of(model: Model, kind: str, layer: int = 1) -> Tensor:
    modules = modules_of(model)
    (piece,) = modules.of([kind], layer, matrices=True)
    return piece.matrices(model.network.get_parameter(piece.parameter))


def test_fused_rows_are_split_as_the_forward_pass_splits_them() -> None:
    """Zeroing what we call a piece must zero exactly what the module computes for that part."""
    model = tiny_model("Phi3", 0)
    modules = modules_of(model)
    layer = model.layers[1]
    inputs = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    heads, own, size = 4, 2, layer.self_attn.head_dim
    found = layer.self_attn.qkv_proj(inputs).split([heads * size, own * size, own * size], dim=-1)
    for kind, expected in zip("qkv", found, strict=True):
        torch.testing.assert_close(inputs @ piece_of(model, kind)[0].T, expected)
    gate, up = layer.mlp.gate_up_proj(inputs).chunk(2, dim=-1)
    torch.testing.assert_close(inputs @ piece_of(model, "gate")[0].T, gate)
    torch.testing.assert_close(inputs @ piece_of(model, "up")[0].T, up)
    assert modules.types == TYPES


def test_pieces_of_gpt2_are_transposed_and_it_has_no_gate() -> None:
    model = tiny_model("GPT2", 0, n_inner=24, bos_token_id=1, eos_token_id=1)
    layer = model.layers[1]
    inputs = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    bias = layer.attn.c_attn.bias
    for kind, expected in zip("qkv", (layer.attn.c_attn(inputs) - bias).chunk(3, dim=-1), strict=True):
        torch.testing.assert_close(inputs @ piece_of(model, kind)[0].T, expected)
    assert piece_of(model, "down").shape == (1, 32, 24)
    assert "gate" not in modules_of(model).types
    with pytest.raises(AffectbenchError, match="no modules of type 'gate'"):
        members("gate", modules_of(model).types)


def test_heads_of_neox_are_interleaved() -> None:
    model = tiny_model("GPTNeoX", 0)
    layer = model.layers[1]
    attention = layer.attention
    inputs = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    fused = attention.query_key_value(inputs) - attention.query_key_value.bias
    found = fused.view(4, 4, 3 * 8).split(8, dim=-1)
    for kind, expected in zip("qkv", found, strict=True):
        torch.testing.assert_close(inputs @ piece_of(model, kind)[0].T, expected.reshape(4, -1))


@pytest.mark.parametrize("name", ["Qwen3Moe", "Mixtral", "Olmoe", "GptOss"])
def test_fused_experts_are_split_as_they_gate(name: str) -> None:
    model = tiny_experts(name)
    experts = model.experts[1]
    assert experts is not None
    inputs = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    gate, up = piece_of(model, "gate"), piece_of(model, "up")
    weight = experts.gate_up_proj if experts.is_transposed else experts.gate_up_proj.transpose(1, 2)
    whole = inputs @ weight  # (experts, tokens, 2 x width)
    parts = (whole[..., ::2], whole[..., 1::2]) if name == "GptOss" else whole.chunk(2, dim=-1)
    torch.testing.assert_close(inputs @ gate.transpose(1, 2), parts[0])
    torch.testing.assert_close(inputs @ up.transpose(1, 2), parts[1])
    assert piece_of(model, "down").shape == (4, 32, 24)


def test_pieces_of_a_type_are_disjoint_and_cover_their_parameters() -> None:
    for model in (tiny_model("Phi3", 0), tiny_model("GPTNeoX", 0), tiny_experts("GptOss")):
        modules = modules_of(model)
        own = {piece.parameter for piece in modules.pieces}
        seen = {name: torch.zeros(modules.shapes[name]) for name in own}
        for piece in modules.pieces:
            view = piece.view(seen[piece.parameter])
            view += 1
            again = piece.shaped(piece.matrices(seen[piece.parameter]), seen[piece.parameter])
            assert torch.equal(again, view)
        assert all(bool((mask == 1).all()) for mask in seen.values())


def test_the_decoder_is_found_beside_a_tower_and_two_decoders_are_refused() -> None:
    modules = qwen(8, 12, 2, 4)
    tower = {f"audio_tower.{name}": shape for name, shape in modules.shapes.items()}
    config = SimpleNamespace(num_hidden_layers=2, hidden_size=8, model_type="qwen2")
    found = locate(tower | dict(modules.shapes), config)
    assert {piece.parameter.split(".")[0] for piece in found.pieces} == {"model"}
    twice = {f"second.{name}": shape for name, shape in modules.shapes.items()} | dict(modules.shapes)
    with pytest.raises(AffectbenchError, match=r"found 2: second.model.layers, model.layers"):
        locate(twice, config)
    with pytest.raises(AffectbenchError, match="found 0: none"):
        locate({"head.weight": (2, 2)}, config)


def test_unknown_types_are_refused_with_a_suggestion() -> None:
    assert members("gate+attn") == ("q", "k", "v", "o", "gate")
    with pytest.raises(AffectbenchError, match=r"'gates' does not exist.*did you mean 'gate'"):
        members("gates")


@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (3, 16, 24)])
def test_changes_are_those_of_numpy(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    base, adapted = rng.standard_normal((2, *shape)).astype(np.float32)
    change = change_of(torch.from_numpy(base), torch.from_numpy(adapted))
    delta = (adapted - base).astype(np.float64)
    blocks = delta.reshape(-1, *shape[-2:])
    block_diagonal = np.zeros((len(blocks) * shape[-2], len(blocks) * shape[-1]))
    for place, block in enumerate(blocks):
        rows, columns = place * shape[-2], place * shape[-1]
        block_diagonal[rows : rows + shape[-2], columns : columns + shape[-1]] = block
    size, top = np.linalg.norm(block_diagonal), np.linalg.norm(block_diagonal, 2)
    relative = size / np.linalg.norm(base.astype(np.float64))
    expected = (size, relative, np.sqrt((delta**2).mean()), top, (size / top) ** 2)
    assert [change.value(metric) for metric in METRICS] == pytest.approx(expected, rel=1e-6)


def test_no_change_is_zero_and_has_no_stable_rank() -> None:
    same = change_of(torch.ones(3, 4), torch.ones(3, 4))
    assert [same.value(metric) for metric in METRICS[:4]] == [0, 0, 0, 0]
    assert np.isnan(same.value("stable_rank"))
    assert np.isnan(Change(1.0, 0.0, 4, 1.0).value("relative"))


def test_a_large_top_singular_value_is_that_of_the_whole_decomposition() -> None:
    matrix = torch.randn(700, 560, generator=torch.Generator().manual_seed(3))
    assert top_singular(matrix) == pytest.approx(float(torch.linalg.svdvals(matrix.double())[0]), rel=1e-6)
    assert top_singular(matrix.T) == pytest.approx(top_singular(matrix), rel=1e-6)


def test_a_low_rank_change_equals_the_product() -> None:
    random = torch.Generator().manual_seed(1)
    base = torch.randn(30, 50, generator=random)
    a, b = torch.randn(4, 50, generator=random), torch.randn(30, 4, generator=random)
    found, whole = low_rank_change(a, b, 0.7, base), change_of(base, base + 0.7 * b @ a)
    for metric in METRICS:
        assert found.value(metric) == pytest.approx(whole.value(metric), rel=1e-5)
    assert together([found, found]).value("top") == found.value("top")


def saved(folder: Path, network: Any, *, shards: int = 1) -> Path:
    """A network's weights in so many files with an index, and its configuration."""
    folder.mkdir(parents=True)
    network.config.save_pretrained(folder)
    names = sorted(network.state_dict())
    places = {
        name: f"model-{place % shards + 1:05d}-of-{shards:05d}.safetensors"
        for place, name in enumerate(names)
    }
    for file in set(places.values()):
        own = {name: network.state_dict()[name].clone() for name in names if places[name] == file}
        save_file(own, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


def network_of(name: str, seed: int) -> Any:
    kind = tiny.network_class(f"{name}ForCausalLM")
    return tiny.random_network(kind, tiny.shrunk(kind.config_class, tiny.tokenizer()), seed)


@pytest.fixture(params=["Qwen2", "Phi3"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path, Any, Any]:
    one, two = network_of(request.param, 0), network_of(request.param, 1)
    return saved(tmp_path / "base", one, shards=3), saved(tmp_path / "adapted", two, shards=2), one, two


def by_hand(one: Any, two: Any) -> Callable[[str, int], Tensor]:
    """The change of a type and layer, taken from the networks by their modules' names."""

    def change(kind: str, layer: int) -> Tensor:
        def weight(network: Any) -> Tensor:
            here = network.model.layers[layer]
            fused = hasattr(here.mlp, "gate_up_proj")
            if kind in ("gate", "up", "down"):
                if fused and kind != "down":
                    return here.mlp.gate_up_proj.weight.chunk(2)[["gate", "up"].index(kind)].double()
                return getattr(here.mlp, f"{kind}_proj").weight.double()
            if fused and kind != "o":
                return here.self_attn.qkv_proj.weight.split([32, 16, 16])["qkv".index(kind)].double()
            return getattr(here.self_attn, f"{kind}_proj").weight.double()

        return weight(two) - weight(one)

    return change


def test_two_checkpoints_are_compared_across_their_shards(pair: tuple[Path, Path, Any, Any]) -> None:
    base, adapted, one, two = pair
    found, change = changes_between(base, adapted), by_hand(one, two)
    absolute, top = found.values("absolute"), found.values("top")
    for row, kind in enumerate(TYPES):
        for layer in range(3):
            expected = torch.linalg.svdvals(change(kind, layer).detach())
            assert absolute[row, layer] == pytest.approx(float(expected.norm()), rel=1e-6)
            assert top[row, layer] == pytest.approx(float(expected[0]), rel=1e-6)
    outside = [
        (two.state_dict()[name] - one.state_dict()[name]).double().norm() ** 2
        for name in one.state_dict()
        if "proj" not in name or name.endswith("bias")
    ]
    assert found.other == pytest.approx(float(sum(outside)) ** 0.5, rel=1e-6)


def test_streaming_holds_less_than_two_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = saved(tmp_path / "base", network_of("Qwen2", 0), shards=2)
    adapted = saved(tmp_path / "adapted", network_of("Qwen2", 1), shards=2)
    alive = most = 0

    def counted(tensor: Tensor) -> Tensor:
        nonlocal alive, most
        size = tensor.nbytes
        alive, most = alive + size, max(most, alive + size)

        def gone() -> None:
            nonlocal alive
            alive -= size

        weakref.finalize(tensor, gone)
        return tensor

    read, blocks = StoredWeights.read, StoredWeights.blocks
    monkeypatch.setattr(StoredWeights, "read", lambda self, name: counted(read(self, name)))
    monkeypatch.setattr(StoredWeights, "blocks", lambda self, name: map(counted, blocks(self, name)))
    monkeypatch.setattr("affectbench.stored_weights.BLOCK", 64)
    changes = changes_between(base, adapted)
    shapes = StoredWeights(base).shapes
    layer = sum(4 * int(np.prod(shape)) for name, shape in shapes.items() if ".layers.0." in name)
    assert 0 < most <= 2 * layer
    assert most < sum(4 * int(np.prod(shape)) for shape in shapes.values()) / 4
    assert changes.values("absolute").min() > 0


def test_pairs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    base = saved(tmp_path / "base", network_of("Qwen2", 0))
    kind = tiny.network_class("Qwen2ForCausalLM")
    wider = tiny.random_network(
        kind, tiny.shrunk(kind.config_class, tiny.tokenizer(), intermediate_size=40), 0
    )
    with pytest.raises(
        AffectbenchError, match=r"mlp.down_proj.weight is \(32, 24\) in .*base and \(32, 40\)"
    ):
        changes_between(base, saved(tmp_path / "wider", wider))
    weights = dict(network_of("Qwen2", 0).state_dict())
    weights.pop("model.layers.2.mlp.up_proj.weight")
    lacking = saved(tmp_path / "lacking", network_of("Qwen2", 0))
    (lacking / "model.safetensors.index.json").unlink()
    save_file({name: value.clone() for name, value in weights.items()}, next(lacking.glob("*.safetensors")))
    with pytest.raises(AffectbenchError, match=r"lacking has no model.layers.2.mlp.up_proj.weight"):
        changes_between(base, lacking)
    (tmp_path / "empty").mkdir()
    with pytest.raises(AffectbenchError, match=r"has no model\*.safetensors"):
        StoredWeights(tmp_path / "empty")
    sharded = saved(tmp_path / "sharded", network_of("Qwen2", 0), shards=2)
    next(sharded.glob("model-00002*")).unlink()
    with pytest.raises(AffectbenchError, match=r"is missing; model.safetensors.index.json says"):
        StoredWeights(sharded)
    next(base.glob("*.safetensors")).write_bytes(b"\x00" * 40)
    with pytest.raises(AffectbenchError, match="cannot be read"):
        StoredWeights(base)


def peft_adapter(folder: Path, network: Any, targets: list[str], **settings: Any) -> Path:
    """An adapter with random factors, as PEFT itself saves it."""
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(network, LoraConfig(r=4, target_modules=targets, **settings))
    random = torch.Generator().manual_seed(5)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, generator=random)
    wrapped.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "targets", "settings"),
    [
        ("Qwen2", ["q_proj", "gate_proj", "down_proj"], {"lora_alpha": 12}),
        ("Qwen2", ["gate_proj"], {"lora_alpha": 3, "use_rslora": True}),
        (
            "Qwen2",
            ["gate_proj", "up_proj"],
            {"rank_pattern": {"up_proj": 2}, "alpha_pattern": {"up_proj": 5}},
        ),
        ("Phi3", ["qkv_proj", "gate_up_proj"], {"lora_alpha": 8}),
        ("GPTNeoX", ["query_key_value"], {"lora_alpha": 8}),
    ],
)
def test_an_adapter_changes_what_merging_it_changes(
    tmp_path: Path, name: str, targets: list[str], settings: dict[str, Any]
) -> None:
    from peft import PeftModel

    base = saved(tmp_path / "base", network_of(name, 0))
    folder = peft_adapter(tmp_path / "adapter", network_of(name, 0), targets, **settings)
    merged = PeftModel.from_pretrained(network_of(name, 0), folder).merge_and_unload()
    whole = changes_between(base, saved(tmp_path / "merged", merged))
    found = changes_of_adapter(base, folder)
    for metric in METRICS:
        np.testing.assert_allclose(found.values(metric), whole.values(metric), rtol=1e-4, atol=1e-5)
    touched = {
        kind for kind, row in zip(found.modules.types, found.values("absolute"), strict=True) if row.any()
    }
    expected = {
        part
        for target in targets
        for part in {"gate_up_proj": ["gate", "up"]}.get(
            target, list("qkv") if "q" in target and len(target) > 6 else [target.removesuffix("_proj")]
        )
    }
    assert touched == expected


def test_adapters_that_are_no_plain_lora_are_refused(tmp_path: Path) -> None:
    folder = peft_adapter(tmp_path / "adapter", network_of("Qwen2", 0), ["gate_proj"], use_dora=True)
    with pytest.raises(AffectbenchError, match=r"use_dora is set"):
        LoraAdapter.read(folder)
    good = peft_adapter(tmp_path / "good", network_of("Qwen2", 0), ["gate_proj"])
    wide = network_of("Phi3", 1)
    with pytest.raises(
        AffectbenchError, match=r"changes model.layers.0.mlp.gate_proj; the base has 0 weights"
    ):
        changes_of_adapter(saved(tmp_path / "phi", wide), good)
    (good / "adapter_model.safetensors").unlink()
    with pytest.raises(AffectbenchError, match="cannot be read"):
        LoraAdapter.read(good)
