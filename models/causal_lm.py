"""Decoder-only language models of transformers: Llama, Qwen, Gemma, Mistral, OLMo, Phi-3 and their like, and
their mixtures of experts.

Needs no card: ``--model FOLDER_OR_HUB_ID`` loads any checkpoint that ``AutoModelForCausalLM`` loads.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from affectbench import tiny
from affectbench.checkpoint import load_checkpoint
from affectbench.model import Model

if TYPE_CHECKING:
    from affectbench.task import ModelCard


DENSE = (
    *(
        "Qwen2",
        "Qwen3",
        "Llama",
        "Mistral",
        "Gemma",
        "Gemma2",
        "Gemma3",
        "Olmo",
        "Olmo2",
        "Olmo3",
        "Phi3",
        "BitNet",
    ),
    *("Granite", "Cohere2", "Nemotron", "GPTNeoX"),
)
EXPERTS = ("Qwen3Moe", "Mixtral", "Olmoe", "GptOss")


class CausalLM(Model):
    name = "causal_lm"
    architectures = (*(f"{name}ForCausalLM" for name in (*DENSE, *EXPERTS)), "GPT2LMHeadModel")

    @classmethod
    def load(cls, card: ModelCard, source: str, *, device: str, dtype: torch.dtype) -> CausalLM:
        network, tokenizer, folder = load_checkpoint(
            card, source, "AutoModelForCausalLM", device=device, dtype=dtype
        )
        return cls(network, tokenizer, card, folder)

    @classmethod
    def write_tiny(cls, folder: Path, *, architecture: str | None = None, seed: int = 0) -> None:
        """Any causal language model of transformers will do, those of `architectures` are known to."""
        kind = tiny.network_class(architecture or cls.architectures[0])
        words = tiny.byte_tokenizer()
        network = tiny.random_network(kind, tiny.shrunk(kind.config_class, words), seed)
        tiny.write_checkpoint(folder, network, words)
