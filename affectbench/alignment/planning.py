"""What `align --plan` prints: the cost of each step, and how it is packed on a number of cores."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from rich.console import Console
from rich.table import Table

from affectbench.alignment.comparison import PARTS
from affectbench.alignment.cost import EFFICIENCY, Bench, Plan, Sizes, cpu_time
from affectbench.alignment.hearing_cost import Hearer, of_the_paper
from affectbench.alignment_task import AlignmentTask
from affectbench.plan_command import duration


def print_plan(
    console: Console, task: AlignmentTask, size: str, cores: int, hearers: Sequence[Hearer] = (),
    device: str = "cpu",
) -> Plan:  # fmt: skip
    """Time each step of a task at that size, and print what all of it takes; `hearers` are the models, else
    those of the paper. Raises `AffectbenchError` for a size that is none."""
    sizes = Sizes.read(size)
    hearers = hearers or [of_the_paper(max(1, sizes.points - 1), device)]
    plan = Bench(task, sizes, cpu_time, hearers).plan()
    console.print(
        f"{task.name}, study alignment: {sizes.models} models x {sizes.subjects} subjects x "
        f"{sizes.sentences} sentences x {sizes.points} layers, {len(task.metrics)} measures, "
        "timed on this machine, one thread",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    console.print(_table(plan))
    for line in (*packed(plan, cores), *(f"Hearing: {each.basis}." for each in hearers)):
        console.print(line, highlight=False, soft_wrap=True)
    return plan


def _table(plan: Plan) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("step", "each", "times", "CPU hours"):
        table.add_column(name, justify="left" if name == "step" else "right")
    for step in plan.steps:
        table.add_row(step.name, duration(step.seconds), f"{step.count:,}", f"{step.total / 3600:.2f}")
    table.add_row("all", "", "", f"{plan.cpu_s / 3600:.2f}", style="bold")
    return table


def packed(plan: Plan, cores: int) -> list[str]:
    """How it is packed, in sentences."""
    wall, gib = plan.wall_s(cores), 2**30
    fits = "fits" if wall <= 24 * 3600 else "does not fit"
    busy = plan.cpu_s / (cores * wall)
    side_by_side = ceil(plan.sizes.models / plan.groups)
    return [
        f"Packed: {duration(plan.before_s(cores))} in the first process, its matrix products on all cores at "
        f"{EFFICIENCY:.0%} of their speed (assumed); then {plan.groups} times {plan.sizes.subjects} tasks of "
        f"{' and of '.join(duration(plan.task_s(part)) for part in PARTS)}, {side_by_side} models side by "
        f"side, on {cores} cores (--ray --workers "
        f"{cores}).",
        f"Wall {duration(wall)}: it {fits} a day; cores are busy {busy:.0%} of it.",
        f"Memory {plan.memory(cores) / gib:.1f} GiB: {plan.before_bytes / gib:.1f} GiB while a model "
        f"hears, its states in {plan.disk_bytes / gib:.1f} GiB of files; then "
        f"{plan.shared_bytes / gib:.1f} GiB that workers share (at most a quarter of this machine's, if "
        f"for more than one model), "
        f"{plan.worker_bytes / gib:.1f} GiB for each of {plan.at_work(cores)}.",
        "Not counted: reading files.",
    ]
