"""Checkpoints of families whose code is not transformers', with stand-ins for that code.

The stand-ins in `remote_code/` have the parts, names and shapes of what is released; transformers loads them
as it would load the released ones, from files in the checkpoint's folder.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_models import family, tiny_card
from torch import Tensor, nn

from affectbench import tiny
from affectbench.model import Model
from affectbench.model_card import ModelCard

CODE = Path(__file__).parent / "remote_code"
SPEECH_KINDS = 8
KIMI_TOKENS = (
    *("<|im_media_begin|>", "<|im_media_end|>", "<|im_msg_end|>", "<|im_kimia_text_blank|>"),
    *("<|im_kimia_user_msg_start|>", "<|im_kimia_assistant_msg_start|>", "<|im_kimia_speech_ct_id|>"),
)


def text_settings(config_class: Any, words: Any, **changes: Any) -> dict[str, Any]:
    return dict(tiny.shrunk(config_class, words, **changes).to_dict())


def audio_settings(positions: int = 1500) -> dict[str, Any]:
    from transformers import WhisperConfig

    kept = ("num_mel_bins", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "d_model")
    sizes = {name: tiny.SIZES[name] for name in kept}
    return dict(WhisperConfig(**sizes, max_source_positions=positions).to_dict())


def write_remote(folder: Path, module: str, classes: tuple[str, str], words: Any, settings: Any) -> None:
    """A checkpoint that brings `module`, with random weights."""
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(CODE / f"{module}.py", folder)
    config = get_class_from_dynamic_module(f"{module}.{classes[0]}", str(folder))(**settings)
    kind = get_class_from_dynamic_module(f"{module}.{classes[1]}", str(folder))
    network = tiny.random_network(kind, config, 0)
    tiny.write_checkpoint(folder, network, words)
    path = folder / "config.json"
    places = {"AutoConfig": f"{module}.{classes[0]}", "AutoModel": f"{module}.{classes[1]}"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": places}))


def never_unknown(words: Any) -> Any:
    """The tokenizer with another token for unknown words: the released one, on bytes, has no such words, and
    <unk> stands for sound alone."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    core = json.loads(words.backend_tokenizer.to_str())
    core["model"]["unk_token"] = "<pad>"
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(core)), **words.special_tokens_map
    )


def write_ultravox(folder: Path) -> None:
    from transformers import LlamaConfig

    words = tiny.tokenizer(family("ultravox").audio_token, template=tiny.chat_template())
    settings = {"audio_config": audio_settings(), "text_config": text_settings(LlamaConfig, words)}
    write_remote(folder, "modeling_ultravox", ("UltravoxConfig", "UltravoxModel"), words, settings)


def write_minicpm_o(folder: Path) -> None:
    from transformers import Qwen2Config

    words = never_unknown(tiny.tokenizer(*family("minicpm_o").audio_marks))
    settings = text_settings(Qwen2Config, words) | {"audio_config": audio_settings()}
    settings.pop("model_type")
    write_remote(folder, "modeling_minicpmo", ("MiniCPMOConfig", "MiniCPMO"), words, settings)


def write_kimi_audio(folder: Path) -> None:
    """Weights named as in the released checkpoint, layers that write speech too, and Whisper in a folder."""
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Model, WhisperConfig, WhisperModel

    words = tiny.tokenizer(*KIMI_TOKENS)
    config = tiny.shrunk(Qwen2Config, words, vocab_size=len(words) + SPEECH_KINDS, tie_word_embeddings=False)
    network = tiny.random_network(Qwen2ForCausalLM, config, 0)
    speech = tiny.random_network(Qwen2Model, config, 1)
    whisper = WhisperConfig(**{**audio_settings(), "decoder_layers": 1, "decoder_attention_heads": 2})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        adaptor = adaptor_like(4 * whisper.d_model, config.hidden_size)
        mimo_output = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        heard = WhisperModel(whisper)
    weights = {
        **network.state_dict(),
        **{f"model.mimo_{name}": value for name, value in speech.layers.state_dict(prefix="layers.").items()},
        "model.mimo_norm.weight": speech.norm.weight,
        **{f"model.vq_adaptor.layers.{name}": value for name, value in adaptor.state_dict().items()},
        "mimo_output.weight": mimo_output.weight,
    }
    folder.mkdir(parents=True, exist_ok=True)
    told = {**config.to_dict(), "model_type": "kimi_audio", "kimia_token_offset": len(words)}
    told["architectures"] = ["MoonshotKimiaForCausalLM"]
    (folder / "config.json").write_text(json.dumps(told))
    kept = {name: value.detach().contiguous() for name, value in weights.items()}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    words.save_pretrained(folder)
    heard.save_pretrained(folder / "whisper-large-v3")


def adaptor_like(width: int, hidden: int) -> nn.Module:
    first, second = nn.Linear(width, hidden), nn.Linear(hidden, hidden)
    return nn.Sequential(first, nn.SiLU(), nn.Dropout(0.0), second, nn.LayerNorm(hidden))


WRITERS: dict[str, Callable[[Path], None]] = {
    "ultravox": write_ultravox,
    "minicpm_o": write_minicpm_o,
    "kimi_audio": write_kimi_audio,
}
REMOTE_FAMILIES = tuple(WRITERS)


def remote_card(name: str, folder: str) -> ModelCard:
    """The card of a stand-in, to which nobody has agreed yet."""
    found = tiny_card(name, f"tiny-{name.replace('_', '-')}", folder)
    return found.model_copy(update={"remote_code": True, "modality": "audio"})


@cache
def tiny_remote(name: str) -> Model:
    """A stand-in, loaded as its family loads the released checkpoint."""
    os.environ.pop("AFFECTBENCH_WITNESS", None)
    if str(CODE) not in sys.path:
        sys.path.append(str(CODE))  # The package `kimia_infer`.
    with tempfile.TemporaryDirectory() as folder:
        WRITERS[name](Path(folder))
        card = remote_card(name, folder).trust()
        return family(name).load(card, folder, device="cpu", dtype=torch.float32)


def own_logits(model: Model, ids: Tensor, sound: Any) -> Tensor:
    """Logits (T, V) of one text, with its sound where it has one, by the stand-in's own forward on inputs of
    its own kind; the language model in it is the one that `model` has now."""
    found: Tensor = OWN[model.name](model, ids, sound)
    return found


def _ultravox(model: Any, ids: Tensor, sound: Any) -> Tensor:
    model.whole.language_model = model.network
    if sound is None:
        return model.network(input_ids=ids[None], use_cache=False).logits[0]  # type: ignore[no-any-return]
    found = model.features(sound, sampling_rate=16000, return_attention_mask=True, return_tensors="pt")
    length = found["attention_mask"].sum(-1)
    places = (ids == model.tokenizer.convert_tokens_to_ids(model.audio_token)).nonzero()[:, 0]
    return model.whole(  # type: ignore[no-any-return]
        ids[None], found["input_features"][..., : int(length)], length, [int(places[0])], [len(places)]
    ).logits[0]


def _minicpm_o(model: Any, ids: Tensor, sound: Any) -> Tensor:
    model.whole.llm = model.network
    if sound is None:
        return model.network(input_ids=ids[None], use_cache=False).logits[0]  # type: ignore[no-any-return]
    found = model.features(sound, sampling_rate=16000, return_attention_mask=True, return_tensors="pt")
    length = found["attention_mask"].sum(-1)
    begin, end = (model.tokenizer.convert_tokens_to_ids(mark) for mark in model.audio_marks)
    starts, ends = ((ids == mark).nonzero()[:, 0].tolist() for mark in (begin, end))
    data = {
        "input_ids": ids[None],
        "audio_features": found["input_features"][..., : int(length)],
        "audio_feature_lens": [length],
        "audio_bounds": [[(start + 1, stop) for start, stop in zip(starts, ends, strict=True)]],
    }
    return model.whole(data).logits[0]  # type: ignore[no-any-return]


def _kimi_audio(model: Any, ids: Tensor, sound: Any) -> Tensor:
    """Two streams: the text's has blanks where the other has tokens, and the other way round."""
    token = model.tokenizer.convert_tokens_to_ids
    blank = token("<|im_kimia_text_blank|>")
    table = model.network.get_input_embeddings().weight - model.blank
    marks = torch.tensor([token(mark) for mark in KIMI_TOKENS])
    spoken = ids == blank
    marked = torch.isin(ids, marks)
    audio = torch.where(marked, ids, blank)
    text = torch.where(marked, blank, ids)
    continuous = torch.zeros(len(ids), table.shape[1])
    if sound is not None:
        tokens = model.speech_tokens.tokenize(speech=torch.as_tensor(sound)[None])[0]
        audio[spoken] = tokens + model.offset
        features = model.features(sound, sampling_rate=16000, return_tensors="pt")["input_features"]
        frames = model.whisper(features).last_hidden_state
        size = (len(sound) - 1) // (160 * 8) + 1
        stacked = frames[:, : 4 * size].reshape(1, size, -1)[0]
        continuous[spoken] = model.adaptor(stacked)
    heard = table[audio]
    mixed = (heard + continuous) * torch.sqrt(torch.tensor(2.0))
    heard = torch.where(spoken[:, None], mixed, heard) if sound is not None else heard
    return model.network(inputs_embeds=(heard + table[text])[None], use_cache=False).logits[0]  # type: ignore[no-any-return]


OWN: dict[str, Callable[[Any, Tensor, Any], Tensor]] = {
    "ultravox": _ultravox,
    "minicpm_o": _minicpm_o,
    "kimi_audio": _kimi_audio,
}
