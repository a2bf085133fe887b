"""Training of the audio reference model: tokenizer, configuration, batches and loss.

Two terms besides cross-entropy make MLP units carry the answer, which plain training of so small a model does
not do: the direct-path penalty forbids attention and embeddings to write label logits themselves, and an L1
cost at the answer position keeps the units that do it few.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from affectbench.audio_features import audio_token_count, log_mel
from affectbench.generators import speech
from affectbench.recipes.training import Progress, optimise

END, AUDIO_BOS, AUDIO, AUDIO_EOS = "<|endoftext|>", "<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"
EMOTION_QUESTION = " Question: how does the speaker feel? Emotion:"
SEX_QUESTION = " Question: is the speaker female or male? Answer:"
WIDTH, LAYERS, HIDDEN = 512, 4, 128


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the trained weights, besides the library versions."""

    seed: int = 0
    steps: int = 1000
    clips_per_emotion: int = 2000
    emotion_rows: int = 48
    sex_rows: int = 8
    text_rows: int = 16
    learning_rate: float = 2e-3
    direct_path: float = 1.0
    sparsity: float = 0.003


@dataclass(frozen=True)
class Clips:
    """Features of a list of items: mel[i] is (80, T_i) float16; labels and sexes are codes."""

    mel: list[NDArray[np.float16]]
    label: NDArray[np.int64]
    sex: NDArray[np.int64]
    speaker: list[str]

    def __len__(self) -> int:
        return len(self.mel)


def featurise(items: Sequence[speech.Clip]) -> Clips:
    """Synthesise the items and compute their features."""
    return Clips(
        mel=[log_mel(speech.synthesise(item)).astype(np.float16) for item in items],
        label=np.array([speech.LABELS.index(item["label"]) for item in items]),
        sex=np.array([speech.SEXES.index(item["sex"]) for item in items]),
        speaker=[item["speaker"] for item in items],
    )


def build_tokenizer() -> Any:
    """Byte-level BPE over the toy language, the two questions and their answers (a fast tokenizer)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    answers = [f" {word}" for word in (*speech.LABELS, *speech.SEXES)]
    corpus = speech.language_text(1500, seed=0) + [EMOTION_QUESTION, SEX_QUESTION, *answers] * 50
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=768,
        special_tokens=[END, AUDIO_BOS, AUDIO, AUDIO_EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(corpus, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=END,
        pad_token=END,
        extra_special_tokens={
            "audio_bos_token": AUDIO_BOS,
            "audio_token": AUDIO,
            "audio_eos_token": AUDIO_EOS,
        },
    )
    for answer in answers:
        if len(tokenizer(answer)["input_ids"]) != 1:
            raise ValueError(f"the tokenizer splits the answer {answer!r}; it must be one token")
    return tokenizer


def build_config(tokenizer: Any) -> Any:
    """Configuration of the 1.4 M parameter Omni thinker; its vision tower is as small as can be."""
    from transformers import Qwen2_5OmniThinkerConfig

    def token(name: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(name))

    spare = len(tokenizer)
    text = {
        "vocab_size": spare + 5,
        "hidden_size": HIDDEN,
        "intermediate_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "eos_token_id": token(END),
        "pad_token_id": token(END),
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 6, 6]},
    }
    audio = {
        "num_mel_bins": 80,
        "d_model": 96,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 256,
        "max_source_positions": 100,
        "n_window": 100,
        "output_dim": HIDDEN,
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "num_heads": 2,
        "intermediate_size": 16,
        "out_hidden_size": HIDDEN,
        "patch_size": 4,
        "fullatt_block_indexes": [0],
    }
    special = {
        "audio_token_index": token(AUDIO),
        "audio_start_token_id": token(AUDIO_BOS),
        "audio_end_token_id": token(AUDIO_EOS),
        "image_token_index": spare,
        "video_token_index": spare + 1,
        "vision_start_token_id": spare + 2,
        "vision_end_token_id": spare + 3,
        "vision_token_id": spare + 4,
    }
    return Qwen2_5OmniThinkerConfig(
        text_config=text, audio_config=audio, vision_config=vision, pad_token_id=token(END), **special
    )


def encode_audio(model: Any, mel: Sequence[NDArray[np.floating[Any]]]) -> list[Tensor]:
    """Audio-tower embeddings (tokens, hidden) of each clip; ValueError if the tower's count is unexpected."""
    lengths = torch.tensor([m.shape[1] for m in mel])
    stacked = torch.from_numpy(np.concatenate(mel, axis=1).astype(np.float32))
    hidden = model.model.audio_tower(stacked, feature_lens=lengths).last_hidden_state
    counts = [audio_token_count(m.shape[1]) for m in mel]
    if hidden.shape[0] != sum(counts):
        raise ValueError(
            f"the audio tower gave {hidden.shape[0]} frames, {sum(counts)} placeholders were expected"
        )
    return list(hidden.split(counts))


def assemble(model: Any, audio: Sequence[Tensor], before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Right-padded decoder inputs (B, T, hidden) and the answer position (B,) of each row.

    `before` and `after` are the token ids around the audio, the same for every row.
    """
    embed = model.get_input_embeddings()
    head, tail = embed(before), embed(after)
    rows = [torch.cat([head, clip, tail]) for clip in audio]
    last = torch.tensor([len(row) - 1 for row in rows])
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), last


def question_ids(tokenizer: Any, question: str) -> tuple[Tensor, Tensor]:
    """Token ids before and after the audio placeholders of a prompt."""
    before = torch.tensor([tokenizer.convert_tokens_to_ids(AUDIO_BOS)])
    after = torch.tensor(tokenizer(AUDIO_EOS + question)["input_ids"])
    return before, after


def answer_ids(tokenizer: Any, words: Sequence[str]) -> Tensor:
    """Token id of each answer word, with its leading space."""
    return torch.tensor([tokenizer(f" {word}")["input_ids"][0] for word in words])


class AnswerProbe:
    """Records, at given rows and positions, what the MLPs write and how active their units are."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.residual = torch.empty(0)

    @contextmanager
    def recording(self) -> Iterator[AnswerProbe]:
        """Hooks are attached only inside the context."""
        decoder = self.model.model.language_model
        self.inputs, self.outputs = [], []
        handles = [decoder.norm.register_forward_pre_hook(self._keep_residual)]
        for layer in decoder.layers:
            handles.append(layer.mlp.down_proj.register_forward_hook(self._keep_mlp))
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def _keep_residual(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.residual = args[0]

    def _keep_mlp(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        self.inputs.append(args[0])
        self.outputs.append(output)

    def penalties(self, rows: Tensor, last: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Direct-path and sparsity penalties over the given rows at their answer positions."""
        decoder = self.model.model.language_model
        residual = self.residual[rows, last]
        written = torch.stack([out[rows, last] for out in self.outputs]).sum(0)
        scale = residual.pow(2).mean(-1, keepdim=True).add(1e-6).rsqrt()
        direct = (residual - written) * scale * decoder.norm.weight @ self.model.lm_head.weight[labels].T
        centred = direct - direct.mean(-1, keepdim=True)
        activity = torch.zeros(())
        for act, layer in zip(self.inputs, decoder.layers, strict=True):
            activity = (
                activity + (act[rows, last].abs() * layer.mlp.down_proj.weight.norm(dim=0)).sum(-1).mean()
            )
        return centred.pow(2).mean(), activity


def text_loss(model: Any, ids: Tensor, pad: int) -> Tensor:
    """Mean next-token cross-entropy (nats) of right-padded documents, padding ignored."""
    targets = ids[:, 1:].clone()
    targets[(targets == pad) & (ids[:, :-1] == pad)] = -100
    hidden = model.model.language_model(
        inputs_embeds=model.get_input_embeddings()(ids[:, :-1])
    ).last_hidden_state
    return nn.functional.cross_entropy(model.lm_head(hidden).flatten(0, 1), targets.flatten())


def document_ids(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Right-padded ids (B, T) of documents, each opened and closed by the end-of-text token."""
    end = tokenizer.convert_tokens_to_ids(END)
    rows = [torch.tensor([end, *tokenizer(text)["input_ids"], end]) for text in texts]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end)


def excerpt_ids(tokenizer: Any, texts: Sequence[str], rng: np.random.Generator) -> Tensor:
    """As `document_ids`, but each row starts at a random sentence, half of them without the opening token.

    A model that only ever saw whole documents after an opening token would babble when prompted otherwise.
    """
    end = tokenizer.convert_tokens_to_ids(END)
    rows = []
    for text in texts:
        sentences = text.split(". ")
        start = int(rng.integers(len(sentences)))
        opening = [end] if rng.random() < 0.5 else []
        rows.append(torch.tensor([*opening, *tokenizer(". ".join(sentences[start:]))["input_ids"], end]))
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end)


def batch_loss(
    model: Any, tokenizer: Any, clips: Clips, pick: NDArray[np.int64], documents: Tensor, recipe: Recipe
) -> Tensor:
    """Loss of one batch: emotion, sex (asked about the first rows), text and the two penalties."""
    decoder, head = model.model.language_model, model.lm_head
    audio = encode_audio(model, [clips.mel[i] for i in pick])
    labels = answer_ids(tokenizer, speech.LABELS)
    embeds, last = assemble(model, audio, *question_ids(tokenizer, EMOTION_QUESTION))
    rows = torch.arange(len(pick))
    with AnswerProbe(model).recording() as probe:
        hidden = decoder(inputs_embeds=embeds).last_hidden_state
    direct, activity = probe.penalties(rows, last, labels)
    emotion = nn.functional.cross_entropy(
        head(hidden[rows, last]), labels[torch.from_numpy(clips.label[pick])]
    )
    asked = recipe.sex_rows
    embeds, last = assemble(model, audio[:asked], *question_ids(tokenizer, SEX_QUESTION))
    hidden = decoder(inputs_embeds=embeds).last_hidden_state[torch.arange(asked), last]
    gold = answer_ids(tokenizer, speech.SEXES)[torch.from_numpy(clips.sex[pick[:asked]])]
    sex = nn.functional.cross_entropy(head(hidden), gold)
    text = text_loss(model, documents, tokenizer.convert_tokens_to_ids(END))
    return emotion + sex + text + recipe.direct_path * direct + recipe.sparsity * activity


def initialise(recipe: Recipe) -> tuple[Any, Any]:
    """Freshly initialised model and tokenizer of a recipe."""
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration

    torch.manual_seed(recipe.seed)
    tokenizer = build_tokenizer()
    return Qwen2_5OmniThinkerForConditionalGeneration(build_config(tokenizer)), tokenizer


def train(recipe: Recipe, progress: Progress | None = None) -> tuple[Any, Any]:
    """Train from scratch; returns (model in evaluation mode, float32; tokenizer)."""
    model, tokenizer = initialise(recipe)
    clips = featurise(speech.examples("training", recipe.clips_per_emotion, recipe.seed))
    texts = speech.language_text(40_000, seed=recipe.seed)
    rng = np.random.default_rng(recipe.seed)

    def loss_at(step: int) -> Tensor:
        pick = rng.integers(len(clips), size=recipe.emotion_rows)
        chosen = [texts[i] for i in rng.integers(len(texts), size=recipe.text_rows)]
        return batch_loss(model, tokenizer, clips, pick, excerpt_ids(tokenizer, chosen, rng), recipe)

    rate = recipe.learning_rate
    optimise(model, loss_at, steps=recipe.steps, peak_rate=rate, weight_decay=0.1, progress=progress)
    return model, tokenizer
