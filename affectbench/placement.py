"""One placement: a model loaded once for one benchmark, and the cells that stream through it.

An executor decides where placements stand and which cells go to which; a cell's result is the same anywhere.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from affectbench import __version__
from affectbench.analyses import PlannedAnalysis
from affectbench.answer_words import answer_words_digest, answer_words_size
from affectbench.dataset import Dataset, generator_digest
from affectbench.errors import AffectbenchError
from affectbench.identity import digest_of
from affectbench.journal import Journal
from affectbench.judges.loading import judge_digests, judge_of
from affectbench.model_loading import load_from, weights_digest
from affectbench.module_loading import attach_adaptation, pair_digest
from affectbench.plan import Job
from affectbench.record import (
    Cell,
    Cost,
    Hashes,
    ModelInfo,
    Provenance,
    Record,
    TaskInfo,
)
from affectbench.registry import Registry, source_digest
from affectbench.sae_card import SaeCard
from affectbench.score_models import ARMS
from affectbench.sites import FEATURE, MODULE
from affectbench.task import Benchmark, InterventionProtocol, Placing
from affectbench.transfer import PlannedCell

if TYPE_CHECKING:
    from affectbench.cell import CellRun
    from affectbench.cell_result import CellResult
    from affectbench.identifying import CellPlan
    from affectbench.model import Model
    from affectbench.session import Session


@dataclass(frozen=True)
class Options:
    """How to run. `limit` caps the items of each label in each split; `tokens` bounds a forward pass."""

    output: Path
    device: str = "cpu"
    data: Path | None = None
    limit: int | None = None
    tokens: int = 0
    command: str = ""
    device_map: Placing | None = None


@dataclass(frozen=True)
class Order:
    """The cells of one job that have to be run, with the items they are run on; `planned` are all of its
    cells, with those that are finished. `analyses` are made when the cells are done."""

    job: Job
    dataset: Dataset
    cells: tuple[PlannedCell, ...]
    planned: tuple[PlannedCell, ...]
    analyses: tuple[PlannedAnalysis, ...] = ()

    @property
    def name(self) -> str:
        return self.job.name


def planned_cells(
    registry: Registry, job: Job, dataset: Dataset, read_weights: bool = True
) -> tuple[PlannedCell, ...]:
    """All cells of a job, with the hashes of task, protocol, selector and, where it is read, model."""
    task, model = content_hashes(registry, job, dataset, read_weights)
    protocols = {protocol.name: protocol for protocol in job.protocols}
    selectors = {name: source_digest(registry.find("selector", name).path) for name in job.selectors}
    words, sae = answer_words_digest(job.benchmark), dictionary_card(registry, job)
    features = "" if sae is None else sae.weights_digest if read_weights else sae.digest
    pair = ""
    if any(protocol.site == MODULE for protocol in job.protocols):
        pair = digest_of([model, pair_digest(registry, job.card, read_weights)])
    planned = []
    for cell in cells_of(job):
        protocol = protocols[cell.intervention]
        hashes = Hashes(
            task=task,
            protocol=protocol.digest,
            selector=selectors[cell.selector],
            selection="",
            model=pair if protocol.site == MODULE else model,
            answer_words=words if protocol.asks_answer_words else "",
            dictionary=features if protocol.site == FEATURE else "",
        )
        planned.append(PlannedCell(cell, protocol, hashes))
    return tuple(planned)


def content_hashes(
    registry: Registry, job: Job, dataset: Dataset, read_weights: bool = True
) -> tuple[str, str]:
    """Hashes of a job's task with its items, and of its model."""
    benchmarks = [job.benchmark, *_control(registry, job)]
    digests = [each for found in benchmarks for each in (found.digest, generator_digest(found))]
    digests += judge_digests(registry, job.benchmark)
    local = read_weights and Path(job.source).is_dir()
    weights = weights_digest(job.card, job.source) if local else job.card.loaded_from
    family = source_digest(registry.find("family", job.card.family).path)
    return digest_of([*digests, dataset.digest_items]), digest_of([weights, job.card.dtype, family])


def cells_of(job: Job) -> list[Cell]:
    """The cells of a job by name, in the order in which they are run."""
    return [
        Cell(
            model=job.card.name,
            task=job.benchmark.name,
            selector=name,
            intervention=protocol.name,
            fraction=fraction,
            seed=job.seed,
            site=protocol.site,
            positions=protocol.positions,
            identification=origin,
        )
        for protocol in job.protocols
        for fraction in protocol.fractions
        for name in job.fitting(protocol)
        for origin in job.origins
    ]


def dictionary_card(registry: Registry, job: Job) -> SaeCard | None:
    """The SAEs whose features are units of this job; None where no protocol asks for features.

    Raises `AffectbenchError` where one does and the model's card names none.
    """
    asking = [protocol.name for protocol in job.protocols if protocol.site == FEATURE]
    if not asking:
        return None
    if job.card.dictionary is None:
        raise AffectbenchError(
            f"protocol {asking[0]} is about features of SAEs; model {job.card.name} has none",
            hint="name a card of kind `sae` under `dictionary` in the model's card; train-sae makes one",
        )
    return registry.sae(job.card.dictionary)


def _control(registry: Registry, job: Job) -> list[Benchmark]:
    """The benchmark that serves as the capability to keep, if one does."""
    capability = job.benchmark.preservation.capability
    return [registry.benchmark(capability.task)] if capability.kind == "benchmark" else []


@dataclass
class Placement:
    """Loads the model of an order and prepares its items; then `run` gives one cell after another.

    `phase` is told what is being done; what is in the `journal` is not computed again. Raises
    `AffectbenchError` where the model or the items are no use.
    """

    registry: Registry
    order: Order
    options: Options
    phase: Callable[[str], None]
    journal: Journal | None = None
    session: Session = field(init=False)
    task: TaskInfo = field(init=False)
    model: ModelInfo = field(init=False)
    notes: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        from affectbench.identifying import CellPlan, all_requests
        from affectbench.placed_info import model_info, task_info
        from affectbench.selector import usable_selector
        from affectbench.session import Session

        options = self.options
        self.phase(f"loading {self.order.job.card.name}")
        job = self.order.job.spread(options.device_map)
        model = load_model(self.registry, job, options.device)
        sae = dictionary_card(self.registry, job)
        if sae is not None:
            from affectbench.sae_formats import load_card

            self.phase(f"loading {sae.name}")
            model.attach(load_card(sae, model.device))
        if any(protocol.site == MODULE for protocol in job.protocols):
            self.phase(f"loading the other side of {job.card.name}")
            attach_adaptation(self.registry, job.card, model, options.device)
        self.session = Session(
            model,
            job.benchmark,
            self.order.dataset,
            self.registry.benchmark,
            options.limit,
            options.tokens,
            options.data,
            self.journal,
            judge_of(self.registry, job.benchmark, options.device),
        )
        self._plans = {
            each.cell: CellPlan(
                each.cell,
                each.protocol,
                usable_selector(each.cell.selector, self.registry.selector),
                each.hashes,
                each.carried,
            )
            for each in self.order.cells
        }
        self._requests = all_requests(list(self._plans.values()))
        self.phase(f"preparing {job.benchmark.name} for {job.card.name}")
        self.task = task_info(self.session)
        self.model = model_info(job, model, options.device)
        if self.session.failures:
            first = self.session.failures[0]
            self.notes.append(
                f"{len(self.session.failures)} items of {job.benchmark.name} cannot be used; "
                f"the first: {first.id} ({first.path}): {first.reason}"
            )

    def answers(self, planned: PlannedCell) -> int:
        """Upper bound of the (item, intervention) pairs of a cell."""
        return _answers(self.session, self._plans[planned.cell])

    def run(self, planned: PlannedCell, progress: Callable[[int], None] | None = None) -> CellResult:
        """Run one cell of the order; `progress` is called with the (item, intervention) pairs just done."""
        return self._cell_run(planned, progress).run()

    def replay(self, planned: PlannedCell) -> None:
        """Bring the session to where a cell left it that a stopped process had finished."""
        self._cell_run(planned, None).replay()

    def _cell_run(self, planned: PlannedCell, progress: Callable[[int], None] | None) -> CellRun:
        from affectbench.cell import CellRun

        return CellRun(
            self.session,
            self._plans[planned.cell],
            self.model,
            self.task,
            self.provenance(),
            self._requests,
            progress,
        )

    def broken_off(self, planned: PlannedCell, reason: str) -> Record:
        """The record of a cell that did not live to make its own."""
        nothing = Cost(
            wall_s=0,
            cpu_s=0,
            forward_passes=0,
            items_forwarded=0,
            identification_items=0,
            halvings=0,
            peak_memory_mib=0,
        )
        return Record(
            cell=planned.cell,
            status="error",
            reason=reason,
            control=self._plans[planned.cell].selector.control,
            hashes=planned.hashes,
            model=self.model,
            task=self.task,
            cost=nothing,
            provenance=self.provenance(),
        )

    def provenance(self) -> Provenance:
        """What a record made now says of this process."""
        import torch

        from affectbench.record import now_iso

        now = now_iso()
        return Provenance(
            affectbench=__version__,
            python=platform.python_version(),
            **library_versions(),
            platform=platform.platform(),
            threads=torch.get_num_threads(),
            batch_size=self.session.engine.tokens,
            seed=self.order.job.seed,
            command=self.options.command,
            started=now,
            finished=now,
        )


def load_model(registry: Registry, job: Job, device: str) -> Model:
    """Load a job's model; see `load_from`."""
    return load_from(registry, job.card, job.source, device)


def _answers(session: Session, plan: CellPlan) -> int:
    """Upper bound of the (item, intervention) pairs of a cell."""
    arms = plan.protocol.arms
    conditions = len(arms.suppress.doses) + len(arms.amplify.doses)
    labels = len(session.benchmark.labels)
    draws = plan.protocol.controls.random_draws
    test, validation = len(session.items("test")), len(session.items("validation"))
    further = further_interventions(plan.protocol) * test
    further += further_interventions(plan.protocol, draws=False) * validation
    if plan.protocol.asks_answer_words:
        further += len(ARMS) * labels * answer_words_size(session.benchmark)
    return conditions * ((labels + draws) * test + labels * validation) + further


def further_interventions(protocol: InterventionProtocol, *, draws: bool = True) -> int:
    """Interventions that label-free targeting adds, with random units or without: two_pass reads what is
    there."""
    amplify = protocol.arms.amplify
    asked = sum(targeting != "two_pass" for targeting in amplify.targeting)
    return asked * len(amplify.doses) * (1 + (protocol.controls.random_draws if draws else 0))


def library_versions() -> dict[str, str]:
    """The versions of the libraries that compute."""
    return {name: _version(name) for name in ("torch", "transformers", "lm_eval", "numpy")}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
