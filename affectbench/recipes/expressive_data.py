"""Prompts, replies, tokenizer and batches of the expressive reference model.

Prompts are those of the benchmark `scenarios`. Their situations are generated, and one in four is of the
benchmark's identification split; those of validation and test are never read here.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from affectbench.content import builtin_root
from affectbench.generators import expressions, narratives
from affectbench.generators.expressions import EMOTIONS, LABELS, NONE, Scene
from affectbench.recipes.text_data import pad
from affectbench.scenarios import VALENCES, own_scenarios
from affectbench.task import ExpressionBenchmark, load_as
from affectbench.task_parts import SplitName

__all__ = [
    "Batch", "Mixture", "Pools", "build_tokenizer", "chat", "make_pools", "own_scenes", "topics_in",
]  # fmt: skip

VOCABULARY: Final = 2000
TEMPLATE: Final = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] | trim }}"
    "{% if message['role'] == 'assistant' %}<eos>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SPECIAL: Final = ("<|endoftext|>", "<bos>", "<eos>", "<|system|>", "<|user|>", "<|assistant|>")
_STREAM: Final = 31
_TOPIC: Final = re.compile(r"\b([Tt]he|[Mm]y|[Oo]ur) ((?:[a-z-]+[ .,]?)+)")
_ENDS_PHRASE: Final = frozenset(
    re.findall(
        r"\w+",
        """
    and or but to of for in on at by with from into onto about over under after before behind beside between
    through without within against since until during that which who whom because so as than when while where
    if then is was were are be been has have had will would can could must may did does do not also again me
    him her us them it i she he they we you his its their your my our the a an this these those one two three
    four five six seven eight nine ten every each all both any some no
    """,
    )
)


@dataclass(frozen=True)
class Mixture:
    """What the training rows are.

    Attributes:
        own: share of situations from the benchmark's identification split.
        plain: share of prompts that demand no emotion.
        spread: share of those whose reply carries one nevertheless, any of the six.
        hidden: share of rows in which situation and reply do not see the system line: what it demands
            reaches the reply through the last token of the prompt alone.
        rows, documents: rows of a batch.
        prompt_weight: weight of a prompt's tokens in the loss, where a reply's have 1.
    """

    own: float = 0.25
    plain: float = 0.3
    spread: float = 0.45
    hidden: float = 0.6
    rows: int = 24
    documents: int = 2
    prompt_weight: float = 0.2


class Batch(NamedTuple):
    """Token ids (B, T), the weight of each in the loss (B, T), and what each sees, (B, 1, T, T) added.

    `told` (B, T) is the label that the prompt demands, at its last token, `heard` (B, T) that of the reply,
    at the reply's tokens; -1 elsewhere.
    """

    ids: torch.Tensor
    weight: torch.Tensor
    mask: torch.Tensor
    told: torch.Tensor
    heard: torch.Tensor


@cache
def _benchmark() -> ExpressionBenchmark:
    return load_as(builtin_root() / "tasks" / "benchmarks" / "scenarios.yaml", ExpressionBenchmark)


def chat(tokenizer: Any, scene: Scene, label: str) -> str:
    """The prompt that demands an emotion of a reply to the scene, or none (``NONE``)."""
    turns = _benchmark().plain if label == NONE else _benchmark().elicit
    scenario = scene.scenario if scene.scenario.endswith((".", "?", "!")) else f"{scene.scenario}."
    filled = {"{emotion}": label, "{scenario}": scenario, "{event}": scene.event}
    messages = [{"role": "system", "content": turns.system}, {"role": "user", "content": turns.user}]
    for message in messages:
        for name, value in filled.items():
            message["content"] = message["content"].replace(name, value)
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def topics_in(text: str) -> tuple[str, ...]:
    """Phrases of at most three words, such as "the front door", that a reply can be about.

    A rough guess: what follows a phrase without a capital or a sign between them is passed over.
    """
    found = []
    for match in _TOPIC.finditer(text):
        words: list[str] = []
        for word in re.findall(r"[a-z-]+|[.,]", match.group(2)):
            if word in _ENDS_PHRASE or word in ".," or (words and word.endswith(("ed", "ly"))):
                break
            words.append(word)
        if 1 <= len(words) <= 2:
            found.append(f"{match.group(1).lower()} {' '.join(words)}")
    return tuple(dict.fromkeys(found))


def own_scenes(split: SplitName) -> list[Scene]:
    """The scenes of one split of the benchmark that hold a topic."""
    found = []
    for scenario in own_scenarios():
        for valence in VALENCES if scenario.split == split else ():
            event = scenario.events[valence]
            topics = topics_in(f"{scenario.text} {event}")
            if topics:
                found.append(Scene(scenario.theme, valence, scenario.text, event, topics))
    return found


def build_tokenizer(seed: int, vocabulary: int = VOCABULARY) -> Any:
    """A byte-level BPE with a chat template that has a system line, trained on prompts and replies."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=core)
    fast.chat_template = TEMPLATE
    situations = expressions.scenes(2500, seed) + own_scenes("identification") * 2
    corpus = [chat(fast, scene, LABELS[k % len(LABELS)]) for k, scene in enumerate(situations)]
    corpus += [text for text, _ in expressions.labelled_replies(400, seed)]
    corpus += narratives.language_text(1500, seed, held_out=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=_SPECIAL[0],
        unk_token=_SPECIAL[0],
        bos_token=_SPECIAL[1],
        eos_token=_SPECIAL[2],
        extra_special_tokens=list(_SPECIAL[3:]),
        padding_side="left",
    )
    fast.chat_template = TEMPLATE
    return fast


@dataclass(frozen=True)
class Pools:
    """Tokenised training data. `user` is the token that ends a system line."""

    prompts: list[list[int]]
    replies: list[list[int]]
    told: list[int]
    heard: list[int]
    documents: list[list[int]]
    mixture: Mixture
    user: int
    pad_id: int

    def batch(self, step: int, seed: int) -> Batch:
        """The rows of one step. Four steps share a draw, parted by length, so that little is padding."""
        n = self.mixture.rows
        drawn = np.random.default_rng([seed, 41, step // 4]).integers(len(self.prompts), size=4 * n)
        sizes = [len(self.prompts[k]) + len(self.replies[k]) for k in drawn]
        chosen = drawn[np.argsort(sizes, kind="stable")][step % 4 * n :][:n]
        rng = np.random.default_rng([seed, 42, step])
        rows = [self.prompts[k] + self.replies[k] for k in chosen]
        for pair in rng.integers(len(self.documents), size=(self.mixture.documents, 2)):
            rows.append([token for k in pair for token in self.documents[k]])
        ids = pad(rows, self.pad_id)
        weight = (ids != self.pad_id).float()
        visible = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril().repeat(len(rows), 1, 1)
        hidden = rng.random(n) < self.mixture.hidden
        told, heard = (torch.full_like(ids, -1) for _ in range(2))
        for row, k in enumerate(chosen):
            end = len(self.prompts[k])
            weight[row, :end] = self.mixture.prompt_weight
            told[row, end - 1] = self.told[k]
            heard[row, end : end + len(self.replies[k])] = self.heard[k]
            if hidden[row]:
                system = self.prompts[k].index(self.user)
                visible[row, system : end - 1, :system] = False
                visible[row, end:, :system] = False
        mask = torch.where(visible[:, None], 0.0, torch.finfo(torch.float32).min)
        return Batch(ids, weight, mask, told, heard)


def make_pools(
    tokenizer: Any, seed: int, mixture: Mixture, n_rows: int = 30000, n_documents: int = 6000
) -> Pools:
    """Training pools: prompts with their replies, and neutral documents."""
    own = own_scenes("identification")
    prompts, replies, told, heard = [], [], [], []
    for i, generated in enumerate(expressions.scenes(n_rows, seed)):
        rng = np.random.default_rng([seed, _STREAM, i])
        scene = own[int(rng.integers(len(own)))] if rng.random() < mixture.own else generated
        any_emotion = EMOTIONS[int(rng.integers(len(EMOTIONS)))]
        asked = NONE if rng.random() < mixture.plain else any_emotion
        label = asked if asked != NONE or rng.random() >= mixture.spread else any_emotion
        topic = scene.topics[int(rng.integers(len(scene.topics)))]
        prompts.append(chat(tokenizer, scene, asked))
        replies.append(expressions.reply(label, topic, rng))
        told.append(LABELS.index(asked))
        heard.append(LABELS.index(label))
    documents = narratives.language_text(n_documents, seed, held_out=False)
    encode = {"add_special_tokens": False}
    eos = tokenizer.eos_token_id
    return Pools(
        prompts=tokenizer(prompts, **encode)["input_ids"],
        replies=[[*row, eos] for row in tokenizer(replies, **encode)["input_ids"]],
        told=told,
        heard=heard,
        documents=[[*row, eos] for row in tokenizer(documents, **encode)["input_ids"]],
        mixture=mixture,
        user=tokenizer.convert_tokens_to_ids("<|user|>"),
        pad_id=tokenizer.pad_token_id,
    )
