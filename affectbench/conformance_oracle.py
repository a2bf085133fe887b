"""Answers by other means than the engine's: the public forward of the model's class, one unpadded text at a
time, without a cache, with hooks of its own or with scaled weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affectbench.conformance_subject import Skipped, Subject
from affectbench.intervention import ANSWER, ROLE_BIT, VALID, Edit, Intervention
from affectbench.model import Model
from affectbench.readout import Readout, Scores
from affectbench.sites import GATE


def heard(subject: Subject, place: int) -> dict[str, Tensor]:
    """What the class's own forward takes of an item's sound, by name; nothing for an item without one."""
    model: Any = subject.model
    clip = subject.clips[place]
    if clip is None:
        return {}
    found = model.audio_inputs(clip)
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else value.dtype)
        for name, value in found.items()
    }


def inputs(subject: Subject, place: int, further: Sequence[int] = ()) -> dict[str, Tensor]:
    """Keyword arguments of the class's own forward for an item and `further` tokens."""
    ids = torch.cat([subject.items.items[place].ids, torch.tensor(list(further), dtype=torch.long)])
    ids = ids[None].to(subject.model.device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **heard(subject, place)}


@torch.no_grad()
def public(subject: Subject, place: int, further: Sequence[int] = ()) -> Tensor:
    """Logits (T, V), float32, of an item and `further` tokens."""
    output = subject.model.network(**inputs(subject, place, further), use_cache=False)
    logits: Tensor = output.logits[0].float()
    return logits


def public_scores(subject: Subject, asked: Readout, places: Sequence[int]) -> Scores:
    """Log-likelihood (N, C) of each answer of `asked`, token by token."""
    found = np.zeros((len(places), len(asked.candidates)), dtype=np.float32)
    for row, place in enumerate(places):
        told: dict[tuple[int, ...], Tensor] = {}
        for column, tokens in enumerate(asked.candidates):
            begun = tokens[:-1]
            if begun not in told:
                told[begun] = public(subject, place, begun)[-len(tokens) :].log_softmax(-1)
            found[row, column] = sum(float(told[begun][step, token]) for step, token in enumerate(tokens))
    return found


def scores_under(
    subject: Subject, interventions: Sequence[Intervention], asked: Readout, places: Sequence[int]
) -> Scores:
    """`public_scores` (K, N, C) under each intervention."""
    found = []
    for intervention in interventions:
        rows = []
        for place in places:
            with edited(subject, place, intervention):
                rows.append(public_scores(subject, asked, [place])[0])
        found.append(np.stack(rows))
    return np.stack(found)


@contextmanager
def edited(subject: Subject, place: int, intervention: Intervention) -> Iterator[None]:
    """Hooks of its own in dense models; scaled weights where the units are those of experts."""
    with ExitStack() as stack:
        for edit in intervention.effective:
            if subject.routed:
                stack.enter_context(scaled_weights(subject.model, edit))
            else:
                roles = subject.items.items[place].roles
                stack.enter_context(_hooked(subject.model, edit, roles.to(subject.model.device)))
        yield


@contextmanager
def _hooked(model: Model, edit: Edit, roles: Tensor) -> Iterator[None]:
    handles: list[Any] = []
    try:
        for layer, (channels, places) in edit.shape.by_layer(edit.units).items():
            change = _change(roles, edit, torch.as_tensor(channels), torch.as_tensor(edit.value[places]))
            if edit.site == GATE:
                module = model.activation(layer)
                handles.append(module.register_forward_hook(lambda _m, _a, out, do=change: do(out)))
            else:
                module = model.down(layer)
                handles.append(module.register_forward_pre_hook(lambda _m, a, do=change: (do(a[0]),)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _change(roles: Tensor, edit: Edit, channels: Tensor, value: Tensor) -> Callable[[Tensor], Tensor]:
    """What `edit` does to activations (1, T, width) of a text that begins with tokens of these roles."""

    def change(activation: Tensor) -> Tensor:
        more = torch.full((activation.shape[1] - len(roles),), VALID | ANSWER, dtype=torch.uint8)
        where = (torch.cat([roles.cpu(), more]) & ROLE_BIT[edit.positions]).bool().to(activation.device)
        changed = activation.clone()
        for channel, target in zip(channels.tolist(), value.tolist(), strict=True):
            old = activation[..., channel]
            new = old * target if edit.operation == "scale" else torch.full_like(old, target)
            changed[..., channel] = torch.where(where, new, old)
        return changed

    return change


@contextmanager
def scaled_weights(model: Model, edit: Edit) -> Iterator[None]:
    """Scale the columns that write an edit's neurons; afterwards the weights have the bytes they had.

    Raises `Skipped` for what no weight can express.
    """
    if edit.site == GATE or edit.operation != "scale" or edit.positions != "all":
        raise Skipped("only neurons scaled at all positions can be written into weights")
    kept: list[tuple[Tensor, Tensor]] = []
    try:
        for layer, (channels, places) in edit.shape.by_layer(edit.units).items():
            columns = columns_of(model, layer)
            for channel, factor in zip(channels.tolist(), edit.value[places].tolist(), strict=True):
                column = columns(channel)
                kept.append((column, column.clone()))
                column.mul_(factor)
        yield
    finally:
        for column, before in reversed(kept):
            column.copy_(before)


def columns_of(model: Model, layer: int) -> Callable[[int], Tensor]:
    """Gives the weights (d,) that write one neuron of `layer` into the residual stream.

    Raises `Skipped` where they are not plain numbers in memory.
    """
    from transformers.pytorch_utils import Conv1D

    module = model.down(layer)
    routed = model.experts[layer] is not None
    weight = module.down_proj if routed else getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.is_meta or not weight.is_floating_point():
        raise Skipped(f"the weights of {type(module).__name__} are quantised or offloaded")
    data = weight.detach()
    if routed:
        one = int(data.shape[1 if module.is_transposed else 2])
        across = data if module.is_transposed else data.transpose(1, 2)
        return lambda channel: across[channel // one, channel % one]
    return lambda channel: data[channel] if isinstance(module, Conv1D) else data[:, channel]
