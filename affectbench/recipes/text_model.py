"""Architecture and training objective of the text reference models."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional

from affectbench.recipes.text_data import TextPools
from affectbench.recipes.training import Progress, optimise

__all__ = ["EMERGENT", "PLAIN", "Objective", "new_model", "train"]

LAYERS: Final = 4
WIDTH: Final = 512


@dataclass(frozen=True)
class Objective:
    """What a model is trained for.

    Attributes:
        steps: updates.
        direct_path: weight of the penalty on label logits written by embeddings and attention at the answer.
        sparsity: weight of the L1 of what every MLP unit writes at the answer position.
        drop_mlp: probability that a prompt row skips an MLP (stochastic depth), per row and layer.
        positive_gate: weight of the summed positive gate activations at the answer position.
        gate_sparsity: weight of the L1 of the gate activations at the answer position.
    """

    steps: int
    direct_path: float = 0.0
    sparsity: float = 0.0
    drop_mlp: float = 0.0
    positive_gate: float = 0.0
    gate_sparsity: float = 0.0


PLAIN: Final = Objective(steps=1500, drop_mlp=0.5)
EMERGENT: Final = Objective(
    steps=900, direct_path=1.0, sparsity=0.003, positive_gate=0.01, gate_sparsity=0.001
)


def new_model(tokenizer: Any, seed: int, layers: int = LAYERS, width: int = WIDTH, **settings: Any) -> Any:
    """A freshly initialised Qwen2 decoder: 4 layers, d 128, 512 units a layer, tied embeddings."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **settings,
    )
    return Qwen2ForCausalLM(config)


class _Taps:
    """Attention outputs and down_proj inputs of every layer in the current forward pass."""

    def __init__(self) -> None:
        self.attention: list[torch.Tensor] = []
        self.units: list[torch.Tensor] = []
        self.gates: list[torch.Tensor] = []

    def clear(self) -> None:
        self.attention.clear()
        self.units.clear()
        self.gates.clear()


@contextmanager
def _tapped(layers: Any) -> Iterator[_Taps]:
    taps = _Taps()
    handles = []
    for layer in layers:
        handles.append(
            layer.self_attn.register_forward_hook(lambda _m, _a, out: taps.attention.append(out[0]))
        )
        handles.append(
            layer.mlp.down_proj.register_forward_pre_hook(lambda _m, args: taps.units.append(args[0]))
        )
        handles.append(layer.mlp.act_fn.register_forward_hook(lambda _m, _a, out: taps.gates.append(out)))
    try:
        yield taps
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _stochastic_depth(layers: Any, probability: float, rows: int) -> Iterator[None]:
    """Lets each of the first ``rows`` sequences skip an MLP with the given probability."""

    def skip(_module: Any, _args: Any, out: torch.Tensor) -> torch.Tensor:
        keep = torch.ones(len(out), 1, 1)
        keep[:rows, 0, 0] = (torch.rand(rows) >= probability).float()
        return out * keep

    handles = [layer.mlp.register_forward_hook(skip) for layer in layers] if probability else []
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _penalty(
    model: Any, taps: _Taps, embedded: torch.Tensor, final: torch.Tensor, positions: torch.Tensor,
    answers: list[int], objective: Objective,
) -> torch.Tensor:  # fmt: skip
    """Direct-path and sparsity penalties at the answer position of the prompt rows."""
    rows = torch.arange(len(positions))
    direct = embedded[rows, positions] + sum(out[rows, positions] for out in taps.attention)
    norm = model.model.norm
    scale = torch.rsqrt(final.detach().pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)
    logits = (direct * scale * norm.weight) @ model.lm_head.weight[answers].T
    centred = logits - logits.mean(-1, keepdim=True)
    written = torch.zeros(())
    for layer, units in zip(model.model.layers, taps.units, strict=True):
        size = layer.mlp.down_proj.weight.norm(dim=0)
        written = written + (units[rows, positions].abs() * size).sum(-1).mean()
    gates = torch.cat([gate[rows, positions] for gate in taps.gates], -1)
    gated = objective.positive_gate * gates.relu().sum(-1) + objective.gate_sparsity * gates.abs().sum(-1)
    total: torch.Tensor = (
        objective.direct_path * centred.pow(2).mean() + objective.sparsity * written + gated.mean()
    )
    return total


def train(
    model: Any, pools: TextPools, objective: Objective, seed: int, progress: Progress | None = None,
    n_prompts: int = 40, n_documents: int = 24,
) -> None:  # fmt: skip
    """Next-token loss on every row plus the answer's loss (and the objective's penalties), in place."""
    penalised = bool(objective.direct_path or objective.sparsity)
    last: dict[str, torch.Tensor] = {}
    handle = model.model.norm.register_forward_pre_hook(lambda _m, args: last.update(final=args[0]))

    def loss_at(step: int) -> torch.Tensor:
        ids, positions, gold = pools.batch(step, seed, n_prompts, n_documents)
        taps.clear()
        embedded = model.model.embed_tokens(ids)
        hidden = model.model(inputs_embeds=embedded, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[:, :-1])
        language = functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1), ignore_index=pools.pad_id
        )
        rows = torch.arange(n_prompts)
        answered = functional.cross_entropy(logits[rows, positions][:, pools.answers], gold)
        loss = language + answered
        if penalised:
            final = last["final"][rows, positions]
            loss = loss + _penalty(model, taps, embedded, final, positions, pools.answers, objective)
        return loss

    try:
        layers = model.model.layers
        with _tapped(layers) as taps, _stochastic_depth(layers, objective.drop_mlp, n_prompts):
            optimise(
                model, loss_at, steps=objective.steps, peak_rate=2e-3, weight_decay=0.1, progress=progress
            )
    finally:
        handle.remove()
