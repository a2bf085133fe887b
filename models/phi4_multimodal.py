"""Phi-4-multimodal: a conformer for log-mel frames and a Phi-3 decoder with gate and up in one matrix.

The native class of transformers, which reads checkpoints in its own format. The LoRA adapter for speech that
Microsoft publishes beside the weights is loaded where the checkpoint has it, and runs for items with a sound.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor
from torch.nn.functional import gelu

from affectbench.audio_io import SAMPLE_RATE
from affectbench.audio_language import AudioLanguageModel, Inputs


class Phi4Multimodal(AudioLanguageModel):
    name = "phi4_multimodal"
    network_class = "Phi4MultimodalForCausalLM"
    architectures = (network_class,)
    audio_token = "<|audio|>"
    adapter_folder = "speech-lora"
    tiny_parts: ClassVar = {
        "audio_config": {
            "num_blocks": 2, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2,
            "ext_pw_out_channel": 16, "depthwise_separable_out_channel": 16, "nemo_conv_channels": 4,
            "input_size": 16,
        },
        "vision_config": {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2},
    }  # fmt: skip

    def audio_inputs(self, waveform: Any) -> Inputs:
        found = self.features(waveform, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        return {name: found[name] for name in ("audio_input_features", "audio_embed_sizes")}

    def frames(self, inputs: Mapping[str, Tensor]) -> int:
        return int(inputs["audio_input_features"].shape[1])

    def audio_length(self, frames: int) -> int:
        # Three convolutions of stride two.
        return -(-frames // 8)

    def tower(self, inputs: Mapping[str, Tensor]) -> Tensor:
        # Of the class's two projections, the one for sound without images.
        part = self.network.model.embed_tokens_extend.audio_embed
        heard = part.encoder(inputs["audio_input_features"], None)
        embeds: Tensor = part.down_proj_for_speech(gelu(part.up_proj_for_speech(heard)))
        return embeds[0, : int(inputs["audio_embed_sizes"])]

    @classmethod
    def tiny_tokens(cls, words: Any) -> dict[str, Any]:
        return {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}

    @classmethod
    def write_tiny_features(cls, folder: Path) -> None:
        from transformers import Phi4MultimodalFeatureExtractor

        Phi4MultimodalFeatureExtractor(feature_size=16).save_pretrained(folder)
