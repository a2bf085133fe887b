"""Qwen2-Audio: Whisper's tower with a pool of two, and a Qwen2 decoder. It hears 30 seconds of a clip."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from affectbench.audio_language import AudioLanguageModel


class Qwen2Audio(AudioLanguageModel):
    name = "qwen2_audio"
    network_class = "Qwen2AudioForConditionalGeneration"
    architectures = (network_class,)
    audio_token = "<|AUDIO|>"
    audio_marks = ("<|audio_bos|>", "<|audio_eos|>")
    mask = "feature_attention_mask"
    windows = 1
    tiny_seconds = 2

    def audio_length(self, frames: int) -> int:
        # A convolution of stride two, then a pool of two.
        return ((frames - 1) // 2 + 1 - 2) // 2 + 1

    def tower(self, inputs: Mapping[str, Tensor]) -> Tensor:
        # The class has no `get_audio_features`: this is the part of its forward that makes embeddings.
        from transformers.masking_utils import create_bidirectional_mask

        network, features = self.network.model, inputs["input_features"]
        halved = (inputs[self.mask].sum(-1) - 1) // 2 + 1
        columns = torch.arange((features.shape[-1] - 2) // 2 + 1, device=features.device)
        mask = create_bidirectional_mask(
            config=network.audio_tower.config,
            inputs_embeds=features.new_zeros(1, len(columns), 1),
            attention_mask=(columns < halved[:, None]).long(),
        )
        heard = network.audio_tower(features, attention_mask=mask).last_hidden_state
        embeds: Tensor = network.multi_modal_projector(heard)
        return embeds[0, : self.audio_length(self.frames(inputs))]
