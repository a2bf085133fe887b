"""Checkpoints of real classes with few random weights, for checking a family without its real weights.

A family's `write_tiny` puts one into a folder, from where its ordinary `load` reads it: the class, the
attention, the experts and the audio tower are the real ones of transformers; only sizes and numbers are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from affectbench.errors import AffectbenchError

LAYERS, WIDTH, HIDDEN = 3, 24, 32
SIZES: dict[str, Any] = {
    "hidden_size": HIDDEN, "intermediate_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "sliding_window": 5,
    "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": WIDTH,
    "n_inner": WIDTH, "initializer_range": 0.3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1,
    "num_mel_bins": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
    "d_model": 16, "max_source_positions": 100, "output_dim": HIDDEN,
    "depth": 1, "num_heads": 2, "out_hidden_size": HIDDEN,
}  # fmt: skip
"""What transformers calls the sizes of decoders, of audio towers, and of towers for images, which nobody
runs here. Windows are shorter than a prompt, so that they matter."""
MARKS = ("<pad>", "<eos>", "<unk>")
WORDS = (
    *("the", "a", "child", "dog", "lost", "found", "won", "song", "night", "rain", "<name>", "was", "is"),
    *("very", "Question", "Emotion", ":", "?", "anger", "joy", "fear", "sad", "ness"),
)
CHAT_MARKS = ("<|im_start|>", "<|im_end|>")
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} : "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}SOUND{% else %} {{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %} <|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant : {% endif %}"
)


def chat_template(sound: str = "") -> str:
    """ChatML on one line, where a clip is written as `sound`."""
    return CHAT.replace("SOUND", sound)


def tokenizer(*special: str, template: str | None = None) -> Any:
    """A fast tokenizer that knows `WORDS` and splits at spaces; `special` tokens follow after them.

    Padding is token 0, the end of text token 1, an unknown word token 2. `template`: see `chat_template`.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: place for place, word in enumerate([*MARKS, *WORDS])}
    core = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = Whitespace()
    found = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
        extra_special_tokens=[*special, *(CHAT_MARKS if template else ())],
    )  # fmt: skip
    found.chat_template = template
    return found


def byte_tokenizer() -> Any:
    """A byte-level BPE over `WORDS`, which are one token each, with the space before them or without.

    For classes whose tokenizer transformers builds anew as such, whatever the checkpoint has (Qwen2).
    """
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(BPE())
    core.pre_tokenizer = ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    letters = sorted({*"".join(WORDS), "\u0120"})  # The last one stands for a space.
    trainer = BpeTrainer(special_tokens=list(MARKS), initial_alphabet=letters, show_progress=False)
    core.train_from_iterator([word for known in WORDS for word in (known, f" {known}")], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


def shrunk(config_class: Any, words: Any, **changes: Any) -> Any:
    """A config of `config_class` with those of `SIZES` that it knows, for the tokenizer `words`.

    Where the class mixes kinds of attention, the three layers do so too. `changes` win over all of it.
    """
    usual = config_class()
    known = {**dict.fromkeys(usual.attribute_map), **usual.to_dict()}
    alias = usual.attribute_map
    sizes = {alias.get(name, name): value for name, value in SIZES.items() if name in known}
    kinds = list(dict.fromkeys(known.get("layer_types") or ()))
    if len(kinds) > 1:
        sizes["layer_types"] = [kinds[layer % len(kinds)] for layer in range(LAYERS)]
    if known.get("sliding_window") is None:  # Given to a class that has none, some caches cut off text.
        sizes.pop("sliding_window", None)
    rope = known.get("rope_parameters") or {}
    if "original_max_position_embeddings" in rope:
        reach = SIZES["max_position_embeddings"] // int(rope["factor"])
        sizes["rope_parameters"] = {**rope, "original_max_position_embeddings": reach}
    if "vocab_size" in known:
        sizes["vocab_size"] = len(words)
    return config_class(**{**sizes, **{alias.get(name, name): value for name, value in changes.items()}})


def part_class(config: Any, name: str) -> Any:
    """The class of a part of `config`, which may be there by default or on demand."""
    part = getattr(config, name)
    return type(config).sub_configs[name] if part is None else type(part)


def network_class(name: str) -> Any:
    """The class of transformers of that name. Raises `AffectbenchError` where there is none."""
    import transformers

    found = getattr(transformers, name, None)
    if found is None or not hasattr(found, "config_class"):
        raise AffectbenchError(
            f"transformers {transformers.__version__} has no model class {name!r}",
            hint="give the name that stands under `architectures` in a checkpoint's config.json, such as "
            "LlamaForCausalLM",
        )
    return found


def random_network(kind: Any, config: Any, seed: int) -> Any:
    """A network of class `kind` whose every weight is random: norms are not one, and biases are not zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = kind(config)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if parameter.ndim == 1 or name.endswith("bias"):
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return network


def write_checkpoint(folder: Path, network: Any, words: Any) -> None:
    """Save network and tokenizer as a checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    network.save_pretrained(folder)
    words.save_pretrained(folder)


def chosen(family: str, architectures: Sequence[str], asked: str | None) -> str:
    """The class to make: the one asked for, or the family's first. Raises `AffectbenchError` for others."""
    if asked is None:
        return architectures[0]
    if asked not in architectures:
        raise AffectbenchError(
            f"family {family!r} makes no tiny {asked}", hint=f"it makes {', '.join(architectures)}"
        )
    return asked
