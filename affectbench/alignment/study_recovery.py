"""Is what was planted found again? Simulated listeners with a random layer and lag each time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from affectbench.alignment.components import Reduced
from affectbench.alignment.features import States
from affectbench.alignment.grid import lag_grid
from affectbench.alignment.group import share_interval
from affectbench.alignment.head import Head
from affectbench.alignment.metrics import measure
from affectbench.alignment.rdm import FloatArray
from affectbench.alignment.scoring import Reference, effects, reference, scores
from affectbench.alignment.series import Timing, cleaned, cut, gridded
from affectbench.alignment.simulation import BAND, Plant, drive, simulated
from affectbench.alignment.story import Story
from affectbench.alignment.work import Arrays, Task, Workshop
from affectbench.analysis import Column, Finding, Matrix, Table
from affectbench.score_models import Estimate

MEASURES = ("cka_linear", "rsa_spearman")
"""Debiased; the first decides, for RSA of neighbouring layers is nearly the same."""
SUBJECTS, RATE, GRID = 4, 100.0, 12.5
LAGS = (0.1, 0.5)
"""Planted lags are drawn between these, in seconds, not from the grid of lags that is searched."""
LAG_WITHIN, POINTS_WITHIN = 0.05, 1
WANTED = 0.9


@dataclass(frozen=True)
class Stage:
    """What all runs share: who speaks, what the model makes of it, and the head that listens."""

    story: Story
    states: Sequence[States]
    timing: Timing
    references: tuple[Reference, ...]
    head: Head
    snr: float


def staged(story: Story, states: Sequence[States], head: Head, snr: float) -> Stage:
    """Prepare the states of a story's pieces for all runs."""
    timing = Timing.of(story.pieces, GRID, lag_grid())
    reduced = gridded(Reduced.of(states, 20).states, timing)
    found = tuple(reference(measure(name, "debiased"), reduced, timing, seed=0) for name in MEASURES)
    return Stage(story, states, timing, found, head, snr)


def one_run(stage: Stage, run: int, seed: int) -> Arrays:
    """Plant, listen, look: `planted` (point, lag), and `found` (measures, point and lag) and the `height`
    (measures,) of the mean effect there."""
    rng = np.random.default_rng([seed, run, 19])
    points = len(stage.states[0].points)
    plant = Plant(int(rng.integers(points)), float(rng.uniform(*LAGS)), stage.snr)
    source = drive(stage.story, stage.states, plant, RATE)
    total = np.zeros((len(MEASURES), len(stage.timing.lags), points))
    for subject in range(SUBJECTS):
        recording = simulated(
            stage.story, source, plant, stage.head, subject=subject, seed=1000 * seed + run, rate=RATE
        )
        eeg = cut(cleaned(recording, BAND), stage.story.pieces, stage.timing)
        total += np.stack([effects(scores(found, eeg)) for found in stage.references])
    found = []
    for effect in total / SUBJECTS:
        lag, point = np.unravel_index(int(effect.argmax()), effect.shape)
        found.append((float(point), float(stage.timing.lags[lag]), float(effect.max())))
    table = np.array(found)
    return {"planted": np.array([plant.point, plant.lag]), "found": table[:, :2], "height": table[:, 2]}


def study(workshop: Workshop, stage: Stage, runs: int, seed: int) -> dict[str, Any]:
    """The parts of the analysis ``eeg-recovery`` over that many runs."""
    tasks = [Task(f"recovery {run} {seed}", (run, seed)) for run in range(runs)]
    done = workshop.each("recovery", one_run, stage, tasks)
    planted = np.stack([each["planted"] for each in done])
    found = np.stack([each["found"] for each in done])
    names = stage.states[0].points
    rows: list[list[Any]] = []
    shares: list[list[Estimate]] = []
    for place, name in enumerate(MEASURES):
        shares.append(_shares(planted, found[:, place]))
        rows.append([measure(name, "debiased").title, *shares[-1]])
    columns = ["lag within 50 ms", "layer within 1", "both", "layer exact"]
    return {
        "n": {"runs": runs, "subjects": SUBJECTS, "pieces": len(stage.story.pieces)},
        "findings": _findings(shares[0], stage.snr),
        "tables": [
            Table(
                name="recovery", title="Share of runs in which the plant was found",
                columns=[Column(name="measure"), *(Column(name=name) for name in columns)], rows=rows,
            )
        ],
        "matrices": [_confusion(planted, found[:, 0], names), _lags(planted, found[:, 0])],
        "notes": [
            f"Each run plants a random layer of {len(names)} and a random lag between {LAGS[0]} and "
            f"{LAGS[1]} s in {SUBJECTS} listeners at a signal-to-noise ratio of {stage.snr:g}, and takes the "
            "highest mean effect over the grid of lags and layers.",
            "With so few layers a guess is within 1 of the planted one in about half of all runs: read the "
            "exact share beside it.",
        ],
    }  # fmt: skip


def _shares(planted: FloatArray, found: FloatArray) -> list[Estimate]:
    """Shares of runs: lag, layer within 1, both, layer exact."""
    lag = np.abs(found[:, 1] - planted[:, 1]) <= LAG_WITHIN + 1e-9
    apart = np.abs(found[:, 0] - planted[:, 0])
    hits = (lag, apart <= POINTS_WITHIN, lag & (apart <= POINTS_WITHIN), apart == 0)
    estimates = []
    for hit in hits:
        low, high = share_interval(int(hit.sum()), len(hit))
        estimates.append(Estimate(value=float(hit.mean()), low=low, high=high))
    return estimates


def _findings(shares: list[Estimate], snr: float) -> list[Finding]:
    texts = (
        ("lag", "the planted lag is found within 50 ms"),
        ("layer", "the planted layer is found within 1"),
    )
    found = []
    for share, (name, text) in zip(shares, texts, strict=False):
        held = "at least" if share.value >= WANTED else "less than"
        found.append(
            Finding(
                name=name,
                text=f"At a signal-to-noise ratio of {snr:g} {text} in {share.value:.1%} of runs, {held} the "
                f"{WANTED:.0%} that is asked of the instrument.",
                value=share,
            )
        )
    return found


def _confusion(planted: FloatArray, found: FloatArray, names: Sequence[str]) -> Matrix:
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, (planted[:, 0].astype(int), found[:, 0].astype(int)), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return Matrix(
        name="layers", title="Planted layer and found layer", row_label="planted", column_label="found",
        rows=list(names), columns=list(names), values=shares.tolist(), note="Share of the runs of a row.",
    )  # fmt: skip


def _lags(planted: FloatArray, found: FloatArray) -> Matrix:
    """How far found lags lie from planted ones, by planted lag."""
    edges = np.linspace(*LAGS, 5)
    bins = np.clip(np.digitize(planted[:, 1], edges) - 1, 0, 3)
    errors = 1000 * (found[:, 1] - planted[:, 1])
    cuts = np.array([-np.inf, -50, -25, 0, 25, 50, np.inf])
    counts = np.zeros((4, len(cuts) - 1))
    np.add.at(counts, (bins, np.clip(np.digitize(errors, cuts) - 1, 0, len(cuts) - 2)), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    columns = ["below -50", "-50 to -25", "-25 to 0", "0 to 25", "25 to 50", "above 50"]
    rows = [f"{1000 * low:.0f}-{1000 * high:.0f} ms" for low, high in itertools.pairwise(edges)]
    return Matrix(
        name="lag-errors", title="Error of the lag by planted lag", row_label="planted lag",
        column_label="error in ms", rows=rows, columns=columns, values=shares.tolist(),
    )  # fmt: skip
