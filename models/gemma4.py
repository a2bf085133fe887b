"""Gemma 4 with its audio tower: a conformer, and a decoder whose layers get embeddings of their own of each
token, and share keys and values.

An embedding here is the decoder's own, followed by those of all layers. Because upper layers use the keys of
lower ones, passes always run from the first layer. Gemma 4 E2B, whose upper layers are twice as wide as the
lower ones, has no single width of sites and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from affectbench import tiny
from affectbench.audio_io import SAMPLE_RATE
from affectbench.audio_language import AudioLanguageModel, Inputs


class Gemma4(AudioLanguageModel):
    name = "gemma4"
    network_class = "Gemma4ForConditionalGeneration"
    architectures = (network_class,)
    audio_token = "<|audio|>"
    tiny_parts: ClassVar = {
        "text_config": {
            "num_kv_shared_layers": 1, "hidden_size_per_layer_input": 4, "vocab_size_per_layer_input": 80,
            "global_head_dim": 8,
        },
        "audio_config": {
            "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2,
            "subsampling_conv_channels": [16, 4], "output_proj_dims": 32,
        },
    }  # fmt: skip

    def expanded(self, count: int) -> str:
        # The template writes one placeholder; the processor puts it between the tokenizer's marks.
        begin, end = (getattr(self.tokenizer, name, "") for name in ("boa_token", "eoa_token"))
        return f"{begin}{super().expanded(count)}{end}"

    def audio_inputs(self, waveform: Any) -> Inputs:
        found = self.features([waveform], sampling_rate=SAMPLE_RATE, return_tensors="pt")
        return {name: found[name] for name in ("input_features", self.mask)}

    def audio_length(self, frames: int) -> int:
        # Two convolutions of stride two.
        return -(-frames // 4)

    def tower(self, inputs: Mapping[str, Tensor]) -> Tensor:
        found = self.network.model.get_audio_features(inputs["input_features"], inputs[self.mask])
        heard: Tensor = found.pooler_output[found.attention_mask]
        silent = torch.full(heard.shape[:1], self.text_config.pad_token_id)
        return self._with_layers(heard, silent.to(self.device))

    def embed(self, ids: Tensor) -> Tensor:
        return self._with_layers(super().embed(ids), ids.to(self.device))

    def _with_layers(self, embeds: Tensor, ids: Tensor) -> Tensor:
        """Embeddings (..., d + layers * p): behind the decoder's own, those that its layers get of it."""
        if not self.text_config.hidden_size_per_layer_input:
            return embeds
        per_layer = self.decoder.get_per_layer_inputs(ids).flatten(-2)
        return torch.cat((embeds, per_layer.to(embeds.device)), dim=-1)

    def fed(self, embeds: Tensor) -> dict[str, Tensor]:
        size, part = self.text_config.hidden_size, self.text_config.hidden_size_per_layer_input
        if not part:
            return super().fed(embeds)
        per_layer = embeds[..., size:].unflatten(-1, (-1, part))
        return {"inputs_embeds": embeds[..., :size], "per_layer_inputs": per_layer}

    @classmethod
    def write_tiny_features(cls, folder: Path) -> None:
        from transformers import Gemma4AudioFeatureExtractor

        Gemma4AudioFeatureExtractor(feature_size=tiny.SIZES["num_mel_bins"]).save_pretrained(folder)
