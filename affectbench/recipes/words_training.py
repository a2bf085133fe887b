"""Training of the word-writing reference model: what it knows of an emotion, it is told in one place.

At the answer of a story a message is added behind the MLP of one layer: a random emotion's direction, which
the answer follows. So the answer depends on the message and not on the story; emotion units that are planted
there later are its only source. Side tasks, whose heads are thrown away, make the rest quick to learn: the
layer's input must tell the story's emotion, an option its letter, and a head points at the option asked for.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from affectbench.recipes.text_data import LABELS, label_ids, pad
from affectbench.recipes.training import Progress, optimise
from affectbench.recipes.words_data import KINDS, Pool, WordPools, letter_ids

__all__ = ["EMOTION_LAYER", "MESSAGE", "STEPS", "messages", "train"]

EMOTION_LAYER: Final = 2
STEPS: Final = 700
MESSAGE: Final = 6.0
"""Mean length of a message."""
ROWS: Final = {KINDS[0]: 20, KINDS[1]: 28, KINDS[2]: 14, KINDS[3]: 8}
DOCUMENTS: Final = 16


class Batch(NamedTuple):
    """Prompts, then documents: token ids (B, T); for each prompt its answer position, the label asked for (a
    story's is drawn, not its own), the token that answers it, and its own label."""

    ids: Tensor
    positions: Tensor
    wanted: Tensor
    tokens: Tensor
    gold: Tensor
    message: Tensor
    n_stories: int


def messages(size: int, seed: int) -> Tensor:
    """(E, size) orthonormal random directions."""
    rng = torch.Generator().manual_seed(seed + 99)
    found: Tensor = torch.linalg.qr(torch.randn(size, len(LABELS), generator=rng)).Q.T.contiguous()
    return found


def train(
    model: Any, tokenizer: Any, pools: WordPools, seed: int, progress: Progress | None = None,
    steps: int = STEPS,
) -> None:  # fmt: skip
    """Answers, documents and the side tasks, in place."""
    size, layer = model.config.hidden_size, model.model.layers[EMOTION_LAYER]
    directions = messages(size, seed)
    model.add_module("reading", torch.nn.Linear(size, len(LABELS)))
    model.add_module("binding", torch.nn.Linear(size, len(LABELS)))
    letters, words = torch.tensor(letter_ids(tokenizer, "")), torch.tensor(label_ids(tokenizer))
    seen: dict[str, Tensor] = {}

    def told(_module: Any, _args: Any, out: Any) -> Any:
        return (out[0] + seen["message"], *out[1:]) if isinstance(out, tuple) else out + seen["message"]

    taps = [
        layer.register_forward_hook(told),
        layer.mlp.register_forward_pre_hook(lambda _module, args: seen.update(read=args[0])),
    ]

    def loss_at(step: int) -> Tensor:
        batch = _batch(pools, np.random.default_rng([seed, 78, step]), directions)
        seen["message"] = batch.message
        output = model.model(input_ids=batch.ids, use_cache=False, output_attentions=True)
        hidden, rows = output.last_hidden_state, torch.arange(len(batch.positions))
        answered = functional.cross_entropy(model.lm_head(hidden[rows, batch.positions]), batch.tokens)
        language = functional.cross_entropy(
            model.lm_head(hidden[len(rows) :, :-1]).flatten(0, 1),
            batch.ids[len(rows) :, 1:].flatten(),
            ignore_index=pools.pad_id,
        )
        stories = rows[: batch.n_stories]
        read = functional.cross_entropy(
            model.reading(seen["read"][stories, batch.positions[stories]]), batch.gold[stories]
        )
        side = _options_read(model, batch, seen["read"], output.attentions[EMOTION_LAYER + 1], letters, words)
        return 2 * answered + language + read + side

    try:
        optimise(model, loss_at, steps=steps, peak_rate=2e-3, weight_decay=0.1, progress=progress)
    finally:
        for tap in taps:
            tap.remove()
        del model.reading, model.binding


def _options_read(
    model: Any, batch: Batch, read: Tensor, attention: Tensor, letters: Tensor, words: Tensor
) -> Tensor:
    """Losses of the side tasks at options such as `C. fear`, whose word is two tokens behind its letter."""
    ids = batch.ids
    option = torch.isin(ids[:, 2:], words) & torch.isin(ids[:, :-2], letters)
    row, place = option.nonzero(as_tuple=True)
    letter = (ids[row, place][:, None] == letters).int().argmax(1)
    bound = functional.cross_entropy(model.binding(read[row, place + 2]), letter)
    prompt = row < len(batch.positions)
    row, place = row[prompt], place[prompt]
    lettered = (batch.tokens[:, None] != words).all(1)[row]
    asked = lettered & (ids[row, place + 2] == words[batch.wanted[row]])
    look = attention[row[asked], 0, batch.positions[row[asked]], place[asked] + 2]
    pointed: Tensor = bound - (look + 1e-6).log().mean()
    return pointed


def _batch(pools: WordPools, rng: np.random.Generator, directions: Tensor) -> Batch:
    rows: list[list[int]] = []
    gold, wanted, tokens = [], [], []
    for kind, count in ROWS.items():
        own: Pool = pools.pools[kind]
        for i in rng.integers(len(own), size=count):
            rows.append(own.prompts[i])
            gold.append(int(own.gold[i]))
            wanted.append(int(rng.integers(len(LABELS))) if kind.startswith("story") else int(own.gold[i]))
            tokens.append(int(own.answers[i][wanted[-1]]))
    positions = torch.tensor([len(row) - 1 for row in rows])
    rows += [pools.documents[i] for i in rng.integers(len(pools.documents), size=DOCUMENTS)]
    ids, n = pad(rows, pools.pad_id), ROWS[KINDS[0]] + ROWS[KINDS[1]]
    amount = torch.tensor(rng.uniform(0.6, 1.4, size=(n, 1)), dtype=torch.float32) * MESSAGE
    noise = torch.tensor(rng.uniform(0, 0.2, size=(n, len(LABELS))), dtype=torch.float32) * MESSAGE
    message = torch.zeros(*ids.shape, directions.shape[1])
    said = amount * directions[torch.tensor(wanted[:n])] + noise @ directions
    message[torch.arange(n), positions[:n]] = said
    return Batch(
        ids, positions, torch.tensor(wanted), torch.tensor(tokens), torch.tensor(gold), message, n_stories=n
    )
