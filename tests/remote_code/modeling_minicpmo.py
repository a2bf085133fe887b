"""A stand-in for the code that comes with MiniCPM-o: the same parts by the same names, and small."""

import os
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

if witness := os.environ.get("AFFECTBENCH_WITNESS"):
    Path(witness).touch()


class MiniCPMOConfig(Qwen2Config):
    model_type = "minicpmo"

    def __init__(self, audio_config=None, audio_pool_step=2, audio_chunk_length=1.0, **kwargs):
        self.audio_config = WhisperConfig(**(audio_config or {}))
        self.audio_pool_step = audio_pool_step
        self.audio_chunk_length = audio_chunk_length
        super().__init__(**kwargs)

    def to_dict(self):
        return {**super().to_dict(), "audio_config": self.audio_config.to_dict()}


class ShortWhisperEncoder(WhisperEncoder):
    """Whisper's encoder, of clips of any length up to the longest, that hears a second at a time."""

    def forward(self, input_features, attention_mask=None):
        hidden = nn.functional.gelu(self.conv1(input_features))
        hidden = nn.functional.gelu(self.conv2(hidden)).transpose(1, 2)
        hidden = hidden + self.embed_positions.weight[: hidden.shape[1]]
        for layer in self.layers:
            found = layer(hidden, attention_mask)
            hidden = found[0] if isinstance(found, tuple) else found
        return self.layer_norm(hidden)


class MultiModalProjector(nn.Module):
    def __init__(self, in_dim, out_dim):
        super().__init__()
        self.linear1 = nn.Linear(in_dim, out_dim)
        self.linear2 = nn.Linear(out_dim, out_dim)

    def forward(self, frames):
        return self.linear2(nn.functional.relu(self.linear1(frames)))


class MiniCPMO(PreTrainedModel):
    config_class = MiniCPMOConfig
    base_model_prefix = "llm"

    def __init__(self, config):
        super().__init__(config)
        self.llm = Qwen2ForCausalLM(config)
        self.apm = ShortWhisperEncoder(config.audio_config)
        self.audio_avg_pooler = nn.AvgPool1d(config.audio_pool_step, stride=config.audio_pool_step)
        self.audio_projection_layer = MultiModalProjector(config.audio_config.d_model, config.hidden_size)
        self.post_init()

    def get_audio_embedding(self, data, chunk_length=-1):
        """For each row a list of clips' embeddings. A frame hears those up to the end of its piece."""
        features, lengths = data["audio_features"], torch.hstack(data["audio_feature_lens"])
        frames = (features.shape[-1] - 1) // 2 + 1
        piece = int(chunk_length * 50) if chunk_length > 0 else frames
        pieces = torch.arange(frames) // piece
        unheard = pieces[None, :] > pieces[:, None]
        mask = torch.zeros(1, 1, frames, frames).masked_fill(unheard, torch.finfo(torch.float32).min)
        found = self.audio_projection_layer(self.apm(features, attention_mask=mask))
        found = self.audio_avg_pooler(found.transpose(1, 2)).transpose(1, 2)
        step = self.config.audio_pool_step
        sizes = ((lengths - 1) // 2 + 1 - step) // step + 1
        return [[clip[:size]] for clip, size in zip(found, sizes.tolist(), strict=True)]

    def forward(self, data):
        embeds = self.llm.get_input_embeddings()(data["input_ids"])
        clips = self.get_audio_embedding(data, chunk_length=self.config.audio_chunk_length)
        for row, (heard, bounds) in enumerate(zip(clips, data["audio_bounds"], strict=True)):
            places = torch.cat([torch.arange(start, end) for start, end in bounds])
            embeds[row, places] = torch.cat(heard)
        return self.llm(inputs_embeds=embeds, use_cache=False)
