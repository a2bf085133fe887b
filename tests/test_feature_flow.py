"""The analysis of flow on a shipped model and its autoencoders, against arrays computed beside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_features import RandomFeatures

from affectbench import feature_flow
from affectbench.analyses import ANALYSES, Asked, Content
from affectbench.causes import shared_and_specific
from affectbench.dataset import load_benchmark
from affectbench.errors import AffectbenchError
from affectbench.flow import Flow, LayerReading, Sample, flow_of, read_layer
from affectbench.placement import Options, Order, Placement
from affectbench.plan import job_of_names
from affectbench.registry import Registry
from affectbench.session import Session

SETTINGS = ANALYSES["feature-flow"].settings | {"bootstrap_draws": 10}
LIMIT = 8


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A shipped model with random features of three of its layers."""
    registry = Registry(installed=False)
    job = job_of_names(registry, "reference-text-plain", "reference-narratives", (), (), 0)
    dataset = load_benchmark(job.benchmark, None, LIMIT)
    options = Options(tmp_path_factory.mktemp("out"), limit=LIMIT)
    found = Placement(registry, Order(job, dataset, (), ()), options, lambda _text: None).session
    found.model.attach(RandomFeatures(found.model.hidden_width, 48, (0, 2, 3)))
    return found


@pytest.fixture(scope="module")
def content(session: Session) -> Content:
    return feature_flow.analyse(Asked(session, 0, SETTINGS))


def features(session: Session, split: str, layer: int) -> np.ndarray:
    """Activations at the last token, one item at a time, through the public forward pass."""
    found, seen = [], []
    network, dictionary = session.model.network, session.model.dictionary
    handle = network.model.layers[layer].register_forward_hook(lambda _m, _i, output: seen.append(output))
    for item in session.items(split).items:
        with torch.no_grad():
            network(input_ids=item.ids[None])
        hidden = seen[-1][0] if isinstance(seen[-1], tuple) else seen[-1]
        found.append(dictionary.at(layer).encode(hidden[0, -1]).numpy())
    handle.remove()
    return np.array(found)


def test_activations_are_those_of_the_public_forward_one_item_at_a_time(session: Session) -> None:
    seen, unseen = session.items("identification"), session.items("test")
    given = (session.engine, session.model.dictionary, seen, unseen, None)
    by_layer = {layer: (one, other) for layer, one, other in feature_flow.activations(*given)}
    assert list(by_layer) == [0, 2, 3]
    for split, place in (("identification", 0), ("test", 1)):
        expected = features(session, split, 2)
        assert by_layer[2][place] == pytest.approx(expected, abs=2e-3)
        assert (expected > 0).any()


def test_passes_are_more_where_less_may_be_held(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, unseen = session.items("identification"), session.items("test")
    given = (session.engine, session.model.dictionary, seen, unseen, None)
    passes, found = [], []
    for held in (feature_flow.HELD, 1):
        monkeypatch.setattr(feature_flow, "HELD", held)
        before = session.engine.cost.forward_passes
        found.append(list(feature_flow.activations(*given)))
        passes.append(session.engine.cost.forward_passes - before)
    assert passes[1] == 3 * passes[0]
    for (one, *a), (other, *b) in zip(*found, strict=True):
        assert one == other
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_an_item_that_failed_does_not_look_inactive(session: Session) -> None:
    rows = np.zeros((2, session.model.hidden_width), dtype=np.float32)
    rows[1, 3] = np.nan
    found = feature_flow.encoded(session.model.dictionary, 2, rows)
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()


def test_the_curves_are_those_of_the_arrays(session: Session, content: Content) -> None:
    seen, unseen = session.items("identification"), session.items("test")
    readings = []
    for layer, z, other in feature_flow.activations(
        session.engine, session.model.dictionary, seen, unseen, None
    ):
        readings.append(
            read_layer(
                z, Sample(seen.gold, seen.clusters), (other, Sample(unseen.gold, unseen.clusters)), 7,
                session.model.dictionary.at(layer).decoder.numpy(), draws=10, seed=0,
            )
        )  # fmt: skip
    expected = flow_of(readings, least_cosine=0.7, seed=0)
    curve = content.curves[0]
    assert curve.x == [0.0, 2.0, 3.0]
    for series, row in zip(curve.series[:3], expected.curves, strict=True):
        values = np.array([np.nan if value is None else value for value in series.values])
        assert values == pytest.approx(row, nan_ok=True)
    active = [(features(session, "identification", layer) > 0).any(axis=0).mean() for layer in (0, 2, 3)]
    assert curve.series[3].values == pytest.approx(active)
    layers = (0, 2, 3)
    assert [mark.x for mark in curve.marks] == [layers[at] for at in expected.boundaries]
    assert content.n["items"] == len(seen) == 7 * LIMIT
    assert content.n["test_items"] == len(unseen)


def test_tables_count_shared_and_specific_features_of_the_last_phase(
    session: Session, content: Content
) -> None:
    gold = session.items("identification").gold
    begins = int(content.curves[0].marks[1].x)
    found = []
    for layer in (each for each in (0, 2, 3) if each >= begins):
        z = features(session, "identification", layer)
        found.append(shared_and_specific(np.stack([z[gold == e].mean(axis=0) for e in range(7)]), 20))
    table = next(table for table in content.tables if table.name == "kinds-all")
    assert [column.name for column in table.columns[1:]] == [
        "of the first 20", "of the first 50", "of the first 100"
    ]  # fmt: skip
    assert [row[1] for row in table.rows[:-1]] == pytest.approx(
        [np.mean([len(each.specific[e]) for each in found]) for e in range(7)]
    )
    assert table.rows[-1][1] == pytest.approx(np.mean([len(each.shared) for each in found]))


def test_correct_items_are_read_apart_where_there_are_enough(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = session.items("identification")
    known = session.base

    def answers(which: str):
        def base(asked):
            _, margins = known(asked)
            right = asked.gold.copy()
            if which == "few" and asked is items:
                right[:-4] = (right[:-4] + 1) % 7
            elif asked is items:
                right[::8] = (right[::8] + 1) % 7
            return right, margins

        return base

    monkeypatch.setattr(session, "base", answers("most"))
    content = feature_flow.analyse(Asked(session, 0, SETTINGS))
    assert [curve.name for curve in content.curves] == ["flow-all", "flow-correct"]
    assert content.n["correct_items"] == 7 * LIMIT - len(range(0, 7 * LIMIT, 8))
    monkeypatch.setattr(session, "base", answers("few"))
    content = feature_flow.analyse(Asked(session, 0, SETTINGS))
    assert [curve.name for curve in content.curves] == ["flow-all"]
    assert any("fewer than 5 of them" in note for note in content.notes)


def test_two_layers_are_refused(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.model, "dictionary", RandomFeatures(session.model.hidden_width, 8, (0, 1)))
    with pytest.raises(AffectbenchError, match="a flow needs three"):
        feature_flow.analyse(Asked(session, 0, SETTINGS))


def test_findings_name_layers_and_not_places() -> None:
    nothing = LayerReading((), np.zeros(1), np.zeros((1, 2, 2), dtype=int), {}, 1.0)
    sample = Sample(np.zeros(1, dtype=int), ("a",))
    reading = feature_flow.Reading(sample, sample, np.zeros(1, int), np.zeros(1, int), [nothing], [])
    curves = np.array([[np.nan, 0.1, 0.2, 0.3], [0.0, 0.0, 0.1, 0.3], [0.2, 0.2, 0.3, 0.9]])
    flow = Flow(curves, np.zeros((2, 4)), (1, 3), np.array([[1, 3]] * 9 + [[2, 3]]), 0.8, 0.25)
    found = {each.name: each for each in feature_flow.findings((4, 9, 14, 20), [("all", reading, flow)])}
    third, second = found["third-phase-all"].value, found["second-phase-all"].value
    assert (third.value, third.low, third.high) == (20, 20, 20)
    assert (second.value, second.low, second.high) == (9, 9, 14)
    assert "10.0 % at most before the last phase, 30.0 % on average in it" in found["separating-all"].text
    assert found["phases-all"].p == 0.25
