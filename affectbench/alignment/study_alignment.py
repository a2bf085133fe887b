"""How models align with the EEG of a task: by measure, layer, lag, electrode and affect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from affectbench.alignment.comparison import (
    BY_POINT,
    PARTS,
    Comparison,
    model_acoustics,
    one_subject,
)
from affectbench.alignment.contrasts import contrasted
from affectbench.alignment.grid import COMPONENTS
from affectbench.alignment.group import (
    banded,
    estimate_of,
    estimated,
    interval,
    noise_ceiling,
    over_subjects,
    peak,
)
from affectbench.alignment.head import projected
from affectbench.alignment.over_models import Across
from affectbench.alignment.published import published
from affectbench.alignment.rdm import FloatArray
from affectbench.alignment.work import Task, Workshop
from affectbench.analysis import Column, Curve, Finding, Matrix, Table, Topography, grid


@dataclass(frozen=True)
class Found:
    """One model's results: `effects` (subjects, measures, lags, points) of match minus mismatch, and the same
    by piece (subjects, measures, pieces, lags, points); RSA of the sound's `acoustics` and the states
    (pieces, points); what `one_subject` kept beside them. The comparison is without states."""

    comparison: Comparison
    points: tuple[str, ...]
    pieces: FloatArray
    acoustics: FloatArray
    kept: Mapping[str, FloatArray]

    @property
    def effects(self) -> FloatArray:
        return np.asarray(np.nanmean(self.pieces, axis=2))

    def at_peak(self, measure: int) -> tuple[Any, FloatArray]:
        """For each subject the (lag, point) where the mean of the others is highest, (2, subjects), and the
        subject's own effect there, (subjects,)."""
        effects = self.effects[:, measure]
        places, heights = peak(effects.reshape(len(effects), -1))
        return np.unravel_index(places, effects.shape[1:]), heights


def found(workshop: Workshop, comparison: Comparison) -> dict[str, Found]:
    """Compare all subjects with the models of a comparison."""
    acoustics = model_acoustics(comparison)
    subjects = range(len(comparison.ground.subjects))
    models = ", ".join(comparison.models)
    tasks = [Task(f"{part} {models} {subject}", (subject, part)) for part in PARTS for subject in subjects]
    done = workshop.each(f"subjects with {models}", one_subject, comparison, tasks)
    stacked: dict[str, FloatArray] = {}
    for place in range(0, len(tasks), len(subjects)):
        own = done[place : place + len(subjects)]
        stacked |= {key: np.stack([each[key] for each in own]) for key in own[0]}
    scores = stacked.pop("scores")
    effects = scores[:, :, 0] - scores[:, :, 1]
    comparison, results, first = comparison.without_states(), {}, 0
    for model, points in comparison.models.items():
        at = slice(first, first + len(points))
        kept = {key: each[..., at] if key in BY_POINT else each for key, each in stacked.items()}
        results[model] = Found(comparison, points, effects[..., at], acoustics[..., at], kept)
        first += len(points)
    return results


def study(results: Mapping[str, Found], seed: int) -> dict[str, Any]:
    """The parts of the analysis ``eeg-alignment`` of all models."""
    first = next(iter(results.values()))
    comparison, task = first.comparison, first.comparison.task
    measures = [each.measure for each in comparison.references]
    heights = np.stack(
        [[each.at_peak(place)[1] for place in range(len(measures))] for each in results.values()]
    )  # (models, measures, subjects)
    test = over_subjects(np.moveaxis(heights, -1, 0), seed=seed, correction=task.correction)
    spread = interval(np.moveaxis(heights, -1, 0), seed=seed)
    lower, upper = noise_ceiling(_pieces_apart(first))
    titles = [measure.title for measure in measures]
    across = Across(
        tuple(results),
        measures,
        np.moveaxis(heights, -1, 0),
        [each.effects for each in results.values()],
        seed,
    )
    curves, matrices = across.curves(), across.matrices()
    for name, each in results.items():
        tag = _tag(name)
        curves.append(_layer_curve(each, titles, f"layers-{tag}", f"Layers of {name}", seed))
        curves.append(_lag_curve(each, titles, f"lags-{tag}", f"Lags, {name}", seed))
        matrices.append(_lag_by_layer(each, f"lag-layer-{tag}", f"{titles[0]}: lag and layer of {name}"))
        matrices.append(_windows(each, f"windows-{tag}", f"Word-locked windows, {name}"))
    affect, matched = contrasted(results, seed)
    return {
        "n": {
            "models": len(results),
            "subjects": len(comparison.ground.subjects),
            "pieces": len(comparison.kept),
        },
        "findings": [
            Finding(
                name="strongest",
                text=f"{titles[0]} of {next(iter(results))} at its cross-validated lag and layer, match "
                "minus mismatch.",
                value=estimated(spread[:, 0, 0]), p=float(test.corrected[0, 0]),
            ),
            Finding(
                name="noise-ceiling",
                text="Between subjects, RSA of EEG with the mean of the others (upper bound: with the mean "
                f"of all, {upper.mean():.3f}) is the most that a model may reach.",
                value=estimate_of(lower, seed=seed),
            ),
            *across.findings(),
            *published(next(iter(results)), first, seed),
        ],
        "curves": curves,
        "matrices": [*matrices, *matched],
        "maps": [_map(each, name) for name, each in results.items()],
        "tables": [_table(results, measures, spread, test.corrected), *affect],
        "notes": [
            "The effect is match minus the mean mismatch of other speech of the same length; p by sign flips "
            f"over subjects, corrected ({task.correction}) for all models and measures.",
            "Lag and layer of each subject are where the mean of the others is highest: no height is the "
            "best of many. All lags are in the curves.",
            "Principal components of the states are fitted over all pieces of the story, without EEG.",
            _filtered(first),
        ],
    }  # fmt: skip


def _filtered(found: Found) -> str:
    """What was done to frequencies of the EEG, for the record."""
    low, high = found.comparison.task.band
    lines = sorted({float(line) for line in found.kept["line"] if np.isfinite(line)})
    notch = " and ".join(f"{line:g} Hz" for line in lines) if lines else "no frequency"
    return f"EEG was filtered from {low:g} to {high:g} Hz, with a notch at {notch}."


def _pieces_apart(found: Found) -> FloatArray:
    """Sides (subjects, m) of all pieces, each at length one over all, for the ceiling."""
    sides = found.kept["side"].astype(np.float64)
    return np.asarray(sides / np.linalg.norm(sides, axis=1, keepdims=True))


def _tag(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-")


def _cross_validated(found: Found, measure: int) -> tuple[FloatArray, FloatArray]:
    """Effects over layers at each subject's lag (subjects, points), and over lags at its layer (subjects,
    lags)."""
    effects = found.effects[:, measure]
    (lags, points), _ = found.at_peak(measure)
    rows = np.arange(len(effects))
    return effects[rows, lags], effects[rows, :, points]


def _layer_curve(found: Found, titles: Sequence[str], name: str, title: str, seed: int) -> Curve:
    depth = np.arange(len(found.points)) / max(1, len(found.points) - 1)
    return Curve(
        name=name, title=title, x_label="relative depth", y_label="match minus mismatch", x=depth.tolist(),
        series=[banded(t, _cross_validated(found, place)[0], seed=seed) for place, t in enumerate(titles)],
        reference=0.0, note="0 is what enters the decoder; bands are 95 % bootstraps over subjects.",
    )  # fmt: skip


def _lag_curve(found: Found, titles: Sequence[str], name: str, title: str, seed: int) -> Curve:
    return Curve(
        name=name, title=title, x_label="lag of the EEG, s", y_label="match minus mismatch",
        x=[round(float(lag), 6) for lag in found.comparison.timing.lags],
        series=[banded(t, _cross_validated(found, place)[1], seed=seed) for place, t in enumerate(titles)],
        reference=0.0,
    )  # fmt: skip


def _lag_by_layer(found: Found, name: str, title: str) -> Matrix:
    return Matrix(
        name=name, title=title, row_label="lag", column_label="layer",
        rows=[f"{1000 * lag:.0f} ms" for lag in found.comparison.timing.lags], columns=list(found.points),
        values=grid(found.effects[:, 0].mean(axis=0)), scale="diverging", note="Mean over subjects.",
    )  # fmt: skip


def _windows(found: Found, name: str, title: str) -> Matrix:
    return Matrix(
        name=name, title=title, row_label="window after word onset", column_label="layer",
        rows=_window_names(), columns=list(found.points), values=grid(found.kept["windows"].mean(axis=0)),
        scale="diverging", note="Partial RSA over words, the time between their onsets taken out; mean over "
        "subjects.",
    )  # fmt: skip


def _window_names() -> list[str]:
    return [f"{each.name}, {1000 * each.start:.0f}-{1000 * each.end:.0f} ms" for each in COMPONENTS]


def _map(found: Found, model: str) -> Topography:
    """Electrodes by window, at the layer with the highest mean over windows of all electrodes together."""
    best = int(found.kept["windows"].mean(axis=(0, 1)).argmax())
    recording = found.comparison.ground.recording(0).eeg()
    places = projected(recording.positions)
    return Topography(
        name=f"electrodes-{_tag(model)}", title=f"Electrodes by window, {model}, {found.points[best]}",
        points=list(recording.names), x=places[:, 0].tolist(), y=places[:, 1].tolist(),
        panels=_window_names(),
        values=grid(found.kept["topography"][..., best].mean(axis=0)),
        note="Partial RSA over words of single electrodes, mean over subjects.",
    )  # fmt: skip


def _table(results: Mapping[str, Found], measures: Sequence[Any], spread: FloatArray, p: FloatArray) -> Table:
    rows: list[list[Any]] = []
    for model, (name, each) in enumerate(results.items()):
        for place, measure in enumerate(measures):
            (lags, points), _ = each.at_peak(place)
            lag = float(np.median(each.comparison.timing.lags[lags]))
            rows.append(
                [
                    f"{name}: {measure.title}", measure.family, estimated(spread[:, model, place]),
                    float(p[model, place]), lag, each.points[int(np.median(points))],
                ]
            )  # fmt: skip
    columns = ["model and measure", "family", "match - mismatch", "p, corrected", "lag, s", "layer"]
    return Table(
        name="models", title="Models by measure", rows=rows,
        columns=[Column(name=name, digits=4 if name == "p, corrected" else 3) for name in columns],
        note="At each subject's cross-validated lag and layer; lag and layer are medians over subjects.",
    )  # fmt: skip
