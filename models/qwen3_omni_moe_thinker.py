"""The thinker of Qwen3-Omni: an audio tower and a decoder of experts."""

from __future__ import annotations

from typing import ClassVar

from affectbench.omni import OmniThinker


class Qwen3OmniMoeThinker(OmniThinker):
    name = "qwen3_omni_moe_thinker"
    network_class = "Qwen3OmniMoeThinkerForConditionalGeneration"
    architectures = (network_class,)
    audio_token = "<|audio_pad|>"
    audio_marks = ("<|audio_start|>", "<|audio_end|>")
    tiny_parts: ClassVar = {
        "text_config": {
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
            }
        },
        "audio_config": {"n_window": 50, "n_window_infer": 200, "downsample_hidden_size": 4},
        "vision_config": {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
    }  # fmt: skip

    def audio_length(self, frames: int) -> int:
        # Windows run apart through three convolutions of stride two, the last one shorter than the others.
        window = 2 * int(self.network.config.audio_config.n_window)
        whole, rest = divmod(frames, window)
        return whole * _halved(window) + _halved(rest)


def _halved(frames: int) -> int:
    for _ in range(3):
        frames = (frames + 1) // 2
    return frames
