"""How much work the analyses of an order are, roughly: model calls, rows and tokens, with nothing loaded.

It follows what the analyses ask of the engine. What cells of the same order have asked already is not taken
off, and features or units that several emotions share are counted for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from affectbench.analyses import known
from affectbench.analysis import Settings
from affectbench.placement import Order
from affectbench.registry import Registry
from affectbench.task import SplitName
from affectbench.tracing import POOL
from affectbench.workload import Asked, Load, Material, Workload

NOTHING = Load()
SITES, ARMS = 2, 2
"""Neurons and heads, enhanced and switched off."""


@dataclass(frozen=True)
class Extent:
    """What an analysis is of: items, labels, layers with features, its settings and the limits of a pass."""

    material: Material
    labels: int
    layers: int
    settings: Settings
    budget: int
    growth: int

    def number(self, name: str) -> int:
        """A setting that is a whole number."""
        value = self.settings[name]
        assert isinstance(value, int), f"setting {name} is a whole number"
        return value

    def once(self, *splits: SplitName) -> Load:
        """The untouched model on all items of these splits."""
        total = Load()
        for split in splits:
            total += self.material.splits[split].plain(self.budget)
        return total

    def under(self, items: int, interventions: int) -> Load:
        """So many identification items of each label under so many interventions."""
        asked = self.material.splits["identification"]
        some: Asked = replace(asked, lengths=asked.lengths[: items * self.labels])
        return some.swept(interventions, self.budget, self.growth)


@dataclass(frozen=True)
class Work:
    """The work of an analysis: passes with gradients, and the rest."""

    answers: Load
    gradients: Load = NOTHING


def _flow(of: Extent) -> Load:
    return of.once("identification", "test") + of.once("identification", "test")


def _effects(of: Extent) -> Work:
    features = of.labels * of.number("candidates") + of.layers * POOL
    return Work(_flow(of) + of.under(of.number("items"), features), of.once("identification"))


def _validation(of: Extent) -> Work:
    counts = of.settings["units"]
    assert isinstance(counts, list), "counts of units"
    total, sets = (
        of.once("identification", "identification"),
        len(counts) * (of.labels + of.number("random_draws")),
    )
    for _ in range(SITES * ARMS):
        total += of.under(of.number("items_per_emotion"), sets)
    return Work(total)


def _reconstruction(of: Extent) -> Work:
    total = of.once("test")
    for _ in range(of.layers):
        total += of.once("test")
    return Work(total)


LOADS: Mapping[str, Callable[[Extent], Work]] = {
    "answer-prior": lambda of: Work(of.once("identification", "identification", "test", "test", "test")),
    "circuit-validation": _validation,
    "direction-geometry": lambda of: Work(of.once("identification")),
    "feature-effects": _effects,
    "feature-flow": lambda of: Work(_flow(of)),
    "feature-reconstruction": _reconstruction,
}
"""What each of `affectbench.analyses.ANALYSES` asks of the model."""


def with_analyses(registry: Registry, order: Order, work: Workload, budget: int, growth: int) -> Workload:
    """The work of an order's cells and of its analyses. Raises `AffectbenchError` where the model's sparse
    autoencoders are not known."""
    name = order.job.card.dictionary
    for planned in order.analyses:
        layers = len(registry.sae(name).layers) if known(planned.kind).features and name is not None else 0
        labels = len(order.job.benchmark.labels)
        found = LOADS[planned.kind](Extent(work.material, labels, layers, planned.settings, budget, growth))
        work = replace(
            work,
            answers=work.answers + found.answers,
            evidence=work.evidence + found.gradients,
            gradients=work.gradients or bool(found.gradients.passes),
        )
    return work
