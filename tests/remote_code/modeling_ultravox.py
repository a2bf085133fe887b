"""A stand-in for the code that comes with Ultravox: the same parts by the same names, and small."""

import os
from pathlib import Path

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedConfig, PreTrainedModel, WhisperConfig
from transformers.modeling_outputs import BaseModelOutput

if witness := os.environ.get("AFFECTBENCH_WITNESS"):
    Path(witness).touch()


class UltravoxConfig(PreTrainedConfig):
    model_type = "ultravox"

    def __init__(self, audio_config=None, text_config=None, stack_factor=8, **kwargs):
        self.audio_config = WhisperConfig(**(audio_config or {}))
        self.text_config = LlamaConfig(**(text_config or {}))
        self.stack_factor = stack_factor
        super().__init__(**kwargs)

    def to_dict(self):
        parts = {"audio_config": self.audio_config.to_dict(), "text_config": self.text_config.to_dict()}
        return {**super().to_dict(), **parts}


class AudioTower(nn.Module):
    """Whisper's encoder, of clips of any length up to the longest."""

    def __init__(self, config):
        super().__init__()
        width = config.d_model
        self.conv1 = nn.Conv1d(config.num_mel_bins, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(config.max_source_positions, width)
        heads = config.encoder_attention_heads
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, config.encoder_ffn_dim, 0.0, "gelu", batch_first=True)
            for _ in range(config.encoder_layers)
        )
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, input_features, audio_len=None):
        hidden = nn.functional.gelu(self.conv1(input_features))
        hidden = nn.functional.gelu(self.conv2(hidden)).transpose(1, 2)
        hidden = hidden + self.embed_positions.weight[: hidden.shape[1]]
        frames = torch.arange(hidden.shape[1])
        padding = frames[None] >= ((audio_len - 1) // 2 + 1)[:, None]
        for layer in self.layers:
            hidden = layer(hidden, src_key_padding_mask=padding)
        return BaseModelOutput(last_hidden_state=self.layer_norm(hidden))


class Projector(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.stack = config.stack_factor
        hidden = config.text_config.hidden_size
        self.ln_pre = nn.RMSNorm(config.audio_config.d_model * self.stack)
        self.linear_1 = nn.Linear(config.audio_config.d_model * self.stack, 2 * hidden, bias=False)
        self.ln_mid = nn.RMSNorm(hidden)
        self.linear_2 = nn.Linear(hidden, hidden, bias=False)

    def forward(self, frames):
        batch, length, width = frames.shape
        frames = nn.functional.pad(frames, (0, 0, 0, -length % self.stack))
        gated, gate = self.linear_1(self.ln_pre(frames.reshape(batch, -1, width * self.stack))).chunk(2, -1)
        return self.linear_2(self.ln_mid(gated * nn.functional.silu(gate)))


class UltravoxModel(PreTrainedModel):
    config_class = UltravoxConfig

    def __init__(self, config):
        super().__init__(config)
        self.audio_tower = AudioTower(config.audio_config)
        self.multi_modal_projector = Projector(config)
        self.language_model = LlamaForCausalLM(config.text_config)
        self.post_init()

    def forward(self, input_ids, audio_values, audio_lens, audio_token_start_idx, audio_token_len):
        embeds = self.language_model.get_input_embeddings()(input_ids)
        heard = self.audio_tower(audio_values, audio_len=audio_lens).last_hidden_state
        heard = self.multi_modal_projector(heard)
        for row, (start, length) in enumerate(zip(audio_token_start_idx, audio_token_len, strict=True)):
            embeds[row, start : start + length] = heard[row, :length]
        return self.language_model(inputs_embeds=embeds, use_cache=False)
