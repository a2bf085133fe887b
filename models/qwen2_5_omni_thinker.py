"""The thinker of Qwen2.5-Omni: audio tower and decoder, `Qwen2_5OmniThinkerForConditionalGeneration`."""

from __future__ import annotations

from affectbench.omni import OmniThinker


class Qwen25OmniThinker(OmniThinker):
    name = "qwen2_5_omni_thinker"
    network_class = "Qwen2_5OmniThinkerForConditionalGeneration"
    audio_token = "<|AUDIO|>"
    audio_marks = ("<|audio_bos|>", "<|audio_eos|>")

    def audio_length(self, frames: int) -> int:
        # A convolution of stride two, then a pool of two.
        return ((frames - 1) // 2 + 1 - 2) // 2 + 1
