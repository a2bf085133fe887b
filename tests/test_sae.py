"""The arithmetic of SAEs, our file format, and the formats of others against what SAELens itself computes."""

import importlib.util
import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affectbench.errors import AffectbenchError
from affectbench.registry import Registry
from affectbench.sae import SAE, LayerSAE, SAEError, load
from affectbench.sae_card import SaeCard
from affectbench.sae_formats import (
    load_card,
    of_gemma_scope,
    of_llama_scope,
    of_parts,
    of_release,
    of_saelens,
)
from affectbench.task import load_as
from affectbench.yaml_loading import TaskFileError

GOLDEN = Path(__file__).parent / "golden" / "saelens"
READERS = {"saelens": of_saelens, "gemma_scope": of_gemma_scope, "llama_scope": of_llama_scope}


def layer_sae(width: int = 5, features: int = 8, seed: int = 0, **changes: Any) -> LayerSAE:
    drawn = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=drawn)

    parts = {
        "encoder": normal(width, features), "encoder_bias": normal(features),
        "decoder": normal(features, width), "decoder_bias": normal(width),
        "threshold": torch.zeros(features),
    }  # fmt: skip
    return LayerSAE(**(parts | changes))


def by_hand(sae: LayerSAE, h: list[float]) -> list[float]:
    """JumpReLU activations of one vector, feature by feature, in plain Python."""
    found = []
    for feature in range(sae.features):
        pre = sum(h[i] * float(sae.encoder[i, feature]) for i in range(sae.width))
        pre += float(sae.encoder_bias[feature])
        found.append(pre if pre > float(sae.threshold[feature]) else 0.0)
    return found


# Arithmetic.


def test_encode_and_decode_follow_the_formula() -> None:
    sae = layer_sae(threshold=torch.tensor([0.0, 0.3, 0.6, 1.0, 0.0, 2.0, 0.1, 0.5]))
    h = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1))
    z = sae.encode(h)
    for place in np.ndindex(4, 3):
        assert z[place].tolist() == pytest.approx(by_hand(sae, h[place].tolist()), abs=1e-5)
    again = torch.einsum("btf,fd->btd", z, sae.decoder) + sae.decoder_bias
    torch.testing.assert_close(sae.decode(z), again)
    torch.testing.assert_close(sae.decode(z) + sae.error(h), h)


def test_jumprelu_is_strict_at_its_threshold() -> None:
    ones = {"encoder": torch.eye(2), "encoder_bias": torch.zeros(2), "decoder": torch.eye(2)}
    sae = LayerSAE(**ones, decoder_bias=torch.zeros(2), threshold=torch.tensor([0.5, 0.5]))
    z = sae.encode(torch.tensor([0.5, torch.nextafter(torch.tensor(0.5), torch.tensor(1.0)).item()]))
    assert z[0] == 0
    assert z[1] > 0.5
    assert sae.activation == "jumprelu"
    relu = LayerSAE(**ones, decoder_bias=torch.zeros(2), threshold=torch.zeros(2))
    assert relu.encode(torch.tensor([0.0, -1.0])).tolist() == [0.0, 0.0]
    assert relu.activation == "relu"


def test_topk_keeps_the_largest_and_none_below_zero() -> None:
    sae = layer_sae(k=3, encoder=torch.eye(5, 8), encoder_bias=torch.zeros(8))
    assert sae.encode(torch.tensor([3.0, -1.0, 2.0, 1.0, 0.5])).tolist() == [3, 0, 2, 1, 0, 0, 0, 0]
    assert sae.encode(torch.tensor([3.0, -1.0, -2.0, -1.0, -5.0])).tolist() == [3] + [0] * 7
    assert sae.activation == "topk"


def test_low_precision_streams_are_encoded_in_float32() -> None:
    sae, h = layer_sae(), torch.randn(6, 5, generator=torch.Generator().manual_seed(2)).bfloat16()
    assert sae.encode(h).dtype == torch.float32
    torch.testing.assert_close(sae.encode(h), sae.encode(h.float()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder": torch.zeros(8, 4)}, r"decoder has shape \(8, 4\), expected \(8, 5\)"),
        ({"threshold": torch.zeros(7)}, "threshold has shape"),
        ({"encoder_bias": torch.full((8,), torch.nan)}, "encoder_bias has values that are not finite"),
        ({"k": 9}, "k is 9"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SAEError, match=message):
        layer_sae(**change)


# Our files.


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_saved_sae_comes_back_as_it_is(tmp_path: Path, dtype: torch.dtype) -> None:
    made = SAE({2: layer_sae(seed=2), 0: layer_sae(seed=1, k=3)}, "tiny", facts={"steps": 5})
    path = tmp_path / "sae.safetensors"
    saved = made.save(path, dtype)
    again = load(path)
    assert (again.layers, again.base, again.facts) == ((0, 2), "tiny", {"steps": 5})
    assert (again.digest, again.features, again.width) == (saved.digest, 8, 5)
    assert (again.at(0).k, again.at(2).k) == (3, None)
    for layer in again.layers:
        torch.testing.assert_close(again.at(layer).encoder, made.at(layer).to(dtype=dtype).encoder)
    assert again.save(path, dtype).digest == saved.digest
    with pytest.raises(SAEError, match="no SAE for layer 1"):
        again.at(1)


def test_damaged_edited_and_foreign_files_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = tmp_path / "sae.safetensors"
    SAE({0: layer_sae()}, "tiny").save(path)
    from safetensors import safe_open

    with safe_open(path, "pt") as stream:
        metadata = stream.metadata()
    tensors = load_file(path)
    tensors["layer.0.encoder"][0, 0] += 1
    save_file(tensors, path, metadata)
    with pytest.raises(SAEError, match="do not match the digest"):
        load(path)
    save_file(tensors, path)
    with pytest.raises(SAEError, match="header `sae` is missing"):
        load(path)
    header = json.loads(metadata["sae"]) | {"hook": "blocks.0.hook_mlp_out"}
    save_file(tensors, path, {"sae": json.dumps(header)})
    with pytest.raises(SAEError, match="hook_mlp_out"):
        load(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SAEError, match="not readable"):
        load(path)


def test_layers_of_different_sizes_have_no_common_address() -> None:
    with pytest.raises(SAEError, match="differ in"):
        SAE({0: layer_sae(), 1: layer_sae(features=9)})
    with pytest.raises(SAEError, match="without layers"):
        SAE({})


# Formats of others.


@pytest.mark.parametrize(
    ("name", "reader"),
    [(name, "saelens") for name in ("standard", "jumprelu", "topk")]
    + [("gemma_scope", "gemma_scope"), ("llama_scope", "llama_scope")],
)
def test_saes_of_others_compute_what_saelens_computes(name: str, reader: str) -> None:
    expected = json.loads((GOLDEN / "expected.json").read_text())
    sae, h = READERS[reader](GOLDEN / name), torch.tensor(expected["h"])
    z = sae.encode(h)
    torch.testing.assert_close(z, torch.tensor(expected[name]["z"]), atol=2e-5, rtol=2e-5)
    assert ((z > 0) == (torch.tensor(expected[name]["z"]) > 0)).all()
    decoded = torch.tensor(expected[name]["decoded"])
    torch.testing.assert_close(sae.decode(z), decoded, atol=2e-5, rtol=2e-5)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("sae_lens") is None, reason="sae-lens is not installed")
def test_the_recorded_activations_are_those_of_the_installed_saelens(tmp_path: Path) -> None:
    from record_saelens import record

    record(tmp_path)
    recorded = json.loads((GOLDEN / "expected.json").read_text())
    found = json.loads((tmp_path / "expected.json").read_text())
    assert recorded.keys() == found.keys()
    for name in recorded.keys() - {"h"}:
        for key in ("z", "decoded"):
            np.testing.assert_allclose(found[name][key], recorded[name][key], atol=1e-4)


def changed(folder: Path, **changes: Any) -> Path:
    """A copy of the recorded standard SAE with another configuration."""
    shutil.copytree(GOLDEN / "standard", folder)
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(config | changes))
    return folder


def test_configurations_from_before_version_6_are_read(tmp_path: Path) -> None:
    """They name the hook and TopK elsewhere, and subtract b_dec where they do not say."""
    shutil.copytree(GOLDEN / "standard", tmp_path / "old")
    old = {"d_in": 6, "d_sae": 10, "hook_point": "blocks.1.hook_resid_post", "activation_fn_str": "relu"}
    (tmp_path / "old" / "cfg.json").write_text(json.dumps(old))
    h = torch.tensor(json.loads((GOLDEN / "expected.json").read_text())["h"])
    found, recorded = of_saelens(tmp_path / "old"), of_saelens(GOLDEN / "standard")
    torch.testing.assert_close(found.encode(h), recorded.encode(h))
    topk = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}}
    (tmp_path / "old" / "cfg.json").write_text(json.dumps(old | topk))
    assert of_saelens(tmp_path / "old").k == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalize_activations": "layer_norm"}, "token by token"),
        ({"normalize_activations": "constant_norm_rescale"}, "token by token"),
        ({"normalize_activations": "expected_average_only_in"}, "do not say by what number"),
        ({"architecture": "gated"}, "architecture 'gated' is not supported"),
        ({"activation_fn": "tanh-relu"}, "with tanh-relu is not supported"),
        ({"architecture": "topk", "k": None}, "k is None"),
        ({"architecture": "jumprelu"}, "no tensor 'threshold'"),
        ({"metadata": {"hook_name": "blocks.1.attn.hook_z"}}, "hook_z"),
    ],
)
def test_what_is_not_this_arithmetic_is_refused(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(SAEError, match=message):
        of_saelens(changed(tmp_path / "sae", **changes))


def test_a_factor_learnt_after_training_is_refused() -> None:
    sae = layer_sae(6, 10)
    weights = {"W_enc": sae.encoder, "b_enc": sae.encoder_bias, "W_dec": sae.decoder}
    weights |= {"b_dec": sae.decoder_bias, "scaling_factor": torch.ones(10)}
    config = {"hook_name": "blocks.0.hook_resid_post"}
    assert of_parts(weights, config, "here").features == 10
    with pytest.raises(SAEError, match="rescaled after training"):
        of_parts(weights | {"scaling_factor": torch.full((10,), 2.0)}, config, "here")


def test_files_that_are_missing_or_broken_are_named(tmp_path: Path) -> None:
    for read in READERS.values():
        with pytest.raises(SAEError, match="there is no"):
            read(tmp_path / "nowhere")
    pickled = tmp_path / "params.npz"
    np.savez(pickled, W_enc=np.array([{"a": 1}], dtype=object))
    with pytest.raises(SAEError, match="without pickle"):
        of_gemma_scope(tmp_path)
    shutil.copytree(GOLDEN / "llama_scope", tmp_path / "llama")
    (tmp_path / "llama" / "hyperparams.json").write_text('{"d_model": 6}')
    with pytest.raises(SAEError, match="dataset_average_activation_norm"):
        of_llama_scope(tmp_path / "llama")


# Releases, through a stand-in for sae-lens: `SAE.from_pretrained`, then `state_dict` and `cfg.to_dict`.


def stand_in(monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]) -> list[tuple[str, str]]:
    asked = []

    class Config:
        def to_dict(self) -> dict[str, Any]:
            return config

    class Found:
        cfg = Config()

        def state_dict(self) -> dict[str, torch.Tensor]:
            from safetensors.torch import load_file

            return load_file(GOLDEN / "standard" / "sae_weights.safetensors")

    class Theirs:
        @classmethod
        def from_pretrained(cls, release: str, sae_id: str, device: str = "cpu") -> Found:
            asked.append((release, sae_id))
            if release != "known":
                raise ValueError(f"Release {release} not found in pretrained SAEs directory")
            return Found()

    module = types.ModuleType("sae_lens")
    module.SAE = Theirs  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sae_lens", module)
    return asked


def test_a_release_is_read_through_saelens(monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads((GOLDEN / "standard" / "cfg.json").read_text())
    asked = stand_in(monkeypatch, config)
    h = torch.tensor(json.loads((GOLDEN / "expected.json").read_text())["h"])
    torch.testing.assert_close(
        of_release("known", "layer_1").encode(h), of_saelens(GOLDEN / "standard").encode(h)
    )
    assert asked == [("known", "layer_1")]
    with pytest.raises(SAEError, match="unknown, layer_1: Release unknown not found"):
        of_release("unknown", "layer_1")


def test_without_saelens_a_release_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    with pytest.raises(SAEError, match="sae-lens") as caught:
        of_release("gemma-scope-2b-pt-res-canonical", "layer_0/width_16k/canonical")
    assert "affectbench[sae]" in str(caught.value.hint)


# Cards.

CARD = """kind: sae
name: {name}
version: 1
title: Tiny
base: tiny
hook: resid_post
layers: [1]
width: 6
features: 10
activation: {activation}
source: {{reader: files, format: {format}, path: "{path}"}}
licence: none
"""


def card(folder: Path, name: str, activation: str, format: str, path: str, **more: str) -> SaeCard:
    folder.mkdir(exist_ok=True)
    text = CARD.format(name=name, activation=activation, format=format, path=path)
    for old, new in more.items():
        text = text.replace(f"{old}: ", f"{old}: {new} #")
    (folder / f"{name}.yaml").write_text(text)
    return load_as(folder / f"{name}.yaml", SaeCard)


@pytest.mark.parametrize(
    ("format", "name", "activation"),
    [("saelens", "topk", "topk"), ("gemma_scope", "gemma_scope", "jumprelu")],
)
def test_a_card_loads_the_weights_it_names(tmp_path: Path, format: str, name: str, activation: str) -> None:
    shutil.copytree(GOLDEN / name, tmp_path / "layer-1")
    found = load_card(card(tmp_path, "mine", activation, format, "layer-{layer}"))
    assert (found.layers, found.width, found.features, found.base) == ((1,), 6, 10, "tiny")
    torch.testing.assert_close(found.at(1).decoder, READERS[format](GOLDEN / name).decoder)


def test_a_card_of_our_own_file_takes_the_layers_it_lists(tmp_path: Path) -> None:
    made = SAE({layer: layer_sae(6, 10, layer) for layer in (0, 1)}, "tiny")
    made.save(tmp_path / "sae.safetensors")
    mine = card(tmp_path, "mine", "relu", "affectbench", "sae.safetensors")
    found = load_card(mine)
    assert found.layers == (1,)
    assert found.digest == mine.weights_digest
    made.save(tmp_path / "sae.safetensors", torch.bfloat16)
    assert card(tmp_path, "mine", "relu", "affectbench", "sae.safetensors").weights_digest != found.digest
    with pytest.raises(SAEError, match="no SAE for layer 2"):
        load_card(card(tmp_path, "mine", "relu", "affectbench", "sae.safetensors", layers="[1, 2]"))
    with pytest.raises(SAEError, match=r"there is no .*gone"):
        load_card(card(tmp_path, "mine", "relu", "affectbench", "gone.safetensors"))


def test_a_card_that_says_otherwise_than_its_weights_is_refused(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "jumprelu", tmp_path / "layer-1")
    with pytest.raises(SAEError, match="activation jumprelu; its card says 6, 10, relu"):
        load_card(card(tmp_path, "mine", "relu", "saelens", "layer-{layer}"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"hook": "hook_mlp_out"}, "hook: expected 'resid_post', found 'hook_mlp_out'"),
        ({"layers": "[2, 1]"}, "ascending"),
        ({"layers": "[1, 2]"}, "write {layer}"),
        ({"source": "{reader: files, format: saelens}"}, "either `path` or `paths`"),
        ({"source": '{reader: files, format: saelens, paths: {"0": a}}'}, "one path for each of the layers"),
        ({"source": "{reader: release, release: known}"}, "id: missing"),
    ],
)
def test_cards_say_what_is_wrong_with_them(tmp_path: Path, more: dict[str, str], message: str) -> None:
    with pytest.raises(TaskFileError, match=message):
        card(tmp_path, "mine", "relu", "saelens", "sae", **more)


def test_cards_are_found_in_models_and_in_included_folders(tmp_path: Path) -> None:
    card(tmp_path, "mine", "relu", "saelens", "sae")
    registry = Registry([tmp_path], installed=False)
    assert registry.sae("mine").base == "tiny"
    shipped = {entry.name for entry in registry.entries("sae")} - {"mine"}
    assert {"gemma-scope-2b-res-16k", "gemma-scope-9b-it-res-16k", "llama-scope-8b-res-8x"} <= shipped
    for name in shipped:
        assert registry.sae(name).licence
    for entry in registry.entries("model"):
        wanted = registry.model(entry.name).dictionary
        assert wanted is None or registry.sae(wanted)


def test_a_protocol_of_features_gets_the_saes_that_the_card_names() -> None:
    from affectbench.dataset import load_benchmark
    from affectbench.placement import dictionary_card, planned_cells
    from affectbench.plan import job_of_names

    registry = Registry(installed=False)

    def cells(model: str, protocol: str) -> set[str]:
        job = job_of_names(registry, model, None, ["random"], [protocol], 0)
        dataset = load_benchmark(job.benchmark, None, 2)
        return {each.hashes.dictionary for each in planned_cells(registry, job, dataset)}

    named = registry.model("reference-text-emergent").dictionary
    assert named is not None
    assert cells("reference-text-emergent", "sae-ablate-steer") == {registry.sae(named).weights_digest}
    assert cells("reference-text-emergent", "zero-gain") == {""}
    job = job_of_names(registry, "reference-text-plain", None, ["random"], ["sae-ablate-steer"], 0)
    with pytest.raises(AffectbenchError, match="model reference-text-plain has none"):
        dictionary_card(registry, job)


def test_what_is_planted_is_read_from_beside_the_card(tmp_path: Path) -> None:
    made = SAE({1: layer_sae(6, 10)}, "tiny")
    made.save(tmp_path / "sae.safetensors")
    plain = card(tmp_path, "mine", "relu", "affectbench", "sae.safetensors")
    assert load_card(plain).planted() is None
    (tmp_path / "mine.yaml").write_text((tmp_path / "mine.yaml").read_text() + "planted: truth.json\n")
    planted = load_as(tmp_path / "mine.yaml", SaeCard)
    with pytest.raises(AffectbenchError, match=r"truth.json, which cannot be read"):
        load_card(planted)
    (tmp_path / "truth.json").write_text('{"planted": {"joy": [1]}, "decoys": {"joy": [2]}}')
    assert load_card(planted).planted() == {"planted": {"joy": [1]}, "decoys": {"joy": [2]}}
    digest = planted.weights_digest
    (tmp_path / "truth.json").write_text('{"planted": {"joy": [3]}, "decoys": {"joy": [2]}}')
    assert planted.weights_digest != digest
