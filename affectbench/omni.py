"""What the thinkers of the Qwen-Omni models share: a tower for log-mel frames of any number, and a decoder.

Their processor classes need vision packages even for audio, so audio inputs are built directly: log-mel
frames, the tower, then one embedding for each placeholder token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from affectbench.audio_io import SAMPLE_RATE
from affectbench.audio_language import AudioLanguageModel, Inputs

UNSEEN = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
"""How the config calls the tokens of images, which a tiny instance must never say."""


class OmniThinker(AudioLanguageModel):
    """A subclass names its class of transformers and says how many embeddings its tower makes of a clip."""

    mask = "feature_attention_mask"
    padded: ClassVar[bool] = False
    """Whether the class's processor pads clips to the extractor's window, and cuts longer ones off."""
    tiny_parts: ClassVar = {"text_config": {}, "audio_config": {}, "vision_config": {}}

    @classmethod
    def feature_extractor(cls, source: str, revision: str | None) -> Any:
        """Turns a waveform (S,) into log-mel features (bins, T): with a fixed floor where the checkpoint's
        preprocessor says so, else Whisper's."""
        path = Path(source) / "preprocessor_config.json"
        settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if settings.get("feature_extractor_type") == "AffectbenchLogMel":
            from affectbench.audio_features import log_mel

            return lambda waveform: log_mel(
                waveform, n_mels=settings["feature_size"], floor=settings["floor"]
            )
        extractor = super().feature_extractor(source, revision)

        def features(waveform: Any) -> Any:
            clip, padded = waveform, None
            if cls.padded:
                # A window's length of silence behind the clip is as good as five minutes of it.
                clip = waveform[: extractor.n_samples]
                padded = (len(clip) // extractor.hop_length + 1) * extractor.hop_length + extractor.n_fft
                padded = min(padded, extractor.n_samples)
            found = extractor(
                clip, sampling_rate=SAMPLE_RATE, padding="max_length" if padded else False, max_length=padded,
                truncation=False, return_attention_mask=True, return_tensors="np",
            )  # fmt: skip
            return found["input_features"][0][:, : int(found["attention_mask"].sum())]

        return features

    @classmethod
    def tiny_tokens(cls, words: Any) -> dict[str, int]:
        begin, end = words.convert_tokens_to_ids(list(cls.audio_marks))
        unseen = {name: len(words) + place for place, name in enumerate(UNSEEN)}
        heard = {"audio_start_token_id": begin, "audio_end_token_id": end}
        return {**super().tiny_tokens(words), **heard, **unseen, "pad_token_id": words.pad_token_id}

    def position_ids(self, mask: Tensor) -> Tensor:
        # Without images or video the three axes of the multimodal rotary embedding are the same.
        return super().position_ids(mask).expand(3, -1, -1)

    def audio_inputs(self, waveform: Any) -> Inputs:
        features = torch.as_tensor(self.features(waveform))
        mask = torch.ones(1, features.shape[1], dtype=torch.long)
        return {"input_features": features[None], self.mask: mask}

    def tower(self, inputs: Mapping[str, Tensor]) -> Tensor:
        found = self.network.get_audio_features(**inputs, audio_feature_lengths=inputs[self.mask].sum(-1))
        embeds: Tensor = found.last_hidden_state
        return embeds.reshape(-1, embeds.shape[-1])
