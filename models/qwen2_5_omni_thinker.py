"""The thinker of Qwen2.5-Omni: audio tower and decoder, `Qwen2_5OmniThinkerForConditionalGeneration`."""

from __future__ import annotations

from typing import ClassVar

from affectbench.omni import OmniThinker


class Qwen25OmniThinker(OmniThinker):
    name = "qwen2_5_omni_thinker"
    network_class = "Qwen2_5OmniThinkerForConditionalGeneration"
    architectures = (network_class,)
    audio_token = "<|AUDIO|>"
    padded = True
    audio_marks = ("<|audio_bos|>", "<|audio_eos|>")
    tiny_parts: ClassVar = {
        "text_config": {
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}
        },
        "audio_config": {"n_window": 20},
        "vision_config": {"patch_size": 4, "fullatt_block_indexes": [0]},
    }

    def audio_length(self, frames: int) -> int:
        # A convolution of stride two, then a pool of two.
        return ((frames - 1) // 2 + 1 - 2) // 2 + 1
