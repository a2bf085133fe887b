"""What `align --plan` prints: the cost of each step, and how it is packed on a number of cores."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from affectbench.alignment.cost import Bench, Plan, Sizes, cpu_time
from affectbench.alignment_task import AlignmentTask
from affectbench.plan_command import duration


def print_plan(console: Console, task: AlignmentTask, size: str, cores: int) -> Plan:
    """Time each step of a task at that size, and print what all of it takes. Raises `AffectbenchError` for a
    size that is none."""
    plan = Bench(task, Sizes.read(size), cpu_time).plan()
    sizes = plan.sizes
    console.print(
        f"{task.name}, study alignment: {sizes.models} models x {sizes.subjects} subjects x "
        f"{sizes.sentences} sentences x {sizes.points} layers, {len(task.metrics)} measures, "
        "timed on this machine, one thread",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    console.print(_table(plan))
    for line in packed(plan, cores):
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
    return [
        f"Packed model by model: {duration(plan.before_s)} before its subjects are spread, then "
        f"{plan.sizes.subjects} tasks of {duration(plan.task_s)} on {cores} cores (--ray --workers {cores}).",
        f"Wall {duration(wall)}: it {fits} a day; cores are busy {busy:.0%} of it.",
        f"Memory {plan.memory(cores) / gib:.1f} GiB: {plan.shared_bytes / gib:.1f} GiB that workers share, "
        f"{plan.worker_bytes / gib:.1f} GiB for each of {min(cores, plan.sizes.subjects)}.",
        "Not counted: forward passes of the models, and reading files.",
    ]
