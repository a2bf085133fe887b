"""Going on where a run was stopped: which journal belongs to an order, and which cells are passed again."""

from __future__ import annotations

import os
import platform
import re
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from affectbench.analyses import PlannedAnalysis
from affectbench.analysing import made
from affectbench.analysis import Analysis
from affectbench.identity import code_digest, digest_of
from affectbench.journal import Journal, marked, remove_pieces
from affectbench.placement import Options, Order, Placement, library_versions
from affectbench.plan import Job
from affectbench.record import Cell, cell_id
from affectbench.registry import Registry
from affectbench.transfer import PlannedCell

if TYPE_CHECKING:
    from affectbench.cell_result import CellResult


def open_journal(order: Order, options: Options, note: Callable[[str], None]) -> Journal:
    """What stopped runs of this very order have left; `note` is told of damage.

    Nothing is taken from a run on other items, weights, code, library versions or hardware, or with other
    options that decide how batches are cut: its last bits could differ.
    """
    identity = _identity(order, options)
    return Journal(_folder(options.output) / f"{_name(order.job)}__{identity}", identity, note)


def sees(output: Path, marker: str) -> bool:
    """Whether this process may keep pieces in the very folder where another one has set `marker`."""
    folder = _folder(output)
    return (folder / marker).exists() and os.access(folder, os.W_OK)


def marking(output: Path) -> AbstractContextManager[str]:
    """Set a marker, for the length of a block, that workers elsewhere can look for."""
    return marked(_folder(output))


@dataclass
class Passage:
    """An order on its way: its model is loaded, then `run` gives one cell after another, in their order.

    What one cell asks of the model depends on what the cells before it have asked. So the cells that a
    stopped run had finished are passed too: their records stay, and what they asked comes from the
    `journal`. Without one, each cell begins anew. Cells `given_up` are never passed.

    `phase` is told what is being done. Raises `AffectbenchError` as `Placement` does.
    """

    registry: Registry
    order: Order
    options: Options
    phase: Callable[[str], None]
    journal: Journal | None = None
    given_up: tuple[Cell, ...] = ()
    placement: Placement = field(init=False)
    notes: list[str] = field(init=False)
    _way: deque[PlannedCell] = field(init=False)

    def __post_init__(self) -> None:
        begun = set() if self.journal is None else self.journal.cells
        left = {cell_id(each.cell) for each in self.order.cells}
        way = tuple(each for each in self.order.planned if cell_id(each.cell) in left | begun)
        order = replace(self.order, cells=way)
        self.placement = Placement(self.registry, order, self.options, self.phase, self.journal)
        self.notes = list(self.placement.notes)
        self._way = deque(each for each in way if each.cell not in self.given_up)
        if self.journal is None:
            return
        if self.journal.found:
            answers = sum(self.placement.answers(planned) for planned in self._way)
            self.notes.append(f"going on: {self.journal.answers:,} of {answers:,} answers were already there")
        self.journal.begin(cell_id(planned.cell) for planned in way)

    def run(self, planned: PlannedCell, progress: Callable[[int], None]) -> CellResult:
        """Pass the finished cells on the way to `planned`, a cell of the order, and run that."""
        while (passed := self._way.popleft()).cell != planned.cell:
            self.phase(f"taking up {passed.cell.selector}, finished before")
            self.placement.replay(passed)
        return self.placement.run(planned, progress)

    def analyse(self, planned: PlannedAnalysis, progress: Callable[[int], None]) -> Analysis:
        """Make an analysis, after the cells."""
        self.phase(f"{planned.kind} of {self.order.name}")
        return made(self.placement, planned, progress)


def forget(output: Path, job: Job) -> None:
    """Remove what stopped runs of a job have left, whatever their version: all of its cells are finished."""
    remove_pieces(_folder(output), _name(job))


def _folder(output: Path) -> Path:
    return output / "partial"


def _name(job: Job) -> str:
    parts = (job.card.name, job.benchmark.name, f"s{job.seed}", *(["transfer"] if job.identified_on else []))
    return "__".join(re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-.") for part in parts)[:150]


def _identity(order: Order, options: Options) -> str:
    import torch

    task, model = _content(order)
    kind = options.device.partition(":")[0]
    gpu = kind == "cuda" and torch.cuda.is_available()
    spread = options.device_map or order.job.card.device_map
    chip = _gpu() if gpu else _cpu()
    computed_by = (*library_versions().items(), kind, spread, *chip, torch.get_num_threads(), code_digest())
    features = sorted({each.hashes.dictionary for each in order.planned})
    return digest_of([task, model, *features, str(order.job.seed), str(options.tokens), repr(computed_by)])


def _content(order: Order) -> tuple[str, str]:
    """Hashes of an order's task and model. An order has a cell or an analysis at least."""
    if order.planned:
        return order.planned[0].hashes.task, order.planned[0].hashes.model
    inputs = order.analyses[0].hashes.inputs
    return inputs["task"], inputs["model"]


def _gpu() -> tuple[object, ...]:
    import torch

    return torch.cuda.get_device_name(), torch.version.cuda


def _cpu() -> tuple[object, ...]:
    """What kernels are chosen by: two models of one instruction set may get different ones."""
    import torch

    model = platform.processor()
    with suppress(OSError):
        told = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2] for line in told if line.startswith("model name")), model)
    return torch.backends.cpu.get_cpu_capability(), platform.machine(), model
