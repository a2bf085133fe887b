"""Edits that cost nothing to run: a scaled neuron is a scaled column of `down_proj`.

While the weights are edited, whatever runs the network runs it under the edit: lm-eval, ``generate``. The
engine hooks: one set of weights is one intervention, while hooked rows of one pass carry many and share what
lies below their first edits. It folds where one intervention has a pass of experts to itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from affectbench.errors import AffectbenchError
from affectbench.experts import tap_of
from affectbench.folding import gates_neurons
from affectbench.held_weights import Held, check_unshared, holding, plain
from affectbench.intervention import Edit, Intervention
from affectbench.model import Model
from affectbench.products import OneDnnLinear
from affectbench.sites import GATE, NEURON, FloatArray


@contextmanager
def folded(model: Model, intervention: Intervention) -> Iterator[None]:
    """Scale the `down_proj` columns of the intervention's units for the length of the block.

    Afterwards all weights have the bytes they had before, also after an error or an interrupt. Blocks may be
    nested. Units that are zeroed give bit for bit what hooks give; a gain differs by rounding alone, for here
    the weight is rounded, there the activation.

    Raises `AffectbenchError`, before anything is changed, for what no weight can express: means, positions
    other than all, gates that do more than multiply, weights that are quantised, shared or not in memory.
    """
    edits = [(columns, _scaled(columns, factors)) for columns, factors in _planned(model, intervention)]
    with holding(model, edits, intervention.digest):
        yield


def _planned(model: Model, intervention: Intervention) -> list[tuple[Held, FloatArray]]:
    """The columns that are scaled, and by what, layer by layer."""
    factors: dict[int, dict[int, float]] = defaultdict(dict)
    for edit in intervention.effective:
        _check(model, edit)
        for layer, (channels, places) in edit.by_layer.items():
            for channel, value in zip(channels.tolist(), edit.value[places].tolist(), strict=True):
                factors[layer][channel] = factors[layer].get(channel, 1.0) * value
    found = []
    for layer, units in sorted(factors.items()):
        view = _by_unit(model, layer)
        flat = torch.tensor(list(units), device=view.device)
        one = view.shape[-2]
        where = (flat,) if view.ndim == 2 else (flat // one, flat % one)
        found.append((Held(view, where, view[where].clone()), np.array(list(units.values()))))
    _check_unshared(model, list(factors))
    return found


def _scaled(columns: Held, factors: FloatArray) -> Tensor:
    wide = torch.promote_types(columns.kept.dtype, torch.float32)
    factor = torch.as_tensor(factors, dtype=wide, device=columns.kept.device)
    scaled = (columns.kept.to(wide) * factor[:, None]).to(columns.kept.dtype)
    if not bool(torch.isfinite(scaled).all()):
        raise AffectbenchError(
            f"scaled by {np.abs(factors).max():g}, weights are no finite {columns.kept.dtype} any more",
            hint="use a smaller dose, or load the model in a wider dtype",
        )
    return scaled


def _check(model: Model, edit: Edit) -> None:
    """Raise unless the edit is a product that holds at every position."""
    if edit.operation != "scale":
        raise AffectbenchError(
            f"an edit {edit.operation!r} cannot be folded into weights, which multiply",
            hint="run it by the engine, which hooks activations",
        )
    if edit.positions != "all":
        raise AffectbenchError(
            f"an edit at positions {edit.positions!r} cannot be folded: a weight acts at every position",
            hint="run it by the engine, which hooks activations",
        )
    if edit.site not in (GATE, NEURON):
        raise AffectbenchError(
            f"an edit of site {edit.site!r} cannot be folded: its weights are not those of down_proj",
            hint="run it by the engine, which hooks activations",
        )
    if edit.shape != model.shape:
        raise AffectbenchError(
            f"an edit of {edit.shape.layers} layers x {edit.shape.width} does not fit {model.card.name}",
            hint=f"it has {model.shape.layers} layers x {model.shape.width}",
        )
    if edit.site != GATE:
        return
    for layer in edit.by_layer:
        if model.experts[layer] is not None:
            tap_of(model.experts[layer], GATE)
        elif not gates_neurons(model, layer):
            raise AffectbenchError(
                f"{model.card.name}: what happens between gate and down_proj is more than a product",
                hint="scale the site 'neuron', or run the edit by the engine",
            )


def _by_unit(model: Model, layer: int) -> Tensor:
    """A view of the weights that write a layer's neurons: (units, d), or (experts, units of one, d)."""
    module = model.down(layer)
    if model.experts[layer] is not None:
        weight = _plain(module.down_proj, module, layer)
        return weight if module.is_transposed else weight.transpose(1, 2)
    if type(module) in (nn.Linear, OneDnnLinear):
        return _plain(module.weight, module, layer).T
    from transformers.pytorch_utils import Conv1D

    if type(module) is Conv1D:  # GPT-2 multiplies from the other side.
        return _plain(module.weight, module, layer)
    raise AffectbenchError(
        f"layer {layer}: the weights of {type(module).__name__} cannot be scaled column by column",
        hint="load the model without quantisation, and merge its adapters",
    )


def _plain(weight: Any, module: nn.Module, layer: int) -> Tensor:
    return plain(weight, f"layer {layer}: the weights of {type(module).__name__}")


def _check_unshared(model: Model, layers: list[int]) -> None:
    """Raise where the memory of an edited weight is used under another name, too."""
    weights = {}
    for layer in layers:
        module = model.down(layer)
        weights[f"layer {layer}"] = module.weight if model.experts[layer] is None else module.down_proj
    check_unshared(model.network, weights, "run the edit by the engine, which hooks activations")
