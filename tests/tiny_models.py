"""Tiny random-weight models from the real transformers classes, for tests of everything that runs a model."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affectbench import tiny
from affectbench.batch import Prepared
from affectbench.intervention import ANSWER, CONTENT, VALID, Intervention
from affectbench.model import Model
from affectbench.model_card import ModelCard
from affectbench.readout import Items, Readout
from affectbench.tiny import tokenizer

LABELS = ("anger", "joy", "sadness")


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


def tiny_card(family: str, name: str, checkpoint: str = "nowhere") -> ModelCard:
    """The card of a tiny instance."""
    return ModelCard(
        kind="model",
        name=name,
        version=1,
        family=family,
        checkpoint=checkpoint,
        modality="text",
        licence="own",
    )  # fmt: skip


def tiny_model(prefix: str, seed: int, **settings: Any) -> Model:
    """A random-weight causal language model of transformers, 3 layers of 24 units."""
    words = tokenizer()
    kind = tiny.network_class("GPT2LMHeadModel" if prefix == "GPT2" else f"{prefix}ForCausalLM")
    network = tiny.random_network(kind, tiny.shrunk(kind.config_class, words, **settings), seed)
    return family("causal_lm")(network, words, tiny_card("causal_lm", f"tiny-{prefix.lower()}"), None)


@cache
def tiny_audio(name: str, seed: int = 0) -> Model:
    """A family's tiny instance, as `load` reads it."""
    kind = family(name)
    with tempfile.TemporaryDirectory() as folder:
        kind.write_tiny(Path(folder), seed=seed)
        card = tiny_card(name, f"tiny-{name.replace('_', '-')}", folder)
        return kind.load(card, folder, device="cpu", dtype=torch.float32)


def tiny_thinker(name: str, seed: int) -> Model:
    """A family's tiny instance, whose front end hands on what it is given: log-mel features (16, frames)."""
    model = copy(tiny_audio(name, seed))
    model.features = lambda frames: frames  # type: ignore[attr-defined]
    return model


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
    """Audio in, 4 experts of 24 units in each of 3 layers."""
    return tiny_thinker("qwen3_omni_moe_thinker", seed)


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
    "Olmo": {"clip_qkv": 1.0},
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


AUDIO_FAMILIES = (
    *("qwen2_5_omni_thinker", "qwen2_audio", "audio_flamingo_3", "voxtral", "glm_asr", "granite_speech"),
    *("phi4_multimodal", "gemma4"),
)


@cache
def tiny_omni(seed: int = 0) -> Model:
    """The thinker of Qwen2.5-Omni with its audio tower."""
    return tiny_thinker("qwen2_5_omni_thinker", seed)


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


@contextmanager
def by_hand(model: Model, intervention: Intervention) -> Iterator[None]:
    """The intervention as plain hooks on the inputs of the down projections."""
    handles = []
    for edit in intervention.effective:
        for layer, (channels, _) in edit.shape.by_layer(edit.units).items():
            factor = torch.ones(edit.shape.width)
            factor[channels] = float(edit.value[0])
            hook = lambda _m, args, factor=factor: (args[0] * factor,)  # noqa: E731
            handles.append(model.down(layer).register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
