"""Architecture and training of the expressive reference model."""

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional

from affectbench.generators.expressions import LABELS
from affectbench.recipes.expressive_data import Batch, Pools
from affectbench.recipes.training import Progress, optimise

__all__ = ["SIZE", "STEPS", "Size", "language_loss", "new_model", "train"]

STEPS: Final = 800
PEAK_RATE: Final = 2e-3
TOLD_LAYER, HEARD_LAYER = 1, 3
SIDE_WEIGHT: Final = 0.3


@dataclass(frozen=True)
class Size:
    """Of the decoder: residual width, layers, heads (each with its own keys and values), MLP units."""

    hidden: int = 128
    layers: int = 6
    heads: int = 8
    width: int = 384


SIZE: Final = Size()


def new_model(tokenizer: Any, seed: int, size: Size = SIZE) -> Any:
    """A freshly initialised Qwen2 decoder with tied embeddings."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        intermediate_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return Qwen2ForCausalLM(config)


def language_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Mean next-token loss, each token with its weight."""
    hidden = model.model(
        input_ids=batch.ids, attention_mask=batch.mask, use_cache=False
    ).last_hidden_state[:, :-1]  # fmt: skip
    weight = batch.weight[:, 1:]
    counted = weight > 0
    logits = model.lm_head(hidden[counted])
    losses = functional.cross_entropy(logits, batch.ids[:, 1:][counted], reduction="none")
    found: torch.Tensor = (losses * weight[counted]).sum() / weight.sum()
    return found


def train(model: Any, pools: Pools, seed: int, progress: Progress | None = None, steps: int = STEPS) -> None:
    """Next-token loss on prompts (little), replies and documents, in place. Rows are padded on the right.

    Two side tasks, whose linear heads are thrown away, make a model of this size learn in so few steps to
    pass on what it is told: the stream behind layer `TOLD_LAYER` must tell at a prompt's last token which
    emotion it demands, that behind `HEARD_LAYER` at each token of a reply which one the reply has.
    """
    seen: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(_module: Any, _args: Any, out: Any) -> None:
            seen[layer] = out[0] if isinstance(out, tuple) else out

        return model.model.layers[layer].register_forward_hook(hook)

    def loss_at(step: int) -> torch.Tensor:
        batch = pools.batch(step, seed)
        loss = language_loss(model, batch)
        for head, layer, gold in (
            (model.told, TOLD_LAYER, batch.told),
            (model.heard, HEARD_LAYER, batch.heard),
        ):
            scores = head(seen[layer]).flatten(0, 1)
            loss = loss + SIDE_WEIGHT * functional.cross_entropy(scores, gold.flatten(), ignore_index=-1)
        return loss

    for name in ("told", "heard"):
        model.add_module(name, torch.nn.Linear(model.config.hidden_size, len(LABELS)))
    taps = [keep(layer) for layer in (TOLD_LAYER, HEARD_LAYER)]
    try:
        optimise(model, loss_at, steps=steps, peak_rate=PEAK_RATE, weight_decay=0.1, progress=progress)
    finally:
        for tap in taps:
            tap.remove()
        del model.told, model.heard
