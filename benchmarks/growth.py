"""(4) How the cost of answers grows with interventions, items and layers: exponents of a power law."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from affectbench.dataset import load_benchmark
from affectbench.engine import Engine
from affectbench.intervention import Intervention, scale
from affectbench.model import Model
from affectbench.placement import load_model
from affectbench.plan import job_of_names
from affectbench.readout import Items, Readout
from affectbench.registry import Registry
from affectbench.session import Session
from benchmarks.measuring import Report, Result, Settings, compared, in_turn
from benchmarks.one_at_a_time import answers, inputs_of
from benchmarks.ways import Hooks

UNITS = 0.02
"""Share of units that an intervention touches, spread over all layers, as the quick start's random draws."""
Ask = tuple[Model, Items, list[Intervention]]


def growth(settings: Settings) -> Report:
    """CPU time against each size, the others fixed: slope of log time against log size."""
    registry = Registry()
    job = job_of_names(registry, "reference-text", None, ["random"], ["zero-gain"], 0)
    model = load_model(registry, job, "cpu")
    session = Session(model, job.benchmark, load_benchmark(job.benchmark), registry.benchmark)
    items = session.items("identification")
    sizes: dict[str, tuple[Sequence[int], Callable[[int], Ask]]] = {
        "interventions, 64 items": (
            (2, 4) if settings.quick else (4, 8, 16, 32, 64),
            lambda k: (model, _first(items, 64), _random_edits(model, k)),
        ),
        "items, 8 interventions": (
            (16, 32) if settings.quick else (32, 64, 128, 256, 512),
            lambda n: (model, _first(items, n), _random_edits(model, 8)),
        ),
        "layers, 8 interventions on 64 items": (
            (1, 2) if settings.quick else (2, 4, 8, 16, 32),
            lambda layers: _deep(model, layers, _first(items, 64)),
        ),
    }
    return Report([_exponents(what, *found, session.readout, settings) for what, found in sizes.items()])


def _exponents(
    what: str, sizes: Sequence[int], ask: Callable[[int], Ask], readout: Readout, settings: Settings
) -> Result:
    repeats = 2 if settings.quick else 5
    ours, other = [], []
    asked = {size: ask(size) for size in sizes}
    for _ in range(repeats):
        found = {size: _times(asked[size], readout) for size in sizes}
        ours.append(_slope(sizes, [found[size]["ours"][0] for size in sizes]))
        other.append(_slope(sizes, [found[size]["other"][0] for size in sizes]))
    name = f"exponent of cost in {what} ({sizes[0]} to {sizes[-1]}), one at a time over ours"
    result = compared(name, ours, other, "exponent of CPU s")
    settings.say(f"{name}: {min(ours):.2f} to {max(ours):.2f}; other {min(other):.2f} to {max(other):.2f}")
    return result


def _times(asked: Ask, readout: Readout) -> dict[str, list[float]]:
    model, items, edits = asked
    hooks, inputs = Hooks(model), inputs_of(model, items)
    return in_turn(
        {
            "ours": lambda: Engine(model).predict(items, readout, edits),
            "other": lambda: answers(hooks, inputs, items, readout, edits),
        },
        1,
    )


def _slope(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Least-squares slope of log seconds against log size."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def _first(items: Items, count: int) -> Items:
    """The first `count` items, under a name of their own."""
    orders = None if items.orders is None else items.orders[:count]
    return replace(
        items,
        split=f"{items.split}:{count}",
        items=items.items[:count],
        gold=items.gold[:count],
        clusters=items.clusters[:count],
        orders=orders,
    )


def _random_edits(model: Model, count: int) -> list[Intervention]:
    rng = np.random.default_rng(0)
    units = max(1, round(UNITS * model.shape.units))
    return [
        scale("gate", model.shape, np.sort(rng.choice(model.shape.units, units, replace=False)), 2.0)
        for _ in range(count)
    ]


def _deep(model: Model, layers: int, items: Items) -> Ask:
    """A model like `model`, with random weights and so many layers."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    settings: dict[str, Any] = model.text_config.to_dict() | {"num_hidden_layers": layers}
    settings.pop("layer_types", None)
    network = Qwen2ForCausalLM(Qwen2Config(**settings))
    deep = type(model)(network, model.tokenizer, model.card, None)
    return deep, items, _random_edits(deep, 8)
