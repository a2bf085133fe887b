"""Decoder-only language models of transformers: Llama, Qwen, Gemma, Mistral, OLMo, Phi-3 and their like.

Needs no card: ``--model FOLDER_OR_HUB_ID`` loads any checkpoint that ``AutoModelForCausalLM`` loads.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from affectbench.errors import AffectbenchError
from affectbench.model import Model

if TYPE_CHECKING:
    from affectbench.task import ModelCard


class CausalLM(Model):
    name = "causal_lm"

    @classmethod
    def load(cls, card: ModelCard, source: str, *, device: str, dtype: torch.dtype) -> CausalLM:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = Path(source) if Path(source).is_dir() else None
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, revision=card.revision)
            network = AutoModelForCausalLM.from_pretrained(source, revision=card.revision, dtype=dtype)
        except (OSError, ValueError) as error:
            raise AffectbenchError(
                f"model {card.name!r} could not be loaded from {source}: {str(error).splitlines()[0]}",
                hint="give a folder with config, safetensors weights and tokenizer, or a hub id within reach",
            ) from error
        return cls(network.to(device), tokenizer, card, folder)
