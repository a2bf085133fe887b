"""Affective speech against other speech: is it aligned less or more, by measure and by family of measures?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from affectbench.alignment.acoustics import weak_affect
from affectbench.alignment.consensus import consensus
from affectbench.alignment.group import estimate_of, interval
from affectbench.alignment.rdm import FloatArray
from affectbench.analysis import Column, Matrix, Table, Value, grid

if TYPE_CHECKING:
    from affectbench.alignment.study_alignment import Found

Masks = tuple[np.ndarray, np.ndarray]
Sizes = Mapping[tuple[str, str], FloatArray]
"""Standardised differences (subjects,) by (measure, family)."""
NEGATIVE = "negative prosody against other, both where consensus tells"
"""What consensus tells is chosen by the EEG, so it must be on both sides: against all other pieces, alignment
that has nothing to do with prosody looks higher (Hedges' g of 0.5 on noise)."""
LEAST = 2
"""Pieces that both sides of a contrast have, or it is left out."""


def contrasted(results: Mapping[str, Found], seed: int) -> tuple[list[Table], list[Matrix]]:
    """Each contrast by measure (tables) and by family of measures (matrices)."""
    masks = {name: contrasts(found) for name, found in results.items()}
    titles = [title for title in next(iter(masks.values())) if all(title in each for each in masks.values())]
    tables, matrices = [], []
    for place, title in enumerate(titles, start=1):
        found = {name: sizes(each, *masks[name][title]) for name, each in results.items()}
        counts = sorted({(int(each[title][0].sum()), int(each[title][1].sum())) for each in masks.values()})
        note = (
            f"{', '.join(f'{one} against {other}' for one, other in counts)} pieces; Hedges' g of match "
            "minus mismatch within each subject, at its cross-validated lag and layer."
        )
        rows: list[list[Value]] = [
            [f"{name}: {label}", family, estimate_of(values, seed=seed)]
            for name, each in found.items()
            for (label, family), values in each.items()
        ]
        columns = [Column(name=c) for c in ("model and measure", "family", "standardised difference")]
        tables.append(
            Table(name=f"affect-{place}", title=f"Affect: {title}", rows=rows, columns=columns, note=note)
        )
        matrices.append(_by_family(found, f"affect-families-{place}", title, note, seed))
    return tables, matrices


def contrasts(found: Found) -> dict[str, Masks]:
    """Which pieces (masks) are compared with which, by what that is."""
    comparison = found.comparison
    pieces = comparison.pieces
    sentiment = weak_affect([piece.sound(comparison.ground.sounds[piece.segment]) for piece in pieces])[:, 2]
    low, high = np.quantile(sentiment, [1 / 3, 2 / 3])
    told = (agreement(found) > 0).mean(axis=0) > 0.5  # By most subjects.
    negative = sentiment <= low
    labels = np.array([piece.label for piece in pieces])
    base = labels == comparison.task.baseline
    asked = {
        "weak affect, lowest against highest third": (sentiment <= low, sentiment >= high),
        NEGATIVE: (negative & told, ~negative & told),
    }
    if comparison.task.baseline:
        asked = {f"labels, all against {comparison.task.baseline}": (~base, base), **asked}
    return {title: each for title, each in asked.items() if min(one.sum() for one in each) >= LEAST}


def _by_family(sizes: Mapping[str, Sizes], name: str, title: str, note: str, seed: int) -> Matrix:
    families = list(dict.fromkeys(family for found in sizes.values() for _, family in found))
    table = np.array(
        [
            [
                interval(np.mean([v for (_, f), v in found.items() if f == family], axis=0), seed=seed)
                for family in families
            ]
            for found in sizes.values()
        ]
    )
    return Matrix(
        name=name, title=f"Affect by family of measures: {title}", rows=list(sizes), columns=families,
        values=grid(table[..., 0]), low=grid(table[..., 1]), high=grid(table[..., 2]), scale="diverging",
        row_label="model", column_label="family of measures", note=note,
    )  # fmt: skip


def sizes(found: Found, one: np.ndarray, other: np.ndarray) -> Sizes:
    """Standardised differences (subjects,) by (measure, family), the three-way consensus among them."""
    subjects = np.arange(len(found.pieces))
    measured: dict[tuple[str, str], FloatArray] = {}
    for place, reference in enumerate(found.comparison.references):
        (lags, points), _ = found.at_peak(place)
        effects = found.pieces[subjects, place, :, lags, points]
        measured[reference.measure.title, reference.measure.family] = hedges_g(effects, one, other)
    measured["three-way consensus", "consensus"] = hedges_g(agreement(found), one, other)
    return measured


def agreement(found: Found) -> FloatArray:
    """Three-way consensus (subjects, pieces) of acoustics, EEG and states at each subject's cross-validated
    lag and layer. Of EEG and states match minus mismatch counts, not RSA itself as in the paper: smooth
    series share some whatever was heard."""
    place = [each.measure.name for each in found.comparison.references].index("rsa_spearman")
    (lags, points), _ = found.at_peak(place)
    subjects = np.arange(len(found.pieces))
    return consensus(
        found.kept["acoustics"][subjects, :, lags], found.acoustics[:, points].T,
        found.pieces[subjects, place, :, lags, points], found.comparison.task.consensus,
    )  # fmt: skip


def hedges_g(values: FloatArray, one: np.ndarray, other: np.ndarray) -> FloatArray:
    """Standardised difference (rows,) of `values` (rows, items) between two groups of items, corrected for
    small groups; 0 where nothing varies."""
    first, second = values[:, one], values[:, other]
    degrees = first.shape[1] + second.shape[1] - 2
    pooled = np.sqrt((first.var(axis=1) * first.shape[1] + second.var(axis=1) * second.shape[1]) / degrees)
    difference = first.mean(axis=1) - second.mean(axis=1)
    found = np.divide(difference, pooled, out=np.zeros_like(difference), where=pooled > 0)
    return np.asarray(found * (1 - 3 / (4 * degrees - 1)))
