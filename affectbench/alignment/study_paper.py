"""Alignment as the released code of arXiv 2601.16540 computes it, for comparison with its findings.

Each sentence by itself: EEG is interpolated to the model's own time steps, without a lag and without an
anti-alias filter, and standardised; states are reduced to 20 whitened components of that sentence. What is
known to be wrong with it is done all the same: the estimators depend on the number of steps, time labels are
permuted as if steps were independent, and the best layer is the best of all. Deviations are in `NOTES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from affectbench.alignment.features import States
from affectbench.alignment.grid import sliding_windows, stretched
from affectbench.alignment.ground import Ground
from affectbench.alignment.group import banded, estimate_of, kendall_w
from affectbench.alignment.metrics import Measure, measure
from affectbench.alignment.nulls import INVALID, any_order, reordered
from affectbench.alignment.rdm import SHORTEST, FloatArray
from affectbench.alignment.series import cleaned
from affectbench.alignment.speech import Piece
from affectbench.alignment.work import Arrays, Task, Workshop
from affectbench.alignment_task import AlignmentTask
from affectbench.analysis import Column, Curve, Finding, Table
from affectbench.score_models import Estimate

DRAWS = 500
LATEST = 0.8
"""Windows after sentence onset end by then, in seconds."""
NOTES = (
    f"Warning: {INVALID}. No p value here says that a model is aligned with anything.",
    "What is found depends on how many time steps a model makes: CKA, RV, distance correlation and HSIC of "
    "independent series are the higher the fewer there are. Do not rank models of different token rates by "
    "them.",
    "The best layer is the best of all layers on the same data, and so too high.",
    "Deviations from the released code: a sentence within one sound file is cut, with onsets in the time of "
    "the recording (the code cut at onsets of the sound file); only tokens of the sound count; a sentence of "
    "T steps has at most T - 1 components (the code scaled numerical noise up to the last one); degenerate "
    "series are left out, not 0. Prosody, TNC and the subjects of the paper are not known well enough to be "
    "done its way.",
)


@dataclass(frozen=True)
class Stage:
    """What all subjects share: the pieces that are compared, the names of the points, and each piece's
    whitened components (points, T, k)."""

    ground: Ground
    task: AlignmentTask
    kept: tuple[int, ...]
    points: tuple[str, ...]
    series: tuple[FloatArray, ...]

    @property
    def pieces(self) -> list[Piece]:
        return [self.ground.pieces[place] for place in self.kept]

    @property
    def measures(self) -> list[Measure]:
        return [measure(name, "paper") for name in self.task.metrics]


def staged(ground: Ground, task: AlignmentTask, kept: tuple[int, ...], states: Iterable[States]) -> Stage:
    """Prepare the `states` of the kept pieces for all subjects."""
    points: tuple[str, ...] = ()
    series = []
    for each in states:
        points = each.points
        series.append(whitened(each.values.astype(np.float64), task.components))
    return Stage(ground, task, kept, points, tuple(series))


def whitened(values: FloatArray, components: int) -> FloatArray:
    """States (points, T, d) of one sentence as its own principal components (points, T, k), each with
    variance one (sample variance)."""
    centred = values - values.mean(axis=1, keepdims=True)
    left, strengths, _ = np.linalg.svd(centred, full_matrices=False)
    count = min(components, values.shape[1] - 1, left.shape[2])
    found = left[..., :count] * strengths[:, None, :count]
    return _standardised(found, axis=1)


def _standardised(values: FloatArray, axis: int) -> FloatArray:
    spread = values.std(axis=axis, ddof=1, keepdims=True)
    centred = values - values.mean(axis=axis, keepdims=True)
    return np.asarray(centred / np.where(spread > 0, spread, 1.0))


def heard_series(stage: Stage, subject: int) -> list[FloatArray]:
    """EEG of each piece at the model's steps, (T, channels), each channel standardised."""
    eeg = cleaned(stage.ground.recording(subject), stage.task.band)
    found = []
    for piece, series in zip(stage.pieces, stage.series, strict=True):
        first = round(piece.start * eeg.rate)
        part = eeg.data[:, first : first + round(piece.seconds * eeg.rate)]
        found.append(_standardised(stretched(part, series.shape[1]), axis=0))
    return found


def one_subject(stage: Stage, subject: int) -> Arrays:
    """`scores` (measures, pieces, points); `p` (pieces, points) of RSA by permuted time labels; `windows`
    (windows, points), RSA in windows after sentence onset, mean over pieces."""
    eeg = heard_series(stage, subject)
    scores = np.array(
        [
            [[each(heard, point, stage.task.distance) for point in series] for heard, series in
             zip(eeg, stage.series, strict=True)]
            for each in stage.measures
        ]
    )  # fmt: skip
    rng = np.random.default_rng([stage.task.seed, subject, 23])
    p = np.stack(
        [_permuted(heard, series, stage, rng) for heard, series in zip(eeg, stage.series, strict=True)]
    )
    return {"scores": scores, "p": p, "windows": _windows(eeg, stage)}


def _permuted(heard: FloatArray, series: FloatArray, stage: Stage, rng: np.random.Generator) -> FloatArray:
    """One-sided p of RSA (points,): rows and columns of the EEG's dissimilarities in random orders."""
    side = measure("rsa_spearman", "paper").side
    assert side is not None, "RSA is an inner product"
    own = side(heard, stage.task.distance)
    states = np.stack([side(point, stage.task.distance) for point in series])
    observed = states @ own
    above = np.zeros(len(series))
    for _ in range(DRAWS):
        above += states @ reordered(own, any_order(len(heard), rng)) >= observed - 1e-12
    return np.where(np.isnan(observed), np.nan, (above + 1) / (DRAWS + 1))


def _windows(eeg: Sequence[FloatArray], stage: Stage) -> FloatArray:
    rsa = measure("rsa_spearman", "paper")
    found = []
    for window in sliding_windows(LATEST):
        rows = []
        for heard, series, piece in zip(eeg, stage.series, stage.pieces, strict=True):
            rate = len(heard) / piece.seconds
            first, last = round(window.start * rate), round(window.end * rate)
            if last - first < SHORTEST or last > len(heard):
                continue
            rows.append([rsa(heard[first:last], point[first:last], stage.task.distance) for point in series])
        found.append(_mean(np.array(rows)) if rows else np.full(len(stage.series[0]), np.nan))
    return np.stack(found)


def _mean(values: FloatArray) -> FloatArray:
    """Mean over the first axis of what is defined; NaN where nothing is."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.asarray(
        np.divide(total, known.sum(axis=0), out=np.full(total.shape, np.nan), where=known.any(axis=0))
    )


@dataclass(frozen=True)
class Found:
    """One model's results: `scores` (subjects, measures, points), `share` (points,) of all subjects' pieces
    with p < 0.05, `windows` (subjects, windows, points)."""

    points: tuple[str, ...]
    scores: FloatArray
    share: FloatArray
    windows: FloatArray


def found(workshop: Workshop, model: str, stage: Stage) -> Found:
    """Compare all subjects with one model."""
    subjects = range(len(stage.ground.subjects))
    tasks = [Task(f"paper {model} {subject}", (subject,)) for subject in subjects]
    done = workshop.each(f"subjects with {model}", one_subject, stage, tasks)
    p = np.concatenate([each["p"] for each in done])
    scores = np.stack([_mean(np.moveaxis(each["scores"], 1, 0)) for each in done])
    return Found(stage.points, scores, (p < 0.05).mean(axis=0), np.stack([each["windows"] for each in done]))


def study(results: Mapping[str, Found], stage: Stage) -> dict[str, Any]:
    """The parts of the analysis ``eeg-alignment`` of all models in paper mode."""
    seed, measures = stage.task.seed, stage.measures
    rows: list[list[Any]] = []
    curves, findings = [], []
    for name, each in results.items():
        mean = each.scores.mean(axis=0)
        for place, one in enumerate(measures):
            best = int(np.nanargmax(mean[place])) if np.isfinite(mean[place]).any() else 0
            rows.append(
                [f"{name}: {one.title}", one.family, estimate_of(each.scores[:, place, best], seed=seed),
                 each.points[best], Estimate(value=float(np.nanmean(mean[place])))]
            )  # fmt: skip
        tag = "".join(letter if letter.isalnum() else "-" for letter in name.lower())
        curves += [_layers(each, measures, name, tag, seed), _window_curve(each, name, tag, seed)]
        findings.append(
            Finding(
                name=f"permuted-{tag}",
                text=f"{name}: share of sentences of all subjects whose RSA is significant by permuted time "
                "labels, at the layer with the most. It is so for independent series, too.",
                value=Estimate(value=float(each.share.max())),
            )
        )  # fmt: skip
    w = kendall_w(np.concatenate([each.scores.mean(axis=0) for each in results.values()], axis=1))
    findings.append(
        Finding(
            name="concordance",
            text=f"Kendall's W of {len(measures)} measures over all layers of {len(results)} model(s).",
            value=Estimate(value=w) if np.isfinite(w) else None,
        )
    )
    columns = ["model and measure", "family", "best layer's", "layer", "mean over layers"]
    return {
        "n": {"models": len(results), "subjects": len(stage.ground.subjects), "pieces": len(stage.kept)},
        "findings": findings, "curves": curves, "notes": list(NOTES),
        "tables": [
            Table(
                name="models", title="Models by measure, as released", rows=rows,
                columns=[Column(name=name) for name in columns],
                note="Means over sentences; 95 % bootstraps over subjects.",
            )
        ],
    }  # fmt: skip


def _layers(found: Found, measures: Sequence[Measure], name: str, tag: str, seed: int) -> Curve:
    depth = np.arange(len(found.points)) / max(1, len(found.points) - 1)
    series = [banded(one.title, found.scores[:, place], seed=seed) for place, one in enumerate(measures)]
    return Curve(
        name=f"layers-{tag}", title=f"Layers of {name}", x_label="relative depth", y_label="as released",
        x=depth.tolist(), series=series, reference=0.0,
    )  # fmt: skip


def _window_curve(found: Found, name: str, tag: str, seed: int) -> Curve:
    best = int(np.nan_to_num(_mean(found.windows).mean(axis=0), nan=-2.0).argmax())
    starts = [round(window.start, 6) for window in sliding_windows(LATEST)]
    return Curve(
        name=f"windows-{tag}", title=f"RSA in 250 ms after sentence onset, {name}, {found.points[best]}",
        x_label="start of the window, s", y_label="RSA", x=starts,
        series=[banded("RSA, Spearman", found.windows[..., best], seed=seed)], reference=0.0,
        note="Nothing where a window has fewer than 4 steps of the model.",
    )  # fmt: skip
