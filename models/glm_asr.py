"""GLM-ASR: a tower with rotary positions whose frames are joined by fours, and a Llama decoder."""

from __future__ import annotations

from typing import ClassVar

from affectbench.audio_language import AudioLanguageModel


class GlmAsr(AudioLanguageModel):
    name = "glm_asr"
    network_class = "GlmAsrForConditionalGeneration"
    architectures = (network_class,)
    audio_token = "<|pad|>"
    audio_marks = ("<|begin_of_audio|>", "<|end_of_audio|>")
    windows = 21
    tiny_parts: ClassVar = {"text_config": {}, "audio_config": {"hidden_size": 16, "intermediate_size": 64}}
    tiny_seconds = 2

    def audio_length(self, frames: int) -> int:
        # A convolution of stride two, then four frames make one embedding.
        return ((frames - 1) // 2 + 1 - 4) // 4 + 1
