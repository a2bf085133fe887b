"""Units of mixture-of-experts layers, where the weights of all experts are one parameter and no module stands
before `down_proj`.

transformers lets a model run its experts by a registered function. Ours computes what the library's
``grouped_mm`` does, in the same order, and shows the activations of the chosen experts on the way: as input
and output of two small modules, which are hooked like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from affectbench.checkpoint import running_device
from affectbench.errors import AffectbenchError
from affectbench.sites import GATE, NEURON

if TYPE_CHECKING:
    from affectbench.intervention import BlockEdit

IMPLEMENTATION = "affectbench"
"""Our name among the experts implementations of transformers."""
TAPS = "affectbench_taps"
CONTRACT = ("has_gate", "has_bias", "is_transposed", "has_post_expert_norm", "num_experts", "down_proj")
"""What transformers promises of an experts module that takes a registered function."""


@dataclass(frozen=True)
class Routed:
    """Activations (tokens, k, width of an expert) of the k experts that each token was sent to.

    `experts` (tokens, k) says which of the `count` experts they are. Those that a token was not sent to are
    not computed: they add nothing to the output, an edit of theirs does nothing, and they count as zero.
    """

    values: Tensor
    experts: Tensor
    count: int

    def detach(self) -> Routed:
        return replace(self, values=self.values.detach())

    def summed(self, values: Tensor, rows: int) -> Tensor:
        """Sum over the tokens of each row of `values`, shaped like ours: (rows, count * width), float32."""
        tokens, slots, width = values.shape
        row = torch.arange(rows, device=values.device).repeat_interleave(tokens // rows * slots)
        places = row * self.count + self.experts.reshape(-1)
        found = torch.zeros(rows * self.count, width, device=values.device)
        flat = values.reshape(-1, width).float()
        if values.is_cuda:  # There `index_add_` adds in another order each time; this one sorts.
            found.index_put_((places,), flat, accumulate=True)
        else:
            found.index_add_(0, places, flat)
        return found.view(rows, -1)

    def edited(
        self, edits: Sequence[BlockEdit], block: Callable[[int, int], slice], roles: Tensor | None
    ) -> Routed:
        """As `PackedEdits.apply`: rows of several interventions, block by block."""
        values = self.values.clone() if torch.is_grad_enabled() else self.values
        for edit in edits:
            here = block(edit.block, len(values))
            rows, chosen = values[here], self.experts[here]
            changed = self._changed(edit, rows, chosen)
            marked = edit.where(roles, rows.shape[0])
            rows.copy_(changed if marked is None else torch.where(marked[:, None, None], changed, rows))
        return replace(self, values=values)

    def _changed(self, edit: BlockEdit, rows: Tensor, chosen: Tensor) -> Tensor:
        if edit.relative:
            raise AffectbenchError(
                "what is added to units of a mixture of experts cannot be relative to all of them",
                hint="the ones a token is not sent to are not computed: use `relative: false`",
            )
        if edit.operation == "scale":
            return rows * self._table(edit, 1.0, edit.value)[chosen]
        if edit.operation == "add":
            return rows + self._table(edit, 0.0, edit.value)[chosen]
        if edit.operation == "project":  # Of a single channel: what is left of it is a share.
            return rows * self._table(edit, 1.0, 1.0 - edit.value.square())[chosen]
        means = self._table(edit, 0.0, edit.value)[chosen]
        return torch.where(self._table(edit, 0.0, 1.0)[chosen].bool(), means, rows)

    def _table(self, edit: BlockEdit, elsewhere: float, value: Tensor | float) -> Tensor:
        """(count, width): `value` at the edited channels, `elsewhere` at all others."""
        table = self.values.new_full((self.count * self.values.shape[-1],), elsewhere)
        channels = edit.channels.to(table.device)
        table[channels] = value.to(table) if isinstance(value, Tensor) else value
        return table.view(self.count, -1)


class Tap(nn.Module):
    """Hands on what it is given: a place to hook."""

    def forward(self, activation: Routed) -> Routed:
        return activation

    @property
    def hooked(self) -> bool:
        return bool(self._forward_hooks or self._forward_pre_hooks)


class Taps(nn.Module):
    """The two sites of one experts module."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.neuron = Tap(), Tap()


def experts_in(layer: nn.Module) -> Any | None:
    """The fused experts of a decoder layer, or None where it has none."""
    return next((module for module in layer.modules() if _is_fused(module)), None)


def _is_fused(module: nn.Module) -> bool:
    known = all(hasattr(module, name) for name in CONTRACT)
    return known and isinstance(module.down_proj, nn.Parameter) and module.down_proj.ndim == 3


def expert_width(experts: Any) -> int:
    """Neurons of one expert."""
    return int(experts.down_proj.shape[1 if experts.is_transposed else 2])


def tap_of(experts: Any, site: str) -> Tap:
    """The module whose output is the site's activations, `Routed`.

    Raises `AffectbenchError` where the gates of the experts do not simply multiply.
    """
    if site == GATE and not _gates(experts):
        raise AffectbenchError(
            f"{type(experts).__name__} gates its neurons in a way of its own", hint=f"use the site {NEURON!r}"
        )
    tap: Tap = getattr(getattr(experts, TAPS), site)
    return tap


def _library() -> tuple[Any, Callable[..., Tensor]]:
    """The register of experts functions, and a product with the weights of each expert. The second is private
    to transformers, but it alone gives the bits that its own functions give."""
    try:
        from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, _grouped_linear
    except ImportError as error:
        raise AffectbenchError(
            f"mixtures of experts cannot be run with transformers {version('transformers')}: {error}",
            hint="pip install -c constraints.txt transformers",
        ) from error
    return ALL_EXPERTS_FUNCTIONS, _grouped_linear


@torch.no_grad()
def tap_experts(network: Any, found: Sequence[Any]) -> None:
    """Make `network` run its fused experts by our function, and try out that their answers stay the same.

    Raises `AffectbenchError` where they do not, where the network cannot be told, or where this version of
    transformers has none of what is used here.
    """
    functions, _ = _library()
    functions.register(IMPLEMENTATION, routed_forward)
    kinds = {type(experts): experts for experts in found}
    before = {kind: _answer(experts) for kind, experts in kinds.items()}
    for experts in found:
        setattr(experts, TAPS, Taps())
    network.set_experts_implementation(IMPLEMENTATION)
    for kind, experts in kinds.items():
        told = getattr(experts.config, "_experts_implementation", None) == IMPLEMENTATION
        after = _answer(experts) if told else torch.zeros_like(before[kind])
        if not told or (after - before[kind]).norm() > 0.02 * before[kind].norm():
            raise AffectbenchError(
                f"the experts of {type(network).__name__} ({kind.__name__}) run in a way of their own",
                hint="this model needs its own family",
            )


def _answer(experts: Any) -> Tensor:
    """What `experts` make of four fixed tokens, each sent to two experts."""
    weight = experts.down_proj
    width = weight.shape[2 if experts.is_transposed else 1]
    tokens = torch.linspace(-1, 1, 4 * width, dtype=torch.float32).view(4, width).sin() * 3
    sent = torch.tensor([[0, 1], [1, 0], [1, 2], [0, 2]]) % experts.num_experts
    shares = torch.tensor([0.75, 0.25]).expand(4, 2)
    device = running_device(experts)
    output: Tensor = experts(
        tokens.to(device, weight.dtype), sent.to(device), shares.to(device, weight.dtype)
    )
    return output.float()


def _gates(experts: Any) -> bool:
    """Whether an expert's neurons are act(gate) times the rest, so that its gates can be read and edited."""
    if not experts.has_gate:
        return True
    if not hasattr(experts, "act_fn"):
        return False
    probe = torch.linspace(-9, 9, 4 * expert_width(experts), device=running_device(experts)).view(2, -1)
    gate, up = probe.chunk(2, dim=-1)
    return torch.equal(experts._apply_gate(probe), experts.act_fn(gate) * up)


def routed_forward(self: Any, hidden: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """Output (tokens, d) of the experts `self` for `hidden` (tokens, d), sent to `top_k_index` (tokens, k).

    The steps of transformers' ``grouped_mm_experts_forward``, with the taps in between.
    """
    _, grouped_linear = _library()
    if self._is_expert_parallel:
        raise AffectbenchError(
            "the experts are spread over processes, where their units cannot be reached",
            hint="load the model without expert parallelism; `device_map` splits it by layers",
        )
    tokens, slots = top_k_index.shape
    experts, order = torch.sort(top_k_index.reshape(-1), stable=True)
    ends = torch.searchsorted(experts, torch.arange(self.num_experts, device=experts.device), right=True)
    linear = partial(grouped_linear, offs=ends.to(torch.int32), is_transposed=self.is_transposed)
    grow = "gate_up_proj" if self.has_gate else "up_proj"
    bias = partial(_bias, self, experts)
    grown = linear(hidden[order // slots], getattr(self, grow), bias=bias(grow))
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=order.device)

    def tapped(tap: Tap, activation: Tensor) -> Tensor:
        if not tap.hooked:
            return activation
        routed = Routed(activation[inverse].view(tokens, slots, -1), top_k_index, self.num_experts)
        values: Tensor = tap(routed).values
        return values.reshape(len(order), -1)[order]

    written = linear(_neurons(self, grown, tapped), self.down_proj, bias=bias("down_proj"))
    if self.has_post_expert_norm:
        written = self.post_expert_norm(written)
    written = written * top_k_weights.reshape(-1)[order].unsqueeze(-1)
    output: Tensor = written[inverse].view(tokens, slots, -1).sum(dim=1)
    return output.to(hidden.dtype)


def _neurons(self: Any, grown: Tensor, tapped: Any) -> Tensor:
    taps: Taps = getattr(self, TAPS)
    if not self.has_gate:
        gated = tapped(taps.gate, self.act_fn(grown))
    elif taps.gate.hooked:
        gate, up = grown.chunk(2, dim=-1)
        gated = tapped(taps.gate, self.act_fn(gate)) * up
    else:
        gated = self._apply_gate(grown)
    found: Tensor = tapped(taps.neuron, gated)
    return found


def _bias(self: Any, experts: Tensor, weight: str) -> Tensor | None:
    if not self.has_bias:
        return None
    bias: Tensor = getattr(self, f"{weight}_bias")
    return bias[experts]
