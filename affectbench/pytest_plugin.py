"""A pytest plug-in: a team's own tests say what a selection does to its model, and fail when that changes.

It is loaded wherever affectbench is installed, so it imports pytest alone until a test asks for its fixture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from affectbench.analysis import Analysis
    from affectbench.record import Cell, Headline, Record
    from affectbench.registry import Registry
    from affectbench.score_models import Estimate

FIXTURE = "affectbench_run"
MARKER = "affectbench"
CACHE = "affectbench"


@dataclass(frozen=True)
class Result:
    """What a cell found, at its operating doses on the test split; `record` holds everything else.

    An `Estimate` has `value`, and `low` and `high` of its 95 % interval. A result that does not exist (too
    few items, or an intervention that collapses the answers) raises `AffectbenchError` with the reason.
    """

    record: Record

    @property
    def specificity(self) -> Estimate:
        """How much more the targeted emotion loses than the others, when the units are switched off."""
        return self._headline.spec

    @property
    def strength(self) -> Estimate:
        """How far the dose pushes answers towards the emotion."""
        found: Estimate = self._existing(self._headline.strength, "steering strength")
        return found

    @property
    def preservation(self) -> Estimate:
        """What is left of the language model: 1 for all of it."""
        found: Estimate = self._existing(self._headline.pres, "preservation")
        return found

    @property
    def significant(self) -> bool:
        """Whether the cell has a star: an effect that chance and random units do not explain."""
        return self._headline.significant

    @property
    def base_uar(self) -> float:
        """Mean recall of the emotions without intervention."""
        scores = self.record.scores
        return float(self._existing(scores.baseline.uar if scores else None, "recall"))

    @property
    def _headline(self) -> Headline:
        headline = self.record.headline if self.record.status == "ok" else None
        found: Headline = self._existing(headline, "result")
        return found

    def _existing(self, value: Any, name: str) -> Any:
        if value is None:
            from affectbench.errors import AffectbenchError

            cell, reason = self.record.cell, self.record.reason or "not measured"
            raise AffectbenchError(
                f"{cell.selector} on {cell.model} has no {name}: {self.record.status}: {reason}"
            )
        return value


class _Printer:
    """Reports a run to standard output, which pytest shows where a test fails."""

    def start(self, cells: int) -> None:
        """Nothing to say: a test asks for one cell."""

    def phase(self, text: str) -> None:
        print(f"affectbench: {text}")

    def cell(self, cell: Cell, passes: int) -> None:
        print(f"affectbench: {cell.model} · {cell.task} · {cell.selector} · {cell.intervention}")

    def advance(self, passes: int) -> None:
        """Nothing to say."""

    def note(self, text: str) -> None:
        print(f"affectbench: note: {text}")

    def done(self, record: Record, *, skipped: bool) -> None:
        print(f"affectbench: {record.status}{', from the cache' if skipped else ''}")

    def analysed(self, analysis: Analysis, *, skipped: bool) -> None:
        print(f"affectbench: {analysis.kind}")


@dataclass(frozen=True)
class Runner:
    """The value of the fixture `affectbench_run`; results are kept below `folder`."""

    folder: Path

    def __call__(
        self,
        model: Any,
        selector: str | Path,
        *,
        task: str | None = None,
        intervention: str = "zero-gain",
        fraction: float | None = None,
        tokenizer: Any = None,
        include: Sequence[str | Path] = (),
        data: str | Path | None = None,
        limit: int | None = None,
        device: str = "cpu",
        seed: int = 0,
        trust_code: bool = False,
    ) -> Result:
        """Run one cell, or take it from pytest's cache where model, task, protocol and selector are the same.

        Args:
            model: a model card, a folder of a checkpoint, a hub id; or a `transformers` causal language model
                in memory, with its `tokenizer`.
            selector: a selector's name, or a file of units (`.safetensors`, as in `selections/` of a run).
            task: a benchmark; the card's own by default.
            intervention, fraction: a protocol, and which of its fractions where it has several.
            include, data, limit, device, seed, trust_code: as the options of `affectbench run`.

        Raises:
            AffectbenchError: a name that does not exist, a model that does not load, a selector that fails.
        """
        from affectbench.errors import AffectbenchError
        from affectbench.placement import Options
        from affectbench.plan import job_of_names, trusted
        from affectbench.registry import Registry
        from affectbench.run import Run

        if not isinstance(model, str | Path):
            model = self._saved(model, tokenizer)
        registry, name = self._with_selector(Registry([Path(each) for each in include]), selector)
        job = job_of_names(registry, str(model), task, [name], [intervention], seed)
        options = Options(
            self.folder / "results" / (f"limit{limit}" if limit else "all"),
            device,
            Path(data) if data else None,
            limit,
            command="pytest",
        )
        run = Run(registry, options, _Printer())
        records = run.run(trusted([job], trust_code))
        if run.failures:
            raise AffectbenchError(run.failures[0])
        found = [each for each in records if fraction in (None, each.cell.fraction)]
        if len(found) != 1:
            known = ", ".join(f"{each.cell.fraction:g}" for each in records)
            raise AffectbenchError(
                f"protocol {intervention} has fractions {known}", hint="choose one with `fraction=`"
            )
        if found[0].status == "error":
            raise AffectbenchError(found[0].reason)
        return Result(found[0])

    def _saved(self, network: Any, tokenizer: Any) -> Path:
        """A model in memory as a checkpoint: a cell's identity is the hash of its weights."""
        from affectbench.errors import AffectbenchError

        if tokenizer is None:
            raise AffectbenchError("a model in memory needs its tokenizer", hint="add `tokenizer=`")
        folder = self.folder / "checkpoints" / type(network).__name__.lower()
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    @staticmethod
    def _with_selector(registry: Registry, selector: str | Path) -> tuple[Registry, str]:
        path = Path(selector)
        if path.suffix != ".safetensors":
            return registry, str(selector)
        from affectbench.submitted import SubmissionRegistry

        return SubmissionRegistry(registry, path.stem, path), path.stem


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, for projects with strict markers."""
    text = f"{MARKER}: runs a model through affectbench (set on every test that asks for `{FIXTURE}`)"
    config.addinivalue_line("markers", text)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that run a model before `-m` chooses among them."""
    for item in items:
        if FIXTURE in getattr(item, "fixturenames", ()):
            item.add_marker(MARKER)


@pytest.fixture(scope="session")
def affectbench_run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Result]:
    """Run a selection on a model and get its specificity, strength and preservation, each with its interval.

    `affectbench_run("path/to/checkpoint", "magnitude", task="goemotions", data="data").specificity.low > 0.1`
    """
    cache = getattr(request.config, "cache", None)  # None with `-p no:cacheprovider`.
    folder = cache.mkdir(CACHE) if cache is not None else tmp_path_factory.mktemp(CACHE)
    return Runner(Path(folder))
