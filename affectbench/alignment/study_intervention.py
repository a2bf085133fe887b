"""Alignment under intervention: do a selector's emotion units matter for it, and more so where speech is
affective?

The units of an emotion are switched off while the model hears the story; its states are compared with the
same EEG as before. The drop is that of the untouched model less what is left, at the lag and layer where the
untouched model's mean effect is highest; layers below all of the units are left out, for nothing changes
there. It is compared with random units of the same layers, with random units that are as loud, and
between pieces of that emotion and neutral ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from affectbench.alignment.affect import WEAK, Affect, affect_of
from affectbench.alignment.components import Reduced, Reduction
from affectbench.alignment.drops import KINDS, LAYERS, LOUDNESS, Parted, among, parted
from affectbench.alignment.features import States
from affectbench.alignment.grid import lag_grid, token_means
from affectbench.alignment.ground import Ground
from affectbench.alignment.group import estimate_of, interval, over_subjects
from affectbench.alignment.metrics import measure
from affectbench.alignment.rdm import FloatArray
from affectbench.alignment.scoring import Reference, effects, reference, scores
from affectbench.alignment.series import Timing, cleaned, cut, gridded
from affectbench.alignment.speech import Piece
from affectbench.alignment.work import Arrays, Task, Workshop
from affectbench.alignment_task import AlignmentTask
from affectbench.analysis import Column, Curve, Finding, Series, Table, grid, numbers

MEASURES = ("cka_linear", "rsa_spearman")
DRAWS = 20
"""Of each kind of random units."""
SUMMARY = "summary"
"""The table of one row that the board is made of; its columns are `COLUMNS`."""
COLUMNS = (
    "measure", "untouched", "own, affective", "own, neutral", "random, affective", "random, neutral",
    "as loud, affective", "as loud, neutral", "beyond random", "p, subjects", "p, draws", "beyond as loud",
    "p, as loud", "beyond other emotions", "p, emotions",
)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """What is heard and how it is compared: the ground, the task, the places of the pieces that are kept, how
    time is cut, one reference a measure, and the affect of the pieces."""

    ground: Ground
    task: AlignmentTask
    kept: tuple[int, ...]
    timing: Timing
    references: tuple[Reference, ...]
    affect: Affect

    @property
    def pieces(self) -> list[Piece]:
        return [self.ground.pieces[place] for place in self.kept]


@dataclass(frozen=True)
class Untouched:
    """The model as it is: its scene, over all lags and points, and the projection of its states."""

    scene: Scene
    reduction: Reduction


@dataclass(frozen=True)
class Edited:
    """The model under each condition, at one lag and one point a measure: untouched, the units of each of
    `emotions`, then `draws` of each kind."""

    scene: Scene
    lags: tuple[float, ...]
    emotions: tuple[str, ...]
    draws: Mapping[str, int]


def untouched(ground: Ground, task: AlignmentTask, kept: tuple[int, ...], states: Reduced) -> Untouched:
    """Prepare the `states` of the kept pieces. Raises `AffectbenchError` where none of them is neutral."""
    pieces = [ground.pieces[place] for place in kept]
    affect = affect_of(pieces, ground.sounds, task)
    timing = Timing.of(pieces, task.grid, lag_grid(task.lags.until, task.lags.step))
    reduced = gridded(states.states, timing)
    references = _references([reduced] * len(MEASURES), task, timing)
    return Untouched(Scene(ground, task, kept, timing, references, affect), states.reduction)


def peaks(workshop: Workshop, found: Untouched, lowest: int) -> list[tuple[int, int]]:
    """For each measure the places of the (lag, point) where the mean effect over subjects is highest, among
    points that an edit of layer `lowest` and those above it reaches."""
    tasks = [Task(f"untouched {s}", (s,)) for s in range(len(found.scene.ground.subjects))]
    done = workshop.each("subjects, model untouched", subject_untouched, found.scene, tasks)
    means = np.mean([each["effects"] for each in done], axis=0)
    reached = means[:, :, lowest + 1 :]
    places = [np.unravel_index(int(mean.argmax()), mean.shape) for mean in reached]
    return [(int(lag), int(point) + lowest + 1) for lag, point in places]


def at_points(found: Untouched, places: Sequence[tuple[int, int]], states: States) -> States:
    """What is kept of edited states: the components of the untouched model at each measure's point."""
    points = [point for _, point in places]
    part = Reduction(found.reduction.centres[points], found.reduction.axes[points])
    return States(tuple(states.points[point] for point in points), part(states.values[points]), states.spans)


def edited(
    found: Untouched,
    places: Sequence[tuple[int, int]],
    emotions: Sequence[str],
    draws: Mapping[str, int],
    states: Sequence[Sequence[States]],
) -> Edited:
    """Prepare the `states` of all pieces under each condition, (pieces, conditions), as `at_points` keeps
    them."""
    scene = found.scene
    timing = scene.timing
    heard = [
        [
            np.stack([token_means(s.values[place], s.spans, 0.0, count, timing.grid) for s in each])
            for count, each in zip(timing.lengths, states, strict=True)
        ]
        for place in range(len(MEASURES))
    ]
    references = _references(heard, scene.task, timing)
    lags = tuple(float(timing.lags[lag]) for lag, _ in places)
    return Edited(
        Scene(scene.ground, scene.task, scene.kept, timing, references, scene.affect), lags,
        tuple(emotions), draws,
    )  # fmt: skip


def _references(
    states: Sequence[Sequence[FloatArray]], task: AlignmentTask, timing: Timing
) -> tuple[Reference, ...]:
    return tuple(
        reference(measure(name, "debiased"), each, timing, seed=task.seed, distance=task.distance)
        for name, each in zip(MEASURES, states, strict=True)
    )


def subject_untouched(scene: Scene, subject: int) -> Arrays:
    """`effects` (measures, lags, points): match minus mismatch, mean over pieces."""
    eeg = cut(cleaned(scene.ground.recording(subject), scene.task.band), scene.pieces, scene.timing)
    return {"effects": np.stack([effects(scores(each, eeg)) for each in scene.references])}


def subject_edited(shared: Edited, subject: int) -> Arrays:
    """`effects` (measures, conditions, pieces): match minus mismatch at each measure's lag and point."""
    scene = shared.scene
    eeg = cleaned(scene.ground.recording(subject), scene.task.band)
    found = []
    for lag, each in zip(shared.lags, scene.references, strict=True):
        series = cut(eeg, scene.pieces, Timing(scene.timing.grid, np.array([lag]), scene.timing.lengths))
        match, mismatch = scores(each, series)[:, :, 0]
        found.append((match - mismatch).T)
    return {"effects": np.stack(found)}


def study(workshop: Workshop, shared: Edited, selector: str, seed: int) -> dict[str, Any]:
    """The parts of the analysis ``eeg-intervention``."""
    scene = shared.scene
    labels, baseline = scene.affect.labels, scene.affect.baseline
    tasks = [Task(f"edited {s}", (s,)) for s in range(len(scene.ground.subjects))]
    done = workshop.each("subjects, units off", subject_edited, shared, tasks)
    found = np.stack([each["effects"] for each in done])
    rows, tables, curves, findings = [], [], [], []
    for place, name in enumerate(MEASURES):
        parts = parted(found[:, place], shared.emotions, shared.draws, labels, baseline)
        title, base = measure(name, "debiased").title, found[:, place, 0].mean(axis=1)
        rows.append(_summary_row(parts, title, base, seed))
        tables.append(_subjects_table(name, title, parts, base, scene.ground.subjects))
        if place == 0:
            curves = [_curve(parts, seed), _curve(parts, seed, contrast=True)]
            findings = _findings(parts, title, selector, seed)
    return {
        "n": {
            "subjects": len(done), "pieces": len(labels),
            "affective": int((np.isin(labels, shared.emotions) & (labels != baseline)).sum()),
            "neutral": int((labels == baseline).sum()), "draws": shared.draws[LAYERS],
        },
        "findings": findings,
        "tables": [
            Table(
                name=SUMMARY, title="Alignment lost when units are switched off", rows=rows,
                columns=[Column(name=name, digits=5) for name in COLUMNS],
                note="Drops of match minus mismatch; p, subjects by sign flips, two-sided; p of draws "
                "one-sided, how many of them have the contrast of affective and neutral pieces.",
            ),
            *tables,
        ],
        "curves": curves,
        "notes": [
            *([WEAK] if scene.task.affect == "weak" else []),
            "The drop of a piece is its effect (match minus mismatch) in the untouched model less that with "
            "the units switched off, at the lag and layer where the untouched model's mean effect is "
            "highest, layers below all units left out. The EEG is the same, so its noise is in both.",
            "Each draw of random units serves all emotions. Those as loud have the root mean square, while "
            "this speech is heard, of the units that they stand in for.",
            "Signs of subjects tell whether other listeners would show it; draws, whether other units would.",
            "p of emotions: the share of all ways to give the units of emotions to other ones, in which as "
            "much is lost in pieces of an emotion.",
        ],
    }  # fmt: skip


def _findings(parts: Parted, title: str, selector: str, seed: int) -> list[Finding]:
    more = parts.own - parts.drawn[LAYERS].mean(axis=0)
    still = parts.still - parts.drawn_still[LAYERS].mean(axis=0)
    found = [
        Finding(
            name=name,
            text=f"Units of {selector} switched off: drop of {title} {text}; p by sign flips over subjects.",
            value=estimate_of(values, seed=seed), p=float(over_subjects(values, seed=seed).p),
        )
        for name, text, values in (
            ("more-than-random", "in pieces of its emotion, beyond random units", more),
            ("neutral", "in neutral pieces, beyond random units", still),
            ("affective-more-than-neutral", "in pieces of its emotion, beyond neutral ones and random units",
             more - still),
        )
    ]  # fmt: skip
    for kind, tag in zip(KINDS, ("among-draws", "among-loud-draws"), strict=True):
        above, p = among(float(parts.own.mean()), parts.drawn[kind].mean(axis=1))
        further, q = among(float(parts.contrast.mean()), parts.drawn_contrast(kind).mean(axis=1))
        count = len(parts.drawn[kind])
        found += [
            Finding(
                name=tag, p=p,
                text=f"{above} of {count} draws of {kind} lower alignment in pieces of its emotion as much.",
            ),
            Finding(
                name=f"contrast-{tag}", p=q,
                text=f"{further} of {count} draws of {kind} do so in affective pieces more than in neutral "
                "ones as much.",
            ),
        ]  # fmt: skip
    return found


def _summary_row(parts: Parted, title: str, base: FloatArray, seed: int) -> list[Any]:
    row: list[Any] = [title, *(estimate_of(each, seed=seed) for each in (base, parts.own, parts.still))]
    for kind in KINDS:
        row += [
            estimate_of(parts.drawn[kind].mean(axis=0), seed=seed),
            estimate_of(parts.drawn_still[kind].mean(axis=0), seed=seed),
        ]
    for kind in KINDS:
        _, p = among(float(parts.contrast.mean()), parts.drawn_contrast(kind).mean(axis=1))
        row.append(estimate_of(parts.beyond(kind), seed=seed))
        if kind == LAYERS:
            row.append(float(over_subjects(parts.beyond(), seed=seed).p))
        row.append(p)
    if not parts.swapped.size:
        return [*row, None, None]
    return [*row, estimate_of(parts.specific, seed=seed), among(float(parts.own.mean()), parts.swapped)[1]]


def _subjects_table(name: str, title: str, parts: Parted, base: FloatArray, subjects: Sequence[str]) -> Table:
    """The numbers of each subject, for whoever wants to pair rows of the board."""
    columns = {
        "untouched": base, "own, affective": parts.own, "other emotions, affective": parts.others,
        "own, neutral": parts.still, "random, affective": parts.drawn[LAYERS].mean(axis=0),
        "random, neutral": parts.drawn_still[LAYERS].mean(axis=0),
        "as loud, affective": parts.drawn[LOUDNESS].mean(axis=0),
        "as loud, neutral": parts.drawn_still[LOUDNESS].mean(axis=0), "beyond random": parts.beyond(),
    }  # fmt: skip
    values = grid(np.stack(list(columns.values()), axis=1))
    rows: list[list[Any]] = [[who, *row] for who, row in zip(subjects, values, strict=True)]
    return Table(
        name=f"subjects-{name.replace('_', '-')}", title=f"Drops by subject: {title}", rows=rows,
        columns=[Column(name="subject"), *(Column(name=key, digits=5) for key in columns)],
    )  # fmt: skip


def _curve(parts: Parted, seed: int, *, contrast: bool = False) -> Curve:
    """The drops, or their contrasts, of all random draws beside that of the emotion's own units, in order."""
    own = interval(parts.contrast if contrast else parts.own, seed=seed)
    drawn = {
        kind: np.sort((parts.drawn_contrast(kind) if contrast else parts.drawn[kind]).mean(axis=1))
        for kind in KINDS
    }
    size = len(drawn[LAYERS])
    level = [numbers([each] * size) for each in own]
    what = "drop in affective pieces less that in neutral ones" if contrast else "drop in affective pieces"
    return Curve(
        name="contrasts" if contrast else "draws", x_label="random draws, sorted",
        y_label="alignment lost, match minus mismatch", title=f"Own units beside each random draw: {what}",
        x=[float(place + 1) for place in range(size)],
        series=[
            *(Series(label=kind, values=numbers(each)) for kind, each in drawn.items()),
            Series(label="its own units", values=level[0], low=level[1], high=level[2]),
        ],
        reference=0.0,
    )  # fmt: skip
