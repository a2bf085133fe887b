"""Granite Speech: a conformer, a projector of queries over windows of frames, and a Granite decoder with a
LoRA adapter that runs for items with a sound alone.

The class's feature extractor needs torchaudio; what it computes is built here, and tested against what
torchaudio documents: HTK mel filters without norm, power of a centred spectrogram.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from affectbench import tiny
from affectbench.audio_io import SAMPLE_RATE
from affectbench.audio_language import AudioLanguageModel, Inputs
from affectbench.errors import AffectbenchError

if TYPE_CHECKING:
    from affectbench.task import ModelCard

DEFAULTS = {"n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 80}


class GraniteSpeech(AudioLanguageModel):
    name = "granite_speech"
    network_class = "GraniteSpeechForConditionalGeneration"
    architectures = (network_class,)
    audio_token = "<|audio|>"
    adapter_folder = "."
    tiny_parts: ClassVar = {
        "text_config": {},
        "encoder_config": {"hidden_dim": 16, "num_heads": 2, "context_size": 20, "max_pos_emb": 32},
        "projector_config": {"hidden_size": 16, "encoder_hidden_size": 16, "num_hidden_layers": 1},
    }

    @classmethod
    def load(cls, card: ModelCard, source: str, *, device: str, dtype: torch.dtype) -> Self:
        model = super().load(card, source, device=device, dtype=dtype)
        if model.network.config.has_lora_adapter and model.adapted is None:
            raise AffectbenchError(
                f"model {card.name!r} says that it has a LoRA adapter for sounds, but {source} has none",
                hint="adapter_config.json and adapter_model.safetensors belong beside its weights",
            )
        return model

    @classmethod
    def feature_extractor(cls, source: str, revision: str | None) -> Any:
        from transformers import FeatureExtractionMixin

        found, _ = FeatureExtractionMixin.get_feature_extractor_dict(source, revision=revision)
        return {name: int(found.get(name, usual)) for name, usual in DEFAULTS.items()}

    def audio_inputs(self, waveform: Any) -> Inputs:
        from transformers.audio_utils import mel_filter_bank

        bins, size = self.features["n_mels"], self.features["n_fft"]
        filters = mel_filter_bank(size // 2 + 1, bins, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, mel_scale="htk")
        length = self.features["win_length"]
        spectrum = torch.stft(
            torch.as_tensor(np.asarray(waveform, dtype=np.float32)), size, self.features["hop_length"],
            length, window=torch.hann_window(length), return_complex=True,
        )  # fmt: skip
        mel = spectrum.abs().square().T @ torch.as_tensor(filters, dtype=torch.float32)
        log = mel.clamp_min(1e-10).log10()
        scaled = torch.maximum(log, log.max() - 8.0) / 4 + 1
        # Frames are stacked by twos; an odd one at the end is dropped.
        features = scaled[: len(scaled) // 2 * 2].reshape(1, -1, 2 * bins)
        mask = torch.ones(1, self.audio_length(features.shape[1]), dtype=torch.bool)
        return {"input_features": features, self.mask: mask}

    def frames(self, inputs: Mapping[str, Tensor]) -> int:
        return int(inputs["input_features"].shape[1])

    def audio_length(self, frames: int) -> int:
        window = int(self.network.config.window_size)
        return -(-frames // window) * (window // int(self.network.config.downsample_rate))

    def tower(self, inputs: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = self.network.get_audio_features(inputs["input_features"]).pooler_output
        return found[0]

    @classmethod
    def tiny_tokens(cls, words: Any) -> dict[str, Any]:
        return {**super().tiny_tokens(words), "has_lora_adapter": False}

    @classmethod
    def write_tiny_features(cls, folder: Path) -> None:
        settings = {"feature_extractor_type": "GraniteSpeechFeatureExtractor", **DEFAULTS}
        settings["n_mels"] = tiny.SIZES["num_mel_bins"] // 2
        (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
