"""Where a decoder's weight matrices are, by what they do: q, k, v, o in attention, gate, up, down in the MLP.

Found by name and shape alone, so the same code reads a loaded network and the header of a file. Weights that
several types share (fused qkv, gate_up) are split; the experts of a layer count as one block-diagonal matrix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from affectbench.errors import AffectbenchError
from affectbench.yaml_loading import suggest

if TYPE_CHECKING:
    from torch import Tensor

    from affectbench.model import Model

TYPES = ("q", "k", "v", "o", "gate", "up", "down")
GROUPS = {"attn": ("q", "k", "v", "o"), "mlp": ("gate", "up", "down"), "all": TYPES}
OTHER = "other"
"""Everything that is of no type: embeddings, norms, the output head, routers."""
LAYER = re.compile(r"(?P<stack>(?:.*\.)?(?:layers|h|blocks))\.(?P<layer>\d+)\.(?P<rest>.+)")
TOWERS = ("audio", "vision", "visual", "tower", "encoder", "speech", "projector")
PLAIN = {
    "q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o", "out_proj": "o", "gate_proj": "gate",
    "up_proj": "up", "down_proj": "down", "c_fc": "up", "dense_h_to_4h": "up", "dense_4h_to_h": "down",
    "fc1": "up", "fc2": "down",
}  # fmt: skip
EXPERT = {"w1": "gate", "w3": "up", "w2": "down"}
"""Names in Mixtral's files."""
THIRDS = ("c_attn", "qkv_proj", "query_key_value")


@dataclass(frozen=True)
class Piece:
    """The part of a parameter that is of one type: along `axis`, its outputs, `start` to `stop` of each of
    `groups` equal groups. `parameter` is the whole name; `place` tells apart what shares a layer and a type.
    """

    type: str
    layer: int
    parameter: str
    axis: int
    groups: int
    start: int
    stop: int
    is_matrix: bool = True

    def view(self, tensor: Tensor) -> Tensor:
        """A view of the piece in its parameter, outputs as (groups, n), inputs last where it is a matrix."""
        size = tensor.shape[self.axis] // self.groups
        shape = (*tensor.shape[: self.axis], self.groups, size, *tensor.shape[self.axis + 1 :])
        view = tensor.view(shape).narrow(self.axis + 1, self.start, self.stop - self.start)
        return view.movedim(-3, -1) if self.is_matrix and self.axis == tensor.ndim - 1 else view

    def matrices(self, tensor: Tensor) -> Tensor:
        """The piece as (experts, outputs, inputs); one expert where there are none, one input for a bias."""
        view = self.view(tensor)
        view = view if self.is_matrix else view.unsqueeze(-1)
        flat = view.flatten(-3, -2)
        return flat if flat.ndim == 3 else flat.unsqueeze(0)

    def shaped(self, matrices: Tensor, tensor: Tensor) -> Tensor:
        """`matrices` of this piece in the shape of its `view`."""
        return matrices.reshape(self.view(tensor).shape)

    def numel(self, shape: Sequence[int]) -> int:
        """Numbers in the piece of a parameter of this shape."""
        total = 1
        for size in shape:
            total *= int(size)
        return total // int(shape[self.axis]) * self.groups * (self.stop - self.start)


@dataclass(frozen=True)
class Modules:
    """All pieces of a decoder, weights and biases, and the `shapes` of all parameters by name."""

    layers: int
    pieces: tuple[Piece, ...]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def types(self) -> tuple[str, ...]:
        """The types this decoder has: an MLP without gates has no `gate`."""
        found = {piece.type for piece in self.pieces}
        return tuple(name for name in TYPES if name in found)

    @cached_property
    def others(self) -> tuple[str, ...]:
        """Names of the parameters that are of no type."""
        own = {piece.parameter for piece in self.pieces}
        return tuple(name for name in self.shapes if name not in own)

    def of(self, types: Iterable[str], layer: int | None = None, *, matrices: bool = False) -> list[Piece]:
        """The pieces of these types, of one layer or all; `matrices` leaves biases out."""
        wanted = set(types)
        return [
            piece
            for piece in self.pieces
            if piece.type in wanted
            and (layer is None or piece.layer == layer)
            and (piece.is_matrix or not matrices)
        ]

    def parameters(self, types: Iterable[str]) -> int:
        """Weights (not biases) of these types."""
        return sum(piece.numel(self.shapes[piece.parameter]) for piece in self.of(types, matrices=True))

    def share(self, types: Iterable[str]) -> float:
        """Their share of the weights of all types."""
        return self.parameters(types) / self.parameters(TYPES)

    def lora_parameters(self, types: Iterable[str], rank: int) -> int:
        """Parameters of a LoRA of this rank on these types: rank x (inputs + outputs) of each matrix."""
        return sum(self.lora_numel(piece, rank) for piece in self.of(types, matrices=True))

    def lora_numel(self, piece: Piece, rank: int) -> int:
        """Parameters of a LoRA of this rank on one matrix, on each expert where there are several."""
        shape = self.shapes[piece.parameter]
        outputs = piece.groups * (piece.stop - piece.start)
        experts = int(shape[0]) if len(shape) == 3 else 1
        return experts * rank * (outputs + piece.numel(shape) // outputs // experts)


def members(name: str, types: Sequence[str] = TYPES) -> tuple[str, ...]:
    """The types that a name stands for: a type, `attn`, `mlp`, `all`, or several joined by ``+``.

    Raises `AffectbenchError` for a name that is none, and for a type that is not among `types`.
    """
    found: set[str] = set()
    for part in name.split("+"):
        if part not in TYPES and part not in GROUPS:
            known = (*TYPES, *GROUPS)
            raise AffectbenchError(
                f"module type {part!r} does not exist{suggest(part, known)}",
                hint=f"types: {', '.join(known)}",
            )
        own = set(GROUPS.get(part, (part,)))
        if not own & set(types):
            raise AffectbenchError(f"this model has no modules of type {part!r}", hint=f"it has {types}")
        found |= own & set(types)
    return tuple(each for each in TYPES if each in found)


def modules_of(model: Model) -> Modules:
    """The pieces of a loaded model, by the names of its network's parameters."""
    network = model.network
    stack = next(
        (name.rpartition(".")[0] for name, module in network.named_modules() if module is model.layers[0]),
        None,
    )
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    return locate(shapes, model.text_config, stack)


def locate(shapes: Mapping[str, Sequence[int]], config: Any, stack: str | None = None) -> Modules:
    """The pieces among parameters of these names and shapes.

    Args:
        shapes: of all parameters of a network, or of all tensors of a checkpoint.
        config: of the decoder (transformers').
        stack: the name before the layers' numbers; found by itself where only one fits.

    Raises:
        AffectbenchError: no decoder, several, or a fused weight whose order is not known.
    """
    count = int(config.num_hidden_layers)
    stack = _stack(shapes, count) if stack is None else stack
    found: list[Piece] = []
    for name, shape in shapes.items():
        match = LAYER.fullmatch(name)
        if match is not None and match["stack"] == stack:
            found += _pieces(name, match["rest"], int(match["layer"]), tuple(shape), config)
    if not found:
        raise AffectbenchError(
            f"no weights of known modules below {stack!r}", hint=f"looked for {', '.join(PLAIN)}"
        )
    order = {name: place for place, name in enumerate(TYPES)}
    found.sort(key=lambda piece: (piece.layer, order[piece.type]))
    return Modules(count, tuple(found), {name: tuple(shape) for name, shape in shapes.items()})


def _stack(names: Iterable[str], count: int) -> str:
    """What stands before the numbers of the decoder's layers."""
    layers: dict[str, set[int]] = {}
    for name in names:
        match = LAYER.fullmatch(name)
        if match is not None:
            layers.setdefault(match["stack"], set()).add(int(match["layer"]))
    fitting = [stack for stack, found in layers.items() if found == set(range(count))]
    fitting = [name for name in fitting if not any(word in name for word in TOWERS)] or fitting
    if len(fitting) != 1:
        raise AffectbenchError(
            f"expected one stack of {count} decoder layers among the weights, found {len(fitting)}: "
            f"{', '.join(fitting) or 'none'}",
            hint="the checkpoint is of another class, or a part of it is missing",
        )
    return fitting[0]


def _pieces(name: str, rest: str, layer: int, shape: tuple[int, ...], config: Any) -> list[Piece]:
    """What one parameter of a layer holds."""
    *parents, leaf = rest.split(".")
    bias = leaf == "bias" or leaf.endswith("_bias")
    if leaf in ("weight", "bias") and parents:
        leaf = parents.pop()
    leaf = leaf.removesuffix("_bias")
    attention = any("attn" in part or "attention" in part for part in parents)
    parts = _parts(leaf, attention, "experts" in parents)
    if not parts:
        return []
    axis = len(shape) - 1 if bias else _axis(leaf, shape, config)
    total = shape[axis]
    groups, sizes = 1, [total // len(parts)] * len(parts)
    if len(parts) == 3:
        groups, sizes = _thirds(name, leaf, total, config)
    elif len(parts) == 2 and str(getattr(config, "model_type", "")).startswith("gpt_oss"):
        groups, sizes = total // 2, [1, 1]  # Gate and up alternate.
    if sum(sizes) * groups != total:
        raise AffectbenchError(
            f"{name}: {total} outputs do not split into {', '.join(parts)} of {sizes}",
            hint="the configuration is of another checkpoint",
        )
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    return [
        Piece(part, layer, name, axis, groups, start, start + size, not bias)
        for part, start, size in zip(parts, starts, sizes, strict=True)
    ]


def _parts(leaf: str, attention: bool, expert: bool) -> tuple[str, ...]:
    """The types in a weight of this name, in order; none where it is of no type."""
    if leaf == "gate_up_proj":
        return ("gate", "up")
    if leaf in THIRDS:
        return ("q", "k", "v")
    if leaf in ("c_proj", "dense"):
        return ("o",) if attention else ("down",) if leaf == "c_proj" else ()
    if leaf in EXPERT:
        return (EXPERT[leaf],) if expert else ()
    return (PLAIN[leaf],) if leaf in PLAIN else ()


def _axis(leaf: str, shape: tuple[int, ...], config: Any) -> int:
    """The axis of a weight's outputs. Matrices are (outputs, inputs) but GPT-2's; experts are either."""
    if len(shape) == 3:
        hidden = int(config.hidden_size)
        inputs_last = shape[2] == hidden if leaf != "down_proj" else shape[1] == hidden
        return 1 if inputs_last else 2
    return 1 if getattr(config, "model_type", "") == "gpt2" else 0


def _thirds(name: str, leaf: str, total: int, config: Any) -> tuple[int, list[int]]:
    """How a fused q, k, v is laid out: groups, and outputs of each in a group."""
    heads = int(config.num_attention_heads)
    if leaf == "query_key_value":
        if getattr(config, "model_type", "") != "gpt_neox":
            raise AffectbenchError(
                f"{name}: in which order this family fuses q, k and v is not known",
                hint="known: qkv_proj, c_attn, and query_key_value of GPT-NeoX",
            )
        return heads, [total // heads // 3] * 3
    if leaf == "c_attn":
        return 1, [total // 3] * 3
    size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    own = int(getattr(config, "num_key_value_heads", None) or heads)
    return 1, [heads * size, own * size, own * size]
