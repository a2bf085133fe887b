"""From a suite, or from names, to jobs: who runs on what. Nothing is loaded here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from affectbench.analyses import known
from affectbench.errors import AffectbenchError
from affectbench.hub import commit_of
from affectbench.record import Identification
from affectbench.registry import Registry
from affectbench.sites import MODULE
from affectbench.task import Benchmark, InterventionProtocol, ModelCard, Placing

MIN_SHARED = 2
"""Labels that two benchmarks must share for a transfer: specificity compares emotions."""


@dataclass(frozen=True)
class Job:
    """All cells of one model on one benchmark: every selector under every protocol of a site that it can
    rank units of, at every fraction. `sites` holds those of each selector; one that is not there fits all.

    With `identified_on`, its cells test units that were identified on these benchmarks instead. For each of
    `samples` there are cells with units from these items alone, beside those with units from all items.
    `analyses` are made when its cells are done.
    """

    card: ModelCard
    source: str
    benchmark: Benchmark
    selectors: tuple[str, ...]
    protocols: tuple[InterventionProtocol, ...]
    seed: int
    identified_on: tuple[Benchmark, ...] = ()
    samples: tuple[Identification, ...] = ()
    sites: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    analyses: tuple[str, ...] = ()

    def fitting(self, protocol: InterventionProtocol) -> tuple[str, ...]:
        """The selectors that can rank units of a protocol's site."""
        return tuple(
            name for name in self.selectors if protocol.site in self.sites.get(name, (protocol.site,))
        )

    def spread(self, device_map: Placing | None) -> Job:
        """The same job with its model spread over devices, where that is asked for."""
        if device_map is None:
            return self
        return replace(self, card=self.card.model_copy(update={"device_map": device_map}))

    def pinned(self) -> Job:
        """The same job with the commit that its checkpoint's revision stands for now, so that a record names
        the weights it was made with. Raises `AffectbenchError` where that cannot be told."""
        if self.card.pinned:
            return self
        commit = commit_of(self.card.checkpoint, self.card.revision)
        return replace(self, card=self.card.model_copy(update={"revision": commit}))

    def trusted(self) -> Job:
        """The same job with the user's consent to run code that comes with its checkpoint."""
        return replace(self, card=self.card.trust())

    @property
    def size(self) -> int:
        """Number of cells."""
        units = sum(len(protocol.fractions) * len(self.fitting(protocol)) for protocol in self.protocols)
        return len(self.origins) * units

    @property
    def name(self) -> str:
        """Its model and its `title`."""
        return f"{self.card.name} on {self.title}"

    @property
    def title(self) -> str:
        """Its benchmark, and whether units come from others."""
        return f"{self.benchmark.name}, transferred" if self.identified_on else self.benchmark.name

    @property
    def origins(self) -> tuple[Identification | None, ...]:
        """Where the units of its cells are identified; None for the ordinary way."""
        if not self.identified_on:
            return (None, *self.samples)
        return tuple(
            Identification(task=each.name, **(sample.model_dump() if sample is not None else {}))
            for each in self.identified_on
            for sample in (None, *self.samples)
        )


def jobs_of_suite(registry: Registry, name: str, seed: int | None) -> list[Job]:
    """One job for each (model, benchmark) of a suite, then those of transfer, which need the others done."""
    suite = registry.suite(name)
    selectors = (*suite.selectors, *suite.controls)
    for analysis in suite.analyses:
        known(analysis)
    cards = [registry.model(model) for model in dict.fromkeys(suite.models)]
    jobs = [
        _job(registry, card, task, selectors, protocols, suite.seed if seed is None else seed)
        for card in cards
        for protocols in [_of_its_side(registry, card, suite.interventions)]
        for task in dict.fromkeys(suite.tasks_for(card))
    ]
    samples = tuple(
        Identification(items=budget, draw=draw)
        for draw in range(suite.identification.draws)
        for budget in suite.identification.budgets
    )
    analyses = tuple(dict.fromkeys(suite.analyses))
    jobs = [replace(job, samples=samples) for job in jobs]
    transfers = _transfers(suite.name, jobs) if suite.identification.transfer else []
    return [replace(job, analyses=analyses) for job in jobs] + transfers


def trusted(jobs: Sequence[Job], consent: bool) -> list[Job]:
    """These jobs, with the user's consent to run code of their checkpoints where it was given."""
    return [job.trusted() for job in jobs] if consent else list(jobs)


def shared_labels(one: Benchmark, other: Benchmark) -> tuple[str, ...]:
    """Labels that both benchmarks have, in the order of `other`."""
    return tuple(label for label in other.labels if label in one.labels)


def _transfers(suite: str, jobs: Sequence[Job]) -> list[Job]:
    """For each job, the one that tests units from the other benchmarks of its model there."""
    found = []
    for job in jobs:
        sources = tuple(
            other.benchmark
            for other in jobs
            if other.card.name == job.card.name
            and other.benchmark.name != job.benchmark.name
            and len(shared_labels(other.benchmark, job.benchmark)) >= MIN_SHARED
        )
        if sources:
            found.append(replace(job, identified_on=sources))
    if not found:
        raise AffectbenchError(
            f"suite {suite}: there is nothing to transfer: no model has two tasks that share two labels",
            hint="list several benchmarks under `tasks`, or leave `identification.transfer` out",
        )
    return found


def job_of_names(
    registry: Registry,
    model: str,
    task: str | None,
    selectors: Sequence[str],
    interventions: Iterable[str],
    seed: int,
) -> Job:
    """One job from names given one by one.

    `model` may be a card, a folder or a hub id; without `task`, it is the card's default task.
    """
    card = card_of(registry, model)
    chosen = task or card.default_task
    if chosen is None:
        known = ", ".join(entry.name for entry in registry.entries("benchmark"))
        raise AffectbenchError(f"model {card.name} has no default task", hint=f"add --task; known: {known}")
    return _job(registry, card, chosen, selectors, interventions, seed)


def fitting_selectors(registry: Registry, interventions: Iterable[str]) -> list[str]:
    """All selectors that can rank units of one of these protocols' sites."""
    sites = {registry.intervention(name).site for name in interventions}
    names = [entry.name for entry in registry.entries("selector")]
    return [name for name in names if sites & set(registry.selector_sites(name))]


def _job(
    registry: Registry,
    card: ModelCard,
    task: str,
    selectors: Iterable[str],
    interventions: Iterable[str],
    seed: int,
) -> Job:
    """A job whose names all exist and fit together; a name given twice counts once."""
    benchmark = registry.benchmark(task)
    protocols = tuple(registry.intervention(name) for name in dict.fromkeys(interventions))
    for protocol in protocols:
        if benchmark.modality != "audio" and "audio" in (protocol.positions, protocol.statistics.positions):
            raise AffectbenchError(
                f"protocol {protocol.name} works at audio positions; benchmark {task} has none",
                hint="choose a protocol for text, or a benchmark of modality audio",
            )
        if _other_side(protocol, card):
            wanted = "the base (a card with `adapted`)" if protocol.transfers else "the adapted model"
            raise AffectbenchError(
                f"protocol {protocol.name} is about {wanted}; {card.name} is the other side",
                hint="see docs/modules.md: which side of a pair a protocol is about",
            )
    found = tuple(registry.find("selector", name).name for name in dict.fromkeys(selectors))
    sites = {name: registry.selector_sites(name) for name in found}
    job = Job(card, checkpoint_of(card), benchmark, found, protocols, seed, sites=sites)
    fitting = {name for protocol in protocols for name in job.fitting(protocol)}
    for name in found:
        if name not in fitting:
            used = ", ".join(f"{protocol.name} (site {protocol.site})" for protocol in protocols)
            raise AffectbenchError(
                f"selector {name} ranks units of {', '.join(sites[name])}; the protocols are {used}",
                hint="add a protocol of such a site, or leave the selector out",
            )
    return job


def _of_its_side(registry: Registry, card: ModelCard, interventions: Iterable[str]) -> list[str]:
    """The protocols of a suite that are about a card's side of a pair: a suite may hold both sides."""
    names = list(interventions)
    kept = [name for name in names if not _other_side(registry.intervention(name), card)]
    return kept or names  # Which one does not fit is said where it is asked for by name.


def _other_side(protocol: InterventionProtocol, card: ModelCard) -> bool:
    """Whether modules are put into a base, and the card is the adapted model; or the reverse."""
    if protocol.site != MODULE:
        return False
    return card.is_pair if protocol.transfers else card.adapted is not None


def card_of(registry: Registry, model: str) -> ModelCard:
    """The card called `model`, or one made up for a folder or a hub id (``owner/name``) of a causal LM."""
    known = {entry.name for entry in registry.entries("model")}
    if model in known:
        return registry.model(model)
    folder = Path(model).expanduser()
    if not folder.is_dir() and "/" not in model:
        return registry.model(model)  # Raises, with a suggestion.
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise AffectbenchError(
            f"{folder} has no config.json", hint="give the folder of a Hugging Face checkpoint"
        )
    name = folder.resolve().name if folder.is_dir() else model.replace("/", "--")
    return ModelCard(
        kind="model",
        name=re.sub(r"[^a-z0-9._-]", "-", name.lower()).strip("._-")[:80] or "checkpoint",
        version=1,
        family="causal_lm",
        checkpoint=str(folder.resolve()) if folder.is_dir() else model,
        modality="text",
        licence="not stated",
    )


def checkpoint_of(card: ModelCard) -> str:
    """What a family loads: the card's folder, or a hub id."""
    if card.folder is not None:
        return str(card.folder)
    if not card.on_hub:
        raise AffectbenchError(
            f"model {card.name}: there is no folder {card.checkpoint} beside its card",
            hint=f"rebuild it: python harness.py rebuild {card.name}",
        )
    return card.checkpoint
