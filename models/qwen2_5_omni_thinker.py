"""The thinker of Qwen2.5-Omni: audio tower and decoder, `Qwen2_5OmniThinkerForConditionalGeneration`.

The processor class needs vision packages even for audio, so audio inputs are built directly: log-mel frames,
the tower, then one embedding for each placeholder token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from affectbench.errors import AffectbenchError
from affectbench.model import Model

if TYPE_CHECKING:
    from affectbench.task import ModelCard

SAMPLE_RATE = 16000


class Qwen25OmniThinker(Model):
    name = "qwen2_5_omni_thinker"
    modalities = ("text", "audio")
    audio_token = "<|AUDIO|>"
    audio_marks = ("<|audio_bos|>", "<|audio_eos|>")

    @classmethod
    def load(cls, card: ModelCard, source: str, *, device: str, dtype: torch.dtype) -> Qwen25OmniThinker:
        from transformers import AutoTokenizer, Qwen2_5OmniThinkerForConditionalGeneration

        folder = Path(source) if Path(source).is_dir() else None
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, revision=card.revision)
            network = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
                source, revision=card.revision, dtype=dtype
            )
        except (OSError, ValueError) as error:
            raise AffectbenchError(
                f"model {card.name!r} could not be loaded from {source}: {str(error).splitlines()[0]}",
                hint="give a folder with config, safetensors weights and tokenizer, or a hub id within reach",
            ) from error
        model = cls(network.to(device), tokenizer, card, folder)
        model.features = _features(source, card.revision)
        return model

    features: Any
    """Turns a waveform (S,) into log-mel features (bins, T)."""

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
        expected = ((int(length) - 1) // 2 + 1 - 2) // 2 + 1
        if embeds.shape[0] != expected:
            raise AffectbenchError(
                f"{embeds.shape[0]} audio embeddings for {int(length)} frames, expected {expected}",
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
