"""What `modules` does once its arguments are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from affectbench.errors import AffectbenchError
from affectbench.plan import card_of
from affectbench.registry import Registry

if TYPE_CHECKING:
    from affectbench.module_experiments import Mode


@dataclass(frozen=True)
class Options:
    """The options of the command, in its order."""

    task: str | None
    control: str | None
    include: Sequence[Path]
    data: Path | None
    limit: int | None
    rank: int
    rates: tuple[float, ...]
    seeds: int
    steps: int
    batch: int
    seed: int
    device: str
    threads: int
    trust_code: bool
    output: Path | None
    mode: Mode


def run_modules(console: Console, model: str, options: Options) -> None:
    """Run the experiments, print what they found, and say where it is kept.

    Raises `AffectbenchError` where parts do not fit: no task, a control task for a pair, no data.
    """
    import torch

    from affectbench.analysis import Analysis, read_analysis
    from affectbench.module_adapt import Budget
    from affectbench.module_experiments import Recipe
    from affectbench.module_run import ModuleRun, Request
    from affectbench.run import command_line

    registry = Registry(options.include)
    card = card_of(registry, model)
    card = card.trust() if options.trust_code else card
    task = options.task or card.default_task
    if task is None:
        raise AffectbenchError(f"model {card.name} has no default task", hint="add --task")
    rates = options.rates or Recipe().rates[: 1 if options.mode == "paper" else None]
    budget = Budget.looking(options.steps, options.batch)
    request = Request(
        card, task, options.output or Path("results") / f"modules-{card.name}", options.control,
        Recipe(options.rank, rates, options.seeds, budget), options.seed, options.device, options.data,
        options.limit, command_line(), options.mode,
    )  # fmt: skip
    if options.mode == "paper" and len(rates) > 1:
        raise AffectbenchError("mode paper has one learning rate for all types", hint="give one --rate")
    if request.is_pair and options.control is not None:
        raise AffectbenchError(
            f"model {card.name} is a pair: nothing is trained, so there is no adaptation to a control task",
            hint="leave out --control; what the benchmark must preserve is measured under damage",
        )
    if options.threads:
        torch.set_num_threads(options.threads)
    with console.status("modules: loading") as status:
        paths = ModuleRun(registry, request, lambda text: status.update(escape(f"modules: {text}"))).run()
    for path in paths:
        found = read_analysis(path)
        assert isinstance(found, Analysis), "it was written or checked just now"
        for finding in found.findings:
            console.print(escape(finding.text), highlight=False, soft_wrap=True)
    console.print(escape(f"\n{len(paths)} analyses: {paths[0].parent}"), highlight=False, soft_wrap=True)
    site = f"Site:  python harness.py leaderboard --results {request.output}"
    console.print(escape(site), highlight=False, soft_wrap=True)
