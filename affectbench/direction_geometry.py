"""The analysis `direction-geometry`: directions of emotions over the depth of a model.

A direction is an emotion's mean at the answer position minus the mean over emotions, at each place of the
residual stream: behind the attention and behind the MLP of every layer, on identification items. Source of
the question: arXiv 2510.11328; the numbers are those of `affectbench.geometry`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from affectbench.analyses import Asked, Content
from affectbench.analysis import Curve, Finding, Mark, Matrix, Series, grid, numbers
from affectbench.answer_vectors import answer_vectors, sound
from affectbench.directions import differences
from affectbench.errors import AffectbenchError
from affectbench.geometry import (
    Separation,
    neighbour_means,
    separation,
    similarity_intervals,
    similarity_of_emotions,
    similarity_of_sites,
    without_groups,
)
from affectbench.score_models import Estimate
from affectbench.sites import MIDDLE, RESIDUAL, FloatArray

PLACES = (MIDDLE, RESIDUAL)
"""Places of a layer, in the order of depth: what lies behind its attention, and behind its MLP."""
GROUPED = "What items of one cluster have in common was taken out: each holds every emotion equally often."
LEAST = 2
"""Items of an emotion that a direction needs."""


class Geometry(NamedTuple):
    """What the parts are made of: directions (E, S, d) at sites in the order of depth, how far emotions
    separate, and ends of the intervals (E, E) of their cosines where they separate most."""

    labels: tuple[str, ...]
    directions: FloatArray
    separation: Separation
    interval: tuple[FloatArray, FloatArray]


def analyse(asked: Asked) -> Content:
    """Raises `AffectbenchError` where an emotion has fewer than two usable items, or there are fewer than two
    clusters."""
    session, draws = asked.session, asked.number("bootstrap_draws")
    items, labels = session.items("identification"), session.benchmark.labels
    layers = session.model.site_shape(RESIDUAL).layers
    points = [(place, layer) for layer in range(layers) for place in PLACES]
    vectors = answer_vectors(session.engine, items, points, asked.progress)
    usable = np.flatnonzero(sound(vectors))
    vectors, gold = vectors[usable], items.gold[usable]
    clusters = [items.clusters[place] for place in usable]
    few = [label for place, label in enumerate(labels) if (gold == place).sum() < LEAST]
    if few:
        raise AffectbenchError(
            f"{few[0]!r} has fewer than {LEAST} usable items of identification", hint="use more items"
        )
    centred = without_groups(vectors, gold, clusters)
    apart = vectors if centred is None else centred
    found = separation(apart, gold, clusters, draws=draws, seed=asked.seed, grouped=centred is not None)
    most = vectors[:, int(found.values.argmax())]
    interval = similarity_intervals(most, gold, clusters, draws=draws, seed=asked.seed)
    means = np.stack([vectors[gold == place].mean(axis=0, dtype=np.float64) for place in range(len(labels))])
    geometry = Geometry(labels, differences(means), found, interval)
    left_out = {"unusable_items": len(items) - len(usable)} if len(usable) < len(items) else {}
    return Content(
        n={"items": len(usable), "clusters": len(set(clusters)), **left_out},
        findings=findings(geometry),
        curves=curves(geometry),
        matrices=matrices(geometry),
        notes=[] if centred is None else [GROUPED],
    )


def findings(geometry: Geometry) -> list[Finding]:
    """Where emotions separate and how far, which two are most alike, and how alike sites are."""
    labels, found = geometry.labels, geometry.separation
    best = int(found.values.argmax())
    most = Estimate(value=found.values[best], low=found.low[best], high=found.high[best])
    cosines = similarity_of_emotions(geometry.directions)[best]
    one, other = _closest(cosines)
    ends = (float(bound[one, other]) for bound in geometry.interval)
    alike = Estimate(value=cosines[one, other], **dict(zip(("low", "high"), ends, strict=True)))
    off, within, onwards = neighbour_means(similarity_of_sites(geometry.directions), len(PLACES))
    depths = _depths(len(found.values))
    begun = Estimate(value=depths[found.onset], low=depths[found.onset_low], high=depths[found.onset_high])
    told = [
        Finding(name=name, text=text, value=value)
        for name, text, value in (
            ("onset", "Depth in layers at which emotions separate half as far as anywhere:", begun),
            ("most", f"Share of the variance between emotions at depth {depths[best]:g}, the most:", most),
            ("closest", f"Most alike there are {labels[one]} and {labels[other]}, with a cosine of", alike),
        )
    ]
    for name, text, value in (
        ("between-sites", "Cosine of an emotion's directions at two sites, mean over all pairs:", off),
        ("within-layer", "The same from behind the attention to behind the MLP of one layer:", within),
        ("to-next-layer", "The same from behind an MLP to behind the next layer's attention:", onwards),
    ):
        if np.isfinite(value):
            told.append(Finding(name=name, text=text, value=Estimate(value=value)))
    return told


def curves(geometry: Geometry) -> list[Curve]:
    """Separation by depth, and each emotion's cosine with the one that is most like it."""
    found = geometry.separation
    depths = _depths(len(found.values))
    cosines = similarity_of_emotions(geometry.directions)
    nearest = np.where(np.eye(len(geometry.labels), dtype=bool), -np.inf, cosines).max(axis=2)
    mark = Mark(
        label="half of the most",
        x=depths[found.onset],
        low=depths[found.onset_low],
        high=depths[found.onset_high],
    )
    apart = Series(
        label="all emotions", values=numbers(found.values), low=numbers(found.low), high=numbers(found.high)
    )
    x_label = "depth in layers (halves: behind the attention)"
    note = "Epsilon squared: 0 by chance, 1 where all items of an emotion are equal. Jackknife over clusters."
    nearest_of = [
        Series(label=label, values=numbers(nearest[:, place])) for place, label in enumerate(geometry.labels)
    ]
    return [
        Curve(
            name="separation", title="How far emotions separate", note=note, x_label=x_label,
            y_label="share of variance between emotions", x=depths, series=[apart], marks=[mark],
        ),
        Curve(
            name="nearest", title="Each emotion and the one most like it", x_label=x_label,
            y_label="cosine of their directions", x=depths, series=nearest_of,
        ),
    ]  # fmt: skip


def matrices(geometry: Geometry) -> list[Matrix]:
    """Cosines between sites, and between emotions where they separate most."""
    labels, best = list(geometry.labels), int(geometry.separation.values.argmax())
    depths = _depths(len(geometry.separation.values))
    names = [f"{depth:g}" for depth in depths]
    low, high = geometry.interval
    return [
        Matrix(
            name="emotions", title=f"Directions of emotions at depth {depths[best]:g}",
            row_label="direction of", column_label="direction of", rows=labels, columns=labels,
            values=grid(similarity_of_emotions(geometry.directions)[best]), low=grid(low), high=grid(high),
            scale="diverging", note="Cosines; 95 % intervals from resampled clusters.",
        ),
        Matrix(
            name="sites", title="Directions at two depths", row_label="depth in layers",
            column_label="depth in layers", rows=names, columns=names,
            values=grid(similarity_of_sites(geometry.directions)), scale="diverging",
            note="Cosine of the directions of one emotion, mean over emotions.",
        ),
    ]  # fmt: skip


def _depths(sites: int) -> list[float]:
    """Depth of each site in layers: a half behind the attention, a whole behind the MLP."""
    return [(place + 1) / len(PLACES) for place in range(sites)]


def _closest(cosines: FloatArray) -> tuple[int, int]:
    off = np.where(np.triu(np.ones_like(cosines), k=1) > 0, cosines, -np.inf)
    one, other = np.unravel_index(int(off.argmax()), off.shape)
    return int(one), int(other)
