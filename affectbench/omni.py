"""What the thinkers of the Qwen-Omni models share: a tower for log-mel frames, and a decoder.

Their processor classes need vision packages even for audio, so audio inputs are built directly: log-mel
frames, the tower, then one embedding for each placeholder token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from affectbench.checkpoint import load_checkpoint
from affectbench.errors import AffectbenchError
from affectbench.model import Model

if TYPE_CHECKING:
    from affectbench.task import ModelCard

SAMPLE_RATE = 16000


class OmniThinker(Model):
    """A subclass names its class of transformers and says how many embeddings its tower makes of a clip."""

    modalities = ("text", "audio")
    network_class: ClassVar[str] = ""

    features: Any
    """Turns a waveform (S,) into log-mel features (bins, T)."""

    @classmethod
    def load(cls, card: ModelCard, source: str, *, device: str, dtype: torch.dtype) -> Self:
        loaded = load_checkpoint(card, source, cls.network_class, device=device, dtype=dtype)
        model = cls(loaded[0], loaded[1], card, loaded[2])
        model.features = _features(source, card.revision)
        return model

    def audio_length(self, frames: int) -> int:
        """Embeddings that the tower makes of so many log-mel frames."""
        raise AffectbenchError(
            f"family {self.name!r} does not say how many embeddings its audio tower makes of {frames} frames",
            hint="the family file must override `audio_length`",
        )

    def position_ids(self, mask: Tensor) -> Tensor:
        # Without images or video the three axes of the multimodal rotary embedding are the same.
        return super().position_ids(mask).expand(3, -1, -1)

    @torch.no_grad()
    def audio_embeddings(self, waveform: Any) -> Tensor:
        features = torch.as_tensor(self.features(waveform), dtype=self.dtype, device=self.device)
        length = torch.tensor([features.shape[1]], device=self.device)
        output = self.network.get_audio_features(
            features[None],
            feature_attention_mask=torch.ones(1, features.shape[1], dtype=torch.long, device=self.device),
            audio_feature_lengths=length,
        )
        found = getattr(output, "last_hidden_state", output)
        embeds: Tensor = torch.cat(list(found)) if isinstance(found, list | tuple) else found
        embeds = embeds.reshape(-1, embeds.shape[-1])
        expected = self.audio_length(features.shape[1])
        if embeds.shape[0] != expected:
            raise AffectbenchError(
                f"{embeds.shape[0]} audio embeddings for {features.shape[1]} frames, expected {expected}",
                hint="the tower's length rule has changed; placeholders would run shifted",
            )
        return embeds


def _features(source: str, revision: str | None) -> Any:
    """The checkpoint's front end: ours with a fixed floor where its preprocessor says so, else Whisper's."""
    path = Path(source) / "preprocessor_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if settings.get("feature_extractor_type") == "AffectbenchLogMel":
        from affectbench.audio_features import log_mel

        return lambda waveform: log_mel(waveform, n_mels=settings["feature_size"], floor=settings["floor"])
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor.from_pretrained(source, revision=revision)

    def features(waveform: Any) -> Any:
        out = extractor(waveform, sampling_rate=SAMPLE_RATE, padding=False, return_tensors="np")
        return out["input_features"][0]

    return features
