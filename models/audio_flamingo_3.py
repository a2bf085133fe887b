"""Audio Flamingo 3: Whisper's tower with a pool of two over windows of 30 seconds, and a Qwen2 decoder."""

from __future__ import annotations

from affectbench.audio_language import AudioLanguageModel


class AudioFlamingo3(AudioLanguageModel):
    name = "audio_flamingo_3"
    network_class = "AudioFlamingo3ForConditionalGeneration"
    architectures = (network_class,)
    audio_token = "<sound>"
    windows = 20
    tiny_seconds = 2

    def audio_length(self, frames: int) -> int:
        # A convolution of stride two, then a pool of two.
        return ((frames - 1) // 2 + 1 - 2) // 2 + 1
