"""What a run will take, before it starts: time from earlier cells or from operations, memory from shapes."""

from __future__ import annotations

import json
import math
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from affectbench.analysis_load import with_analyses
from affectbench.checkpoint import fetching
from affectbench.engine import CPU_TOKENS, GPU_TOKENS
from affectbench.errors import AffectbenchError
from affectbench.pieces import ITEMS_A_BATCH
from affectbench.placement import Options, Order
from affectbench.record import Record
from affectbench.registry import Registry
from affectbench.workload import Workload, growth_of, workload

MIB = 1 << 20
LIBRARIES_MIB = 900
"""A process that has imported torch, transformers and lm-eval."""
BACKWARD = 3
"""A pass with gradients costs about three without."""
SPEED_SECONDS = 0.2


@dataclass(frozen=True)
class Size:
    """What a checkpoint's configuration and the headers of its files tell."""

    parameters: int
    layers: int
    hidden: int
    width: int
    vocabulary: int
    projections: int
    """Multiplications of one layer for a token, of the experts that a token is sent to."""

    def operations(self, tokens: int, columns: int) -> float:
        """Floating-point operations of packed passes over so many tokens, with logits at `columns`.

        One layer is left out: of the first, edits are folded in; of the last, only what is read is run.
        """
        layers = max(1, self.layers - 1)
        return 2.0 * (tokens * layers * self.projections + columns * self.hidden * self.vocabulary)


@dataclass
class Estimate:
    """What one job takes, its `analyses` with it. None stands for what cannot be known, and `unknown` says
    why."""

    model: str
    task: str
    cells: int
    kept: int
    analyses: int = 0
    items: dict[str, int] = field(default_factory=dict)
    interventions: int | None = None
    passes: int | None = None
    rows: int | None = None
    seconds: float | None = None
    basis: str = ""
    memory_mib: dict[str, float] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


@dataclass
class Estimator:
    """Estimates orders on one machine; `records` are those of earlier runs, whose times are used."""

    registry: Registry
    options: Options
    records: Sequence[Record]

    def of(self, order: Order) -> Estimate:
        """What an order takes. No weights are read; the tokenizer and the configuration are."""
        job = order.job
        found = Estimate(job.card.name, job.title, len(order.cells), job.size - len(order.cells))
        found.analyses = len(order.analyses)
        found.items = {name: len(examples) for name, examples in order.dataset.splits.items()}
        try:
            tokenizer, size = _tokenizer(order), checkpoint_size(order)
            work = workload(self.registry, order, self.options, tokenizer, self.budget)
            work = with_analyses(self.registry, order, work, self.budget, growth_of(self.options))
        except AffectbenchError as error:
            found.unknown.append(str(error))
            return found
        found.interventions = work.interventions
        found.passes, found.rows = work.total.passes, work.total.rows
        found.memory_mib = self._memory(order, work, size)
        found.seconds, found.basis = self._time(order, work, size)
        if found.seconds is None:
            found.unknown.append(found.basis)
        return found

    @property
    def budget(self) -> int:
        """Tokens of a forward pass."""
        on_cpu = self.options.device.startswith("cpu")
        return self.options.tokens or (CPU_TOKENS if on_cpu else GPU_TOKENS)

    def _time(self, order: Order, work: Workload, size: Size) -> tuple[float | None, str]:
        """Seconds, and where they come from (or why there are none)."""
        same = [
            record
            for record in self.records
            if record.model.id == order.job.card.name
            and record.model.device == self.options.device
            and record.cost.items_forwarded
        ]
        same = [record for record in same if record.task.id == order.job.benchmark.name] or same
        if same:
            rows = sum(record.cost.items_forwarded for record in same)
            seconds = sum(record.cost.wall_s for record in same)
            return seconds / rows * work.total.rows, f"{len(same)} finished cells of this model"
        try:
            speed = self._speeds[order.job.card.dtype, size.hidden, size.width]
        except (RuntimeError, AssertionError) as error:
            return None, f"time: {str(error).splitlines()[0]}"
        heavy = BACKWARD if work.gradients else 1
        operations = heavy * size.operations(work.evidence.tokens, work.evidence.columns)
        operations += size.operations(work.answers.tokens, work.answers.columns)
        return operations / speed, f"operations at {speed / 1e9:.3g} GFLOP/s, measured"

    @cached_property
    def _speeds(self) -> _Speeds:
        return _Speeds(self.options.device, self.budget)

    def _memory(self, order: Order, work: Workload, size: Size) -> dict[str, float]:
        """MiB by purpose. Activations, statistics and logits are never at their peaks together: the largest
        of a pass with gradients and one without counts in `total`."""
        bytes_each = torch.empty(0, dtype=getattr(torch, order.job.card.dtype)).element_size()
        asked = [*work.material.splits.values(), work.material.capability, work.material.neutral]
        batch = max(min(max(self.budget, one.largest), ITEMS_A_BATCH * one.largest) for one in asked)
        longest = max(one.largest for one in asked)
        token = (8 * size.hidden + 4 * size.width) * bytes_each
        held = batch * size.layers * size.hidden * bytes_each  # What enters each layer, to start from.
        forward = max(self.budget, longest) * token + held
        backward = batch * size.layers * token if work.gradients else 0
        neutral = min(max(self.budget, longest), ITEMS_A_BATCH * work.material.neutral.largest)
        labels = len(order.job.benchmark.labels)
        parts = {
            "weights": size.parameters * bytes_each,
            "activations": max(forward, backward),
            "logits": 4 * 4 * neutral * size.vocabulary,
            "statistics": 8 * 2 * labels * size.layers * size.width * work.requests,
        }
        if self.options.device.startswith("cpu"):
            parts["libraries"] = LIBRARIES_MIB * MIB
        return {
            name: round(value / MIB, 1) for name, value in (parts | {"total": sum(parts.values())}).items()
        }


class _Speeds(dict[tuple[str, int, int], float]):
    """Operations a second of a matrix product as a model has them, measured once for each shape."""

    def __init__(self, device: str, budget: int) -> None:
        super().__init__()
        self.device, self.budget = device, budget

    def __missing__(self, key: tuple[str, int, int]) -> float:
        dtype, hidden, width = key
        options: Any = {"device": self.device, "dtype": getattr(torch, dtype)}
        left = torch.ones(min(self.budget, 1024), hidden, **options)
        right = torch.ones(width, hidden, **options)
        best, until = math.inf, time.perf_counter() + SPEED_SECONDS
        while time.perf_counter() < until or best == math.inf:
            started = time.perf_counter()
            torch.nn.functional.linear(left, right)
            if self.device.startswith("cuda"):
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - started)
        self[key] = 2.0 * left.shape[0] * hidden * width / best
        return self[key]


def _tokenizer(order: Order) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(order.job.source, **fetching(order.job.card))
    except (OSError, ValueError) as error:
        raise AffectbenchError(f"tokenizer of {order.job.source}: {str(error).splitlines()[0]}") from error


def checkpoint_size(order: Order) -> Size:
    """Shapes of a checkpoint, without its weights. Raises `AffectbenchError` where they cannot be had."""
    from transformers import AutoConfig

    source = order.job.source
    try:
        whole = AutoConfig.from_pretrained(source, **fetching(order.job.card))
    except (OSError, ValueError) as error:
        raise AffectbenchError(f"configuration of {source}: {str(error).splitlines()[0]}") from error
    config = whole.get_text_config()
    hidden, layers = config.hidden_size, config.num_hidden_layers
    heads = config.num_attention_heads
    head = getattr(config, "head_dim", None) or hidden // heads
    pairs = getattr(config, "num_key_value_heads", None) or heads
    experts = getattr(config, "num_experts_per_tok", None)
    width = (getattr(config, "moe_intermediate_size", None) if experts else None) or config.intermediate_size
    projections = 2 * hidden * head * (heads + pairs) + 3 * hidden * width * (experts or 1)
    parameters = _stored(Path(source)) or layers * projections + hidden * config.vocab_size
    return Size(parameters, layers, hidden, width * (experts or 1), config.vocab_size, projections)


def _stored(folder: Path) -> int:
    """Parameters in the safetensors files of a folder, from their headers; 0 where there are none."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        total += sum(math.prod(entry["shape"]) for entry in header.values())
    return total
