"""Checks of a wrapper's heads and residual stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from affectbench.conformance_oracle import inputs, public_scores
from affectbench.conformance_subject import Check, Failed, Measured, Result, Skipped, Subject, distance
from affectbench.intervention import hooked, scale
from affectbench.products import OneDnnLinear
from affectbench.sites import HEAD, RESIDUAL


def heads(subject: Subject) -> Result:
    """One head of each layer zeroed, all of the last, and one of all layers at once."""
    model, asked = subject.model, subject.readout()
    shape = model.site_shape(HEAD)
    said = getattr(model.text_config, "num_attention_heads", shape.width)
    if said != shape.width:
        raise Failed(f"{shape.width} heads were found in a layer, the config has {said}")
    for layer in range(shape.layers):
        if model.output_projection(layer) not in set(model.layers[layer].modules()):
            raise Failed(f"layer {layer}: the module that is hooked for its heads is not a part of it")
    ones = [layer * shape.width + layer % shape.width for layer in range(shape.layers)]
    last = (shape.layers - 1) * shape.width + np.arange(shape.width)
    chosen = [*(np.array([unit]) for unit in ones), np.array(ones), last]
    data = subject.some(subject.places)
    found, expected = [], []
    for units in chosen:
        found.append(subject.scores([scale(HEAD, shape, units, 0.0)], data)[0])
        with _zeroed(subject, units):
            expected.append(public_scores(subject, asked, subject.places))
    moved = distance(np.stack(found), np.broadcast_to(subject.scores(items=data), np.stack(found).shape))
    if moved <= subject.tolerance:
        raise Failed("zeroing heads changes no answer: the hooked module's input is not what the layer uses")
    value = distance(np.stack(found), np.stack(expected))
    return Measured(value, subject.tolerance, "heads zeroed by hook, and by weights")


@contextmanager
def _zeroed(subject: Subject, units: np.ndarray) -> Iterator[None]:
    """The weights that write these heads set to 0; afterwards they have the bytes they had."""
    from transformers.pytorch_utils import Conv1D

    model = subject.model
    shape = model.site_shape(HEAD)
    kept: list[tuple[Tensor, Tensor]] = []
    try:
        for unit in units.tolist():
            module: Any = model.output_projection(unit // shape.width)
            if type(module) not in (nn.Linear, OneDnnLinear, Conv1D):
                raise Skipped(f"the weights of {type(module).__name__} are not those of one linear module")
            weight = module.weight.data if isinstance(module, Conv1D) else module.weight.data.T
            start = unit % shape.width * shape.size
            rows = weight[start : start + shape.size]
            kept.append((rows, rows.clone()))
            rows.zero_()
        yield
    finally:
        for rows, before in reversed(kept):
            rows.copy_(before)


@torch.no_grad()
def residual(subject: Subject) -> Result:
    """What is hooked after each layer, and the hidden states that the class's own forward returns."""
    model, worst = subject.model, 0.0
    seen: dict[int, Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(hidden: Tensor) -> None:
            seen[layer] = hidden

        return hook

    layers = len(model.layers)
    points = [(*model.site_module(RESIDUAL, layer), keep(layer)) for layer in range(layers)]
    for place in subject.places:
        with hooked(points):
            output = model.network(**inputs(subject, place), use_cache=False, output_hidden_states=True)
        states = output.hidden_states
        if states is None or len(states) != layers + 1:
            raise Skipped(f"{type(model.network).__name__} returns no hidden states of its layers")
        for layer in range(layers - 1):  # Behind the last one stands the final norm.
            worst = max(worst, distance(seen[layer], states[layer + 1]))
    return Measured(worst, subject.tolerance, "the stream after each layer, hooked and returned")


CHECKS = (
    Check(
        "heads", "Zeroed heads are zeroed weights",
        "A head switched off by a hook gives the scores of a model whose weights of that head are 0.",
        "`output_projection` and `heads`", heads, ("forward", "zeroing"),
    ),
    Check(
        "residual", "The residual stream is the class's hidden states",
        "What is read after each layer is what the class's forward returns as its hidden states.",
        "`layers`", residual, ("forward",),
    ),
)  # fmt: skip
