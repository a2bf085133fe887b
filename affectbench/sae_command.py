"""What `train-sae` does once its arguments are read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from affectbench.errors import AffectbenchError
from affectbench.registry import Registry

if TYPE_CHECKING:
    from affectbench.task import Benchmark, ModelCard

BESIDE = 4
"""Features a dimension of the residual stream, where nobody says how many."""


@dataclass(frozen=True)
class TrainRequest:
    """The arguments of `train-sae`."""

    model: str
    task: str | None
    output: Path
    name: str | None
    features: int | None
    active: int
    tokens: int
    layers: str | None
    texts: tuple[Path, ...]
    data: Path | None
    include: tuple[Path, ...]
    limit: int | None
    device: str
    threads: int
    seed: int
    trust_code: bool


def train_saes(console: Console, asked: TrainRequest) -> None:
    """Train SAEs and print their figures. Raises `AffectbenchError` for what cannot be."""
    import torch

    from affectbench.dataset import load_benchmark
    from affectbench.model_loading import load_from
    from affectbench.plan import card_of, checkpoint_of
    from affectbench.recipes.sae import Request, build
    from affectbench.recipes.sae_training import Options
    from affectbench.run import command_line

    layers = _layers(asked.layers)
    torch.set_num_threads(asked.threads)
    registry = Registry(asked.include)
    card = card_of(registry, asked.model)
    card = card.trust() if asked.trust_code else card
    benchmark = _benchmark(registry, card, asked.task)
    with console.status(f"reading {benchmark.name}, loading {card.name}"):
        dataset = load_benchmark(benchmark, asked.data, asked.limit)
        model = load_from(registry, card, checkpoint_of(card), asked.device)
        width = int(model.embed(torch.zeros(1, dtype=torch.long)).shape[-1])
    options = Options(asked.features or BESIDE * width, asked.active, asked.tokens, asked.seed)
    name = asked.name or f"{card.name}-sae"
    request = Request(name, asked.output, options, layers, asked.texts, command_line())
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, TextColumn("{task.fields[word]}"), console=console) as bars:
        bar = bars.add_task("reading", total=None, word="")

        def told(what: str, done: int, total: int, word: str) -> None:
            bars.update(bar, description=what, completed=done, total=total, word=word)

        build(model, benchmark, dataset, _digest(card), request, told)
    readme = (request.folder / "README.md").read_text(encoding="utf-8")
    console.print(escape(readme), highlight=False, soft_wrap=True)
    console.print(escape(f"Written to {request.folder}; card {asked.output / name}.yaml"), soft_wrap=True)


def _benchmark(registry: Registry, card: ModelCard, task: str | None) -> Benchmark:
    chosen = task or card.default_task
    if chosen is None:
        raise AffectbenchError(f"model {card.name} has no default task", hint="add --task")
    benchmark = registry.benchmark(chosen)
    if benchmark.modality != card.modality and benchmark.modality != "text":
        raise AffectbenchError(
            f"model {card.name} takes {card.modality}; benchmark {chosen} is {benchmark.modality}"
        )
    return benchmark


def _digest(card: ModelCard) -> str:
    """Hash of the weights of a folder, or the hub's commit."""
    from affectbench.identity import checkpoint_digest

    return card.revision or "" if card.folder is None else checkpoint_digest(card.folder)


def _layers(text: str | None) -> tuple[int, ...] | None:
    """``0,3,5-7`` as layers, ascending; None for all of them."""
    if text is None or text == "all":
        return None
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None or (match[2] is not None and int(match[2]) < int(match[1])):
            raise AffectbenchError(f"--layers {text}: cannot read {part!r}", hint="such as 0,3,5-7, or all")
        found |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(sorted(found))
