"""Kimi-Audio: discrete speech tokens and Whisper's features, added, in front of a Qwen2 decoder.

The decoder's text path (embeddings, layers, norm, head) has the names and the shapes of transformers' Qwen2,
and is read as that: the layers that write speech (`mimo_layers`) are left out, for no answer is read there.
The package `kimia_infer` makes the discrete tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from affectbench.audio_io import SAMPLE_RATE
from affectbench.audio_language import AudioLanguageModel
from affectbench.checkpoint import check_consent, load_checkpoint, weights_of
from affectbench.errors import AffectbenchError
from affectbench.remote_audio import no_tiny, require_remote_code

if TYPE_CHECKING:
    from affectbench.task import ModelCard

WINDOW, SAMPLES_A_TOKEN, STACKED = 30 * SAMPLE_RATE, 1280, 4
"""Samples that Whisper hears at a time, samples for one token, and Whisper's frames for one."""
WHISPER = "whisper-large-v3"
SPEECH_TOKENS = "THUDM/glm-4-voice-tokenizer"
BLANK, SPOKEN = "<|im_kimia_text_blank|>", "<|im_media_begin|><|im_kimia_text_blank|><|im_media_end|>"
TEMPLATE = (
    "{% for message in messages %}<|im_kimia_user_msg_start|>{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'audio' %}"
    + SPOKEN
    + "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_kimia_speech_ct_id|><|im_msg_end|>"
    "{% endfor %}<|im_kimia_assistant_msg_start|>"
)
"""One turn of the user, answered in text. The model reads two streams of tokens, one for text and one for all
else, and adds their embeddings; where one has a token, the other has a blank. So one stream tells both."""


class KimiAudio(AudioLanguageModel):
    name = "kimi_audio"
    network_class = "Qwen2ForCausalLM"
    all_of_class = False
    audio_token = BLANK

    adaptor: nn.Module
    """From Whisper's stacked frames to embeddings: `vq_adaptor` of the checkpoint."""
    whisper: Any
    speech_tokens: Any
    offset: int
    blank: Tensor

    @classmethod
    def load(cls, card: ModelCard, source: str, *, device: str, dtype: torch.dtype) -> Self:
        require_remote_code(card)
        check_consent(card, source)
        speech = speech_tokenizer()
        network, tokenizer, folder = load_checkpoint(
            card, source, cls.network_class, device=device, dtype=dtype
        )
        if not tokenizer.is_fast:
            raise AffectbenchError(
                f"model {card.name}: its tokenizer is a Python class that does not say where tokens stand",
                hint="convert tiktoken.model to a tokenizer.json (transformers: convert_tiktoken_to_fast)",
            )
        tokenizer.chat_template = TEMPLATE
        model = cls(network, tokenizer, card, folder)
        model.speech_tokens = speech
        model.offset = int(network.config.kimia_token_offset)
        model.read_towers(source)
        model.blank = model.with_blanks()
        return model

    def read_towers(self, source: str) -> None:
        """Whisper's encoder from its own folder of the checkpoint, and the adaptor from among the weights."""
        from transformers import WhisperFeatureExtractor, WhisperModel

        revision = self.card.revision
        whole = WhisperModel.from_pretrained(source, subfolder=WHISPER, revision=revision, dtype=self.dtype)
        self.whisper = whole.encoder.to(self.device).eval().requires_grad_(False)
        self.features = WhisperFeatureExtractor(feature_size=whole.config.num_mel_bins)
        width, hidden = STACKED * whole.config.d_model, self.text_config.hidden_size
        self.adaptor = nn.Sequential(
            nn.Linear(width, hidden), nn.SiLU(), nn.Dropout(0.0), nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden, eps=self.text_config.rms_norm_eps),
        )  # fmt: skip
        self.adaptor.load_state_dict(weights_of(source, revision, "model.vq_adaptor.layers."))
        self.adaptor.to(self.device, self.dtype).eval().requires_grad_(False)

    @torch.no_grad()
    def with_blanks(self) -> Tensor:
        """Add the blank's embedding to every row of the embeddings, as the other stream always does; returns
        what was added. Raises `AffectbenchError` where the head has the same weights."""
        table = self.network.get_input_embeddings().weight
        if table is self.network.get_output_embeddings().weight:
            raise AffectbenchError(f"model {self.card.name}: embeddings and head share their weights")
        blank = table[self.tokenizer.convert_tokens_to_ids(BLANK)].clone()
        table.add_(blank)
        return blank

    def continuous(self, waveform: Any) -> Tensor:
        """Whisper's frames (A, 4 x width), four for each token, of windows of 30 seconds."""
        found = []
        for start in range(0, len(waveform), WINDOW):
            piece = waveform[start : start + WINDOW]
            features = self.features(piece, sampling_rate=SAMPLE_RATE, return_tensors="pt")["input_features"]
            frames = self.whisper(self._at_home(features)).last_hidden_state[0]
            size = (len(piece) - 1) // SAMPLES_A_TOKEN + 1
            found.append(frames[: size * STACKED].reshape(size, -1))
        return torch.cat(found)

    def embeddings_of(self, samples: int) -> int:
        whole, rest = divmod(samples, WINDOW)
        return whole * (WINDOW // SAMPLES_A_TOKEN) + -(-rest // SAMPLES_A_TOKEN)

    @torch.no_grad()
    def audio_embeddings(self, waveform: Any) -> Tensor:
        """Raises `AffectbenchError` where there are not as many tokens as features."""
        speech = torch.as_tensor(waveform)[None]
        tokens = torch.as_tensor(self.speech_tokens.tokenize(speech=speech, sr=SAMPLE_RATE)).reshape(-1)
        heard = self.adaptor(self.continuous(waveform))
        if len(tokens) != len(heard):
            raise AffectbenchError(
                f"{len(tokens)} speech tokens for {len(heard)} features of a clip",
                hint="tokenizer and checkpoint do not belong together",
            )
        discrete = self.embed(tokens.to(self.device) + self.offset) - self.blank
        return (discrete + heard) * 2**0.5 + self.blank

    @classmethod
    def write_tiny(cls, folder: Path, *, architecture: str | None = None, seed: int = 0) -> None:
        raise no_tiny(cls.name)


def speech_tokenizer() -> Any:
    """What makes discrete tokens. Raises `AffectbenchError` where its package is not installed."""
    try:
        from kimia_infer.models.tokenizer.glm4_tokenizer import Glm4Tokenizer
    except ImportError as error:
        raise AffectbenchError(
            f"Kimi-Audio needs the package kimia_infer for its speech tokens: {error}",
            hint="pip install git+https://github.com/MoonshotAI/Kimi-Audio.git, and read what it runs",
        ) from error
    return Glm4Tokenizer(SPEECH_TOKENS)
