"""What audio-language models share: a tower whose embeddings take the place of placeholder tokens.

A family names its class of transformers, its placeholder and what the class takes of a clip; the chat
template says where the sound stands among the words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from affectbench import tiny
from affectbench.adapters import attach_adapter, heard, switch_adapter
from affectbench.audio_io import SAMPLE_RATE
from affectbench.batch import Batch, Prefix
from affectbench.checkpoint import chat_template_of, load_checkpoint
from affectbench.errors import AffectbenchError
from affectbench.model import Model

if TYPE_CHECKING:
    from affectbench.dataset import RenderedPrompt
    from affectbench.task import ModelCard

AUDIO_SLOT = "{audio}"
SHORTEST = 400
"""Samples of one analysis window, 25 ms."""
Inputs = dict[str, Tensor]


class AudioLanguageModel(Model):
    """A subclass sets `network_class`, `audio_token` and, for checkpoints without a chat template,
    `audio_marks`; it overrides `audio_inputs`, `audio_length` and, where the class has another way from
    inputs to embeddings, `tower`."""

    modalities = ("text", "audio")
    network_class: ClassVar[str] = ""
    mask: ClassVar[str] = "input_features_mask"
    """The entry of `audio_inputs` that is 1 where a frame of features is part of the clip."""
    windows: ClassVar[int | None] = None
    """The most windows of a clip that the class's processor takes; what follows is cut off, as it does."""

    adapter_folder: ClassVar[str] = ""
    """Where a checkpoint keeps a LoRA adapter that runs for items with a sound alone."""

    features: Any
    """The checkpoint's feature extractor."""
    adapted: bool | None = None
    """Whether the adapter is switched on; None where there is none."""
    tiny_parts: ClassVar[dict[str, dict[str, Any]]] = {"text_config": {}, "audio_config": {}}
    """The parts of the class's config by name; each with what a tiny one needs beside the usual sizes."""
    tiny_seconds: ClassVar[int] = 30
    """The window of a tiny instance's feature extractor."""

    @classmethod
    def load(cls, card: ModelCard, source: str, *, device: str, dtype: torch.dtype) -> Self:
        network, tokenizer, folder = load_checkpoint(
            card, source, cls.network_class, device=device, dtype=dtype
        )
        # The template that knows of sounds comes with the processor, not with the tokenizer.
        tokenizer.chat_template = chat_template_of(source, card.revision) or tokenizer.chat_template
        adapted = bool(cls.adapter_folder) and attach_adapter(network, card, source, cls.adapter_folder)
        model = cls(network, tokenizer, card, folder)
        model.adapted = True if adapted else None
        model.features = cls.feature_extractor(source, card.revision)
        model.audio_token = getattr(tokenizer, "audio_token", None) or cls.audio_token
        return model

    @classmethod
    def feature_extractor(cls, source: str, revision: str | None) -> Any:
        """What turns a waveform into features, from the checkpoint's own settings. Raises `AffectbenchError`
        where there are none."""
        from transformers import AutoFeatureExtractor

        try:
            return AutoFeatureExtractor.from_pretrained(source, revision=revision, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise AffectbenchError(
                f"{source} does not say how sounds are prepared: {str(error).splitlines()[0]}",
                hint="audio models have preprocessor_config.json or processor_config.json beside the weights",
            ) from error

    @classmethod
    def write_tiny(cls, folder: Path, *, architecture: str | None = None, seed: int = 0) -> None:
        kind = tiny.network_class(tiny.chosen(cls.name, cls.architectures, architecture))
        template = tiny.chat_template(cls.audio_token.join(cls.audio_marks))
        words = tiny.tokenizer(cls.audio_token, *filter(None, cls.audio_marks), template=template)
        usual = kind.config_class()
        parts = {}
        for name, changes in cls.tiny_parts.items():
            part = tiny.part_class(usual, name)
            if "audio_token_id" in part().to_dict():
                changes = {**changes, "audio_token_id": words.convert_tokens_to_ids(cls.audio_token)}
            parts[name] = tiny.shrunk(part, words, **changes).to_dict()
        config = tiny.shrunk(kind.config_class, words, **parts, **cls.tiny_tokens(words))
        network = tiny.random_network(kind, config, seed)
        tiny.write_checkpoint(folder, network, words)
        cls.write_tiny_features(folder)

    @classmethod
    def write_tiny_features(cls, folder: Path) -> None:
        """The settings of a tiny instance's feature extractor, by default Whisper's."""
        from transformers import WhisperFeatureExtractor

        bins = tiny.SIZES["num_mel_bins"]
        WhisperFeatureExtractor(feature_size=bins, chunk_length=cls.tiny_seconds).save_pretrained(folder)

    @classmethod
    def tiny_tokens(cls, words: Any) -> dict[str, Any]:
        """What the class's config says of the tokens of a tiny instance, and of other things it must know."""
        return {"audio_token_id": words.convert_tokens_to_ids(cls.audio_token)}

    # From a waveform to embeddings.

    def audio_inputs(self, waveform: Any) -> Inputs:
        """What the class's own forward takes of a 16 kHz mono waveform (samples,), by name.

        By default Whisper's features of the whole clip: windows (W, bins, T) of the extractor's length, the
        last one padded, and their mask (W, T).
        """
        length = int(self.features.n_samples)
        windows = [waveform[start : start + length] for start in range(0, len(waveform), length)]
        windows = windows[: self.windows]
        found = self.features(
            windows, sampling_rate=SAMPLE_RATE, return_attention_mask=True, return_tensors="pt"
        )
        return {"input_features": found["input_features"], self.mask: found["attention_mask"]}

    def audio_length(self, frames: int) -> int:
        """Embeddings of a clip of so many frames of features: the rule by which the class's processor counts
        placeholders."""
        raise AffectbenchError(
            f"family {self.name!r} does not say how many embeddings its audio tower makes of {frames} frames",
            hint="the family file must override `audio_length`",
        )

    def embeddings_of(self, samples: int) -> int:
        """Embeddings of a clip of so many samples: that rule, applied to silence."""
        return self.audio_length(self.frames(self.audio_inputs(np.zeros(samples, dtype=np.float32))))

    def frames(self, inputs: Mapping[str, Tensor]) -> int:
        """The number that `audio_length` takes, of the clip behind `inputs`."""
        return int(inputs[self.mask].sum())

    def tower(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Embeddings (A, d) of one clip, by the class's own tower and projector."""
        found: Tensor = self.network.get_audio_features(**inputs).pooler_output
        return found.reshape(-1, found.shape[-1])

    @torch.no_grad()
    def audio_embeddings(self, waveform: Any) -> Tensor:
        """Raises `AffectbenchError` where the tower makes another number than `audio_length` says, and for a
        clip that is too short for one embedding."""
        if len(waveform.shape) == 1 and len(waveform) < SHORTEST:
            raise _too_short(len(waveform))
        inputs = {name: self._at_home(value) for name, value in self.audio_inputs(waveform).items()}
        embeds = self.tower(inputs)
        frames = self.frames(inputs)
        expected = self.audio_length(frames)
        if embeds.shape[0] != expected:
            raise AffectbenchError(
                f"{embeds.shape[0]} audio embeddings for {frames} frames, expected {expected}",
                hint="the tower's length rule has changed; placeholders would run shifted",
            )
        if expected < 1:
            raise _too_short(len(waveform))
        return embeds

    def _at_home(self, value: Tensor) -> Tensor:
        return value.to(self.device, self.dtype if value.is_floating_point() else value.dtype)

    def decode(
        self, batch: Batch, *, prefix: Prefix | None = None, cache: Any = None, last: int | None = None
    ) -> Tensor:
        cache = batch.before if cache is None else cache
        if self.adapted is not None and self.adapted != (on := heard(batch, cache)):
            switch_adapter(self.network, on)
            self.adapted = on
        return super().decode(batch, prefix=prefix, cache=cache, last=last)

    # From a prompt to text with one placeholder.

    def render(self, prompt: RenderedPrompt) -> tuple[str, tuple[int, int] | None]:
        before, slot, after = prompt.text.partition(AUDIO_SLOT)
        if not slot:
            return super().render(prompt)
        if self._template_hears:
            return self._rendered_parts(prompt, before, after)
        marked = self.audio_token.join(self.audio_marks)
        span = prompt.content_span
        if span is not None and span[0] > len(before):
            shift = len(marked) - len(AUDIO_SLOT)
            span = (span[0] + shift, span[1] + shift)
        return super().render(replace(prompt, text=before + marked + after, content_span=span))

    def _rendered_parts(
        self, prompt: RenderedPrompt, before: str, after: str
    ) -> tuple[str, tuple[int, int] | None]:
        """The model's own layout of words, sound, words: templates put what belongs between them."""
        words = [
            [{"type": "text", "text": side}] if side else [] for side in (before.rstrip(), after.lstrip())
        ]
        text = self._chat([*words[0], {"type": "audio"}, *words[1]])
        span = prompt.content_span
        if span is None:
            return text, None
        side, start = (before, 0) if span[0] < len(before) else (after, len(before) + len(AUDIO_SLOT))
        place = text.rfind(side.strip())
        if place < 0:
            return text, None
        shift = place - start - (len(side) - len(side.lstrip()))
        return text, (span[0] + shift, span[1] + shift)

    @cached_property
    def _template_hears(self) -> bool:
        """Whether the chat template takes parts, and writes one placeholder for a sound. Tried out: templates
        of text models fail on a list, or print it."""
        if not self._templated:
            return False
        try:
            text = self._chat([{"type": "audio"}, {"type": "text", "text": "words"}])
        except Exception:  # Whatever a template makes of what it does not know.
            return False
        return text.count(self.audio_token) == 1


def _too_short(samples: int) -> AffectbenchError:
    return AffectbenchError(
        f"a clip of {samples} samples ({samples / SAMPLE_RATE:.3f} s) is too short for this model to hear",
        hint="take it out of the benchmark's data",
    )
