"""What the recipes for corpora share: items to learn from, and the folder that is left for `--include`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray

from affectbench.dataset import load_benchmark
from affectbench.errors import AffectbenchError
from affectbench.examples import Example
from affectbench.store import write_atomically
from affectbench.task import Benchmark

__all__ = ["Corpus", "Trained", "balanced", "model_name", "read_corpus", "recall", "write_cards"]

_README: Final = """# {name}

Trained from scratch by `python harness.py train {task}`:
{steps} updates, seed {seed}, CPU threads: {threads}.

It learnt from the identification split of `{task}` ({counts}), beside {beside}, and from no item of its
validation and test splits, which have other {clusters}. **Identification items are training items.**

Nothing was planted, and no objective asks MLP units to carry emotions: whether they do is to be found out.

- Data: {title}. Licence: {licence}. {citation}
- The weights derive from these data: keep them where the data may be kept.
- {parameters} parameters: far too small to say anything about large models.

| unweighted average recall | % |
|---|---|
{figures}
"""


@dataclass(frozen=True)
class Corpus:
    """A benchmark's items that a recipe may see: those to learn from, and those to watch it with."""

    benchmark: Benchmark
    training: tuple[Example, ...]
    validation: tuple[Example, ...]


@dataclass(frozen=True)
class Trained:
    """How a model came about, for its card."""

    corpus: Corpus
    family: str
    beside: str
    seed: int
    steps: int
    threads: int
    parameters: int
    figures: dict[str, float]


def model_name(benchmark: Benchmark) -> str:
    """What the model trained on a benchmark is called."""
    return f"trained-{benchmark.name}"


def read_corpus(benchmark: Benchmark, data: Path | None, words: Sequence[str]) -> Corpus:
    """The items of the identification split without its limit, and those of validation.

    Args:
        benchmark: its labels must be among `words`, which the recipe's model can answer with.
        data: directory that holds the benchmark's folder.
        words: answers of the recipe.

    Raises:
        AffectbenchError: another label, another kind of answer, or no data (with how to get them).
    """
    unknown = [label for label in benchmark.labels if label not in words]
    if unknown or benchmark.readout.kind != "labels":
        problem = f"has the label {unknown[0]!r}" if unknown else f"asks for {benchmark.readout.kind}"
        raise AffectbenchError(
            f"benchmark {benchmark.name} {problem}, which this recipe does not teach",
            hint=f"it teaches to answer with the words {', '.join(words)}",
        )
    limits = benchmark.limits.model_copy(update={"identification": None})
    dataset = load_benchmark(benchmark.model_copy(update={"limits": limits}), data)
    return Corpus(benchmark, dataset.splits["identification"], dataset.splits["validation"])


def balanced(labels: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions of `count` items, drawn with replacement, every label equally likely."""
    wanted = rng.choice(np.unique(labels), size=count)
    return np.array([rng.choice(np.flatnonzero(labels == label)) for label in wanted])


def recall(predicted: NDArray[np.int64], gold: NDArray[np.int64]) -> float:
    """Unweighted average recall in percent over the labels that occur in `gold`."""
    return 100 * float(np.mean([np.mean(predicted[gold == label] == label) for label in np.unique(gold)]))


def write_cards(trained: Trained, output: Path) -> Path:
    """Writes the card `output`/models/NAME.yaml and README.md beside the weights; returns the former."""
    benchmark = trained.corpus.benchmark
    name = model_name(benchmark)
    card = {
        "kind": "model",
        "name": name,
        "version": 1,
        "title": f"Small {benchmark.modality} model trained on {benchmark.title}",
        "description": f"Made by `train {benchmark.name}`, seed {trained.seed}. Nothing was planted.",
        "family": trained.family,
        "checkpoint": name,
        "modality": benchmark.modality,
        "licence": f"derived from data: {benchmark.licence}",
        "dtype": "float32",
        "default_task": benchmark.name,
    }
    path = output / "models" / f"{name}.yaml"
    text = yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=110)
    write_atomically(path, text.encode())
    write_atomically(path.parent / name / "README.md", _readme(trained).encode())
    return path


def _readme(trained: Trained) -> str:
    benchmark, items = trained.corpus.benchmark, trained.corpus.training
    values: dict[str, Any] = {
        "name": model_name(benchmark),
        "task": benchmark.name,
        "counts": f"{len(items)} items, {len({item.cluster for item in items})} {benchmark.cluster}s",
        "clusters": f"{benchmark.cluster}s",
        "figures": "\n".join(f"| {key} | {value:.1f} |" for key, value in trained.figures.items()),
    }
    for key in ("title", "licence", "citation"):
        values[key] = getattr(benchmark, key)
    for key in ("beside", "seed", "steps", "threads", "parameters"):
        values[key] = getattr(trained, key)
    return _README.format(**values)
