"""Checks against other people's tools that edit activations: nnsight and pyvene, where they are installed."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affectbench.conformance_oracle import inputs
from affectbench.conformance_subject import LABELS, Check, Measured, Result, Skipped, Subject, distance
from affectbench.engine import Engine
from affectbench.intervention import Intervention, scale
from affectbench.readout import Readout
from affectbench.sites import GATE

Point = tuple[str, str, Tensor, Tensor]
"""(dotted module, its side, channels, factors)"""
Forward = Callable[[Subject, list[Point], dict[str, Any]], Tensor]
"""Logits (1, T, V) of the class's own forward under edits."""


def _interventions(subject: Subject) -> list[Intervention]:
    shape = subject.model.shape
    spread = np.sort(np.random.default_rng(6).choice(shape.units, 9, replace=False))
    found = []
    for site in subject.sites:
        found += [scale(site, shape, spread, 0.0), scale(site, shape, np.arange(5), 3.0)]
    return found


def _points(subject: Subject, intervention: Intervention) -> list[Point]:
    model = subject.model
    names: dict[Any, str] = {module: name for name, module in model.network.named_modules()}
    found = []
    for edit in intervention.effective:
        side = "output" if edit.site == GATE else "input"
        for layer, (channels, places) in sorted(edit.shape.by_layer(edit.units).items()):
            module = model.activation(layer) if edit.site == GATE else model.down(layer)
            factors = torch.as_tensor(edit.value[places], dtype=model.dtype, device=model.device)
            found.append((names[module], side, torch.as_tensor(channels, device=model.device), factors))
    return found


def against(subject: Subject, package: str, forward: Forward) -> Result:
    """Scores of answers' first tokens, of each item alone under each edit, by the other tool; and by the
    engine, all in one go."""
    if find_spec(package) is None:
        raise Skipped(f"{package} is not installed: pip install 'affectbench[bench]'")
    if subject.routed:
        raise Skipped("the units of experts have no module of their own that it could edit")
    chosen, firsts = _interventions(subject), tuple((tokens[0],) for tokens in subject.readout().candidates)
    asked = Readout(LABELS, firsts)
    found = Engine(subject.model).predict(subject.some(subject.places), asked, chosen).scores
    worst = 0.0
    for row, intervention in enumerate(chosen):
        points = _points(subject, intervention)
        for column, place in enumerate(subject.places):
            given: dict[str, Any] = {**inputs(subject, place), "use_cache": False}
            logits = forward(subject, points, given)[0, -1].float().log_softmax(-1)
            expected = [float(logits[token]) for (token,) in firsts]
            worst = max(worst, distance(found[row, column], expected))
    return Measured(worst, subject.tolerance, f"scores under {len(chosen)} edits, ours and of {package}")


def _nnsight(subject: Subject, points: list[Point], given: dict[str, Any]) -> Tensor:
    import nnsight

    traced = nnsight.NNsight(subject.model.network)
    modules = [reduce(_step, name.split("."), traced) for name, *_ in points]
    with traced.trace(**given):
        for module, (_, side, channels, factors) in zip(modules, points, strict=True):
            if side == "output":
                module.output[..., channels] *= factors
            else:
                module.input[..., channels] *= factors
        logits: Tensor = traced.output.logits.save()
    return logits


def _step(module: Any, name: str) -> Any:
    return module[int(name)] if name.isdigit() else getattr(module, name)


def _pyvene(subject: Subject, points: list[Point], given: dict[str, Any]) -> Tensor:
    import pyvene

    def dotted(name: str) -> str:
        parts = [f"[{part}]" if part.isdigit() else f".{part}" for part in name.split(".")]
        return "".join(parts).lstrip(".")

    config = [
        {"component": f"{dotted(name)}.{side}", "intervention": _scaling(channels, factors)}
        for name, side, channels, factors in points
    ]
    intervened = pyvene.IntervenableModel(config, model=subject.model.network)
    logits: Tensor = intervened(base=given)[1].logits
    return logits


def _scaling(channels: Tensor, factors: Tensor) -> Callable[[Tensor, Any], Tensor]:
    def intervention(base: Tensor, _source: Any) -> Tensor:
        base[..., channels] *= factors
        return base

    return intervention


def nnsight(subject: Subject) -> Result:
    return against(subject, "nnsight", _nnsight)


def pyvene(subject: Subject) -> Result:
    return against(subject, "pyvene", _pyvene)


NEEDS = ("packed",)
CHECKS = (
    Check(
        "nnsight", "Agreement with nnsight",
        "The same edits through nnsight's traces give the same scores.",
        "`site_module`", nnsight, NEEDS,
    ),
    Check(
        "pyvene", "Agreement with pyvene",
        "The same edits through pyvene's interventions give the same scores.",
        "`site_module`", pyvene, NEEDS,
    ),
)  # fmt: skip
