"""Edits of activations: what they are, how they compose, and the one place that hooks them into a model.

Rows of one batch may carry different interventions: `PackedEdits` lays K interventions over the same B
items as K blocks of B rows and edits each block on its own, in one forward pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from affectbench.errors import AffectbenchError
from affectbench.sites import SITES, FloatArray, SiteShape, UnitArray

if TYPE_CHECKING:
    import torch

    from affectbench.experts import Routed

Operation = Literal["scale", "mean"]
Positions = Literal["all", "content", "audio", "answer"]

VALID, CONTENT, AUDIO, ANSWER = 1, 2, 4, 8
"""Role bits of a token. Padding has none; ANSWER marks the last prompt token and all generated ones."""
ROLE_BIT: dict[str, int] = {"all": VALID, "content": CONTENT, "audio": AUDIO, "answer": ANSWER}


@dataclass(frozen=True)
class Edit:
    """One operation on some units of one site.

    ``scale`` multiplies each unit by `value` (0 deactivates, 1 + alpha is a gain); ``mean`` replaces it by
    `value`, its mean over identification items. `value` has shape (units,).
    """

    site: str
    shape: SiteShape
    units: UnitArray
    operation: Operation
    value: FloatArray
    positions: Positions = "all"

    def __post_init__(self) -> None:
        if self.site not in SITES:
            raise AffectbenchError(f"site {self.site!r} does not exist", hint=f"sites: {', '.join(SITES)}")
        if self.operation not in ("scale", "mean"):
            raise AffectbenchError(
                f"operation {self.operation!r} does not exist", hint="operations: scale, mean"
            )
        if self.positions not in ROLE_BIT:
            raise AffectbenchError(
                f"positions {self.positions!r} do not exist", hint=f"positions: {', '.join(ROLE_BIT)}"
            )
        if self.value.shape != self.units.shape:
            raise AffectbenchError(
                f"{self.value.size} values for {self.units.size} units", hint="give one value for each unit"
            )
        if not np.isfinite(self.value).all():
            raise AffectbenchError(
                "an edit has a value that is not finite", hint="check the dose and the means"
            )
        self.shape.check(self.units, f"edit of site {self.site!r}")

    @cached_property
    def by_layer(self) -> dict[int, tuple[UnitArray, UnitArray]]:
        """``{layer: (channels, places)}``; `places` index `units` and `value`."""
        return self.shape.by_layer(self.units)

    @property
    def is_noop(self) -> bool:
        return self.units.size == 0 or (self.operation == "scale" and bool((self.value == 1.0).all()))


def scale(
    site: str, shape: SiteShape, units: UnitArray, factor: float, positions: Positions = "all"
) -> Intervention:
    """Multiply `units` by `factor`: 0 deactivates them, 1 leaves them alone, above 1 is a gain."""
    return Intervention((Edit(site, shape, units, "scale", np.full(units.shape, float(factor)), positions),))


def mean_ablation(
    site: str, shape: SiteShape, units: UnitArray, means: FloatArray, positions: Positions = "all"
) -> Intervention:
    """Replace `units` by their means; `means` holds one value for every unit of the site, shape (units,)."""
    return Intervention((Edit(site, shape, units, "mean", means[units], positions),))


@dataclass(frozen=True)
class Intervention:
    """Edits applied together, in order, in one forward pass. No edits: the model as it is."""

    edits: tuple[Edit, ...] = ()

    @cached_property
    def effective(self) -> tuple[Edit, ...]:
        """The edits that change anything: a no-op never reaches the model, so it is bit-identical."""
        return tuple(edit for edit in self.edits if not edit.is_noop)

    @cached_property
    def digest(self) -> str:
        """Content hash, equal for interventions that do the same thing."""
        digest = hashlib.sha256()
        for edit in self.effective:
            order = np.argsort(edit.units, kind="stable")
            digest.update(f"{edit.site} {edit.operation} {edit.positions} {edit.shape.width}\n".encode())
            digest.update(np.ascontiguousarray(edit.units[order], dtype="<i8").tobytes())
            digest.update(np.ascontiguousarray(edit.value[order], dtype="<f8").tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def parted(self) -> tuple[tuple[Edit, ...], Intervention]:
        """The edits of the first edited layer, and the intervention without them."""
        here: list[Edit] = []
        rest: list[Edit] = []
        for edit in self.effective:
            inside = edit.units // edit.shape.width == self.first_layer
            for chosen, found in ((inside, here), (~inside, rest)):
                if chosen.any():
                    found.append(replace(edit, units=edit.units[chosen], value=edit.value[chosen]))
        return tuple(here), Intervention(tuple(rest))

    @cached_property
    def first_layer(self) -> int | None:
        """Lowest layer that is edited; None where nothing is."""
        layers = [int(edit.units.min()) // edit.shape.width for edit in self.effective]
        return min(layers) if layers else None


UNTOUCHED = Intervention()


@dataclass
class BlockEdit:
    """One edit of one layer, for the rows of one intervention."""

    block: int
    channels: torch.Tensor
    operation: Operation
    value: torch.Tensor
    bit: int

    def on(self, device: torch.device) -> BlockEdit:
        """The same edit on the device of what it edits."""
        return replace(self, channels=self.channels.to(device), value=self.value.to(device))

    def where(self, roles: torch.Tensor | None, tokens: int) -> torch.Tensor | None:
        """Which of a block's `tokens` are edited, item by item, shape (tokens,); None where all are."""
        if self.bit == VALID:
            return None
        assert roles is not None, "roles are set before each forward pass"
        # The last layer may see fewer columns: the ones that are read, at the end.
        found = (roles[:, -(tokens // roles.shape[0]) :] & self.bit).bool().flatten()
        found = found.to(self.channels.device)
        return found.expand(tokens) if found.numel() == 1 else found


@dataclass
class PackedEdits:
    """K interventions over the same B items: row ``k * B + b`` is item b under intervention k, until rows
    are dropped.

    `roles` (B, T), or (1, 1) where all agree, tells the role bits of the tokens that the next forward pass
    will see; whoever runs the model sets it before each pass.
    """

    interventions: Sequence[Intervention]
    device: torch.device
    dtype: torch.dtype
    roles: torch.Tensor | None = None
    _bounds: list[int] | None = field(init=False, default=None)
    _points: dict[tuple[str, int], list[BlockEdit]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        import torch

        for block, intervention in enumerate(self.interventions):
            for edit in intervention.effective:
                value = torch.as_tensor(edit.value, dtype=self.dtype, device=self.device)
                for layer, (channels, places) in edit.by_layer.items():
                    self._points.setdefault((edit.site, layer), []).append(
                        BlockEdit(
                            block,
                            torch.as_tensor(channels, device=self.device),
                            edit.operation,
                            value[torch.as_tensor(places, device=self.device)],
                            ROLE_BIT[edit.positions],
                        )
                    )

    @property
    def points(self) -> list[tuple[str, int]]:
        """The (site, layer) pairs that at least one row edits."""
        return sorted(self._points)

    def keep(self, rows: torch.Tensor, items: int) -> None:
        """From here on the batch holds these rows alone: ascending places among the K * `items` it had."""
        import torch

        starts = torch.arange(len(self.interventions) + 1, device=rows.device) * items
        self._bounds = torch.searchsorted(rows, starts).tolist()

    def block(self, number: int, length: int) -> slice:
        """Where the rows of one intervention stand in a batch of `length` rows, or among that many tokens."""
        bounds = self._bounds or range(len(self.interventions) + 1)
        times = length // bounds[-1]
        return slice(bounds[number] * times, bounds[number + 1] * times)

    def _on(self, point: tuple[str, int], device: torch.device) -> list[BlockEdit]:
        """The edits of a point, moved once to where its layer is run."""
        found = self._points[point]
        if found[0].channels.device != device:
            found = self._points[point] = [edit.on(device) for edit in found]
        return found

    def apply(self, site: str, layer: int, activation: torch.Tensor | Routed) -> torch.Tensor | Routed:
        """Edit `activation` (rows, T, width) block by block; returns a tensor of the same shape."""
        import torch

        if not isinstance(activation, torch.Tensor):
            edits = self._on((site, layer), activation.values.device)
            return activation.edited(edits, self.block, self.roles)
        blocks = activation.clone() if torch.is_grad_enabled() else activation
        for edit in self._on((site, layer), blocks.device):
            rows = blocks[self.block(edit.block, blocks.shape[0])]
            chosen = rows[..., edit.channels]
            changed = chosen * edit.value if edit.operation == "scale" else edit.value.expand_as(chosen)
            here = edit.where(self.roles, rows.shape[0] * rows.shape[1])
            if here is not None:
                changed = torch.where(here.view(*rows.shape[:2], 1), changed, chosen)
            rows[..., edit.channels] = changed
        return blocks


Hook = Callable[..., Any]


@contextmanager
def hooked(points: Sequence[tuple[Any, Literal["input", "output"], Hook]]) -> Iterator[None]:
    """Attach each ``(module, side, function)`` and detach all of them on the way out, also after an error.

    `function` receives the tensor at that side of the module and returns its replacement, or None to leave
    it. A tuple output is handled by editing its first element.
    """
    handles: list[Any] = []
    try:
        for module, side, function in points:
            if side == "input":
                handles.append(module.register_forward_pre_hook(_input_hook(function)))
            else:
                handles.append(module.register_forward_hook(_output_hook(function)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _input_hook(function: Hook) -> Hook:
    def hook(_module: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        replaced = function(args[0])
        return None if replaced is None else (replaced, *args[1:])

    return hook


def _output_hook(function: Hook) -> Hook:
    def hook(_module: Any, _args: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, tuple):
            replaced = function(output[0])
            return None if replaced is None else (replaced, *output[1:])
        return function(output)

    return hook
