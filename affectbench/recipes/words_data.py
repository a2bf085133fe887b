"""Prompts, tokenizer and training data of the word-writing reference model.

Four kinds of prompts: a story that asks for its emotion's word, the same with lettered options, and the
answer-word control of either (its forms and carriers, with other orders of the options).
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from affectbench.answer_words import answer_word_items
from affectbench.content import builtin_root
from affectbench.examples import Example, RenderedPrompt
from affectbench.generators import narratives
from affectbench.prompts import prompt_text
from affectbench.recipes.text_data import LABELS, label_ids, trained_tokenizer
from affectbench.task import Benchmark, load_as

__all__ = ["KINDS", "Pool", "WordPools", "letter_ids", "make_pools", "pool", "tokenizer_of"]

KINDS: Final = ("story", "story in letters", "copy", "copy in letters")
LETTERS: Final = "ABCDEFG"
SHUFFLES: Final = 40
"""How often the control's items come in training, each time with other orders of the options."""


@dataclass(frozen=True)
class Asked:
    """A prompt, its label, and which answer stands for each label (the label's word, or a letter)."""

    text: str
    gold: int
    answers: tuple[int, ...]


@dataclass(frozen=True)
class Pool:
    """Tokenised prompts of one kind; `answers` (n, E) is the token that stands for each label."""

    prompts: list[list[int]]
    gold: np.ndarray
    answers: np.ndarray

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class WordPools:
    """Training data by kind, and language-model documents."""

    pools: dict[str, Pool]
    documents: list[list[int]]
    pad_id: int


def tokenizer_of(seed: int) -> Any:
    """A tokenizer that knows the prompts of all kinds.

    Raises:
        ValueError: a label or a letter is not a single token.
    """
    corpus = [f"{asked.text} {LABELS[asked.gold]}" for asked in _stories("training", 300, seed, False)]
    lettered = _stories("training", 150, seed, True) + _copies(True, 2, "tokenizer")
    corpus += [f"{asked.text} {LETTERS[asked.answers[asked.gold]]}" for asked in lettered]
    corpus += [asked.text for asked in _copies(False, 2, "tokenizer")]
    corpus += narratives.language_text(3000, seed, held_out=False) + narratives.story_text(4000, seed)
    tokenizer = trained_tokenizer(corpus)
    letter_ids(tokenizer)
    return tokenizer


def letter_ids(tokenizer: Any, before: str = " ") -> list[int]:
    """Token ids of the letters A to G, behind a space or not. Raises ValueError as `tokenizer_of` does."""
    ids = [tokenizer.encode(f"{before}{letter}", add_special_tokens=False) for letter in LETTERS]
    if any(len(pieces) != 1 for pieces in ids):
        raise ValueError("a letter is more than one token: enlarge the vocabulary")
    return [int(pieces[0]) for pieces in ids]


def pool(tokenizer: Any, kind: str, split: str, count: int, seed: int) -> Pool:
    """Prompts of one kind: `count` stories of each emotion of a split, or rounds of the control's items."""
    lettered = kind.endswith("letters")
    if kind.startswith("story"):
        asked = _stories(split, count, seed, lettered)
    else:
        asked = _copies(lettered, count, split)
    tokens = np.array(letter_ids(tokenizer) if lettered else label_ids(tokenizer))
    return Pool(
        tokenizer([each.text for each in asked])["input_ids"],
        np.array([each.gold for each in asked]),
        tokens[np.array([each.answers for each in asked])],
    )


def make_pools(tokenizer: Any, seed: int, n_per_emotion: int = 1500, n_documents: int = 12000) -> WordPools:
    """Training pools of all four kinds; documents as the other text models have them."""
    texts = narratives.language_text(n_documents // 2, seed, held_out=False)
    texts += narratives.story_text(n_documents // 2, seed)
    pools = {
        kind: pool(tokenizer, kind, "training", n_per_emotion if kind.startswith("story") else SHUFFLES, seed)
        for kind in KINDS
    }
    pools[KINDS[1]] = pool(tokenizer, KINDS[1], "training", n_per_emotion, seed + 1)
    documents = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts)["input_ids"]]
    return WordPools(pools, documents, tokenizer.pad_token_id)


def _benchmark(lettered: bool) -> Benchmark:
    name = "reference-narratives-letters" if lettered else "reference-narratives"
    return load_as(builtin_root() / "tasks" / "benchmarks" / f"{name}.yaml", Benchmark)


def _stories(split: str, n_per_emotion: int, seed: int, lettered: bool) -> list[Asked]:
    """Stories of the generator as the benchmark asks about them."""
    benchmark = _benchmark(lettered)
    found = []
    for item in narratives.examples(split, n_per_emotion, seed):
        fields = {"person": item["person"]}
        example = Example(item["id"], item["text"], None, item["label"], item["cluster"], fields)
        found.append(_asked(example, prompt_text(benchmark, example)))
    return found


def _copies(lettered: bool, rounds: int, salt: str) -> list[Asked]:
    """The control's items so many times, each time with other orders of the options."""
    benchmark = _benchmark(lettered)
    return [
        _asked(example, prompt)
        for turn in range(rounds)
        for example, prompt in answer_word_items(benchmark.model_copy(update={"name": f"{salt}-{turn}"}))
    ]


def _asked(example: Example, prompt: RenderedPrompt) -> Asked:
    order = prompt.order or tuple(range(len(LABELS)))
    places = tuple(order.index(label) for label in range(len(LABELS)))
    return Asked(prompt.text, LABELS.index(example.label), places)
