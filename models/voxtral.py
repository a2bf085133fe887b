"""Voxtral: Whisper's tower over windows of 30 seconds, silence included, and a Llama decoder.

The checkpoint has no chat template: the package mistral-common writes its prompts. `TEMPLATE` is the layout
of one turn as that package encodes it (instruct tokenizer v7 and later, audio chunks).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from affectbench.audio_io import SAMPLE_RATE
from affectbench.audio_language import AudioLanguageModel, Inputs

if TYPE_CHECKING:
    from affectbench.task import ModelCard

TEMPLATE = (
    "<s>{% for message in messages %}[INST]{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{% if part['type'] == 'audio' %}[BEGIN_AUDIO][AUDIO]"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}[/INST]{% endfor %}"
)


class Voxtral(AudioLanguageModel):
    name = "voxtral"
    network_class = "VoxtralForConditionalGeneration"
    architectures = (network_class,)
    audio_token = "[AUDIO]"
    audio_marks = ("[BEGIN_AUDIO]", "")
    tiny_parts: ClassVar = {"text_config": {}, "audio_config": {"hidden_size": 16, "intermediate_size": 64}}
    tiny_seconds = 2

    @classmethod
    def load(cls, card: ModelCard, source: str, *, device: str, dtype: torch.dtype) -> Self:
        model = super().load(card, source, device=device, dtype=dtype)
        model.tokenizer.chat_template = model.tokenizer.chat_template or TEMPLATE
        return model

    def audio_inputs(self, waveform: Any) -> Inputs:
        window = int(self.features.n_samples)
        found = self.features(
            waveform, sampling_rate=SAMPLE_RATE, padding=True, truncation=False, pad_to_multiple_of=window,
            return_tensors="pt",
        )  # fmt: skip
        bins, frames = self.features.feature_size, int(self.features.nb_max_frames)
        windows = found["input_features"].reshape(bins, -1, frames).transpose(0, 1)
        return {"input_features": windows}

    def frames(self, inputs: Mapping[str, Tensor]) -> int:
        windows, _, frames = inputs["input_features"].shape
        return windows * frames

    def audio_length(self, frames: int) -> int:
        # A convolution of stride two, then four frames make one embedding.
        return frames // 8
