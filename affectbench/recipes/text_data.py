"""Tokenizer and training batches of the text reference models."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from affectbench.generators import narratives

__all__ = ["LABELS", "TextPools", "build_tokenizer", "label_ids", "make_pools", "pad", "trained_tokenizer"]

LABELS: Final = narratives.EMOTIONS
VOCABULARY: Final = 1500

# AutoTokenizer turns any tokenizer beside a Qwen2 config into its own class, which adds this token if absent.
_PAD: Final = "<|endoftext|>"


def build_tokenizer(seed: int) -> Any:
    """A byte-level BPE of at most 1500 tokens; every label with its leading space is one token."""
    items = narratives.examples("training", 300, seed)
    corpus = [narratives.prompt(item) + narratives.answer(item) for item in items]
    corpus += narratives.language_text(3000, seed, held_out=False) + narratives.story_text(4000, seed)
    return trained_tokenizer(corpus)


def trained_tokenizer(corpus: list[str], vocabulary: int = VOCABULARY) -> Any:
    """A byte-level BPE of at most `vocabulary` tokens, trained on `corpus`. Raises ValueError as `label_ids`
    does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_PAD, "<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        unk_token=_PAD,
        bos_token="<bos>",
        eos_token="<eos>",
        padding_side="left",
    )
    label_ids(fast)
    return fast


def label_ids(tokenizer: Any) -> list[int]:
    """Token ids of the seven labels, in label order.

    Raises:
        ValueError: a label is not a single token.
    """
    ids = []
    for label in LABELS:
        pieces = tokenizer.encode(f" {label}", add_special_tokens=False)
        if len(pieces) != 1:
            raise ValueError(f"label {label!r} is {len(pieces)} tokens, expected 1: enlarge the vocabulary")
        ids.append(int(pieces[0]))
    return ids


def pad(rows: list[list[int]], pad_id: int) -> torch.Tensor:
    """(rows, longest) token ids padded on the right, where a causal model never looks."""
    width = max(len(row) for row in rows)
    return torch.tensor([row + [pad_id] * (width - len(row)) for row in rows])


@dataclass(frozen=True)
class TextPools:
    """Tokenised training data: prompts with their answers' label index, and language-model documents."""

    prompts: list[list[int]]
    gold: np.ndarray
    documents: list[list[int]]
    answers: list[int]
    pad_id: int

    def batch(
        self, step: int, seed: int, n_prompts: int, n_documents: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Token ids (prompts first), the answer position of every prompt, and its label index."""
        rng = np.random.default_rng([seed, 77, step])
        chosen = rng.integers(len(self.prompts), size=n_prompts)
        rows = [[*self.prompts[i], self.answers[self.gold[i]]] for i in chosen]
        positions = torch.tensor([len(row) - 2 for row in rows])
        rows += [self.documents[i] for i in rng.integers(len(self.documents), size=n_documents)]
        return pad(rows, self.pad_id), positions, torch.tensor(self.gold[chosen])


def make_pools(tokenizer: Any, seed: int, n_per_emotion: int = 1500, n_documents: int = 12000) -> TextPools:
    """Training pools: recognition items; documents, half neutral text and half unlabelled stories."""
    items = narratives.examples("training", n_per_emotion, seed)
    texts = narratives.language_text(n_documents // 2, seed, held_out=False)
    texts += narratives.story_text(n_documents // 2, seed)
    eos = tokenizer.eos_token_id
    return TextPools(
        prompts=tokenizer([narratives.prompt(item) for item in items])["input_ids"],
        gold=np.array([LABELS.index(item["label"]) for item in items]),
        documents=[[*ids, eos] for ids in tokenizer(texts)["input_ids"]],
        answers=label_ids(tokenizer),
        pad_id=tokenizer.pad_token_id,
    )
