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
from affectbench.sites import (
    COMPONENT,
    DAMAGES,
    FEATURE,
    MODULE,
    READ_ONLY,
    SITES,
    FloatArray,
    SiteShape,
    UnitArray,
    check_weights,
)

if TYPE_CHECKING:
    import torch

    from affectbench.experts import Routed
    from affectbench.views import PlainView

Operation = Literal["scale", "mean", "add", "project", "zero", "noise", "shuffle", "negate"]
OPERATIONS: tuple[Operation, ...] = ("scale", "mean", "add", "project", *DAMAGES)
Positions = Literal["all", "content", "audio", "answer"]

VALID, CONTENT, AUDIO, ANSWER = 1, 2, 4, 8
"""Role bits of a token. Padding has none; ANSWER marks the last prompt token and all generated ones."""
ROLE_BIT: dict[str, int] = {"all": VALID, "content": CONTENT, "audio": AUDIO, "answer": ANSWER}


@dataclass(frozen=True)
class Edit:
    """One operation on some units of one site; a is what a unit does, v its `value`.

    ``scale`` multiplies a unit by v (0 deactivates, 1 + alpha is a gain); ``mean`` replaces it by v; ``add``
    adds v, or with `relative` v times the root mean square of the whole hooked vector; ``project`` takes v's
    share out, a - (a . v) v. `value` has shape (units,) for ``scale``, else (channels of these units,), unit
    by unit.

    At the site `module` a is what an adaptation changed in a weight, so ``scale`` by 0 puts the base back.
    In the base, where the change is not there, ``add`` puts it in, as much as `value` says. Weights can be
    damaged, too: ``zero`` leaves none, ``noise`` puts Gaussian noise of the same norm in the place of the
    change, ``shuffle`` permutes its rows, ``negate`` takes it from the base; `value` is the seed of what is
    drawn.
    """

    site: str
    shape: SiteShape
    units: UnitArray
    operation: Operation
    value: FloatArray
    positions: Positions = "all"
    relative: bool = False

    def __post_init__(self) -> None:
        self._check_site()
        if self.operation not in OPERATIONS:
            raise AffectbenchError(
                f"operation {self.operation!r} does not exist", hint=f"operations: {', '.join(OPERATIONS)}"
            )
        if self.positions not in ROLE_BIT:
            raise AffectbenchError(
                f"positions {self.positions!r} do not exist", hint=f"positions: {', '.join(ROLE_BIT)}"
            )
        if self.relative and self.operation != "add":
            raise AffectbenchError(f"an edit {self.operation!r} cannot be relative", hint="only `add` can")
        check_weights(self.site, self.operation, self.positions)
        size = 1 if self.operation == "scale" else self.shape.size
        if self.value.shape != (self.units.size * size,):
            raise AffectbenchError(
                f"{self.value.size} values for {self.units.size} units",
                hint="give one value for each unit"
                if size == 1
                else f"give {size} values for each unit, one after the other, in one row",
            )
        if not np.isfinite(self.value).all():
            raise AffectbenchError(
                "an edit has a value that is not finite", hint="check the dose and the means"
            )
        self.shape.check(self.units, f"edit of site {self.site!r}")

    def _check_site(self) -> None:
        if self.site in READ_ONLY:
            raise AffectbenchError(f"site {self.site!r} can be read and not edited", hint="edit `attention`")
        if self.site == COMPONENT:
            raise AffectbenchError(
                "units of the site 'component' are edited as neurons and heads", hint="see `SiteShape.split`"
            )
        if self.site not in SITES:
            raise AffectbenchError(f"site {self.site!r} does not exist", hint=f"sites: {', '.join(SITES)}")

    @cached_property
    def by_layer(self) -> dict[int, tuple[UnitArray, UnitArray]]:
        """``{layer: (units, places)}``; `places` index `units`."""
        return self.shape.by_layer(self.units)

    @cached_property
    def channel_values(self) -> FloatArray:
        """The value of each channel of each unit, shape (units, channels of a unit)."""
        if self.operation == "scale":
            return np.repeat(self.value[:, None], self.shape.size, axis=1)
        return self.value.reshape(-1, self.shape.size)

    def of(self, places: UnitArray) -> Edit:
        """The edit of the units at these places alone."""
        value = self.value.reshape(self.units.size, -1)[places].ravel()
        return replace(self, units=self.units[places], value=value)

    @property
    def is_noop(self) -> bool:
        if self.units.size == 0:
            return True
        nothing = {"scale": 1.0, "add": 0.0, "project": 0.0}.get(self.operation)
        return nothing is not None and bool((self.value == nothing).all())


def scale(
    site: str, shape: SiteShape, units: UnitArray, factor: float, positions: Positions = "all"
) -> Intervention:
    """Multiply `units` by `factor`: 0 deactivates them, 1 leaves them alone, above 1 is a gain."""
    return Intervention((Edit(site, shape, units, "scale", np.full(units.shape, float(factor)), positions),))


def mean_ablation(
    site: str, shape: SiteShape, units: UnitArray, means: FloatArray, positions: Positions = "all"
) -> Intervention:
    """Replace `units` by their means; `means` has one value for every channel of the site, by layer."""
    value = means[shape.spread(units)]
    return Intervention((Edit(site, shape, units, "mean", value, positions),))


def add(
    site: str,
    shape: SiteShape,
    units: UnitArray,
    values: FloatArray,
    positions: Positions = "all",
    *,
    relative: bool = False,
) -> Intervention:
    """Add `values` (channels of the units,) to `units`; with `relative`, times the root mean square of the
    vector that the units are part of."""
    edit = Edit(site, shape, units, "add", np.asarray(values, dtype=np.float64).ravel(), positions, relative)
    return Intervention((edit,))


def project(
    site: str,
    shape: SiteShape,
    units: UnitArray,
    directions: FloatArray,
    kept: float = 0.0,
    positions: Positions = "all",
) -> Intervention:
    """Leave the share `kept` of what `units` have along their `directions` (channels of the units,).

    A unit whose direction is 0 is left alone.
    """
    rows = np.asarray(directions, dtype=np.float64).reshape(units.size, -1)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    value = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0) * np.sqrt(1.0 - kept)
    return Intervention((Edit(site, shape, units, "project", value.ravel(), positions),))


@dataclass(frozen=True)
class Intervention:
    """Edits applied together, in order, in one forward pass. No edits: the model as it is."""

    edits: tuple[Edit, ...] = ()

    @cached_property
    def effective(self) -> tuple[Edit, ...]:
        """The edits that change anything: a no-op never reaches the model, so it is bit-identical."""
        return tuple(edit for edit in self.edits if not edit.is_noop)

    @cached_property
    def parts(self) -> tuple[tuple[Edit, ...], Intervention]:
        """The edits of weights, and the intervention without them, which hooks can carry."""
        weights = tuple(edit for edit in self.effective if edit.site == MODULE)
        rest = tuple(edit for edit in self.edits if edit.site != MODULE)
        return weights, Intervention(rest) if weights else self

    @cached_property
    def digest(self) -> str:
        """Content hash, equal for interventions that do the same thing."""
        digest = hashlib.sha256()
        for edit in self.effective:
            order = np.argsort(edit.units, kind="stable")
            relative = " relative" if edit.relative else ""
            name = f"{edit.site} {edit.operation}{relative} {edit.positions} {edit.shape.width}\n"
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(edit.units[order], dtype="<i8").tobytes())
            values = edit.value.reshape(edit.units.size, -1)[order]
            digest.update(np.ascontiguousarray(values, dtype="<f8").tobytes())
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
                    found.append(edit.of(np.flatnonzero(chosen)))
        return tuple(here), Intervention(tuple(rest))

    @cached_property
    def first_layer(self) -> int | None:
        """Lowest layer that is edited; None where nothing is."""
        layers = [int(edit.units.min()) // edit.shape.width for edit in self.effective]
        return min(layers) if layers else None


UNTOUCHED = Intervention()


@dataclass
class BlockEdit:
    """One edit of one layer, for the rows of one intervention. `channels` (units * size,) and `value` alike,
    unit by unit, each of `size` channels."""

    block: int
    channels: torch.Tensor
    operation: Operation
    value: torch.Tensor
    bit: int
    size: int = 1
    relative: bool = False

    def changed(self, chosen: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """What becomes of `chosen` (..., channels of the edit), part of the hooked vectors `whole`."""
        if self.operation == "scale":
            return chosen * self.value
        if self.operation == "mean":
            return self.value.expand_as(chosen)
        if self.operation == "add":
            if not self.relative:
                return chosen + self.value
            rms = whole.float().pow(2).mean(-1, keepdim=True).sqrt()
            return chosen + (self.value * rms).to(chosen.dtype)
        direction = self.value.view(-1, self.size)
        units = chosen.reshape(*chosen.shape[:-1], *direction.shape)
        along = (units * direction).sum(-1, keepdim=True)
        return (units - along * direction).reshape(chosen.shape)

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
                dtype = torch.float32 if edit.site == FEATURE else self.dtype
                value = torch.as_tensor(edit.channel_values, dtype=dtype, device=self.device)
                for layer, (units, places) in edit.by_layer.items():
                    self._points.setdefault((edit.site, layer), []).append(
                        BlockEdit(
                            block,
                            torch.as_tensor(edit.shape.spread(units), device=self.device),
                            edit.operation,
                            value[torch.as_tensor(places, device=self.device)].ravel(),
                            ROLE_BIT[edit.positions],
                            edit.shape.size,
                            edit.relative,
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

    def apply(
        self, site: str, layer: int, activation: torch.Tensor | Routed, view: PlainView
    ) -> torch.Tensor | Routed:
        """Edit `activation` (rows, T, width) block by block; returns a tensor of the same shape. `view` tells
        how it holds the activations of the site."""
        import torch

        if not isinstance(activation, torch.Tensor):
            edits = self._on((site, layer), activation.values.device)
            return activation.edited(edits, self.block, self.roles)
        blocks = activation.clone() if torch.is_grad_enabled() else activation
        for edit in self._on((site, layer), blocks.device):
            rows = blocks[self.block(edit.block, blocks.shape[0])]
            chosen = view.read(rows, edit.channels)
            here = edit.where(self.roles, rows.shape[0] * rows.shape[1])
            here = None if here is None else here.view(*rows.shape[:2], 1)
            view.write(rows, edit.channels, chosen, edit.changed(chosen, rows), here)
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
