"""All experiments on the module types of one model, and the analyses that come of them.

A card that is a pair gives its one adaptation. For any other card adaptations are trained: to the task, to
the control task, and to the task with its labels shuffled. Each is kept when it is finished, so a stopped
run goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path

from affectbench.analysis import AnalysisHashes, AnalysisStore, Settings, analysis_name
from affectbench.dataset import Dataset, generator_digest, load_benchmark
from affectbench.identity import digest_of, file_digest
from affectbench.model import Model
from affectbench.model_card import ModelCard
from affectbench.model_loading import load_from, weights_digest
from affectbench.module_analysis import Clock, Made, assembled
from affectbench.module_evidence import Evidence, Group
from affectbench.module_experiments import Alone, Design, Mode, Recipe, Told, Trained, shuffled, train
from affectbench.module_loading import base_card, load_pair
from affectbench.module_store import Adaptations
from affectbench.module_types import Modules, modules_of
from affectbench.plan import checkpoint_of
from affectbench.registry import Registry
from affectbench.session import Session

KINDS = ("module-change", "module-transfer", "module-necessity", "module-adaptation", "module-verdict")
ADAPTATIONS = "adaptations"
"""Folder of trained adaptations in a results folder."""


@dataclass(frozen=True)
class Request:
    """What is to be run: a model, its task, and a control task without emotion, where any are trained.

    `recipe` says how they are trained; a card that is a pair has its own.
    """

    card: ModelCard
    task: str
    output: Path
    control: str | None = None
    recipe: Recipe = field(default_factory=Recipe)
    seed: int = 0
    device: str = "cpu"
    data: Path | None = None
    limit: int | None = None
    command: str = ""
    mode: Mode = "sound"

    @property
    def is_pair(self) -> bool:
        return self.card.is_pair

    @property
    def kinds(self) -> tuple[str, ...]:
        """The analyses to make, in order."""
        return tuple(kind for kind in KINDS if not (self.is_pair and kind == "module-adaptation"))

    def name(self, kind: str) -> str:
        """Name of an analysis and of its file."""
        ours = () if self.mode == "sound" else (self.mode,)
        return analysis_name(kind, self.card.name, self.task, *ours, seed=self.seed)

    def stored(self) -> list[Path]:
        """The files of its analyses that are there."""
        paths = (AnalysisStore(self.output).path(self.name(kind)) for kind in self.kinds)
        return [path for path in paths if path.is_file()]

    @property
    def settings(self) -> Settings:
        """What can change a number, beside what the hashes tell."""
        trained: Settings = {}
        if not self.is_pair:
            recipe = self.recipe
            trained = {"rank": recipe.rank, "rates": list(recipe.rates), **asdict(recipe.budget)}
        seeds = 1 if self.is_pair else self.recipe.seeds
        if self.mode != "sound":
            trained["mode"] = self.mode
        return {"control": self.control, "limit": self.limit, "seeds": seeds, **trained}


@dataclass
class ModuleRun:
    """Runs a request; `told` hears what is being done. Raises `AffectbenchError` where parts do not fit."""

    registry: Registry
    request: Request
    told: Told | None = None
    _data: dict[str, Dataset] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether stored analyses of the same inputs cover all."""
        request, store = self.request, AnalysisStore(self.request.output)
        names = map(request.name, request.kinds)
        return all(store.finished(name, self.hashes, request.settings) is not None for name in names)

    def run(self) -> list[Path]:
        """Make the analyses, unless they are there; returns where they are."""
        request, store = self.request, AnalysisStore(self.request.output)
        names = {kind: request.name(kind) for kind in request.kinds}
        if not self.done:
            clock = Clock()
            evidence, adapting = self._evidence()
            made = {
                "module-change": evidence.change,
                "module-transfer": evidence.transfer,
                "module-necessity": evidence.necessity,
                "module-adaptation": adapting,
                "module-verdict": evidence.verdict,
            }
            for kind, name in names.items():
                analysis = assembled(
                    kind, name, request.card, request.task, made[kind](), n=self._counts(evidence),
                    seed=request.seed, settings=request.settings, hashes=self.hashes, clock=clock,
                    command=request.command,
                )  # fmt: skip
                store.write(analysis)
        return [store.path(name) for name in names.values()]

    @cached_property
    def hashes(self) -> AnalysisHashes:
        """Of weights, tasks and code."""
        card, registry = self.request.card, self.registry
        sides = {"model": card} | ({"base": base_card(registry, card)} if card.base is not None else {})
        inputs = {
            key: weights_digest(each, checkpoint_of(each))
            if each.folder is not None
            else digest_of([each.checkpoint, each.revision or ""])
            for key, each in sides.items()
        }
        for key, name in (("task", self.request.task), ("control", self.request.control)):
            if name is not None:
                data = self._dataset(name)
                parts = [data.benchmark.digest, generator_digest(data.benchmark), data.digest_items]
                inputs[key] = digest_of(parts)
        files = sorted(Path(__file__).parent.glob("module_*.py"))
        return AnalysisHashes(inputs=inputs, code=digest_of(file_digest(path) for path in files))

    def _dataset(self, name: str) -> Dataset:
        if name not in self._data:
            benchmark = self.registry.benchmark(name)
            self._data[name] = load_benchmark(benchmark, self.request.data, self.request.limit)
        return self._data[name]

    def _session(self, model: Model, name: str) -> Session:
        data, request = self._dataset(name), self.request
        lookup = self.registry.benchmark
        return Session(model, data.benchmark, data, lookup, request.limit, data=request.data)

    def _evidence(self) -> tuple[Evidence, Callable[[], Made]]:
        """The groups of adaptations, and how the types are adapted alone."""
        request = self.request
        if request.is_pair:
            pair = load_pair(self.registry, request.card, request.device)
            group = Group(request.task, self._session(pair.model, request.task), (pair,))
            return Evidence(request.seed, [group], self.told, request.mode), Made
        everything = {task: self._train(task, "all") for task in self.stores}
        groups = [
            Group(task, self.stores[task].session, found.pairs, found.learnt)
            for task, found in everything.items()
        ]
        evidence = Evidence(request.seed, groups, self.told, request.mode)
        store, first = self.stores[request.task], everything[request.task]
        return evidence, partial(evidence.adaptation, store, first, request.recipe)

    @cached_property
    def stores(self) -> dict[str, Adaptations]:
        """The adaptations to the task and to the control task, by its name; the base is loaded for them."""
        request, found = self.request, {}
        model = load_from(self.registry, request.card, checkpoint_of(request.card), request.device)
        for key, name in (("task", request.task), ("control", request.control)):
            if name is not None:
                origin = digest_of([self.hashes.inputs["model"], self.hashes.inputs[key]])
                session, folder = self._session(model, name), request.output / ADAPTATIONS
                found[name] = Adaptations(folder, session, request.recipe.budget, origin)
        return found

    @cached_property
    def _modules(self) -> Modules:
        return modules_of(self.stores[self.request.task].session.model)

    def _train(self, task: str, name: str, rank: int = 0) -> Trained:
        recipe = self.request.recipe
        return train(self.stores[task], name, recipe, self._modules, rank=rank, told=self.told)

    def prepare(self, task: str, name: str, *, matched: bool = False) -> None:
        """Make adaptations that the analyses will ask for: of the types `name`, to `task`, at equal rank or
        with as many parameters as gate; with all types go those to shuffled labels. Sets of types that the
        model does not have, or cannot train apart, are passed over."""
        recipe = self.request.recipe
        alone = Alone.of(self._modules, recipe.rank, Design.of(self.request.mode))
        ranks = alone.matched if matched else alone.equal
        if name != "all" and (name not in ranks or (matched and ranks[name] == recipe.rank)):
            return
        found = self._train(task, name, ranks.get(name, recipe.rank))
        if name == "all" and task == self.request.task and not matched:
            shuffled(self.stores[task], found, recipe, self.told)

    def _counts(self, evidence: Evidence) -> dict[str, int]:
        found = {"seeds": len(evidence.groups[0].pairs)}
        for key, group in zip(("", "control_"), evidence.groups, strict=False):
            items = group.session.items("test")
            found |= {f"{key}items": len(items), f"{key}clusters": len(set(items.clusters))}
        return found
