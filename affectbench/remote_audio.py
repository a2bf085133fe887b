"""Audio-language models whose classes come with the checkpoint: tower and projector are run by its code, the
language model inside is one of transformers, and is what is read and edited."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch

from affectbench.audio_language import AudioLanguageModel
from affectbench.checkpoint import chat_template_of, load_checkpoint
from affectbench.errors import AffectbenchError

if TYPE_CHECKING:
    from affectbench.task import ModelCard


class RemoteAudioModel(AudioLanguageModel):
    """A subclass names the part that is the `language` model, the other `parts` that it uses, and where the
    configuration of the tower is; it overrides `tower` and `audio_length`."""

    network_class = "AutoModel"
    all_of_class = False
    language: ClassVar[str] = ""
    parts: ClassVar[tuple[str, ...]] = ()
    windows = 1

    whole: Any
    """The checkpoint's own network, around the language model."""

    @classmethod
    def load(cls, card: ModelCard, source: str, *, device: str, dtype: torch.dtype) -> Self:
        require_remote_code(card)
        whole, tokenizer, folder = load_checkpoint(
            card, source, cls.network_class, device=device, dtype=dtype
        )
        missing = [part for part in (cls.language, *cls.parts) if not hasattr(whole, part)]
        if missing:
            raise AffectbenchError(
                f"model {card.name}: {type(whole).__name__} has no {', '.join(missing)}",
                hint=f"family {cls.name!r} knows another version of this code: pin the card's revision",
            )
        tokenizer.chat_template = chat_template_of(source, card.revision) or tokenizer.chat_template
        model = cls(getattr(whole, cls.language), tokenizer, card, folder)
        model.whole = whole.eval().requires_grad_(False)
        model.features = model.whisper_features()
        return model

    def bins(self) -> int:
        """Bins of the log-mel features that the tower takes."""
        raise AffectbenchError(f"family {self.name!r} does not say how many mel bins its tower takes")

    def whisper_features(self) -> Any:
        """Whisper's extractor for the tower; the checkpoint's processor would be code of its own."""
        from transformers import WhisperFeatureExtractor

        return WhisperFeatureExtractor(feature_size=self.bins())

    @classmethod
    def write_tiny(cls, folder: Path, *, architecture: str | None = None, seed: int = 0) -> None:
        raise no_tiny(cls.name)

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.whole.parameters())


def require_remote_code(card: ModelCard) -> None:
    """Raise `AffectbenchError` where a card does not ask for the code that its family needs."""
    if not card.remote_code:
        raise AffectbenchError(
            f"model {card.name}: family {card.family!r} runs code that is not transformers'",
            hint="its card needs `remote_code: true`, and the command --trust-code (docs/models.md)",
        )


def no_tiny(family: str) -> AffectbenchError:
    """The error of a family that has no tiny instance of its own."""
    return AffectbenchError(
        f"family {family!r} has no tiny instance: its class comes with the checkpoint",
        hint="give a checkpoint's folder, and --trust-code",
    )
