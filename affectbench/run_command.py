"""What `run` does once its arguments are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from rich.console import Console
from rich.markup import escape

from affectbench.errors import AffectbenchError
from affectbench.record import Record
from affectbench.registry import Registry
from affectbench.task import Placing
from affectbench.yaml_loading import suggest

if TYPE_CHECKING:
    from affectbench.executor import Chore, Executor
    from affectbench.module_run import Request
    from affectbench.placement import Options
    from affectbench.plan import Job

DEFAULT_INTERVENTION = "zero-gain"
EXECUTORS = ("local", "ray")


@dataclass(frozen=True)
class What:
    """What is to be run: a suite, or the parts of one job."""

    suite: str | None = None
    model: str | None = None
    task: str | None = None
    selectors: Sequence[str] = ()
    interventions: Sequence[str] = ()
    seed: int | None = None

    def jobs(self, registry: Registry) -> list[Job]:
        """The jobs it stands for. Raises `AffectbenchError` for names that do not exist or fit together."""
        from affectbench.plan import fitting_selectors, job_of_names, jobs_of_suite

        if self.suite is not None:
            if self.model or self.task or self.selectors or self.interventions:
                raise AffectbenchError(
                    f"suite {self.suite!r} fixes models, tasks, selectors and interventions",
                    hint="name a suite or the parts, not both",
                )
            return jobs_of_suite(registry, self.suite, self.seed)
        if not self.model:
            raise AffectbenchError(
                "nothing to run", hint="name a suite (`run quickstart`), or --model and --task"
            )
        interventions = self.interventions or [DEFAULT_INTERVENTION]
        names = self.selectors or fitting_selectors(registry, interventions)
        return [job_of_names(registry, self.model, self.task, names, interventions, self.seed or 0)]

    def adapting(self, registry: Registry, options: Options) -> Request | None:
        """What a suite asks to adapt beside its cells, if anything. Raises `AffectbenchError` for names that
        do not exist."""
        asked = registry.suite(self.suite).adaptation if self.suite is not None else None
        if asked is None:
            return None
        from affectbench.module_chores import request_of

        seed = registry.suite(str(self.suite)).seed if self.seed is None else self.seed
        return request_of(registry, asked, options, seed)


@dataclass(frozen=True)
class Where:
    """Where cells run. `threads`: CPU threads, of each worker where there are several; 0 for the default."""

    executor: str = "local"
    workers: int = 0
    gpus_per_worker: float | None = None
    ray_address: str | None = None
    threads: int = 0

    def made(self, device: str) -> Executor:
        """The executor. Raises `AffectbenchError` for an unknown one, or options that are not its own."""
        if self.executor not in EXECUTORS:
            raise AffectbenchError(
                f"executor {self.executor!r} does not exist{suggest(self.executor, EXECUTORS)}",
                hint=f"executors: {', '.join(EXECUTORS)}",
            )
        if self.executor == "local":
            return self._local(device)
        from affectbench.ray_executor import RayExecutor

        if ":" in device:
            raise AffectbenchError(
                f"device {device!r}: Ray gives each worker its own GPU", hint="use --device cuda"
            )
        gpus = self.gpus_per_worker
        if gpus is None:
            gpus = 1.0 if device.startswith("cuda") else 0.0
        return RayExecutor(self.ray_address, self.workers, gpus, self.threads)

    def _local(self, device: str) -> Executor:
        if self.ray_address or self.gpus_per_worker is not None:
            raise AffectbenchError(
                "--gpus-per-worker and --ray-address are of the executor `ray`", hint="add --executor ray"
            )
        if self.workers > 1:
            from affectbench.process_executor import ProcessExecutor

            if device != "cpu":
                raise AffectbenchError(
                    f"several local workers would share device {device!r}",
                    hint="add --executor ray, which gives each worker its own GPU",
                )
            return ProcessExecutor(self.workers, self.threads)
        from affectbench.executor import LocalExecutor

        if self.threads:
            import torch

            torch.set_num_threads(self.threads)
        return LocalExecutor()


def run_cells(
    console: Console,
    what: What,
    where: Where,
    *,
    include: Sequence[Path],
    data: Path | None,
    limit: int | None,
    device: str,
    tokens: int,
    output: Path | None,
    plan: str | None = None,
    device_map: str | None = None,
    trust_code: bool = False,
) -> None:
    """Run a suite or a single job and say where to look; or print the `plan` in that format, no more.

    `trust_code`: code that comes with a checkpoint may be run. Raises `AffectbenchError` at the end where a
    job could not run or a cell ended in an error.
    """
    from affectbench.placement import Options
    from affectbench.plan import trusted
    from affectbench.progress import Terminal
    from affectbench.run import Run, command_line

    registry = Registry(include)
    jobs = trusted(what.jobs(registry), trust_code)
    executor = where.made(device)
    name = what.suite or f"{jobs[0].card.name}-{jobs[0].benchmark.name}"
    # A limited run is another task: it must not take the place of a full one.
    folder = output or Path("results") / (name if limit is None else f"{name}-limit{limit}")
    options = Options(folder, device, data, limit, tokens, command_line(), _placing(device_map))
    request = what.adapting(registry, options)
    chores: list[list[Chore]] = []
    if request is not None:
        from affectbench.module_chores import chores_of

        chores = chores_of(registry, request)
    if plan is not None:
        from affectbench.plan_command import print_plan

        print_plan(console, registry, jobs, options, plan, request if chores else None)
        return
    with Terminal(console) as terminal:
        run = Run(registry, options, terminal, executor)
        records = run.run(jobs, chores)
    if records:
        _summary(console, records, folder)
    made = sum(analysis is not None for analysis in run.analyses.values())
    made += 0 if request is None else len(request.stored())
    if made:
        text = f"{made} analyses. Look:  python harness.py table {folder} --analyses"
        console.print(escape(text), highlight=False, soft_wrap=True)
    _raise_failures(records, run.failures, len(jobs))


def _placing(name: str | None) -> Placing | None:
    """What accelerate is asked for. Raises `AffectbenchError` for a name that it does not know."""
    for known in get_args(Placing):
        if name == known:
            return cast("Placing", known)
    if name is not None:
        raise AffectbenchError(
            f"device map {name!r} does not exist{suggest(name, get_args(Placing))}",
            hint=f"one of {', '.join(get_args(Placing))}; a map of one's own is a key of the model card",
        )
    return None


def _raise_failures(records: Sequence[Record], failed: Sequence[str], jobs: int) -> None:
    if failed and jobs == 1:
        raise AffectbenchError(failed[0])
    if failed:
        raise AffectbenchError(
            f"{len(failed)} of {jobs} jobs could not run:\n" + "\n".join(failed),
            hint="put this right and run the same command again: finished cells are kept",
        )
    errors = [record for record in records if record.status == "error"]
    if errors:
        raise AffectbenchError(
            f"{len(errors)} of {len(records)} cells ended in an error; "
            f"the first: {errors[0].cell.selector}: {errors[0].reason}",
            hint="the same command tries them again and keeps the others",
        )


def _summary(console: Console, records: Sequence[Record], folder: Path) -> None:
    counts = {
        status: sum(record.status == status for record in records)
        for status in ("ok", "collapsed", "insufficient", "error")
    }
    found = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    for text in (
        f"\n{len(records)} cells: {found}. Records: {folder / 'records'}",
        f"Look:  python harness.py table {folder}",
        f"Site:  python harness.py leaderboard --results {folder}",
    ):
        console.print(escape(text), highlight=False, soft_wrap=True)
