"""Tiny random-weight models from the real transformers classes, for tests of everything that runs a model."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from affectbench.batch import Prepared
from affectbench.intervention import ANSWER, CONTENT, VALID
from affectbench.model import Model
from affectbench.readout import Items, Readout

WORDS = (
    *("the", "a", "child", "dog", "lost", "found", "won", "song", "night", "rain", "<name>", "was", "is"),
    *("very", "Question", "Emotion", ":", "?", "anger", "joy", "fear", "sad", "ness"),
)
LABELS = ("anger", "joy", "sadness")


def tokenizer(*special: str) -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: place for place, word in enumerate(["<pad>", "<eos>", "<unk>", *WORDS])}
    core = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
        extra_special_tokens=list(special),
    )  # fmt: skip


def family(name: str) -> type[Model]:
    """A family class from ``models/``."""
    path = Path(__file__).parent.parent / "models" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"family_under_test_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return next(
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Model) and value.__module__ == spec.name
    )


def tiny_model(prefix: str, seed: int, **settings: Any) -> Model:
    """A random-weight causal language model of transformers, 3 layers of 24 units."""
    import transformers

    torch.manual_seed(seed)
    words = tokenizer()
    kind = f"{prefix}TextConfig" if prefix == "Gemma3" else f"{prefix}Config"
    config = getattr(transformers, kind)(
        vocab_size=len(words), hidden_size=32, intermediate_size=24, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3,
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1} | settings,
    )  # fmt: skip
    network = transformers.AutoModelForCausalLM.from_config(config)
    card = SimpleNamespace(name=f"tiny-{prefix.lower()}", revision=None)
    return family("causal_lm")(network, words, card, None)  # type: ignore[arg-type]


@cache
def tiny_qwen2(seed: int = 0) -> Model:
    """A plain gated MLP."""
    return tiny_model("Qwen2", seed)


@cache
def tiny_bitnet(seed: int = 0) -> Model:
    """A family with a norm inside the MLP."""
    return tiny_model("BitNet", seed)


@cache
def tiny_gemma2(seed: int = 0) -> Model:
    """A family with norms after attention and MLP, and soft-capped logits."""
    return tiny_model("Gemma2", seed, head_dim=8, sliding_window=64)


@cache
def tiny_gpt2(seed: int = 0) -> Model:
    """Conv1D instead of Linear, and no gate."""
    return tiny_model("GPT2", seed, n_inner=24, bos_token_id=1, eos_token_id=1)


@cache
def tiny_qwen3_omni(seed: int = 0) -> Model:
    """Audio in, 4 experts of 24 units in each of 3 layers. Its clips are features already, (16, frames)."""
    import transformers

    kind = family("qwen3_omni_moe_thinker")
    words = tokenizer(kind.audio_token, *kind.audio_marks)
    begin, end = words.convert_tokens_to_ids(list(kind.audio_marks))
    special = {
        "audio_token_id": words.convert_tokens_to_ids(kind.audio_token), "audio_start_token_id": begin,
        "audio_end_token_id": end, "vision_start_token_id": 9001, "vision_end_token_id": 9002,
        "image_token_id": 9003, "video_token_id": 9004,
    }  # fmt: skip
    config = transformers.Qwen3OmniMoeThinkerConfig(
        text_config={
            "vocab_size": len(words), "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2,
            "moe_intermediate_size": 24, "initializer_range": 0.3, "max_position_embeddings": 256,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1],
                                "mrope_interleaved": True},
        },
        audio_config={
            "num_mel_bins": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
            "d_model": 16, "max_source_positions": 64, "n_window": 50, "n_window_infer": 200,
            "output_dim": 32, "downsample_hidden_size": 4, "initializer_range": 0.3,
        },
        vision_config={"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
                       "out_hidden_size": 32, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
        **special,
    )  # fmt: skip
    torch.manual_seed(seed)
    network = transformers.Qwen3OmniMoeThinkerForConditionalGeneration(config)
    card = SimpleNamespace(name="tiny-qwen3-omni", revision=None)
    model = kind(network, words, card, None)  # type: ignore[arg-type]
    model.features = lambda clip: clip  # type: ignore[attr-defined]
    return model


WINDOWS = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 5}
"""Windows shorter than the tests' prompts, in two layers of three."""
DENSE: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Mistral": {"sliding_window": 5},
    "Qwen2": {},
    "Qwen2 with windows": {"use_sliding_window": True, **WINDOWS},
    "Qwen3": {"head_dim": 8},
    "Gemma": {"head_dim": 8},
    "Gemma2": {"head_dim": 8, **WINDOWS},
    "Gemma3": {"head_dim": 8, **WINDOWS},
    "Olmo2": {},
    "Olmo3": WINDOWS,
    "Phi3": {},
    "BitNet": {},
    "Granite": {"logits_scaling": 2.0, "residual_multiplier": 0.5},
    "Cohere2": WINDOWS,
    "Nemotron": {},
    "GPTNeoX": {},
}
"""Families of dense decoders. Phi-3 has gate and up in one matrix, the last two have no gate, Cohere 2 and
GPT-NeoX run attention and MLP side by side."""


@cache
def tiny_dense(name: str) -> Model:
    """A random-weight decoder of one of the families of `DENSE`."""
    return tiny_model(name.split()[0], 0, **DENSE[name])


@cache
def tiny_omni() -> Model:
    """The thinker of Qwen2.5-Omni with its audio tower; `features` takes log-mel frames as they are."""
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

    torch.manual_seed(0)
    words = tokenizer()
    spare = len(words)
    text = {
        "vocab_size": spare + 8, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
        "initializer_range": 0.3, "eos_token_id": 1, "pad_token_id": 0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 1, 2]},
    }  # fmt: skip
    audio = {
        "num_mel_bins": 16, "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2,
        "encoder_ffn_dim": 16, "max_source_positions": 100, "n_window": 20, "output_dim": 32,
        "initializer_range": 0.3,
    }  # fmt: skip
    vision = {
        "depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 32,
        "patch_size": 4, "fullatt_block_indexes": [0],
    }  # fmt: skip
    names = (
        *("audio_token_index", "audio_start_token_id", "audio_end_token_id", "image_token_index"),
        *("video_token_index", "vision_start_token_id", "vision_end_token_id", "vision_token_id"),
    )
    special = {name: spare + place for place, name in enumerate(names)}
    config = Qwen2_5OmniThinkerConfig(
        text_config=text, audio_config=audio, vision_config=vision, pad_token_id=0, **special
    )
    network = Qwen2_5OmniThinkerForConditionalGeneration(config)
    card = SimpleNamespace(name="tiny-omni", revision=None)
    model = family("qwen2_5_omni_thinker")(network, words, card, None)  # type: ignore[arg-type]
    model.features = lambda frames: frames  # type: ignore[attr-defined]
    return model


EXPERTS: dict[str, dict[str, Any]] = {
    "Qwen3Moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 8},
    "Mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Olmoe": {"num_experts": 4, "num_experts_per_tok": 2, "eos_token_id": 1},
    "GptOss": {"num_local_experts": 4, "head_dim": 8, "rope_parameters": {"rope_type": "default"}},
}
"""Families of experts; the last has biases, transposed and interleaved weights, and a gate of its own."""


@cache
def tiny_experts(prefix: str, seed: int = 0) -> Model:
    """A mixture of 4 experts of 24 units in every layer."""
    return tiny_model(prefix, seed, **EXPERTS[prefix])


def items(model: Model, count: int = 11, seed: int = 0) -> Items:
    """Random token sequences of mixed lengths with gold labels and clusters."""
    rng = np.random.default_rng(seed)
    made = []
    for place in range(count):
        length = int(rng.integers(4, 9))
        roles = torch.full((length,), VALID, dtype=torch.uint8)
        roles[1:-2] |= CONTENT
        roles[-1] |= ANSWER
        ids = torch.as_tensor(rng.integers(3, len(model.tokenizer), size=length))
        made.append(Prepared(f"item-{place:03d}", ids, roles))
    gold = np.arange(count) % len(LABELS)
    return Items("test", tuple(made), gold, tuple(f"c{place // 2}" for place in range(count)))


def readout(model: Model) -> Readout:
    """Single-token answers: one forward pass says it all."""
    ids = model.tokenizer.convert_tokens_to_ids(["anger", "joy", "sad"])
    return Readout(LABELS, tuple((token,) for token in ids))


def long_readout(model: Model) -> Readout:
    """Answers of one and of two tokens."""
    word = model.tokenizer.convert_tokens_to_ids
    return Readout(LABELS, ((word("anger"),), (word("joy"), word("very")), (word("sad"), word("ness"))))
