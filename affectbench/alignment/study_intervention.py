"""Alignment under intervention: do a selector's emotion units matter for it, and more so where speech is
affective?

The units of an emotion are switched off while the model hears the story; its states are compared with the
same
EEG as before. The drop is that of the untouched model less what is left. It is compared with random units of
the same layers, and between pieces of that emotion and neutral ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from affectbench.alignment.comparison import Comparison
from affectbench.alignment.features import States
from affectbench.alignment.group import interval, over_subjects
from affectbench.alignment.metrics import measure
from affectbench.alignment.rdm import FloatArray
from affectbench.alignment.scoring import Reference, reference, scores
from affectbench.alignment.series import Reduction, cleaned, cut, gridded
from affectbench.alignment.work import Arrays, Task, Workshop
from affectbench.analysis import Column, Curve, Finding, Series, Table, numbers
from affectbench.errors import AffectbenchError
from affectbench.score_models import Estimate

MEASURES = ("cka_linear", "rsa_spearman")
DRAWS = 20
OWN, OTHERS, RANDOM = "its own units", "units of other emotions", "random units"


@dataclass(frozen=True)
class Conditions:
    """What is compared: one reference a measure and condition. Conditions: untouched, the units of each of
    `emotions`, and `draws` sets of random units."""

    comparison: Comparison
    emotions: tuple[str, ...]
    draws: int
    references: tuple[tuple[Reference, ...], ...]


def conditions(
    comparison: Comparison, emotions: Sequence[str], states: Sequence[Sequence[States]]
) -> Conditions:
    """Prepare the `states` of all pieces under each condition, (conditions, pieces). The components are
    those of the untouched model."""
    reduction = Reduction.fitted(states[0], comparison.task.components)
    reduced = [gridded(each, reduction, comparison.timing) for each in states]
    found = tuple(
        tuple(
            reference(measure(name, "debiased"), each, comparison.timing, seed=comparison.task.seed)
            for each in reduced
        )
        for name in MEASURES
    )
    return Conditions(comparison, tuple(emotions), len(states) - 1 - len(emotions), found)


def one_subject(shared: Conditions, subject: int) -> Arrays:
    """`effects` (measures, conditions, pieces, lags, points): match minus mismatch."""
    comparison = shared.comparison
    eeg = cut(
        cleaned(comparison.ground.recording(subject), comparison.task.band),
        comparison.pieces,
        comparison.timing,
    )
    found = np.stack([[scores(each, eeg) for each in row] for row in shared.references])
    return {"effects": found[:, :, 0] - found[:, :, 1]}


def study(workshop: Workshop, shared: Conditions, selector: str, seed: int) -> dict[str, Any]:
    """The parts of the analysis ``eeg-intervention``."""
    comparison = shared.comparison
    labels = np.array([piece.label for piece in comparison.pieces])
    neutral = labels == comparison.task.baseline
    if not neutral.any():
        raise AffectbenchError(
            f"task {comparison.task.name}: no piece is labelled {comparison.task.baseline!r}",
            hint="`baseline` names the affect that others are contrasted with",
        )
    tasks = [Task(f"intervention {s}", (s,)) for s in range(len(comparison.ground.subjects))]
    done = workshop.each("subjects under intervention", one_subject, shared, tasks)
    effects = np.stack([each["effects"] for each in done])
    tables, curves, findings = [], [], []
    for place, name in enumerate(MEASURES):
        drops, base = _drops(effects[:, place])
        parted = _parted(drops, shared, labels, neutral)
        title = measure(name, "debiased").title
        tables.append(_table(name, title, parted, base, seed))
        if place == 0:
            curves.append(_curve(parted, seed))
            findings = _findings(parted, title, selector, seed)
    return {
        "n": {
            "subjects": len(done), "pieces": len(labels), "affective": int((~neutral).sum()),
            "draws": shared.draws,
        },
        "findings": findings, "tables": tables, "curves": curves,
        "notes": [
            "The drop of a piece is its effect (match minus mismatch) in the untouched model less that "
            "with the "
            "units switched off, at the lag and layer where the untouched model's mean effect is "
            "highest. The EEG "
            "is the same, so its noise is in both.",
            "Random units have the layers of the selected ones; each draw serves all emotions.",
            "The listeners are simulated from the untouched model's states: what is found shows what "
            "the instrument "
            "can see, and nothing of brains.",
        ],
    }  # fmt: skip


def _drops(effects: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Drops (subjects, conditions - 1, pieces) and the untouched effects (subjects, pieces) at the place
    where the untouched effect (subjects, conditions, pieces, lags, points) is highest on average."""
    mean = effects[:, 0].mean(axis=(0, 1))
    lag, point = np.unravel_index(int(mean.argmax()), mean.shape)
    there = effects[..., lag, point]
    return there[:, :1] - there[:, 1:], there[:, 0]


@dataclass(frozen=True)
class _Parted:
    """Mean drops by subject: `own`, `others` (subjects,) and `random` (draws, subjects), in affective
    pieces and in neutral ones."""

    affective: dict[str, FloatArray]
    neutral: dict[str, FloatArray]


def _parted(drops: FloatArray, shared: Conditions, labels: np.ndarray, neutral: np.ndarray) -> _Parted:
    emotions = len(shared.emotions)
    selected, random = drops[:, :emotions], drops[:, emotions:]
    own, others, drawn, still = [], [], [], []
    for place, emotion in enumerate(shared.emotions):
        here = labels == emotion
        if emotion == shared.comparison.task.baseline or not here.any():
            continue
        own.append(selected[:, place, here].mean(axis=1))
        rest = [other for other in range(emotions) if other != place]
        others.append(selected[:, rest][:, :, here].mean(axis=(1, 2)))
        drawn.append(random[:, :, here].mean(axis=2))
        still.append(selected[:, place][:, neutral].mean(axis=1))
    affective = {
        OWN: np.mean(own, axis=0), OTHERS: np.mean(others, axis=0), RANDOM: np.mean(drawn, axis=0).T,
    }  # fmt: skip
    return _Parted(affective, {OWN: np.mean(still, axis=0), RANDOM: random[:, :, neutral].mean(axis=2).T})


def _findings(parted: _Parted, title: str, selector: str, seed: int) -> list[Finding]:
    more = parted.affective[OWN] - parted.affective[RANDOM].mean(axis=0)
    still = parted.neutral[OWN] - parted.neutral[RANDOM].mean(axis=0)
    found = []
    for name, text, values in (
        ("more-than-random", "in pieces of its emotion, beyond random units", more),
        ("neutral", "in neutral pieces, beyond random units", still),
        (
            "affective-more-than-neutral",
            "in pieces of its emotion, beyond neutral ones and random units",
            more - still,
        ),
    ):
        p = float(over_subjects(values, seed=seed).p)
        found.append(
            Finding(
                name=name,
                text=f"Units of {selector} switched off: drop of {title} {text}; p by sign flips over "
                "subjects.",
                value=_estimate(values, seed),
                p=p,
           
            )
        )  # fmt: skip
    draws = parted.affective[RANDOM].mean(axis=1)
    above = int((draws >= parted.affective[OWN].mean()).sum())
    found.append(
        Finding(
            name="among-draws",
            text=f"{above} of {len(draws)} random draws lower alignment in pieces of its emotion as much.",
            p=(above + 1) / (len(draws) + 1),
        )
    )
    return found


def _table(name: str, title: str, parted: _Parted, base: FloatArray, seed: int) -> Table:
    rows: list[list[Any]] = [["untouched, all pieces: effect", _estimate(base.mean(axis=1), seed)]]
    for where, values in (("pieces of the emotion", parted.affective), ("neutral pieces", parted.neutral)):
        for what, each in values.items():
            flat = each.mean(axis=0) if each.ndim == 2 else each
            rows.append([f"{what} off, {where}: drop", _estimate(flat, seed)])
    columns = [Column(name="condition"), Column(name="match - mismatch", digits=4)]
    return Table(
        name=f"drops-{name.replace('_', '-')}", title=f"Alignment lost: {title}", columns=columns, rows=rows
    )


def _curve(parted: _Parted, seed: int) -> Curve:
    """The drops of all random draws beside that of the emotion's own units, in order."""
    draws = np.sort(parted.affective[RANDOM].mean(axis=1))
    own = interval(parted.affective[OWN], seed=seed)
    size = len(draws)
    return Curve(
        name="draws", title="Drop of alignment: own units beside each random draw", x_label="random "
        "draws, sorted",
        y_label="drop of match minus mismatch", x=[float(place + 1) for place in range(size)],
        series=[
            Series(label=RANDOM, values=numbers(draws)),
            Series(label=OWN, values=[float(own[0])] * size, low=[float(own[1])] * size,
            high=[float(own[2])] * size),
        ],
        reference=0.0,
    )  # fmt: skip


def _estimate(values: FloatArray, seed: int) -> Estimate:
    value, low, high = (float(each) for each in interval(values, seed=seed))
    return Estimate(value=value, low=low, high=high)
