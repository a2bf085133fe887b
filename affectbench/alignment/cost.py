"""What an alignment takes, on paper: each step timed on this machine at the sizes asked for, and multiplied.

The counts are those of `components`, `series`, `scoring` and `comparison`, piece by piece.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from heapq import heapreplace
from math import ceil
from typing import Literal

import numpy as np

from affectbench.alignment.comparison import (
    BYTES,
    MOST_WORDS,
    PARTS,
    TOGETHER,
    quarter_of_memory,
    side_bytes,
)
from affectbench.alignment.components import Reduced
from affectbench.alignment.features import States
from affectbench.alignment.grid import COMPONENTS, cells, lag_grid
from affectbench.alignment.hearing_cost import TOKENS_A_SECOND, WIDTH, Clock, Hearer
from affectbench.alignment.metrics import Measure, measure
from affectbench.alignment.rdm import FloatArray
from affectbench.alignment.recording import Recording
from affectbench.alignment.scoring import MOST, MOST_PAIRS
from affectbench.alignment.series import OTHERS, cleaned
from affectbench.alignment_task import AlignmentTask
from affectbench.errors import AffectbenchError

QUANTILES = ((0.0, 0.5), (0.1, 2.4), (0.5, 6.1), (0.9, 13.6), (1.0, 22.9))
"""Seconds of the sentences of Alice's first chapter, by share of them."""
WORDS, CHANNELS, RATE, MINUTES = 25, 60, 500.0, 12.4
"""Of the same recordings: words a sentence, electrodes, samples a second, length."""
EFFICIENCY = 0.5
"""Of all cores at a matrix product, over one: assumed, not measured."""
LENGTHS, SAMPLE_TOKENS, SAMPLE_WIDTH, SAMPLE_WORDS, SAMPLE_SECONDS = 6, 2048, 2048, 400, 60.0
"""At how many lengths of pieces measures are timed, and the smaller sizes at which the rest is."""
LONG = 2.0
"""Seconds after which nothing is timed again."""


@dataclass(frozen=True)
class Sizes:
    """How large an alignment is; `points` are the layers that are compared."""

    models: int
    subjects: int
    sentences: int
    points: int

    @classmethod
    def read(cls, text: str) -> Sizes:
        """From MODELSxSUBJECTSxSENTENCESxLAYERS. Raises `AffectbenchError` for anything else."""
        parts = text.lower().split("x")
        if len(parts) != 4 or not all(part.isdigit() and int(part) > 0 for part in parts):
            raise AffectbenchError(
                f"--plan {text!r} is no size",
                hint="MODELSxSUBJECTSxSENTENCESxLAYERS, such as 12x33x84x33",
            )
        found = cls(*map(int, parts))
        if found.sentences <= OTHERS:
            raise AffectbenchError(
                f"--plan {text!r}: {found.sentences} sentences",
                hint=f"each needs {OTHERS} others that last as long",
            )
        return found


@dataclass(frozen=True)
class Step:
    """One kind of work: CPU `seconds` each time, how often, and who does it: workers subject by subject,
    in one of two `PARTS`, or before them the process that was started, with one thread (``alone``) or with
    all (``threads``)."""

    name: str
    seconds: float
    count: int
    who: Literal["alone", "threads", "words", "pieces"]

    @property
    def total(self) -> float:
        return self.seconds * self.count


@dataclass(frozen=True)
class Plan:
    """All steps of an alignment of some size, and what they take on a number of cores. Models are compared in
    `groups`, side by side within one. `before_bytes` are needed while a model hears and is reduced, its
    states being `disk_bytes` meanwhile; `shared_bytes` are a group's."""

    sizes: Sizes
    groups: int
    steps: tuple[Step, ...]
    before_bytes: float
    disk_bytes: float
    shared_bytes: float
    worker_bytes: float

    @property
    def cpu_s(self) -> float:
        return sum(step.total for step in self.steps)

    def before_s(self, cores: int) -> float:
        """Seconds for all models before subjects are spread."""
        threads = max(1.0, EFFICIENCY * cores)
        return self._of("alone") + self._of("threads") / threads

    def task_s(self, part: str) -> float:
        """Seconds of one of `PARTS` of a subject with the models of a group: what a worker gets at a time."""
        return self._of(part) / (self.groups * self.sizes.subjects)

    def wall_s(self, cores: int) -> float:
        """What is done before, then group by group its subjects, each task by the core that is free first."""
        free = [0.0] * cores
        for part in PARTS:
            for _ in range(self.sizes.subjects):
                heapreplace(free, free[0] + self.task_s(part))
        return self.before_s(cores) + self.groups * max(free)

    def memory(self, cores: int) -> float:
        """The most bytes at a time: while a model hears, or what workers share and those at work hold."""
        spread = self.shared_bytes + self.at_work(cores) * self.worker_bytes
        return max(self.before_bytes, spread)

    def at_work(self, cores: int) -> int:
        """How many workers there is work for."""
        return min(cores, len(PARTS) * self.sizes.subjects)

    def _of(self, who: str) -> float:
        return sum(step.total for step in self.steps if step.who == who)


@dataclass(frozen=True)
class Bench:
    """Times the steps of a task at some size, with models as `hearers`; `clock` gives the CPU seconds of a
    function."""

    task: AlignmentTask
    sizes: Sizes
    clock: Clock
    hearers: Sequence[Hearer]

    @cached_property
    def lengths(self) -> list[int]:
        """Cells of each piece: sentences as long as Alice's, those outside the task's limits at the limit,
        the longest cut as `Timing` cuts them."""
        shares = (np.arange(self.sizes.sentences) + 0.5) / self.sizes.sentences
        known = np.array(QUANTILES)
        seconds = np.interp(shares, known[:, 0], known[:, 1]).clip(*self.task.seconds)
        counts = [cells(float(each), self.task.grid) for each in seconds]
        longest = sorted(counts)[-OTHERS - 1]
        return [min(each, longest) for each in counts]

    @cached_property
    def lags(self) -> int:
        return len(lag_grid(self.task.lags.until, self.task.lags.step))

    @cached_property
    def measures(self) -> list[Measure]:
        return [measure(name, "debiased") for name in self.task.metrics]

    def others(self, most: int) -> list[int]:
        """With how many mismatches each piece is compared: those that last as long, at most so many."""
        ascending = sorted(self.lengths)
        found = len(ascending) - 1 - np.searchsorted(ascending, self.lengths)
        return [min(int(each), most) for each in found]

    def over_pieces(self, seconds: Callable[[int], float], times: Sequence[float]) -> float:
        """What is done `times` for each piece takes, from `seconds` at a few of their lengths."""
        sample = np.unique(np.quantile(self.lengths, np.linspace(0, 1, LENGTHS)).round().astype(int))
        taken = np.interp(self.lengths, sample, [seconds(int(each)) for each in sample])
        return float(taken @ np.asarray(times, dtype=np.float64))

    def prepared(self, one: Measure, features: int, times: Sequence[float]) -> float:
        """Seconds for one measure's side of a series of each piece, so many `times`."""

        def seconds(length: int) -> float:
            series = _noise(length, features)
            return self.clock(lambda: one.prepared(series, self.task.distance))

        return self.over_pieces(seconds, times)

    def hearing(self) -> float:
        """The forward passes of a model, the mean of those that are known."""
        once = [1.0] * len(self.lengths)
        grid = self.task.grid

        def heard_by(one: Hearer) -> Callable[[int], float]:
            return lambda cells: one.seconds(cells / grid, self.clock)

        each = [self.over_pieces(heard_by(one), once) for one in self.hearers]
        return sum(each) / len(each)

    @property
    def tokens(self) -> float:
        """Of all pieces."""
        return TOKENS_A_SECOND * sum(self.lengths) / self.task.grid

    def states(self) -> float:
        """One model's states for all measures, matches and mismatches."""
        points, total = self.sizes.points, 0.0
        for one in self.measures:
            others = self.others(MOST if one.side else MOST_PAIRS)
            total += self.prepared(one, self.task.components, [points * (1 + each) for each in others])
        return total

    def components(self) -> float:
        """The components of one layer, written and read again, from fewer tokens of a narrower model: the
        Gram matrix grows with tokens and the square of the width, its decomposition with the cube of the
        width, which is less."""
        layer = _noise(SAMPLE_TOKENS, SAMPLE_WIDTH)[None].astype(np.float32)
        states = [States(("layer",), layer, np.zeros((SAMPLE_TOKENS, 2)))]
        taken = self.clock(lambda: Reduced.of(states, self.task.components))
        return float(taken * max(self.tokens, WIDTH) / SAMPLE_TOKENS * (WIDTH / SAMPLE_WIDTH) ** 2)

    def recording(self) -> float:
        """Cleaning one recording."""
        samples = int(SAMPLE_SECONDS * RATE)
        data = 1e-5 * (_noise(1, samples) + _noise(CHANNELS, samples))  # Unlike channels would be called bad.
        names = tuple(f"E{place}" for place in range(CHANNELS))
        positions = _noise(CHANNELS, 3)
        raw = Recording(data, RATE, names, ("eeg",) * CHANNELS, positions, 60.0)
        taken = self.clock(lambda: cleaned(raw, self.task.band))
        return taken * 60 * MINUTES / SAMPLE_SECONDS

    def eeg(self) -> float:
        """One subject's EEG for all measures, at all lags, and once more for the acoustics."""
        once = [float(self.lags)] * len(self.lengths)
        total = sum(self.prepared(one, CHANNELS, once) for one in self.measures)
        return total + self.prepared(measure("rsa_spearman", "debiased"), CHANNELS, once)

    def products(self) -> float:
        """One subject's EEG with one model's states, for measures that are inner products."""
        count = 2 * sum(one.side is not None for one in self.measures)

        def seconds(length: int) -> float:
            pairs = length * (length - 1) // 2
            heard, match = _noise(self.lags, pairs), _noise(self.sizes.points, pairs)
            return self.clock(lambda: heard @ match.T)

        return self.over_pieces(seconds, [count] * len(self.lengths))

    def joined(self) -> float:
        """One subject's EEG with one model's states, for measures that need both at once."""
        total = 0.0
        times = [self.lags * self.sizes.points * (1 + each) for each in self.others(MOST_PAIRS)]
        for one in self.measures:
            if one.side is None:
                total += self.over_pieces(partial(self._join, one), times)
        return total

    def _join(self, one: Measure, length: int) -> float:
        x = one.prepared(_noise(length, CHANNELS), self.task.distance)
        y = one.prepared(_noise(length, self.task.components), self.task.distance)
        return self.clock(lambda: one.joined(x, y))

    def words(self) -> float:
        """One side of partial RSA over all words: of a layer, or of an electrode in one window."""
        partial = measure("rsa_lag_partial", "debiased")
        series = _noise(SAMPLE_WORDS, self.task.components)
        taken = self.clock(lambda: partial.prepared(series, self.task.distance))
        pairs, sample = self.word_pairs, SAMPLE_WORDS * (SAMPLE_WORDS - 1) / 2
        return float(taken * pairs * np.log(pairs) / (sample * np.log(sample)))

    def word_products(self) -> float:
        """One side over words with those of one model's points."""
        pairs = SAMPLE_WORDS * (SAMPLE_WORDS - 1) // 2
        states, side = _noise(self.sizes.points, pairs), _noise(pairs, TOGETHER)
        return self.clock(lambda: states @ side) / TOGETHER * self.word_pairs / pairs

    @property
    def words_told(self) -> int:
        return min(WORDS * self.sizes.sentences, MOST_WORDS)

    @property
    def word_pairs(self) -> float:
        return self.words_told * (self.words_told - 1) / 2

    @property
    def model_bytes(self) -> float:
        """The sides of one model, which all workers read."""
        return self.sizes.points * side_bytes(self.task, self.lengths, self.words_told)

    @property
    def together(self) -> int:
        """How many models are compared side by side, in the memory of this machine."""
        return min(self.sizes.models, max(1, int(quarter_of_memory() / self.model_bytes)))

    def plan(self) -> Plan:
        """All steps, timed now."""
        models, points = self.sizes.models, self.sizes.points
        groups = ceil(models / self.together)
        subjects, pairs, word = groups * self.sizes.subjects, models * self.sizes.subjects, self.words()
        windows, cleaning = len(COMPONENTS) * (CHANNELS + 1), self.recording()
        steps = (
            Step("a model hears all pieces", self.hearing(), models, "threads"),
            Step("components of a layer's states", self.components(), models * points, "threads"),
            Step("states of a model, all measures", self.states(), models, "alone"),
            Step("words of a layer", word, models * points, "alone"),
            Step("words: a recording, cleaned", cleaning, subjects, "words"),
            Step("words: windows and electrodes of EEG", word * windows, subjects, "words"),
            Step("words: EEG and states", self.word_products() * windows, pairs, "words"),
            Step("pieces: a recording, cleaned", cleaning, subjects, "pieces"),
            Step("pieces: EEG of a subject, all measures and lags", self.eeg(), subjects, "pieces"),
            Step("pieces: inner products of EEG and states", self.products(), pairs, "pieces"),
            Step("pieces: pairs of EEG and states (tau-b, information)", self.joined(), pairs, "pieces"),
        )
        shared = self.together * self.model_bytes
        return Plan(
            self.sizes, groups, steps, self._before_bytes(), self._disk_bytes(), shared, self._worker_bytes()
        )

    def _before_bytes(self) -> float:
        """A model, its states of the longest piece, and the Gram matrix of a layer, twice while it is
        decomposed; and the components of all pieces of all models."""
        longest = max(self.lengths) / self.task.grid * TOKENS_A_SECOND
        held = 2 * longest * self.sizes.points * WIDTH + 2 * WIDTH**2
        kept = self.sizes.models * self.sizes.points * self.task.components * (self.tokens + WIDTH)
        return max(one.weights for one in self.hearers) + (held + kept) * BYTES

    def _disk_bytes(self) -> float:
        return self.tokens * self.sizes.points * WIDTH * BYTES / 2

    def _worker_bytes(self) -> float:
        """A recording, twice while it is filtered, and what sides over words take while they are made: some
        of them, distances, ranks, their order, the lag."""
        return float((2 * CHANNELS * RATE * 60 * MINUTES + (TOGETHER + 4) * self.word_pairs) * BYTES)


def cpu_time(function: Callable[[], object]) -> float:
    """CPU seconds of a function: the least of a few runs, for at least a tenth of a second; what takes long
    is timed once, after a first run."""
    function()
    taken: list[float] = []
    while sum(taken) < LONG and (len(taken) < 3 or (sum(taken) < 0.1 and len(taken) < 50)):
        started = time.process_time()
        function()
        taken.append(time.process_time() - started)
    return min(taken)


def _noise(rows: int, columns: int) -> FloatArray:
    return np.random.default_rng([rows, columns]).normal(size=(rows, columns))
