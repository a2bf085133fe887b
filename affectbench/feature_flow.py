"""The analysis `feature-flow`: information flow over layers, read from a model's sparse autoencoders.

Curves and change points of `affectbench.flow` on identification items, with probes judged on test items; and,
in the last phase, features that emotions share and features of one emotion alone (`affectbench.causes`). Once
on all items, and once on those that the model answers correctly, as the development code of arXiv 2604.25866
does. The protocol is ours: docs/analyses.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from affectbench.analyses import Asked, Content
from affectbench.analysis import Column, Curve, Finding, Mark, Matrix, Series, Table, grid, numbers
from affectbench.answer_vectors import Vectors, answer_vectors, sound
from affectbench.causes import shared_and_specific
from affectbench.dictionary import Dictionary
from affectbench.engine import Engine
from affectbench.errors import AffectbenchError
from affectbench.flow import Flow, LayerReading, Sample, flow_of, read_layer, top_features
from affectbench.pieces import Progress
from affectbench.readout import Items
from affectbench.score_models import Estimate
from affectbench.session import Session
from affectbench.sites import RESIDUAL, FloatArray

HELD = 256 << 20
"""Bytes of residual vectors that are held at a time; more layers take further passes."""
LEAST = 5
"""Items of each emotion that a reading needs."""
NAMES = ("overlap with the layer below", "features that separate emotions", "probe, macro-F1")
WHICH = {"all": "all items", "correct": "items that the model answers correctly"}


@dataclass
class Reading:
    """What is read of some of the items: places in both splits, readings by layer, and means (E, F) of each
    layer by emotion."""

    sample: Sample
    unseen: Sample
    places: npt.NDArray[np.int64]
    unseen_places: npt.NDArray[np.int64]
    layers: list[LayerReading] = field(default_factory=list)
    means: list[FloatArray] = field(default_factory=list)


def analyse(asked: Asked) -> Content:
    """Raises `AffectbenchError` where the autoencoders are of fewer than three layers, or an emotion has too
    few items."""
    session, layers = asked.session, attached(asked.session).layers
    labels, seen, unseen = session.benchmark.labels, session.items("identification"), session.items("test")
    readings = read(asked)
    parts = [(which, reading, flow_of_reading(reading, asked)) for which, reading in readings.items()]
    return Content(
        n=_counts(seen, readings, unseen),
        findings=findings(layers, parts),
        curves=[curve(which, layers, flow, reading, len(labels)) for which, reading, flow in parts],
        matrices=[common(labels, layers, readings["all"].means[-1], asked.number("shown_top"))],
        tables=[
            *(kinds(which, labels, reading, flow, asked) for which, reading, flow in parts),
            items_table(labels, seen, readings),
        ],
        notes=_notes(readings),
    )


def attached(session: Session) -> Dictionary:
    """The autoencoders of a session's model. Raises `AffectbenchError` for fewer than three layers."""
    dictionary = session.model.dictionary
    assert dictionary is not None, "the autoencoders are attached first"
    if len(dictionary.layers) < 3:
        raise AffectbenchError(
            f"{dictionary.name} has features of {len(dictionary.layers)} layers; a flow needs three",
            hint="train autoencoders for every layer: python harness.py train-sae",
        )
    return dictionary


def read(asked: Asked) -> dict[str, Reading]:
    """Readings of all items, and of those answered correctly where there are enough."""
    session, dictionary = asked.session, attached(asked.session)
    labels = len(session.benchmark.labels)
    both = session.items("identification"), session.items("test")
    answers = [session.base(items)[0] == items.gold for items in both]
    readings: dict[str, Reading] = {}
    for layer, z, other in activations(session.engine, dictionary, *both, asked.progress):
        if not readings:
            readings = _chosen(both, [sound(z), sound(other)], answers, labels)
        decoder = dictionary.at(layer).decoder.float().cpu().numpy()
        for reading in readings.values():
            _read(reading, asked, z, other, decoder, labels)
    return readings


def flow_of_reading(reading: Reading, asked: Asked) -> Flow:
    """Curves and change points of a reading."""
    cosine = asked.settings["same_feature_cosine"]
    assert isinstance(cosine, float), "a cosine"
    return flow_of(reading.layers, least_cosine=cosine, seed=asked.seed)


def activations(
    engine: Engine, dictionary: Dictionary, seen: Items, unseen: Items, progress: Progress | None
) -> Iterator[tuple[int, Vectors, Vectors]]:
    """By layer, activations (N, F) of the features at the answer position of both kinds of items, in as few
    passes as `HELD` allows."""
    each = 4 * (len(seen) + len(unseen)) * dictionary.width
    at_once = max(1, HELD // each)
    for start in range(0, len(dictionary.layers), at_once):
        layers = dictionary.layers[start : start + at_once]
        points = [(RESIDUAL, layer) for layer in layers]
        residuals = [answer_vectors(engine, items, points, progress) for items in (seen, unseen)]
        for place, layer in enumerate(layers):
            one, other = (encoded(dictionary, layer, vectors[:, place]) for vectors in residuals)
            yield layer, one, other


def encoded(dictionary: Dictionary, layer: int, residuals: Vectors) -> Vectors:
    """Activations (N, F) of features for residual vectors (N, d); NaN where these are not finite."""
    features = dictionary.at(layer)
    rows = torch.as_tensor(residuals, device=features.decoder.device)
    with torch.no_grad():
        found = features.encode(rows).float()
    # A threshold turns what is not a number into 0: an item that failed must not look inactive.
    found[~torch.isfinite(rows).all(dim=1)] = torch.nan
    return np.asarray(found.cpu().numpy(), dtype=np.float32)


def _chosen(
    items: tuple[Items, Items],
    usable: Sequence[npt.NDArray[np.bool_]],
    answers: Sequence[npt.NDArray[np.bool_]],
    labels: int,
) -> dict[str, Reading]:
    """Readings of all items and of those answered correctly; the latter only where there are enough."""
    found = {}
    for which in WHICH:
        kept = [ok & right if which == "correct" else ok for ok, right in zip(usable, answers, strict=True)]
        places = [np.flatnonzero(each) for each in kept]
        samples = [
            Sample(each.gold[own], tuple(each.clusters[place] for place in own))
            for each, own in zip(items, places, strict=True)
        ]
        counts = np.bincount(samples[0].gold, minlength=labels)
        if counts.min() >= LEAST and samples[1].gold.size:
            found[which] = Reading(samples[0], samples[1], places[0], places[1])
        elif which == "all":
            raise AffectbenchError(
                f"an emotion has {counts.min()} usable items of identification, a flow needs {LEAST}",
                hint="use more items",
            )
    return found


def _read(
    reading: Reading, asked: Asked, z: Vectors, other: Vectors, decoder: npt.NDArray[np.float32], labels: int
) -> None:
    own = z[reading.places]
    reading.layers.append(
        read_layer(
            own, reading.sample, (other[reading.unseen_places], reading.unseen), labels, decoder,
            draws=asked.number("bootstrap_draws"), seed=asked.seed, top=asked.number("top"),
        )
    )  # fmt: skip
    gold = reading.sample.gold
    reading.means.append(
        np.stack([own[gold == place].mean(axis=0, dtype=np.float64) for place in range(labels)])
    )


def findings(layers: Sequence[int], parts: Sequence[tuple[str, Reading, Flow]]) -> list[Finding]:
    """Where phases begin, and what the last one has that the others do not."""
    told = []
    for which, _, flow in parts:
        whose = WHICH[which].capitalize()
        text = f"{whose}: share of the curves that phases explain, against other orders of the layers:"
        explained = Estimate(value=flow.explained)
        told.append(Finding(name=f"phases-{which}", text=text, value=explained, p=flow.p))
        for place, phase in enumerate(("second", "third")):
            low, high = flow.interval(place)
            at = flow.boundaries[place]
            begins = Estimate(value=layers[at], low=layers[int(low)], high=layers[int(high)])
            text = f"{whose}: the {phase} phase begins at layer"
            told.append(Finding(name=f"{phase}-phase-{which}", text=text, value=begins))
        last, share = flow.boundaries[1], flow.curves[1]
        before, after = 100 * share[:last].max(), 100 * share[last:].mean()
        text = f"{before:.1f} % at most before the last phase, {after:.1f} % on average in it"
        told.append(
            Finding(name=f"separating-{which}", text=f"{whose}: features that separate emotions: {text}")
        )
    return told


def curve(which: str, layers: Sequence[int], flow: Flow, reading: Reading, labels: int) -> Curve:
    """The three curves with both change points, and beside them how many features are active at all."""
    series = [Series(label=name, values=numbers(row)) for name, row in zip(NAMES, flow.curves, strict=True)]
    low, high = (numbers(ends) for ends in flow.probe_interval)
    series[2] = series[2].model_copy(update={"low": low, "high": high})
    active = [layer.active for layer in reading.layers]
    series.append(Series(label="features that are ever active", values=numbers(active)))
    marks = []
    for place, phase in enumerate(("second phase", "third phase")):
        start, end = flow.interval(place)
        at = flow.boundaries[place]
        marks.append(Mark(label=phase, x=layers[at], low=layers[int(start)], high=layers[int(end)]))
    return Curve(
        name=f"flow-{which}",
        title=f"Flow over layers, {WHICH[which]}",
        x_label="layer",
        y_label="share, or F1",
        x=[float(layer) for layer in layers],
        series=series,
        marks=marks,
        reference=1 / labels,
        reference_label="chance of the probe",
        note="A phase begins at its mark. Bands of marks are 95 % intervals over resampled clusters, that of "
        "the probe over the clusters of test items.",
    )


def kinds(which: str, labels: tuple[str, ...], reading: Reading, flow: Flow, asked: Asked) -> Table:
    """Shared and specific features in the last phase, by how many each emotion lists."""
    tops = asked.settings["tops"]
    assert isinstance(tops, list), "numbers of features"
    last = reading.means[flow.boundaries[1] :]
    columns: list[list[float]] = []
    for top in tops:
        found = [shared_and_specific(means, int(top)) for means in last]
        shared = sum(len(each.shared) for each in found) / len(found)
        own = [sum(len(each.specific[place]) for each in found) / len(found) for place in range(len(labels))]
        columns.append([*own, shared])
    names = [*labels, "shared by all emotions but one at least"]
    return Table(
        name=f"kinds-{which}",
        title=f"Features of one emotion alone, and shared ones, {WHICH[which]}",
        columns=[Column(name="emotion"), *(Column(name=f"of the first {top}", digits=1) for top in tops)],
        rows=[[name, *values] for name, *values in zip(names, *columns, strict=True)],
        note="Means over the layers of the last phase. Each emotion lists the features with the largest mean "
        "activation over its items.",
    )


def common(labels: tuple[str, ...], layers: Sequence[int], means: FloatArray, top: int) -> Matrix:
    """Which emotions have their features in common, in the last layer."""
    lists = [set(top_features(row, top).tolist()) for row in means]
    values = [
        [len(one & other) / len(one | other) if one | other else float("nan") for other in lists]
        for one in lists
    ]
    return Matrix(
        name="common",
        title=f"Features that emotions have in common, layer {layers[-1]}",
        rows=list(labels),
        columns=list(labels),
        values=grid(values),
        note=f"Jaccard index of the {top} features with the largest mean, all items.",
    )


def items_table(labels: tuple[str, ...], seen: Items, readings: dict[str, Reading]) -> Table:
    """How many items of each emotion were read."""
    counts = [np.bincount(seen.gold, minlength=len(labels))]
    counts += [np.bincount(each.sample.gold, minlength=len(labels)) for each in readings.values()]
    return Table(
        name="items",
        title="Items of identification",
        columns=[
            Column(name=name) for name in ("emotion", "prepared", *(WHICH[which] for which in readings))
        ],
        rows=[[label, *(int(own[place]) for own in counts)] for place, label in enumerate(labels)],
    )


def _counts(seen: Items, readings: dict[str, Reading], unseen: Items) -> dict[str, int]:
    found = readings["all"]
    counts = {"items": len(found.places), "clusters": len(set(found.sample.clusters))}
    counts |= {"test_items": len(found.unseen_places)}
    if "correct" in readings:
        counts |= {"correct_items": len(readings["correct"].places)}
    lost = len(seen) + len(unseen) - len(found.places) - len(found.unseen_places)
    return counts | ({"unusable_items": lost} if lost else {})


def _notes(readings: dict[str, Reading]) -> list[str]:
    notes = ["A reconstruction: how the phases were found is not public (docs/analyses.md)."]
    if "correct" not in readings:
        notes.append(f"No reading of correct items alone: an emotion has fewer than {LEAST} of them.")
    return notes
