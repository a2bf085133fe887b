"""Going on where a run was stopped: which journal belongs to an order, and which cells are passed again."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from affectbench.identity import code_digest, digest_of
from affectbench.journal import Journal, remove_pieces
from affectbench.placement import Options, Order, PlannedCell, library_versions
from affectbench.plan import Job
from affectbench.record import cell_id


def open_journal(order: Order, options: Options, note: Callable[[str], None]) -> Journal:
    """What stopped runs of this very order have left; `note` is told of damage.

    Nothing is taken from a run on other items, weights, code, library versions or hardware, or with other
    options that decide how batches are cut: its last bits could differ.
    """
    identity = _identity(order, options)
    return Journal(_folder(options.output) / f"{_name(order.job)}__{identity}", identity, note)


def cells_to_pass(order: Order, journal: Journal) -> tuple[PlannedCell, ...]:
    """The cells that are left, and those that the stopped run had finished on its way, in the job's order.

    What one cell asks of the model depends on what the cells before it have asked. So the finished ones are
    passed too: their records stay, and what they asked comes from the journal.
    """
    left = {cell_id(each.cell) for each in order.cells}
    return tuple(each for each in order.planned if cell_id(each.cell) in left | journal.cells)


def forget(output: Path, job: Job) -> None:
    """Remove what stopped runs of a job have left, whatever their version: all of its cells are finished."""
    remove_pieces(_folder(output), _name(job))


def _folder(output: Path) -> Path:
    return output / "partial"


def _name(job: Job) -> str:
    parts = (job.card.name, job.benchmark.name, f"s{job.seed}")
    return "__".join(re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-.") for part in parts)[:150]


def _identity(order: Order, options: Options) -> str:
    import torch

    hashes = order.planned[0].hashes
    kind = options.device.partition(":")[0]
    gpu = kind == "cuda" and torch.cuda.is_available()
    chip = torch.cuda.get_device_name() if gpu else torch.backends.cpu.get_cpu_capability()
    spread = options.device_map or order.job.card.device_map
    computed_by = (*library_versions().items(), kind, spread, chip, torch.get_num_threads(), code_digest())
    return digest_of([hashes.task, hashes.model, str(order.job.seed), str(options.tokens), repr(computed_by)])
