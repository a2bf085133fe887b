"""One intervention, one full forward pass: with plain hooks, with nnsight, and with pyvene.

Each way edits the same module outputs in place and calls the model's own forward; they differ only in how the
edit gets there. Nothing of a pass is kept for the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from torch import Tensor

from affectbench.intervention import Intervention
from affectbench.model import Model
from affectbench.products import OneDnnLinear
from affectbench.sites import GATE
from benchmarks.measuring import BenchmarkError

Forward = Callable[[dict[str, Any]], Tensor]
"""Inputs of the model's own forward, by keyword -> logits (B, T or 1, V)."""
Point = tuple[int, Tensor, Tensor]
"""(layer, channels, factors)"""


def as_loaded(model: Model) -> Model:
    """The same model with the matrix products that transformers loads it with, in place."""
    for module in model.network.modules():
        if type(module) is OneDnnLinear:
            module.__class__ = torch.nn.Linear  # type: ignore[assignment]
    return model


class Way(Protocol):
    """How an intervention is put into a model."""

    name: str

    def edited(self, intervention: Intervention) -> Any:
        """A context that gives the model's `Forward` under `intervention`."""


def points(model: Model, intervention: Intervention) -> list[Point]:
    """What an intervention multiplies, layer by layer. The grid has nothing but gains of gate units at all
    positions; anything else is an error, not a silent difference."""
    found: list[Point] = []
    for edit in intervention.effective:
        if (edit.site, edit.operation, edit.positions) != (GATE, "scale", "all"):
            raise BenchmarkError(f"the other ways are not written for {edit.operation} of {edit.site}")
        for layer, (channels, places) in sorted(edit.shape.by_layer(edit.units).items()):
            factors = torch.as_tensor(edit.value[places], dtype=model.dtype, device=model.device)
            found.append((layer, torch.as_tensor(channels, device=model.device), factors))
    return found


class Hooks:
    """The straightforward way: forward hooks that stay for as long as the intervention is asked about."""

    name = "hooks"

    def __init__(self, model: Model) -> None:
        self.model = model

    @contextmanager
    def edited(self, intervention: Intervention) -> Iterator[Forward]:
        handles = [
            self.model.activation(layer).register_forward_hook(_multiplying(channels, factors))
            for layer, channels, factors in points(self.model, intervention)
        ]
        try:
            yield lambda inputs: self.model.network(**inputs).logits
        finally:
            for handle in handles:
                handle.remove()


def _multiplying(channels: Tensor, factors: Tensor) -> Callable[..., None]:
    def hook(_module: Any, _arguments: Any, output: Tensor) -> None:
        output[..., channels] *= factors

    return hook


class NNsight:
    """nnsight: one trace a batch, edits written into ``module.output``, the logits saved.

    Several invokes in one trace would batch prompts, not save passes, and need nnsight's own tokenising
    wrapper; the base wrapper takes the inputs as they are, audio embeddings too.
    """

    name = "nnsight"

    def __init__(self, model: Model) -> None:
        import nnsight

        self.model = model
        self.traced = nnsight.NNsight(model.network)
        self.decoder = reduce(getattr, _path(model).split("."), self.traced)

    @contextmanager
    def edited(self, intervention: Intervention) -> Iterator[Forward]:
        found = points(self.model, intervention)

        def forward(inputs: dict[str, Any]) -> Tensor:
            with self.traced.trace(**inputs):
                for layer, channels, factors in found:
                    self.decoder.layers[layer].mlp.act_fn.output[..., channels] *= factors
                logits: Tensor = self.traced.output.logits.save()
            return logits

        yield forward


class Pyvene:
    """pyvene: an `IntervenableModel` for each intervention, on the edited layers alone, for all batches."""

    name = "pyvene"

    def __init__(self, model: Model) -> None:
        self.model = model

    @contextmanager
    def edited(self, intervention: Intervention) -> Iterator[Forward]:
        import pyvene

        path = _path(self.model)
        config = [
            {
                "component": f"{path}.layers[{layer}].mlp.act_fn.output",
                "intervention": _scaling(channels, factors),
            }
            for layer, channels, factors in points(self.model, intervention)
        ]
        if not config:
            yield lambda inputs: self.model.network(**inputs).logits
            return
        intervened = pyvene.IntervenableModel(config, model=self.model.network)
        yield lambda inputs: intervened(base=inputs)[1].logits


def _scaling(channels: Tensor, factors: Tensor) -> Callable[[Tensor, Any], Tensor]:
    def intervention(base: Tensor, _source: Any) -> Tensor:
        base[..., channels] *= factors
        return base

    return intervention


def _path(model: Model) -> str:
    """Dotted name of the decoder inside the network."""
    names: dict[Any, str] = {module: name for name, module in model.network.named_modules()}
    return names[model.decoder]


PEERS: dict[str, type[NNsight] | type[Pyvene]] = {"nnsight": NNsight, "pyvene": Pyvene}


def installed_peers() -> tuple[list[type[NNsight] | type[Pyvene]], tuple[str, ...]]:
    """The peers that can be imported, and a line for each that cannot."""
    found = [way for name, way in PEERS.items() if find_spec(name) is not None]
    missing = [name for name in PEERS if find_spec(name) is None]
    lines = tuple(f"{name} is not installed: pip install -e '.[bench]'" for name in missing)
    return found, lines


def peer_versions() -> dict[str, str]:
    """Installed versions of the peers."""
    versions = {}
    for name in PEERS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions
