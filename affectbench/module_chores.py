"""The module track beside the cells of a suite: adaptations as chores that any process can do, then one that
compares them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from affectbench.executor import Chore
from affectbench.module_adapt import Budget
from affectbench.module_experiments import Alone, Design, Recipe
from affectbench.module_loading import weights_folder
from affectbench.module_run import ModuleRun, Request
from affectbench.module_types import locate
from affectbench.placement import Options
from affectbench.registry import Registry
from affectbench.stored_weights import StoredWeights
from affectbench.task import Adapting

Told = Callable[[str], None]


@dataclass(frozen=True)
class Preparing:
    """Adaptations of one set of types to one task: all rates and seeds, so that none waits for another."""

    request: Request
    task: str
    types: str
    matched: bool = False

    @property
    def name(self) -> str:
        return f"adapting {self.types} of {self.request.card.name} to {self.task}"

    def run(self, registry: Registry, told: Told) -> None:
        """Raises `AffectbenchError` as `ModuleRun` does."""
        _run_of(registry, self.request, told).prepare(self.task, self.types, matched=self.matched)


@dataclass(frozen=True)
class Comparing:
    """All analyses of the adaptations; what is missing of those is made first."""

    request: Request

    @property
    def name(self) -> str:
        return f"module types of {self.request.card.name}"

    def run(self, registry: Registry, told: Told) -> None:
        """Raises `AffectbenchError` as `ModuleRun` does."""
        _run_of(registry, self.request, told).run()


def request_of(registry: Registry, asked: Adapting, options: Options, seed: int) -> Request:
    """What a suite asks to adapt. Raises `AffectbenchError` for names that do not exist."""
    budget = Budget.looking(asked.steps, asked.batch)
    for task in filter(None, (asked.task, asked.control)):
        registry.benchmark(task)
    return Request(
        registry.model(asked.base), asked.task, options.output, asked.control,
        Recipe(asked.rank, asked.rates, asked.seeds, budget), seed, options.device, options.data,
        options.limit, options.command,
    )  # fmt: skip


def chores_of(registry: Registry, request: Request) -> list[list[Chore]]:
    """What is left to do, in two groups: adaptations, in any order, and what compares them."""
    if ModuleRun(registry, request).done:
        return []
    tasks = [request.task, *([request.control] if request.control else [])]
    adapted: list[Chore] = [Preparing(request, task, "all") for task in tasks]
    adapted += [Preparing(request, request.task, "all", matched=True)]
    adapted += [
        Preparing(request, request.task, name, matched)
        for matched in (False, True)
        for name in Design.of(request.mode).trained
        if name != "all"
    ]
    return [adapted, [Comparing(request)]]


def adaptations_of(request: Request) -> int:
    """How many adaptations a request comes to. Raises `AffectbenchError` where the base's weights are not
    here."""
    stored = StoredWeights(weights_folder(request.card))
    modules = locate(stored.shapes, stored.config())
    alone = Alone.of(modules, request.recipe.rank, Design.of(request.mode))
    sets = [*alone.equal, *(name for name, rank in alone.matched.items() if rank != alone.equal[name])]
    each = len(request.recipe.rates) + request.recipe.seeds - 1
    return each * (len(sets) + (request.control is not None)) + request.recipe.seeds


_last: list[ModuleRun] = []
"""The run that this process did chores of, with its model in memory."""


def _run_of(registry: Registry, request: Request, told: Told) -> ModuleRun:
    if not _last or _last[0].request != request or _last[0].registry is not registry:
        _last[:] = [ModuleRun(registry, request)]
    _last[0].told = lambda text: told(f"modules: {text}")
    return _last[0]
