"""The run: jobs -> cells -> records. Finished cells are skipped, so a killed run goes on where it stopped."""

from __future__ import annotations

import gc
import os
import platform
import shlex
import sys
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from affectbench import __version__
from affectbench.dataset import Dataset, generator_digest, load_benchmark
from affectbench.errors import AffectbenchError, RecordError
from affectbench.identity import checkpoint_digest, digest_of
from affectbench.plan import Job
from affectbench.record import Cell, Hashes, ModelInfo, Provenance, Record, TaskInfo, cell_id
from affectbench.registry import Registry, source_digest
from affectbench.store import Damaged, Store, read_record
from affectbench.task import SPLITS, Benchmark, InterventionProtocol, SplitName

if TYPE_CHECKING:
    from affectbench.cell import CellPlan
    from affectbench.model import Model
    from affectbench.session import Session


class Reporter(Protocol):
    """Who is told how a run goes."""

    def start(self, cells: int) -> None:
        """The run begins; `cells` in all."""

    def phase(self, text: str) -> None:
        """What is being done now."""

    def cell(self, cell: Cell, passes: int) -> None:
        """A cell begins; it will answer at most `passes` (item, intervention) pairs."""

    def advance(self, passes: int) -> None:
        """So many pairs more are done."""

    def note(self, text: str) -> None:
        """Something to know that stops nothing: what is run again, what was left out, and why."""

    def done(self, record: Record, *, skipped: bool) -> None:
        """A cell is finished, or was already."""


@dataclass(frozen=True)
class Options:
    """How to run. `limit` caps the items of each label in each split; `tokens` bounds a forward pass."""

    output: Path
    device: str = "cpu"
    data: Path | None = None
    limit: int | None = None
    tokens: int = 0
    command: str = ""


@dataclass
class _Planned:
    """A cell before anything is loaded."""

    cell: Cell
    protocol: InterventionProtocol
    hashes: Hashes


@dataclass
class Run:
    """Runs jobs into a store of records. `failed` names the jobs that could not run, and why."""

    registry: Registry
    options: Options
    reporter: Reporter
    store: Store = field(init=False)
    failed: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.store = Store(self.options.output)

    def run(self, jobs: list[Job]) -> list[Record]:
        """Run every cell that is not finished; returns the records of all cells, in order.

        A job that cannot run (its data or checkpoint is missing) goes to `failed`, and the next one begins.
        Raises `RecordError` where results cannot be written.
        """
        self.store.prepare()
        self.reporter.start(sum(job.size for job in jobs))
        records: list[Record] = []
        for job in jobs:
            try:
                records += self._job(job)
            except RecordError:
                raise
            except AffectbenchError as error:
                self.failed.append(f"{job.card.name} on {job.benchmark.name}: {error}")
                self.reporter.note(self.failed[-1])
        return records

    def _job(self, job: Job) -> list[Record]:
        self.reporter.phase(f"reading {job.benchmark.name}")
        dataset = load_benchmark(job.benchmark, self.options.data, self.options.limit)
        planned = self._planned(job, dataset)
        finished = {cell_id(each.cell): self._finished(each) for each in planned}
        pending = [each for each in planned if finished[cell_id(each.cell)] is None]
        fresh = self._run_cells(job, dataset, pending) if pending else {}
        records = []
        for each in planned:
            key = cell_id(each.cell)
            record = finished[key] or fresh[key]
            if finished[key] is not None:
                self.reporter.done(record, skipped=True)
            records.append(record)
        return records

    def _finished(self, each: _Planned) -> Record | None:
        """The stored record of a cell, with its predictions; a note where one is there that is no use."""
        path = self.store.record_path(each.cell)
        if not path.exists():
            return None
        found = self.store.finished(each.cell, each.hashes)
        if found is None:
            self.reporter.note(f"{path}: {_unusable(read_record(path), each.hashes)}; the cell is run again")
        elif found.scores is not None:
            try:
                self.store.read_predictions(each.cell)
            except RecordError as error:
                self.reporter.note(f"{error.message}; the cell is run again")
                return None
        return found

    def _planned(self, job: Job, dataset: Dataset) -> list[_Planned]:
        benchmarks = [job.benchmark, *self._control(job)]
        digests = [each for found in benchmarks for each in (found.digest, generator_digest(found))]
        task_digest = digest_of([*digests, dataset.digest_items])
        local = Path(job.source).is_dir()
        weights = checkpoint_digest(Path(job.source)) if local else f"{job.source} {job.card.revision}"
        family = source_digest(self.registry.find("family", job.card.family).path)
        planned = []
        for protocol in job.protocols:
            for fraction in protocol.fractions:
                for name in job.selectors:
                    cell = Cell(
                        model=job.card.name,
                        task=job.benchmark.name,
                        selector=name,
                        intervention=protocol.name,
                        fraction=fraction,
                        seed=job.seed,
                        site=protocol.site,
                        positions=protocol.positions,
                    )
                    hashes = Hashes(
                        task=task_digest,
                        protocol=protocol.digest,
                        selector=source_digest(self.registry.find("selector", name).path),
                        selection="",
                        model=digest_of([weights, job.card.dtype, family]),
                    )
                    planned.append(_Planned(cell, protocol, hashes))
        return planned

    def _control(self, job: Job) -> list[Benchmark]:
        """The benchmark that serves as the capability to keep, if one does."""
        capability = job.benchmark.preservation.capability
        return [self.registry.benchmark(capability.task)] if capability.kind == "benchmark" else []

    def _run_cells(self, job: Job, dataset: Dataset, pending: list[_Planned]) -> dict[str, Record]:
        from affectbench.cell import CellPlan, CellRun, all_requests
        from affectbench.selector import usable_selector
        from affectbench.session import Session

        self.reporter.phase(f"loading {job.card.name}")
        model = load_model(self.registry, job, self.options.device)
        options = self.options
        session = Session(
            model,
            job.benchmark,
            dataset,
            self.registry.benchmark,
            options.limit,
            options.tokens,
            options.data,
        )
        plans = [
            CellPlan(
                each.cell,
                each.protocol,
                usable_selector(each.cell.selector, self.registry.selector),
                each.hashes,
            )
            for each in pending
        ]
        requests = all_requests(plans)
        self.reporter.phase(f"preparing {job.benchmark.name} for {job.card.name}")
        described = _task_info(session), _model_info(job, model, self.options.device)
        if session.failures:
            first = session.failures[0]
            self.reporter.note(
                f"{len(session.failures)} items of {job.benchmark.name} cannot be used; "
                f"the first: {first.id} ({first.path}): {first.reason}"
            )
        records = {}
        for plan in plans:
            self.reporter.cell(plan.cell, _passes(session, plan))
            result = CellRun(
                session,
                plan,
                described[1],
                described[0],
                self._provenance(job.seed, session),
                requests,
                self.reporter.advance,
            ).run()
            if result.outcomes:
                self.store.write_predictions(plan.cell, result.outcomes)
            if result.selection is not None:
                result.selection.save(self.store.root / "selections" / f"{cell_id(plan.cell)}.safetensors")
            self.store.write(result.record)
            records[cell_id(plan.cell)] = result.record
            self.reporter.done(result.record, skipped=False)
        del session, model
        gc.collect()
        return records

    def _provenance(self, seed: int, session: Session) -> Provenance:
        import torch

        from affectbench.cell import now_iso

        now = now_iso()
        return Provenance(
            affectbench=__version__,
            python=platform.python_version(),
            **{name: _version(name) for name in ("torch", "transformers", "lm_eval", "numpy")},
            platform=platform.platform(),
            threads=torch.get_num_threads(),
            batch_size=session.engine.tokens,
            seed=seed,
            command=self.options.command,
            started=now,
            finished=now,
        )


def load_model(registry: Registry, job: Job, device: str) -> Model:
    """Load a job's model through its family. Raises `AffectbenchError` where it cannot, whatever the family
    raises: damaged weights, a tokenizer that is missing, a device that is full."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise AffectbenchError(f"device {device!r}: this machine has no usable GPU", hint="use --device cpu")
    family = cast("type[Model]", registry.family(job.card.family))
    try:
        model = family.load(job.card, job.source, device=device, dtype=getattr(torch, job.card.dtype))
        # Without its file, transformers makes a tokenizer that knows no words.
        if not (model.tokenizer.is_fast and model.tokenizer("the")["input_ids"]):
            raise FileNotFoundError("no tokenizer.json, or one that turns text into nothing")
        return model
    except AffectbenchError:
        raise
    except (
        Exception
    ) as error:  # Loaders raise all kinds for a bad file; each becomes one error with its cause.
        problem = (str(error).strip() or "no message").splitlines()[0]
        raise AffectbenchError(
            f"model {job.card.name!r} could not be loaded from {job.source} onto {device}: "
            f"{type(error).__name__}: {problem}",
            hint="check the checkpoint's files and --device",
        ) from error


def _unusable(found: Record | Damaged, hashes: Hashes) -> str:
    """Why a stored record does not stand for its cell any more."""
    if isinstance(found, Damaged):
        return found.reason
    if found.status == "error":
        return f"it ended in an error ({found.reason})"
    names = ("task", "protocol", "selector", "model")
    changed = [name for name in names if getattr(found.hashes, name) != getattr(hashes, name)]
    return f"made with another version of its {' and '.join(changed)}"


def _passes(session: Session, plan: CellPlan) -> int:
    """Upper bound of the (item, intervention) pairs of a cell."""
    arms = plan.protocol.arms
    conditions = len(arms.suppress.doses) + len(arms.amplify.doses)
    labels = len(session.benchmark.labels)
    draws = plan.protocol.controls.random_draws
    test, validation = len(session.items("test")), len(session.items("validation"))
    return conditions * ((labels + draws) * test + labels * validation)


def _task_info(session: Session) -> TaskInfo:
    benchmark = session.benchmark
    counts: dict[SplitName, int] = {name: len(session.items(name)) for name in SPLITS}
    clusters: dict[SplitName, int] = {name: len(set(session.items(name).clusters)) for name in SPLITS}
    return TaskInfo(
        id=benchmark.name,
        version=benchmark.version,
        title=benchmark.title or benchmark.name,
        modality=benchmark.modality,
        labels=list(benchmark.labels),
        metric=benchmark.metric,
        n_items=counts,
        n_clusters=clusters,
        n_failed=len(session.failures),
        chance=1 / len(benchmark.labels),
    )


def _model_info(job: Job, model: Model, device: str) -> ModelInfo:
    return ModelInfo(
        id=job.card.name,
        family=job.card.family,
        revision=job.card.revision or "",
        modality=job.card.modality,
        dtype=job.card.dtype,
        device=device,
        n_layers=model.shape.layers,
        width=model.shape.width,
        n_parameters=model.parameters,
        instrument=job.card.instrument,
        instrument_note=job.card.instrument_note,
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def command_line() -> str:
    """The command that started this process, as one would type it."""
    return shlex.join(["python", os.path.basename(sys.argv[0]) or "harness.py", *sys.argv[1:]])
