"""Causal tracing of features, steering with them, and selectors of features where the answer is known."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_features import RandomFeatures
from tiny_models import LABELS, family, items, readout, tiny_qwen2

from affectbench.causes import causal_features
from affectbench.engine import Engine
from affectbench.evidence import EvidencePass, requests_of
from affectbench.features import (
    candidates,
    first_items,
    margin_to_next,
    nearest_features,
    steering,
    traced_study,
)
from affectbench.injection import Injection
from affectbench.intervention import UNTOUCHED, add
from affectbench.model import Model
from affectbench.readout import Items
from affectbench.recovery import recovery
from affectbench.registry import Registry
from affectbench.sae_formats import load_card
from affectbench.selector import Selection
from affectbench.sites import FEATURE
from affectbench.study import Study
from affectbench.targets import Dosing, random_targets, targets_of
from affectbench.tracing import MATCHED, causes_of, effects_of, flips_of, random_pool, trace

REGISTRY = Registry(installed=False)
FEATURES = 40


def model_with_features(seed: int = 0) -> Model:
    """A tiny decoder with random features after each of its layers."""
    model = copy(tiny_qwen2())
    layers = tuple(range(len(model.layers)))
    model.attach(RandomFeatures(model.hidden_width, FEATURES, layers, seed))
    return model


def study_of(engine: Engine, asked: Items, needs: frozenset[str]) -> Study:
    read = readout(engine.model)
    found = EvidencePass(engine, asked, read, requests_of(needs, FEATURE, "answer"), correct_only=False).run()
    return Study(
        evidence=found.evidence(FEATURE, "answer"),
        shuffled=found.evidence(FEATURE, "answer", shuffled=True),
        items=asked,
        readout=read,
        seed=0,
        ask=lambda edits: engine.predict(asked, read, edits),
        engine=engine,
    )


# The measure.


def test_the_effect_is_the_drop_of_gold_less_the_mean_drop_of_the_others() -> None:
    clean, ablated = np.array([[5.0, 1, 2, 3]]), np.array([[[3.0, 1, 1, 4]]])
    assert effects_of(clean, ablated, np.array([0])).tolist() == [[2.0]]
    codes = clean.argmax(1), ablated.argmax(2)
    assert flips_of(codes[0], codes[1], np.array([0])).tolist() == [[True]]
    # What log-likelihoods are normalised by cancels.
    shifted = ablated - 7.5
    assert effects_of(clean, shifted, np.array([0])).tolist() == [[2.0]]


def test_no_flip_where_the_answer_was_wrong_or_stays() -> None:
    clean, ablated, gold = np.array([0, 1, 2]), np.array([[0, 0, 1], [1, 1, 1]]), np.array([0, 0, 2])
    assert flips_of(clean, ablated, gold).tolist() == [[False, False, True], [True, False, True]]


def test_tracing_equals_ablations_by_hand_on_the_public_forward() -> None:
    model = model_with_features()
    asked, read = items(model, 5), readout(model)
    units = np.array([3, FEATURES + 1, 2 * FEATURES + 7], dtype=np.int64)
    engine = Engine(model, 0)
    found = trace(
        lambda edits: engine.predict(asked, read, edits),
        units, site=FEATURE, shape=model.site_shape(FEATURE), gold=asked.gold, clusters=asked.clusters,
    )  # fmt: skip
    words = [token for (token,) in read.candidates]

    def logits(ids: torch.Tensor, unit: int | None) -> torch.Tensor:
        handles = []
        if unit is not None:
            features = model.dictionary.at(unit // FEATURES)  # type: ignore[union-attr]

            def hook(_module: Any, _args: Any, output: Any) -> Any:
                hidden = (output[0] if isinstance(output, tuple) else output).clone()
                z = features.encode(hidden[:, -1])[:, unit % FEATURES]
                hidden[:, -1] -= z[:, None] * features.decoder[unit % FEATURES]
                return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

            handles.append(model.layers[unit // FEATURES].register_forward_hook(hook))
        try:
            return model.network(input_ids=ids[None]).logits[0, -1, words]  # type: ignore[no-any-return]
        finally:
            for handle in handles:
                handle.remove()

    for row, item in enumerate(asked.items):
        clean, gold = logits(item.ids, None), int(asked.gold[row])
        for column, unit in enumerate(units):
            drop = clean - logits(item.ids, int(unit))
            others = (drop.sum() - drop[gold]) / (len(words) - 1)
            assert found.effects[row, column] == pytest.approx(float(drop[gold] - others), abs=2e-5)
    assert found.kept.all()
    assert (found.correct == (engine.predict(asked, read, [UNTOUCHED]).codes[0] == asked.gold)).all()


def test_features_at_the_last_token_depend_on_neither_batch_nor_padding() -> None:
    model = model_with_features()
    asked = items(model, 4)
    features = model.dictionary.at(1)  # type: ignore[union-attr]
    seen: list[torch.Tensor] = []

    def keep(_module: Any, _args: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    handle = model.layers[1].register_forward_hook(keep)
    try:
        model.decode(model.collate(asked.items))  # Padded on the left.
        longest = max(map(len, asked.items))
        right = torch.zeros(4, longest, dtype=torch.long)
        for row, item in enumerate(asked.items):
            right[row, : len(item)] = item.ids
        mask = torch.arange(longest) < torch.tensor([[len(item)] for item in asked.items])
        model.network(input_ids=right, attention_mask=mask.long())
        for item in asked.items:
            model.network(input_ids=item.ids[None])
    finally:
        handle.remove()
    left = features.encode(seen[0][:, -1])
    padded = torch.stack(
        [features.encode(seen[1][row, len(item) - 1]) for row, item in enumerate(asked.items)]
    )
    alone = torch.cat([features.encode(hidden[:, -1]) for hidden in seen[2:]])
    torch.testing.assert_close(left, alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(padded, alone, atol=1e-5, rtol=1e-4)
    assert ((left > 0) == (alone > 0)).all()


# Random features that are as active.


def test_a_feature_is_compared_with_the_features_of_its_layer_that_are_as_active() -> None:
    rng, width = np.random.default_rng(0), 60
    mean = rng.uniform(0.1, 4, size=(2, 2, width))
    pool = random_pool((mean > 0).astype(float), np.random.default_rng(1), size=30)
    assert [int((pool // width == layer).sum()) for layer in (0, 1)] == [30, 30]
    units = np.arange(2 * width)
    from affectbench.tracing import Traced

    effects = rng.normal(size=(8, 2 * width))
    traced = Traced(
        units, effects, np.zeros((8, 2 * width), bool), np.ones(8, bool), np.arange(8) != 6,
        np.array([0, 0, 0, 0, 1, 1, 1, 1]), tuple("aabbccdd"),
    )  # fmt: skip
    causes = causes_of(traced, 1, np.array([5, 70]), pool, mean, width)
    assert causes.effects.shape == (3, 2)  # Item 6 is answered wrongly.
    level = np.log(mean.mean(axis=0).ravel())
    for row, unit in enumerate((5, 70)):
        rivals = [each for each in pool if each // width == unit // width and each != unit]
        nearest = sorted(rivals, key=lambda each: abs(level[each] - level[unit]))[:MATCHED]
        expected = np.percentile(effects[[4, 5, 7]].mean(axis=0)[nearest], 95)
        assert causes.bar[row] == pytest.approx(expected)
    few = replace(traced, correct=np.zeros(8, bool))
    assert causes_of(few, 1, np.array([5]), pool, mean, width).effects.shape == (4, 1)


def test_features_that_are_never_active_are_in_no_pool() -> None:
    rate = np.zeros((2, 1, 6))
    rate[1, 0, [1, 4]] = 0.5
    assert random_pool(rate, np.random.default_rng(0)).tolist() == [1, 4]


def test_planted_features_are_found_and_random_ones_rejected() -> None:
    """Effects of a known size: the planted pass, whatever the noise; the others do not."""
    rng, width = np.random.default_rng(3), 50
    mean, planted = np.ones((2, 1, width)), [4, 9]
    effects = rng.normal(0, 0.05, size=(40, width))
    effects[:20, planted] += 0.5
    from affectbench.tracing import Traced

    traced = Traced(
        np.arange(width), effects, np.zeros((40, width), bool), np.ones(40, bool), np.ones(40, bool),
        np.repeat([0, 1], 20), tuple(str(place) for place in range(40)),
    )  # fmt: skip
    pool = random_pool(np.ones((2, 1, width)), np.random.default_rng(0))
    for emotion, expected in ((0, planted), (1, [])):
        causes = causes_of(traced, emotion, np.arange(width), pool, mean, width)
        found = causal_features(causes, draws=500, seed=0)
        assert [int(each) for each in np.flatnonzero(found.causal) if found.effect[each] > 0.2] == expected
        assert found.causal.sum() <= len(expected) + 2


# Selecting and steering.


def test_contrast_is_the_margin_to_the_next_emotion() -> None:
    mean = np.array([[3.0, 1.0, 2.0], [1.0, 4.0, 2.0], [2.0, 0.0, 2.0]])
    assert margin_to_next(mean).tolist() == [[1, -3, 0], [-2, 3, 0], [-1, -4, 0]]


def test_a_study_is_traced_on_the_first_items_and_the_best_candidates() -> None:
    model = model_with_features()
    engine = Engine(model, 0)
    study = study_of(engine, items(model, 30), frozenset({"mean", "rate", "attribution"}))
    assert first_items(study, 2) == [0, 1, 2, 3, 4, 5]
    chosen = candidates(study, 8)
    rate = study.evidence.rate.reshape(len(LABELS), -1)
    for emotion, own in enumerate(chosen):
        assert own.size == 8
        assert (rate[emotion, own] > 0).all()
        attribution = study.evidence.attribution.reshape(len(LABELS), -1)[emotion]
        assert int(np.where(rate[emotion] > 0, attribution, -np.inf).argmax()) in own
    found = traced_study(study, 8)
    assert np.isfinite(found.scores).sum() == 8 * len(LABELS)
    for emotion, causal in enumerate(found.causal):
        assert set(causal) <= set(chosen[emotion])
        assert (np.diff(found.scores[emotion, causal]) <= 0).all()
        assert (found.scores[emotion, causal] > 0).all()


def test_random_features_fire_as_often_and_write_as_much() -> None:
    model = model_with_features()
    study = study_of(Engine(model, 0), items(model, 30), frozenset({"mean", "rate"}))
    rate, mean = study.evidence.rate.mean(axis=0), study.evidence.mean.mean(axis=0)
    written = mean * np.stack([study.writes(FEATURE, layer).norm(dim=-1) for layer in range(len(rate))])
    unit = FEATURES + int(np.flatnonzero(rate[1] > 0)[3])
    alive = [each for each in range(FEATURES) if rate[1, each] > 0]
    scales = [np.std([np.log(table[1, each]) for each in alive]) for table in (rate, written)]

    def distance(each: int) -> float:
        gaps = [np.log(table[1, each] / table[1, unit % FEATURES]) for table in (rate, written)]
        return float(sum((gap / scale) ** 2 for gap, scale in zip(gaps, scales, strict=True)))

    expected = [FEATURES + each for each in sorted(alive, key=distance) if FEATURES + each != unit]
    assert nearest_features(study, unit, np.array([expected[1]]), 4).tolist() == [expected[0], *expected[2:5]]


def test_a_dense_direction_is_as_long_as_features_are() -> None:
    model = copy(tiny_qwen2())
    engine, asked = Engine(model, 0), items(model, 30)
    read = readout(model)
    requests = requests_of({"mean", "rms"}, "residual", "answer")
    found = EvidencePass(engine, asked, read, requests, correct_only=False).run()
    study = Study(
        evidence=found.evidence("residual", "answer"),
        shuffled=found.evidence("residual", "answer", shuffled=True),
        items=asked, readout=read, seed=0, ask=lambda edits: engine.predict(asked, read, edits),
        engine=engine,
    )  # fmt: skip
    for budget in (1, 2):
        selection = REGISTRY.selector("dense_direction")().select(study, budget)
        assert selection.vectors is not None
        for emotion, (units, row) in enumerate(zip(selection.units, selection.vectors, strict=True)):
            assert np.linalg.norm(row) == pytest.approx(model.hidden_width**0.5)
            mean = study.evidence.mean[:, units[0]]
            away = mean[emotion] - mean.mean(axis=0)
            first = row[: model.hidden_width]
            assert first @ away / np.linalg.norm(first) == pytest.approx(np.linalg.norm(away))


def steered_selection(model: Model, study: Study) -> Selection:
    """Two features of one layer for the first emotion, three of two layers for the others."""
    units = (np.array([2, 5]), np.array([1, FEATURES + 3, 9]), np.array([7, FEATURES + 1, 4]))
    vectors = steering(study, units)
    return Selection(FEATURE, model.site_shape(FEATURE), LABELS, units, None, vectors=vectors)


def test_steering_adds_alpha_times_the_length_of_the_stream() -> None:
    model = model_with_features()
    engine = Engine(model, 0)
    asked = items(model, 12)
    study = study_of(engine, asked, frozenset({"mean"}))
    selection = steered_selection(model, study)
    weights = study.evidence.mean.reshape(3, -1)[0, [2, 5]]
    assert selection.vectors is not None
    ratio = selection.vectors[0] / weights
    assert ratio[0] == pytest.approx(ratio[1])
    edit = add(
        FEATURE, selection.shape, selection.units[0], 0.5 * selection.vectors[0], "answer", relative=True
    )
    seen: list[torch.Tensor] = []
    batch = model.collate(asked.items[:3])
    for interventions in ([UNTOUCHED], [edit]):
        with engine.editing(interventions) as edits:
            edits.roles = batch.roles
            handle = model.layers[1].register_forward_pre_hook(lambda _m, args: seen.append(args[0].clone()))
            try:
                model.decode(batch)
            finally:
                handle.remove()
    before, after = seen[0][:, -1], seen[1][:, -1]
    torch.testing.assert_close((after - before).norm(dim=-1), 0.5 * before.norm(dim=-1), rtol=1e-4, atol=1e-5)
    assert torch.equal(seen[0][:, :-1], seen[1][:, :-1])
    rows = [study.writes(FEATURE, layer) for layer in (0, 1)]
    for units, own in zip(selection.units, selection.vectors, strict=True):
        parts = [
            torch.as_tensor(own[units // FEATURES == layer]).float()
            @ rows[layer][units[units // FEATURES == layer] % FEATURES]
            for layer in (0, 1)
        ]
        assert float(torch.cat(parts).norm()) == pytest.approx(model.hidden_width**0.5, rel=1e-4)


class Forbidden:
    """Stands for gold labels where nobody may look."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a gold label was read ({name})")

    def __getitem__(self, place: Any) -> Any:
        raise AssertionError("a gold label was read")

    def __array__(self, *_args: Any, **_kwargs: Any) -> Any:
        raise AssertionError("a gold label was read")


def test_steering_never_sees_a_gold_label() -> None:
    """Told items and the untouched model's answers alone, it gives the same answers; at alpha 0, those."""
    model = model_with_features()
    engine, asked = Engine(model, 0), items(model, 12)
    selection = steered_selection(model, study_of(engine, asked, frozenset({"mean"})))
    protocol = REGISTRY.intervention("sae-ablate-steer")
    assert set(protocol.arms.amplify.targeting) == {"two_pass", "union"}
    targets, draws = targets_of(selection), random_targets(selection, 4, 0)
    read, dosing = readout(model), Dosing(protocol, {})

    def answers(known: Items, dose: float) -> list[np.ndarray]:
        own = Engine(model, 0)
        edits = [dosing.of("amplify", dose, target) for target in (*targets, *draws)]
        codes = own.predict(known, read, edits).codes
        injection = Injection(own, known, read, dosing)
        found = injection.steered(dose, targets, draws, codes[: len(LABELS)], codes[len(LABELS) :])
        return [np.vstack([each.answers[None], each.draws]) for each in found]

    blind = replace(asked, gold=Forbidden())  # type: ignore[arg-type]
    for dose in (0.0, 4.0):
        for seeing, unseeing in zip(answers(asked, dose), answers(blind, dose), strict=True):
            assert (seeing == unseeing).all()
    base = engine.predict(asked, read, [UNTOUCHED]).codes[0]
    assert all((rows == base).all() for rows in answers(blind, 0.0))
    assert any((rows != base).any() for rows in answers(blind, 4.0))


# The planted dictionary.


def planted_card() -> Any:
    return REGISTRY.sae("reference-text-planted-sae")


def test_planted_features_write_what_the_planted_units_write() -> None:
    card = REGISTRY.model("reference-text")
    model = family("causal_lm").load(card, str(card.folder), device="cpu", dtype=torch.float32)
    sae, neurons = load_card(planted_card()), model.planted()
    truth = sae.planted()
    assert truth is not None
    assert neurons is not None
    assert card.dictionary == "reference-text-planted-sae"
    listed = [unit for kind in ("planted", "decoys") for ids in truth[kind].values() for unit in ids]
    assert len(set(listed)) == len(listed) == 280
    for kind in ("planted", "decoys"):
        for label, ids in truth[kind].items():
            for feature, neuron in zip(ids, neurons[kind][label], strict=True):
                assert feature // sae.features == neuron // 512
                column = model.down(neuron // 512).weight[:, neuron % 512]
                row = sae.at(feature // sae.features).decoder[feature % sae.features]
                torch.testing.assert_close(row, column, atol=0, rtol=0.01)


@pytest.mark.slow
def test_tracing_tells_planted_features_from_decoys_and_contrast_does_not(tmp_path: Path) -> None:
    from affectbench.placement import Options, Placement
    from affectbench.plan import job_of_names
    from affectbench.run import Run

    names = ["sae_causal", "sae_contrast", "sae_steer"]
    job = job_of_names(REGISTRY, "reference-text", None, names, ["sae-ablate-steer"], 0)
    options = Options(tmp_path)

    class Silent:
        def phase(self, _text: str) -> None: ...

    order = next(Run(REGISTRY, options, Silent()).orders([job]))  # type: ignore[arg-type]
    assert all(planned.hashes.dictionary for planned in order.cells)
    placement = Placement(REGISTRY, order, options, lambda _text: None)
    engine, asked = placement.session.engine, placement.session.items("identification")
    needs = frozenset({"mean", "rate", "attribution"})
    found = placement.session.collect(
        requests_of(needs, FEATURE, "answer"), correct_only=True, seed=0, progress=None
    )
    study = Study(
        evidence=found.evidence(FEATURE, "answer"), shuffled=found.evidence(FEATURE, "answer", shuffled=True),
        items=asked, readout=placement.session.readout, seed=0,
        ask=lambda edits: engine.predict(asked, placement.session.readout, edits), engine=engine,
    )  # fmt: skip
    truth = placement.session.model.dictionary.planted()  # type: ignore[union-attr]
    assert truth is not None
    scored = {}
    for name in names:
        selection = REGISTRY.selector(name)().select(study, 5)
        scores = np.where(np.isfinite(selection.scores), selection.scores, np.nan)
        ranking = np.where(np.isnan(scores), np.nanmin(scores) - 1, scores)
        own, fake = ([truth[kind][label] for label in study.labels] for kind in ("planted", "decoys"))
        scored[name] = recovery(ranking, own, fake).decoy_auroc
        decoys = {unit for ids in truth["decoys"].values() for unit in ids}
        if name != "sae_contrast":
            assert not decoys & {int(unit) for units in selection.units for unit in units}
    assert scored["sae_causal"] is not None
    assert scored["sae_contrast"] is not None
    assert scored["sae_causal"] >= 0.9
    assert 0.35 < scored["sae_contrast"] < 0.65
