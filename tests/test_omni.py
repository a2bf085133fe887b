"""Qwen3-Omni's thinker: audio and experts together, against the class's own forward."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from test_experts import editing, some, written_out
from tiny_models import LABELS, readout, tiny_audio, tiny_card, tiny_qwen3_omni

from affectbench.audio_features import log_mel
from affectbench.engine import Engine
from affectbench.errors import AffectbenchError
from affectbench.evidence import MEAN, EvidencePass, requests_of
from affectbench.examples import Example, RenderedPrompt
from affectbench.intervention import AUDIO
from affectbench.model import Model
from affectbench.readout import Items

FRAMES = (37, 100, 101, 260, 64, 37)


@pytest.fixture
def model() -> Model:
    return tiny_qwen3_omni()


def clip(place: int) -> np.ndarray:
    return np.random.default_rng(place).normal(size=(16, FRAMES[place])).astype(np.float32)


def spoken(model: Model) -> Items:
    made = []
    for place in range(len(FRAMES)):
        # The tiny model's front end hands on what it is given, so a "waveform" is features already.
        example = Example(f"clip-{place}", None, lambda place=place: clip(place), "joy", "c")
        prompt = RenderedPrompt("the {audio} Question : Emotion :", None, LABELS)
        made.append(model.prepare(example, prompt))
    gold = np.arange(len(made)) % len(LABELS)
    return Items("test", tuple(made), gold, tuple(f"c{place}" for place in range(len(made))))


def test_the_tower_makes_as_many_embeddings_as_the_family_says(model: Model) -> None:
    for frames in (1, 2, 7, 8, 9, 15, 16, 17, 99, 100, 101, 108, 199, 200, 303):
        features = np.zeros((16, frames), dtype=np.float32)
        assert model.audio_embeddings(features).shape[0] == model.audio_length(frames)  # type: ignore[attr-defined]


def test_another_number_of_embeddings_is_an_error(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "audio_length", lambda frames: 3)
    with pytest.raises(AffectbenchError, match="14 audio embeddings for 101 frames, expected 3"):
        model.audio_embeddings(np.zeros((16, 101), dtype=np.float32))


@pytest.mark.parametrize("site", ["gate", "neuron"])
def test_packed_audio_equals_the_public_forward_with_experts_written_out(model: Model, site: str) -> None:
    data, asked, interventions = spoken(model), readout(model), some(model, site)
    packed = Engine(model).predict(data, asked, interventions).scores
    np.testing.assert_allclose(
        packed, Engine(model, tokens=1).predict(data, asked, interventions).scores, atol=3e-5
    )
    first = [tokens[0] for tokens in asked.candidates]
    for row, item in enumerate(data.items):
        assert int((item.roles & AUDIO).bool().sum()) == model.audio_length(FRAMES[row])  # type: ignore[attr-defined]
        for place, intervention in enumerate(interventions):
            for layer, experts in enumerate(model.experts):
                experts.forward = written_out(experts, layer, editing(intervention, item.roles))
            with torch.no_grad():
                logits = model.network(
                    input_ids=item.ids[None],
                    attention_mask=torch.ones(1, len(item), dtype=torch.long),
                    input_features=torch.from_numpy(clip(row))[None],
                    feature_attention_mask=torch.ones(1, FRAMES[row], dtype=torch.long),
                ).logits[0, -1]
            for experts in model.experts:
                del experts.forward
            expected = logits.log_softmax(-1)[first]
            np.testing.assert_allclose(packed[place, row], expected, atol=5e-5, err_msg=f"{row} {place}")


def test_evidence_of_audio_tokens_is_collected(model: Model) -> None:
    data = spoken(model)
    wanted = requests_of({MEAN}, "neuron", "audio")
    found = EvidencePass(Engine(model), data, readout(model), wanted, correct_only=False).run()
    mean = found.evidence("neuron", "audio").mean
    assert mean.shape == (len(LABELS), 3, 4 * 24)
    assert (mean != 0).mean() > 0.8  # All but those of an expert that an emotion's tokens are not sent to.


def test_a_saved_checkpoint_loads_and_hears(model: Model, tmp_path: Path) -> None:
    model.network.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    settings = {"feature_extractor_type": "AffectbenchLogMel", "feature_size": 16, "floor": -8.0}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    card = tiny_card(model.name, "saved", str(tmp_path))
    loaded = type(model).load(card, str(tmp_path), device="cpu", dtype=torch.float32)
    waveform = np.random.default_rng(0).normal(size=16000).astype(np.float32)
    expected = model.audio_embeddings(log_mel(waveform, n_mels=16, floor=-8.0))
    torch.testing.assert_close(loaded.audio_embeddings(waveform), expected)
    assert json.loads((tmp_path / "config.json").read_text()).get("experts_implementation") is None
    with pytest.raises(AffectbenchError, match="'saved' could not be loaded from"):
        type(model).load(card, str(tmp_path / "none"), device="cpu", dtype=torch.float32)


def full(name: str, model: Model) -> Any:
    """Config of a whole Omni model: a talker and a vocoder stand beside a thinker of these sizes."""
    thinker = model.network.config.to_dict()
    if name == "Qwen3OmniMoe":
        return {"thinker_config": thinker, "enable_audio_output": False}
    rope = thinker["text_config"]["rope_parameters"]
    return {
        "thinker_config": thinker,
        "talker_config": {
            "vocab_size": 64, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 1,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "embedding_size": 32,
            "rope_parameters": rope,
        },
        "token2wav_config": {
            "dit_config": {
                "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8,
                "ff_mult": 1, "emb_dim": 16, "mel_dim": 8, "enc_dim": 8, "enc_emb_dim": 8,
                "enc_channels": [8, 8, 8],
                "enc_kernel_sizes": [5, 3, 1], "enc_dilations": [1, 2, 1], "enc_attention_channels": 4,
                "enc_res2net_scale": 2, "enc_se_channels": 4, "num_embeds": 20, "block_size": 4,
            },
            "bigvgan_config": {
                "mel_dim": 8, "upsample_initial_channel": 16, "resblock_kernel_sizes": [3],
                "resblock_dilation_sizes": [[1, 3, 5]], "upsample_rates": [2], "upsample_kernel_sizes": [4],
            },
        },
    }  # fmt: skip


@pytest.mark.parametrize("name", ["Qwen2_5Omni", "Qwen3OmniMoe"])
def test_the_thinker_of_a_full_checkpoint_is_loaded(name: str, tmp_path: Path) -> None:
    """The checkpoints on the hub are whole: config and weights of the thinker stand one level deeper."""
    thinker = tiny_audio("qwen2_5_omni_thinker" if name == "Qwen2_5Omni" else "qwen3_omni_moe_thinker")
    config = getattr(transformers, f"{name}Config")(**full(name, thinker))
    whole = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    whole.thinker.load_state_dict(thinker.network.state_dict())
    whole.save_pretrained(tmp_path)
    thinker.tokenizer.save_pretrained(tmp_path)
    transformers.WhisperFeatureExtractor(feature_size=16).save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert all(key.startswith(("thinker.", "talker.", "token2wav.")) for key in stored)
    card = tiny_card(thinker.name, "whole")
    loaded = type(thinker).load(card, str(tmp_path), device="cpu", dtype=torch.float32)
    sound = np.random.default_rng(0).normal(scale=0.1, size=20_000).astype(np.float32)
    example = Example("one", None, lambda: sound, "joy", "c")
    prompt = RenderedPrompt("{audio} the dog was lost ?", None, LABELS)
    logits = [m.logits(m.decode(m.collate([m.prepare(example, prompt)]))) for m in (thinker, loaded)]
    torch.testing.assert_close(logits[0], logits[1])


def test_a_checkpoint_without_some_weights_is_refused(tmp_path: Path) -> None:
    thinker = tiny_audio("qwen2_5_omni_thinker")
    type(thinker).write_tiny(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    gone = next(key for key in weights if key.endswith("layers.1.mlp.down_proj.weight"))
    save_file({key: value for key, value in weights.items() if key != gone}, tmp_path / "model.safetensors")
    card = tiny_card(thinker.name, "broken")
    with pytest.raises(AffectbenchError, match=r"no weights for .*layers.1.mlp.down_proj.weight of"):
        type(thinker).load(card, str(tmp_path), device="cpu", dtype=torch.float32)
