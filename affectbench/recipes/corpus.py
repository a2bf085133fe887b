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

__all__ = ["Corpus", "Trained", "Wanted", "balanced", "recall"]

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

    training: tuple[Example, ...]
    validation: tuple[Example, ...]


@dataclass(frozen=True)
class Wanted:
    """What to learn, where its data are, where the model goes, and how: the options of `train`."""

    benchmark: Benchmark
    data: Path | None
    output: Path
    seed: int
    threads: int
    steps: int | None

    @property
    def name(self) -> str:
        """What the model trained on the benchmark is called."""
        return f"trained-{self.benchmark.name}"

    @property
    def folder(self) -> Path:
        """Where its weights go."""
        return self.output / "models" / self.name

    def corpus(self, words: Sequence[str]) -> Corpus:
        """The items of the identification split without its limit, and those of validation.

        Args:
            words: answers that the recipe's model can give; the benchmark's labels must be among them.

        Raises:
            AffectbenchError: another label, another kind of answer, or no data (with how to get them).
        """
        benchmark = self.benchmark
        unknown = [label for label in benchmark.labels if label not in words]
        if unknown or benchmark.readout.kind != "labels":
            problem = f"has the label {unknown[0]!r}" if unknown else f"asks for {benchmark.readout.kind}"
            raise AffectbenchError(
                f"benchmark {benchmark.name} {problem}, which this recipe does not teach",
                hint=f"it teaches to answer with the words {', '.join(words)}",
            )
        limits = benchmark.limits.model_copy(update={"identification": None})
        dataset = load_benchmark(benchmark.model_copy(update={"limits": limits}), self.data)
        return Corpus(dataset.splits["identification"], dataset.splits["validation"])


@dataclass(frozen=True)
class Trained:
    """How a model came about, for its card; `steps` are the updates that were made."""

    wanted: Wanted
    corpus: Corpus
    family: str
    beside: str
    steps: int
    parameters: int
    figures: dict[str, float]

    def write_cards(self) -> Path:
        """Write the card and the README beside the weights; returns the former."""
        path = self.wanted.output / "models" / f"{self.wanted.name}.yaml"
        text = yaml.safe_dump(_card(self), sort_keys=False, allow_unicode=True, width=110)
        write_atomically(path, text.encode())
        write_atomically(self.wanted.folder / "README.md", _readme(self).encode())
        return path


def balanced(labels: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions of `count` items, drawn with replacement, every label equally likely."""
    wanted = rng.choice(np.unique(labels), size=count)
    return np.array([rng.choice(np.flatnonzero(labels == label)) for label in wanted])


def recall(predicted: NDArray[np.int64], gold: NDArray[np.int64]) -> float:
    """Unweighted average recall in percent over the labels that occur in `gold`."""
    return 100 * float(np.mean([np.mean(predicted[gold == label] == label) for label in np.unique(gold)]))


def _card(trained: Trained) -> dict[str, Any]:
    wanted, benchmark = trained.wanted, trained.wanted.benchmark
    return {
        "kind": "model",
        "name": wanted.name,
        "version": 1,
        "title": f"Small {benchmark.modality} model trained on {benchmark.title}",
        "description": f"Made by `train {benchmark.name}`, seed {wanted.seed}. Nothing was planted.",
        "family": trained.family,
        "checkpoint": wanted.name,
        "modality": benchmark.modality,
        "licence": f"derived from data: {benchmark.licence}",
        "dtype": "float32",
        "default_task": benchmark.name,
    }


def _readme(trained: Trained) -> str:
    wanted, items = trained.wanted, trained.corpus.training
    benchmark = wanted.benchmark
    values: dict[str, Any] = {
        "name": wanted.name,
        "task": benchmark.name,
        "counts": f"{len(items)} items, {len({item.cluster for item in items})} {benchmark.cluster}s",
        "clusters": f"{benchmark.cluster}s",
        "figures": "\n".join(f"| {key} | {value:.1f} |" for key, value in trained.figures.items()),
    }
    for key in ("title", "licence", "citation"):
        values[key] = getattr(benchmark, key)
    for key in ("beside", "steps", "parameters"):
        values[key] = getattr(trained, key)
    for key in ("seed", "threads"):
        values[key] = getattr(wanted, key)
    return _README.format(**values)
