"""MiniCPM-o: Whisper's encoder (`apm`), a projector and a pool of two in front of a Qwen2 decoder (`llm`).

Its classes come with the checkpoint. It hears 30 seconds of a clip, written in pieces of a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from affectbench.audio_language import Inputs
from affectbench.remote_audio import RemoteAudioModel

FRAMES_A_SECOND = 100


class MiniCPMO(RemoteAudioModel):
    name = "minicpm_o"
    language = "llm"
    parts = ("apm", "audio_projection_layer", "get_audio_embedding")
    audio_token = "<unk>"
    audio_marks = ("<|audio_start|>", "<|audio_end|>")

    def bins(self) -> int:
        return int(self.whole.apm.config.num_mel_bins)

    def audio_inputs(self, waveform: Any) -> Inputs:
        found = super().audio_inputs(waveform)
        frames = int(found[self.mask].sum())
        return {name: value[..., :frames] for name, value in found.items()}

    def audio_length(self, frames: int) -> int:
        # A convolution of stride two, then the pool.
        step = int(self.whole.config.audio_pool_step)
        return ((frames - 1) // 2 + 1 - step) // step + 1

    def expanded(self, count: int) -> str:
        # The processor closes and opens the marks after each piece that the tower hears at a time.
        piece = self.audio_length(int(self.whole.config.audio_chunk_length * FRAMES_A_SECOND))
        begin, end = self.audio_marks
        pieces = [min(piece, count - start) for start in range(0, count, piece)]
        return (end + begin).join(self.audio_token * size for size in pieces)

    def tower(self, inputs: Mapping[str, Tensor]) -> Tensor:
        clips = {
            "audio_features": inputs["input_features"],
            "audio_feature_lens": [inputs[self.mask].sum(-1)],
        }
        length = self.whole.config.audio_chunk_length
        embeds: Tensor = self.whole.get_audio_embedding(clips, chunk_length=length)[0][0]
        return embeds
