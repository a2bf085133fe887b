"""Example analyses for tests: every kind of part, with random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from affectbench.analysis import (
    Analysis,
    AnalysisCost,
    AnalysisHashes,
    AnalysisProvenance,
    Column,
    Curve,
    Finding,
    Mark,
    Matrix,
    Series,
    Table,
    Topography,
    analysis_name,
    grid,
    numbers,
)
from affectbench.score_models import Estimate

EMOTIONS = ["anger", "disgust", "fear", "joy", "sadness", "surprise"]
LAYERS = 12


def example_analysis(
    model: str = "reference-text", task: str = "reference-text", seed: int = 0, **changes: object
) -> Analysis:
    """One sealed analysis with a part of each kind, deterministic in its arguments."""
    rng = np.random.default_rng([seed, len(model), len(task)])
    found = Analysis(
        kind="feature-flow",
        name=analysis_name("feature-flow", model, task, seed=seed),
        title="Flow of information over layers",
        description="Three readings of the features of each layer.",
        model=model,
        task=task,
        instrument=model.startswith("reference"),
        settings={"bootstrap_draws": 200, "top": 100, "sizes": [20, 50, 100], "share": 0.5},
        n={"items": 420, "clusters": 60},
        seed=seed,
        findings=[
            Finding(
                name="last-phase",
                text="The last phase begins at layer 8.",
                value=Estimate(value=8, low=7, high=9),
                p=0.012,
            ),
            Finding(name="no-number", text="Features of disgust are few."),
        ],
        curves=[_curve(rng)],
        matrices=[_matrix(rng)],
        maps=[_map(rng)],
        tables=[_table()],
        notes=["Items that the model answers wrongly are left out."],
        hashes=AnalysisHashes(inputs={"task": "t" * 16, "model": "m" * 16}, code="c" * 16),
        cost=AnalysisCost(wall_s=12.5, cpu_s=11.0, forward_passes=14, peak_memory_mib=800),
        provenance=AnalysisProvenance(
            affectbench="0.1.0", python="3.11.9", platform="Linux x86_64", threads=1,
            versions={"torch": "2.13.0", "numpy": "2.4.6"}, command="affectbench run sae-features",
            started="2026-11-20T12:00:00+00:00", finished="2026-11-20T12:00:12+00:00",
        ),
    )  # fmt: skip
    return found.model_copy(update=changes).sealed()


def _curve(rng: np.random.Generator) -> Curve:
    rise = 1 / (1 + np.exp(-(np.arange(LAYERS) - 7)))
    overlap = numbers(rng.normal(0.4, 0.05, LAYERS))
    overlap[0] = None  # There is no layer below the first.
    return Curve(
        name="curves",
        title="Three readings by layer",
        x_label="layer",
        y_label="share",
        x=[float(layer) for layer in range(LAYERS)],
        series=[
            Series(label="overlap", values=overlap),
            Series(label="probe", values=numbers(rise), low=numbers(rise - 0.05), high=numbers(rise + 0.05)),
        ],
        marks=[Mark(label="phase 2", x=3, low=2, high=5), Mark(label="phase 3", x=8)],
        reference=1 / 6,
        reference_label="chance",
    )


def _matrix(rng: np.random.Generator) -> Matrix:
    values = rng.normal(0, 0.4, (6, 6)).clip(-1, 1)
    values[1, 2] = np.nan
    return Matrix(
        name="geometry",
        title="Similarity of directions",
        row_label="direction of",
        column_label="direction of",
        rows=EMOTIONS,
        columns=EMOTIONS,
        values=grid(values),
        low=grid(values - 0.1),
        high=grid(values + 0.1),
        scale="diverging",
    )


def _map(rng: np.random.Generator) -> Topography:
    angle = np.linspace(0, 2 * np.pi, 9)[:-1]
    return Topography(
        name="scalp",
        title="Alignment by electrode",
        points=[f"E{place}" for place in range(9)],
        x=[0.0, *numbers(0.7 * np.sin(angle))],
        y=[0.0, *numbers(0.7 * np.cos(angle))],
        panels=["0 to 100 ms", "100 to 200 ms"],
        values=grid(rng.normal(0, 0.1, (2, 9))),
    )


def _table() -> Table:
    rows = [
        [emotion, count, Estimate(value=0.1 * count, low=0.05 * count, high=0.2 * count), None]
        for count, emotion in enumerate(EMOTIONS, start=2)
    ]
    columns = [Column(name="emotion"), Column(name="features"), Column(name="effect"), Column(name="Gini")]
    return Table(name="effects", title="Causal features by emotion", columns=columns, rows=rows)


def units_off(selector: str, beyond: Sequence[float], p: Sequence[float], **settings: Any) -> Analysis:
    """An analysis of units that were switched off, as the study stores it."""
    value = Estimate(value=beyond[0], low=beyond[1], high=beyond[2])
    untouched = Estimate(value=0.5, low=settings.pop("aligned", 0.4), high=0.6)
    others = settings.pop("others", 0.1)
    specific = None if others is None else Estimate(value=0.2, low=others, high=0.3)
    columns = [
        "measure",
        "untouched",
        "own, affective",
        "beyond random",
        "p, subjects",
        "p, draws",
        "p, as loud",
        "beyond other emotions",
    ]
    rows: list[list[Any]] = [
        ["CKA, linear", untouched, value, value, *p, specific],
        ["RSA, Spearman", untouched, value, value, 1.0, 1.0, 1.0, None],
    ]
    name = analysis_name("eeg-intervention", selector, seed=0)
    return example_analysis(
        kind="eeg-intervention", name=name, curves=[],
        matrices=[], maps=[],
        settings={"selector": selector, "protocol": "zero-gain", "control": ""} | settings,
        tables=[Table(name="summary", title="t", columns=[Column(name=each) for each in columns], rows=rows)],
    )  # fmt: skip
