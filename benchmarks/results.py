"""(5) Scores with their bootstrap, and the site, against size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from affectbench.leaderboard import build_site
from affectbench.outcomes import Condition, Outcomes
from affectbench.placement import Options
from affectbench.plan import jobs_of_suite
from affectbench.record import Record
from affectbench.registry import Registry
from affectbench.run import Run
from affectbench.score import score_outcomes
from benchmarks.grid import CONTENT, Silent
from benchmarks.measuring import Report, Result, Settings, agree, compared, in_turn

EMOTIONS = 7
DOSES = (("suppress", 0.0), ("amplify", 1.5), ("amplify", 2.0), ("amplify", 4.0))
RANDOM_DRAWS = 20


def results(settings: Settings) -> Report:
    """The bootstrap beside a plain loop over resamples, and how both it and the site grow."""
    return Report([_against_a_loop(settings), _bootstrap_growth(settings), _site_growth(settings)])


def _against_a_loop(settings: Settings) -> Result:
    items, draws = (200, 200) if settings.quick else (2000, 10_000)
    outcomes = made_up(items)
    scores = score_outcomes(outcomes, seed=0, bootstrap_draws=draws)
    loop = PlainLoop(outcomes, draws)
    loop.run()
    for place, dose in enumerate(scores.doses):
        for mine, theirs in zip((dose.spec.low, dose.spec.high), loop.interval(place), strict=True):
            # Two sets of resamples: the bounds differ by chance, whose standard deviation is about
            # 3.8 sd / sqrt(draws) at the 2.5 % quantile.
            allowed = 16 * loop.spec[:, place].std() / np.sqrt(draws)
            close = mine is not None and abs(mine - theirs) < allowed
            agree(close, f"{dose.arm} {dose.dose:g}: bound {mine} of the interval, {theirs} by the loop")
    times = in_turn(
        {
            "ours": lambda: score_outcomes(outcomes, seed=0, bootstrap_draws=draws),
            "other": loop.run,
        },
        2 if settings.quick else settings.repeats,
    )
    name = f"all scores of a cell, {draws:,} draws, {items:,} items: a plain loop for the intervals over ours"
    result = compared(name, times["ours"], times["other"], "CPU s")
    settings.say(f"{name}: {result.ours:.2f} s, loop {result.other:.2f} s")
    return result


@dataclass
class PlainLoop:
    """Specificity of every dose, one resample after another; every item is a cluster of its own."""

    outcomes: Outcomes
    draws: int

    def run(self) -> None:
        """Fill `spec` (draws, doses)."""
        rng = np.random.default_rng(1)
        size = len(self.outcomes.items)
        self.spec = np.stack([self._spec(rng.integers(0, size, size)) for _ in range(self.draws)])

    def interval(self, place: int) -> tuple[float, float]:
        """The 95 % percentile interval of one dose."""
        low, high = np.quantile(self.spec[:, place], [0.025, 0.975])
        return float(low), float(high)

    def _spec(self, chosen: np.ndarray) -> list[float]:
        gold = self.outcomes.gold[chosen]
        base = self._recall(self.outcomes.base[chosen], gold)
        found = []
        for condition in self.outcomes.conditions:
            rows = [self._recall(row[chosen], gold) - base for row in condition.predictions]
            matrix = np.stack(rows)
            on_self = np.diagonal(matrix)
            cross = (matrix.sum() - on_self.sum()) / (EMOTIONS * (EMOTIONS - 1))
            sign = 1 if condition.arm == "amplify" else -1
            found.append(float(sign * (on_self.mean() - cross)))
        return found

    @staticmethod
    def _recall(answers: np.ndarray, gold: np.ndarray) -> np.ndarray:
        hits = np.bincount(gold[answers == gold], minlength=EMOTIONS)
        return np.asarray(hits / np.bincount(gold, minlength=EMOTIONS))


def _bootstrap_growth(settings: Settings) -> Result:
    small, large = (100, 200) if settings.quick else (500, 8000)
    draws = 200 if settings.quick else 10_000
    few, many = made_up(small), made_up(large)
    times = in_turn(
        {
            "ours": lambda: score_outcomes(many, seed=0, bootstrap_draws=draws),
            "other": lambda: score_outcomes(few, seed=0, bootstrap_draws=draws),
        },
        2 if settings.quick else settings.repeats,
    )
    name = f"all scores of a cell, {draws:,} draws, CPU time an item: {small:,} items over {large:,}"
    ours = [1e6 * seconds / large for seconds in times["ours"]]
    other = [1e6 * seconds / small for seconds in times["other"]]
    settings.say(f"{name}: done")
    return compared(name, ours, other, "CPU microseconds an item")


def _site_growth(settings: Settings) -> Result:
    small, large = (2, 4) if settings.quick else (32, 512)
    records = small_run(large)

    def build(count: int) -> None:
        with TemporaryDirectory() as folder:
            build_site(records[:count], Path(folder) / "site")

    build(2)
    times = in_turn({"ours": lambda: build(large), "other": lambda: build(small)}, settings.repeats)
    name = f"leaderboard build, CPU time a record: {small} records over {large}"
    ours = [1e3 * seconds / large for seconds in times["ours"]]
    other = [1e3 * seconds / small for seconds in times["other"]]
    settings.say(f"{name}: done")
    return compared(name, ours, other, "CPU ms a record")


def small_run(count: int) -> list[Record]:
    """Records of a small real run, repeated under other seeds."""
    registry = Registry([CONTENT])
    with TemporaryDirectory() as folder:
        run = Run(registry, Options(Path(folder)), Silent())
        made = run.run(jobs_of_suite(registry, "quick", None))
    return [
        record.model_copy(update={"cell": record.cell.model_copy(update={"seed": seed})}).sealed()
        for seed in range(-(-count // len(made)))
        for record in made
    ][:count]


def made_up(items: int, seed: int = 0, labels: Sequence[str] = "abcdefg") -> Outcomes:
    """Random outcomes of a cell: 4 conditions, 7 emotions, 20 random draws, every item its own cluster."""
    rng = np.random.default_rng(seed)
    gold = np.arange(items) % EMOTIONS
    base = np.where(rng.random(items) < 0.7, gold, rng.integers(0, EMOTIONS, items))
    conditions = []
    for arm, dose in DOSES:
        moved = rng.random((EMOTIONS, items)) < 0.2
        aims = np.arange(EMOTIONS)[:, None] if arm == "amplify" else rng.integers(0, EMOTIONS, moved.shape)
        predictions = np.where(moved, aims, base)
        noise = rng.random((RANDOM_DRAWS, items)) < 0.05
        draws = np.where(noise, rng.integers(0, EMOTIONS, noise.shape), base)
        margin = rng.normal(size=moved.shape)
        conditions.append(Condition(arm, dose, abs(dose - 1), predictions, margin, draws))
    return Outcomes(
        labels=tuple(labels),
        items=np.array([f"item-{place:05d}" for place in range(items)]),
        gold=gold,
        clusters=np.arange(items),
        base=base,
        base_margin=rng.normal(size=(items, EMOTIONS)),
        conditions=tuple(conditions),
    )
