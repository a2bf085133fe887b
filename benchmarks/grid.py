"""(1) The quick-start grid: ours, the straightforward way, nnsight and pyvene, side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from affectbench.controls import layer_matched
from affectbench.dataset import load_benchmark
from affectbench.engine import Engine
from affectbench.intervention import Intervention, scale
from affectbench.outcomes import Outcomes
from affectbench.placement import Options, load_model
from affectbench.plan import Job, jobs_of_suite
from affectbench.readout import codes_of
from affectbench.record import Record, cell_id
from affectbench.registry import Registry
from affectbench.run import Run
from affectbench.selector import Selection
from affectbench.session import Session
from affectbench.task import SplitName
from benchmarks.measuring import BenchmarkError, Report, Result, Settings, agree, compared, in_turn
from benchmarks.one_at_a_time import Found, OneAtATime, answers, inputs_of
from benchmarks.ways import Hooks, Way, as_loaded, installed_peers

CONTENT = Path(__file__).parent / "content"
TOLERANCE = 1e-3
"""Largest difference of a log-likelihood (nats) or a preservation measure that rounding may make."""
PRODUCTS = "hooks on our matrix products"
"""Tells apart what fewer and shorter passes save from what the kernel of a product saves."""
Cells = dict[str, dict[SplitName, list[Intervention]]]
"""The interventions of each cell, by selector and split."""


class Silent:
    """A run's reporter that says nothing."""

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_args, **_keywords: None


def grid(settings: Settings) -> Report:
    """CPU seconds of whole cells and of their answers alone, for each model and for all of them."""
    registry = Registry([CONTENT])
    suite = "quick" if settings.quick else "quickstart" if settings.full else "share"
    peers, missing = installed_peers()
    if settings.quick:
        peers, missing = [], (*missing, "quick: the peers are left out")
    compared_models = [
        ModelGrid(registry, job, settings, peers) for job in jobs_of_suite(registry, suite, None)
    ]
    for each in compared_models:
        each.measure()
    results = [result for each in compared_models for result in each.results(each.job.card.name)]
    if len(compared_models) > 1:
        name = "quick-start grid" if settings.full else f"quick-start grid, {_share(compared_models)}"
        results = [*_summed(compared_models).results(name), *results]
    return Report(results, missing)


def _share(grids: list[ModelGrid]) -> str:
    """Which part of the quick start this is."""
    test = len(grids[0].session.items("test"))
    total = sum(grid.interventions for grid in grids)
    return f"{test} of 210 test items, all {total:,} interventions of {len(grids)} models"


@dataclass
class ModelGrid:
    """The grid of one model. `times` holds the CPU seconds of every side, repeat by repeat."""

    registry: Registry
    job: Job
    settings: Settings
    peers: list[Any]
    times: dict[str, list[float]] = field(default_factory=dict)
    parts: list[dict[str, float]] = field(default_factory=list)
    session: Session = field(init=False)
    interventions: int = 0
    _found: dict[str, Found] = field(init=False, default_factory=dict)

    def measure(self) -> None:
        """Check that all sides agree, then time them in turn."""
        name = self.job.card.name
        self.settings.say(f"{name}: loading, and one untimed run of ours for the selections")
        model = load_model(self.registry, self.job, "cpu")
        dataset = load_benchmark(self.job.benchmark)
        self.session = Session(model, self.job.benchmark, dataset, self.registry.benchmark)
        selections, records, outcomes = self._run()
        cells = self._cells(selections)
        self.interventions = sum(len(splits["test"]) for splits in cells.values())
        # A peer leaves its own wrappers on the modules, so each gets a model of its own.
        ways = [way(as_loaded(load_model(self.registry, self.job, "cpu"))) for way in (Hooks, *self.peers)]
        self.settings.say(f"{name}: do {', '.join(way.name for way in ways)} give the same answers?")
        self._check_answers(cells, ways)
        # For text, the straightforward cells do just what plain hooks on ready inputs do.
        timed_ways = ways if self.job.benchmark.modality == "audio" else ways[1:]
        sides: dict[str, Callable[[], object]] = {
            "ours, whole": self._run,
            "straightforward, whole": self._straightforward,
            "ours, answers": lambda: self._ours(cells),
            **{f"{way.name}, answers": partial(self._theirs, way, cells) for way in timed_ways},
            f"{PRODUCTS}, answers": partial(self._theirs, Hooks(model), cells),
        }
        for repeat in range(self.settings.repeats):
            self.settings.say(f"{name}: repeat {repeat + 1} of {self.settings.repeats}")
            for side, seconds in in_turn(sides, 1).items():
                self.times.setdefault(side, []).extend(seconds)
                self.settings.say(f"  {side}: {seconds[0]:.1f} CPU s")
            if timed_ways != ways:
                self.times.setdefault("hooks, answers", []).append(self.parts[-1]["answers"])
            for cell, found in self._found.items():
                _check_cell(cell, found, records[cell], outcomes[cell])

    def results(self, name: str) -> list[Result]:
        """The comparisons, named after what was run."""
        whole = compared(
            f"{name}: whole cells, straightforward over ours",
            self.times["ours, whole"],
            self.times["straightforward, whole"],
            "CPU s",
        )
        full = compared(
            f"{name}: answers, straightforward over ours",
            self.times["ours, answers"],
            [parts["answers"] for parts in self.parts],
            "CPU s",
        )
        others = [side for side in self.times if side.endswith(", answers") and not side.startswith("ours")]
        return [
            whole,
            full,
            *(
                compared(
                    f"{name}: answers from ready inputs, {side.removesuffix(', answers')} over ours",
                    self.times["ours, answers"],
                    self.times[side],
                    "CPU s",
                )
                for side in others
            ),
        ]

    def _run(self) -> tuple[dict[str, Selection], dict[str, Record], dict[str, dict[str, Outcomes]]]:
        """A run of the job as the command makes it, in a folder of its own."""
        with TemporaryDirectory() as folder:
            run = Run(self.registry, Options(Path(folder)), Silent())
            records = {record.cell.selector: record for record in run.run([self.job])}
            if run.failures or len(records) < self.job.size:
                raise BenchmarkError(f"the run of {self.job.card.name} failed: {'; '.join(run.failures)}")
            selections, outcomes = {}, {}
            for name, record in records.items():
                if record.status == "error":
                    raise BenchmarkError(f"cell {cell_id(record.cell)} failed: {record.reason}")
                path = run.store.selections / f"{cell_id(record.cell)}.safetensors"
                selections[name] = Selection.load(path)
                outcomes[name] = run.store.read_predictions(record.cell)
        return selections, records, outcomes

    def _straightforward(self) -> None:
        way = OneAtATime(self.registry, self.job)
        self._found = way.run()
        self.parts.append(way.parts)

    def _cells(self, selections: dict[str, Selection]) -> Cells:
        (protocol,) = self.job.protocols
        doses = [*protocol.arms.suppress.doses, *protocol.arms.amplify.doses]
        shape, seed = self.session.model.shape, self.job.seed

        def edits(sets: list[np.ndarray]) -> list[Intervention]:
            return [
                scale(protocol.site, shape, units, dose, protocol.positions)
                for dose in doses
                for units in sets
            ]

        cells: Cells = {}
        for name, selection in selections.items():
            draws = layer_matched(selection, protocol.controls.random_draws, seed)
            own = list(selection.units)
            cells[name] = {"validation": edits(own), "test": edits([*own, *draws])}
        return cells

    def _ours(self, cells: Cells) -> list[np.ndarray]:
        """Label scores of every cell and split, by an engine that knows nothing yet."""
        engine = Engine(self.session.model)
        readout = self.session.readout
        return [
            engine.predict(self.session.items(split), readout, interventions).scores
            for splits in cells.values()
            for split, interventions in splits.items()
        ]

    def _theirs(self, way: Way, cells: Cells) -> list[np.ndarray]:
        items = {split: self.session.items(split) for split in ("validation", "test")}
        inputs = {split: inputs_of(self.session.model, found) for split, found in items.items()}
        return [
            answers(way, inputs[split], items[split], self.session.readout, interventions)
            for splits in cells.values()
            for split, interventions in splits.items()
        ]

    def _check_answers(self, cells: Cells, ways: list[Any]) -> None:
        """Every way gives the same answers on one cell; the timed runs check the others for plain hooks."""
        first = dict(list(cells.items())[:1])
        ours = self._ours(first)
        for way in ways:
            for mine, theirs in zip(ours, self._theirs(way, first), strict=True):
                close = np.allclose(mine, theirs, rtol=0, atol=TOLERANCE)
                agree(close, f"{way.name} and ours give other scores on {self.job.card.name}")
                differ = codes_of(mine) != codes_of(theirs)
                agree(not (differ & ~_ties(mine)).any(), f"{way.name} and ours give other answers")


def _ties(scores: np.ndarray) -> np.ndarray:
    """Where the two best labels are so close that rounding decides."""
    ranked = np.sort(scores, axis=-1)
    close: np.ndarray = ranked[..., -1] - ranked[..., -2] < TOLERANCE
    return close


def _check_cell(name: str, found: Found, record: Record, outcomes: dict[str, Outcomes]) -> None:
    """The straightforward cell says what the record says."""
    for split, ours in outcomes.items():
        first, second = ours.ordered(), found.outcomes[split].ordered()
        agree(bool((first.base == second.base).all()), f"{name}, {split}: answers without intervention")
        for one, other in zip(first.conditions, second.conditions, strict=True):
            where = f"{name}, {split}, {one.name}"
            tied = np.abs(one.margin) < TOLERANCE
            agree(bool(((one.predictions == other.predictions) | tied).all()), f"{where}: answers")
            same = np.allclose(one.margin, other.margin, rtol=0, atol=TOLERANCE, equal_nan=True)
            agree(same, f"{where}: margins")
            differing = int((one.draws != other.draws).sum())
            agree(differing <= TOLERANCE * one.draws.size, f"{where}: answers under random units")
    for kept, theirs in zip(record.preservation, found.preservation, strict=True):
        for key in ("kl", "bits_per_byte", "capability", "degenerate_rate", "pres"):
            values = getattr(kept, key).value, getattr(theirs, key).value
            where = f"{name}, {kept.arm} {kept.dose:g}: {key} is {values[0]}, straightforwardly {values[1]}"
            agree(abs(values[0] - values[1]) <= TOLERANCE, where)
    agree(record.status == found.status, f"{name}: status {record.status}, not {found.status}")


def _summed(grids: list[ModelGrid]) -> ModelGrid:
    """All models together, repeat by repeat."""
    first = grids[0]
    times = {
        side: [sum(t) for t in zip(*(g.times[side] for g in grids), strict=True)] for side in first.times
    }
    parts = [
        {"answers": sum(part["answers"] for part in repeat)}
        for repeat in zip(*(each.parts for each in grids), strict=True)
    ]
    return ModelGrid(first.registry, first.job, first.settings, first.peers, times, parts)
