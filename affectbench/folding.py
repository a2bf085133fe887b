"""Where an edited layer need not run again: what scaled units change in its output is a product.

Scaling unit n by s changes a plain gated MLP's output by (s - 1) * neuron n * column n of down_proj. Some
families put a norm behind the MLP, or between gate and down_proj, and there it is not so. That is not read
from names: it is tried out, in every layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from affectbench.batch import Batch, Prepared
from affectbench.intervention import VALID
from affectbench.model import Model
from affectbench.products import OneDnnLinear
from affectbench.sites import GATE, NEURON


@torch.no_grad()
def foldable_sites(model: Model) -> frozenset[str]:
    """The sites whose scaling can be folded into the layer's output, in all layers of `model`."""
    layers = range(len(model.layers))
    if not all(_at_hand(model.down(layer)) for layer in layers):
        return frozenset()
    batch = _probe(model)
    if not all(_adds_neurons(model, layer, batch) for layer in layers):
        return frozenset()
    gated = all(gates_neurons(model, layer) for layer in layers)
    return frozenset({NEURON, GATE} if gated else {NEURON})


def _at_hand(module: nn.Module) -> bool:
    """Whether a module is plain linear, with weights that are in memory."""
    return type(module) in (nn.Linear, OneDnnLinear) and module.weight.device.type != "meta"


def _probe(model: Model) -> Batch:
    roles = torch.full((3,), VALID, dtype=torch.uint8)
    return model.collate([Prepared("probe", torch.tensor([1, 2, 3]), roles)])


def _adds_neurons(model: Model, layer: int, batch: Batch) -> bool:
    """Whether a change of what down_proj writes arrives in the layer's output, no more and no less."""
    outputs: list[Tensor] = []

    def keep(_module: Any, _args: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    def raised(_module: Any, _args: Any, output: Tensor) -> Tensor:
        return output + 1.0

    handles = [model.layers[layer].register_forward_hook(keep)]
    try:
        model.decode(batch)
        handles.append(model.down(layer).register_forward_hook(raised))
        model.decode(batch)
    finally:
        for handle in handles:
            handle.remove()
    one, two = outputs
    rounding = 4 * torch.finfo(one.dtype).eps * two.float().abs()
    return bool(((two - one).float() - 1.0).abs().le(0.05 + rounding).all())


@torch.no_grad()
def gates_neurons(model: Model, layer: int) -> bool:
    """Whether doubling every other gate doubles just these inputs of down_proj."""
    embeds = _probe(model).embeds.to(model.down(layer).weight.device)
    neurons: list[Tensor] = []
    factors = torch.ones(model.shape.width, dtype=model.dtype, device=embeds.device)
    factors[::2] = 2.0

    def keep(_module: Any, args: tuple[Tensor, ...]) -> None:
        neurons.append(args[0])

    def doubled(_module: Any, _args: Any, output: Tensor) -> Tensor:
        return output * factors

    module, _ = model.site_module(GATE, layer)
    handles = [model.down(layer).register_forward_pre_hook(keep)]
    try:
        model.mlp(layer)(embeds)
        handles.append(module.register_forward_hook(doubled))
        model.mlp(layer)(embeds)
    finally:
        for handle in handles:
            handle.remove()
    return bool(torch.allclose(neurons[0] * factors, neurons[1], rtol=1e-2, atol=1e-6))
