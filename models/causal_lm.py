"""Decoder-only language models of transformers: Llama, Qwen, Gemma, Mistral, OLMo, Phi-3 and their like, and
their mixtures of experts.

Needs no card: ``--model FOLDER_OR_HUB_ID`` loads any checkpoint that ``AutoModelForCausalLM`` loads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from affectbench.checkpoint import load_checkpoint
from affectbench.model import Model

if TYPE_CHECKING:
    from affectbench.task import ModelCard


class CausalLM(Model):
    name = "causal_lm"

    @classmethod
    def load(cls, card: ModelCard, source: str, *, device: str, dtype: torch.dtype) -> CausalLM:
        network, tokenizer, folder = load_checkpoint(
            card, source, "AutoModelForCausalLM", device=device, dtype=dtype
        )
        return cls(network, tokenizer, card, folder)
