"""Ultravox: Whisper's tower, eight of its frames stacked for one embedding, and a Llama decoder.

Its classes come with the checkpoint. It hears 30 seconds of a clip.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from affectbench.audio_language import Inputs
from affectbench.remote_audio import RemoteAudioModel

HALVED = 2
"""Frames of features for one of Whisper's tower, whose second convolution has a stride of two."""


class Ultravox(RemoteAudioModel):
    name = "ultravox"
    language = "language_model"
    parts = ("audio_tower", "multi_modal_projector")
    # The processor repeats the end-of-text token, which prompts hold too. Any token will do: its embedding is
    # replaced, and this one of Llama 3 is in no prompt.
    audio_token = "<|reserved_special_token_0|>"

    def bins(self) -> int:
        return int(self.whole.config.audio_config.num_mel_bins)

    def audio_inputs(self, waveform: Any) -> Inputs:
        found = super().audio_inputs(waveform)
        frames = int(found[self.mask].sum())
        return {name: value[..., :frames] for name, value in found.items()}

    def audio_length(self, frames: int) -> int:
        return max(1, -(-frames // (HALVED * int(self.whole.config.stack_factor))))

    def tower(self, inputs: Mapping[str, Tensor]) -> Tensor:
        heard = self.whole.audio_tower(inputs["input_features"], audio_len=inputs[self.mask].sum(-1))
        embeds: Tensor = self.whole.multi_modal_projector(heard.last_hidden_state)
        return embeds[0, : self.audio_length(self.frames(inputs))]
