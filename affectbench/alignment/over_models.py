"""Models beside each other: by measure, by rank, over relative depth, and whether measures agree on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from affectbench.alignment.group import (
    banded,
    family_split,
    interval,
    kendall_w,
    peak,
    rank_agreement,
    rank_spread,
)
from affectbench.alignment.metrics import Measure
from affectbench.alignment.rdm import FloatArray
from affectbench.analysis import Curve, Finding, Matrix, grid
from affectbench.score_models import Estimate

DEPTHS = 21
"""Relative depths at which layers of models with unlike numbers of them are laid beside each other."""


@dataclass(frozen=True)
class Across:
    """All models of an analysis. `heights` (subjects, models, measures) at each subject's cross-validated lag
    and layer; `effects` by model (subjects, measures, lags, points)."""

    models: tuple[str, ...]
    measures: Sequence[Measure]
    heights: FloatArray
    effects: Sequence[FloatArray]
    seed: int

    @property
    def titles(self) -> list[str]:
        return [measure.title for measure in self.measures]

    @property
    def layers(self) -> FloatArray:
        """Scores (subjects, measures, layers of all models), means over lags."""
        return np.concatenate([each.mean(axis=2) for each in self.effects], axis=2)

    @property
    def by_model(self) -> FloatArray:
        """Scores (subjects, measures, models)."""
        return np.moveaxis(self.heights, 1, 2)

    def matrices(self) -> list[Matrix]:
        """Models by measure, their ranks, and how measures agree over layers and, from three on, models."""
        found = [
            _matrix(
                "by-measure", "Models by measure", self.models, self.titles,
                interval(self.heights, seed=self.seed).round(4),
                "Match minus mismatch at each subject's cross-validated lag and layer, 95 % bootstrap over "
                "subjects; unrounded in the table of models. Values of different measures do not compare.",
            )
        ]  # fmt: skip
        if len(self.models) > 1:
            ranks = rank_spread(self.by_model, seed=self.seed).transpose(0, 2, 1)
            note = "1 is the highest; 95 % bootstrap over subjects."
            found.append(
                _matrix("ranks", "Rank of each model by measure", self.models, self.titles, ranks, note)
            )
        for name, what, scores in self._tables():
            agreement = rank_agreement(scores, seed=self.seed)
            found.append(
                Matrix(
                    name=name, title=f"Do measures rank {what} alike?", rows=self.titles, columns=self.titles,
                    values=grid(agreement[0]), low=grid(agreement[1]), high=grid(agreement[2]),
                    scale="diverging", row_label="measure", column_label="measure",
                    note=f"Spearman correlation over {what}, 95 % bootstrap over subjects.",
                )
            )  # fmt: skip
        return found

    def findings(self) -> list[Finding]:
        """Concordance of all measures, and how far the two families of measures rank apart."""
        found = []
        families = [measure.family for measure in self.measures]
        for name, what, scores in self._tables():
            tag = name.removeprefix("agreement")
            w = kendall_w(scores.mean(axis=0))
            split = family_split(scores, families, seed=self.seed)
            found.append(
                Finding(
                    name=f"concordance{tag}",
                    text=f"Kendall's W of {len(self.measures)} measures over {what}: 1 where all rank them "
                    "alike.",
                    value=Estimate(value=w) if np.isfinite(w) else None,
                )
            )  # fmt: skip
            if np.isfinite(split).all():
                value, low, high = (float(each) + 0.0 for each in np.round(split, 12))
                found.append(
                    Finding(
                        name=f"rank-split{tag}",
                        text=f"Over {what}, measures of one family rank more alike than measures of "
                        "different families by this much (Spearman, 95 % bootstrap over subjects): above 0, "
                        "the ranking depends on the family.",
                        value=Estimate(value=value, low=low, high=high),
                    )
                )  # fmt: skip
        return found

    def curves(self) -> list[Curve]:
        """All models over relative depth, by the first measure of each family."""
        if len(self.models) < 2:
            return []
        depths = np.linspace(0, 1, DEPTHS)
        found = []
        for family in dict.fromkeys(measure.family for measure in self.measures):
            place = next(at for at, each in enumerate(self.measures) if each.family == family)
            series = [
                banded(name, over_depth(each[:, place], depths), seed=self.seed)
                for name, each in zip(self.models, self.effects, strict=True)
            ]
            found.append(
                Curve(
                    name=f"depth-{family}", title=f"Layers of all models: {self.titles[place]}",
                    x_label="relative depth", y_label="match minus mismatch", x=depths.round(6).tolist(),
                    series=series, reference=0.0,
                    note="Linear between layers, at each subject's cross-validated lag; 0 is what enters the "
                    "decoder, 1 the last layer; bands are 95 % bootstraps over subjects.",
                )
            )  # fmt: skip
        return found

    def _tables(self) -> list[tuple[str, str, FloatArray]]:
        """What measures may agree on: (name of the matrix, what it is, scores)."""
        found = [("agreement", "all layers of all models", self.layers)]
        if len(self.models) > 2:
            found.append(("agreement-models", "models", self.by_model))
        return found


def over_depth(effects: FloatArray, depths: FloatArray) -> FloatArray:
    """Effects (subjects, lags, points) of one measure at each subject's cross-validated lag, brought to
    relative `depths` by lines between the layers, (subjects, depths)."""
    places, _ = peak(effects.reshape(len(effects), -1))
    lags, _ = np.unravel_index(places, effects.shape[1:])
    points = effects.shape[2]
    own = np.arange(points) / max(1, points - 1)
    rows = effects[np.arange(len(effects)), lags]
    return np.stack([np.interp(depths, own, row) for row in rows])


def _matrix(
    name: str, title: str, rows: Sequence[str], columns: Sequence[str], spread: FloatArray, note: str
) -> Matrix:
    return Matrix(
        name=name, title=title, rows=list(rows), columns=list(columns), values=grid(spread[0]),
        low=grid(spread[1]), high=grid(spread[2]), note=note, row_label="model", column_label="measure",
    )  # fmt: skip
