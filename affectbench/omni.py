"""What the thinkers of the Qwen-Omni models share: a tower for log-mel frames of any number, and a decoder.

Their processor classes need vision packages even for audio, so audio inputs are built directly: log-mel
frames, the tower, then one embedding for each placeholder token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from affectbench.audio_language import AudioLanguageModel, Inputs
from affectbench.examples import SAMPLE_RATE


class OmniThinker(AudioLanguageModel):
    """A subclass names its class of transformers and says how many embeddings its tower makes of a clip."""

    mask = "feature_attention_mask"

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
            # The processor pads with silence to five minutes; behind a window's length of it nothing changes.
            clip = waveform[: extractor.n_samples]
            padded = (len(clip) // extractor.hop_length + 1) * extractor.hop_length + extractor.n_fft
            found = extractor(
                clip, sampling_rate=SAMPLE_RATE, padding="max_length", max_length=padded,
                return_attention_mask=True, return_tensors="np",
            )  # fmt: skip
            return found["input_features"][0][:, : int(found["attention_mask"].sum())]

        return features

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
