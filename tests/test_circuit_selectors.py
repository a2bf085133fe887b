"""Circuit selectors on a real decoder: each step against plain hooks and the allocation rule."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from test_selectors import selector
from tiny_models import LABELS, items, readout, tiny_dense, tiny_qwen2

from affectbench.anatomy import CIRCUIT_NEEDS, Anatomy
from affectbench.assembly import of_another_emotion
from affectbench.circuit import STRENGTHS
from affectbench.circuit_budget import allocate, split_budget
from affectbench.engine import Engine
from affectbench.errors import AffectbenchError
from affectbench.evidence import EvidencePass, requests_of
from affectbench.model import Model
from affectbench.study import Study

EMOTIONS, LAYERS, HEADS, NEURONS, WIDTH = len(LABELS), 3, 4, 24, 32
COUNT = 12


def study(site: str, model: Model | None = None, mode: str = "sound") -> Study:
    """A study of a tiny decoder, as a cell makes it."""
    model = model or tiny_qwen2()
    engine, data, answers = Engine(model), items(model, COUNT), readout(model)
    needs = requests_of(CIRCUIT_NEEDS, site, "answer")
    found = EvidencePass(engine, data, answers, needs, correct_only=False).run()
    others = [other for other in ("middle", "residual", "neuron", "head") if other != site]
    return Study(
        evidence=found.evidence(site, "answer"),
        shuffled=found.evidence(site, "answer", shuffled=True),
        items=data,
        readout=answers,
        seed=0,
        ask=lambda edits: engine.predict(data, answers, edits),
        others={other: found.evidence(other, "answer") for other in others},
        others_shuffled={other: found.evidence(other, "answer", shuffled=True) for other in others},
        engine=engine,
        mode=mode,  # type: ignore[arg-type]
    )


def keep(found: dict[Any, np.ndarray], key: Any, hooked: torch.Tensor) -> None:
    found[key] = hooked.reshape(-1, hooked.shape[-1])[-1].double().numpy()


@cache
def seen() -> dict[str, np.ndarray]:
    """What plain hooks show at the last token of each item, (N, layers, ...)."""
    model = tiny_qwen2()
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ("neuron", "head", "middle", "residual")}
    found: dict[Any, np.ndarray] = {}
    handles: list[Any] = []
    for layer, block in enumerate(model.layers):
        inputs = {
            "neuron": block.mlp.down_proj,
            "head": block.self_attn.o_proj,
            "middle": block.post_attention_layernorm,
        }
        for name, module in inputs.items():
            key = (name, layer)
            handles.append(module.register_forward_pre_hook(lambda _m, a, key=key: keep(found, key, a[0])))
        key = ("residual", layer)
        handles.append(
            block.register_forward_hook(
                lambda _m, _a, out, key=key: keep(found, key, out[0] if isinstance(out, tuple) else out)
            )
        )
    for item in items(model, COUNT).items:
        with torch.no_grad():
            model.network(input_ids=item.ids[None])
        for name, kept in rows.items():
            kept.append(np.stack([found[name, layer] for layer in range(LAYERS)]))
    for handle in handles:
        handle.remove()
    return {name: np.stack(kept) for name, kept in rows.items()}


def means(name: str) -> np.ndarray:
    gold = np.arange(COUNT) % EMOTIONS
    return np.stack([seen()[name][gold == emotion].mean(axis=0) for emotion in range(EMOTIONS)])


def expected_directions() -> np.ndarray:
    both = np.stack([means("middle"), means("residual")], axis=1)
    found = both - both.mean(axis=0)
    return found / np.linalg.norm(found, axis=-1, keepdims=True)


def injected_by_hand(layer: int, place: int, step: np.ndarray) -> np.ndarray:
    """What enters the final norm at the last token, (N, d), with `step` added to what a sublayer writes."""
    model, ends = tiny_qwen2(), []
    block = model.layers[layer]

    def nudge(_m, _a, out):  # type: ignore[no-untyped-def]
        written = out[0] if isinstance(out, tuple) else out
        written = written.clone()
        written[:, -1] += torch.as_tensor(step, dtype=written.dtype)
        return (written, *out[1:]) if isinstance(out, tuple) else written

    handle = (block.mlp if place else block.self_attn).register_forward_hook(nudge)
    watch = model.decoder.norm.register_forward_pre_hook(lambda _m, a: ends.append(a[0][0, -1].numpy()))
    with torch.no_grad():
        for item in items(model, COUNT).items:
            model.network(input_ids=item.ids[None])
    handle.remove()
    watch.remove()
    return np.stack(ends).astype(np.float64)


def test_directions_and_local_components_are_those_of_plain_hooks() -> None:
    anatomy = Anatomy(study("component"))
    along = expected_directions()
    np.testing.assert_allclose(anatomy.directions, along, atol=2e-5)
    for layer, block in enumerate(tiny_qwen2().layers):
        down = block.mlp.down_proj.weight.double().numpy()
        out = block.self_attn.o_proj.weight.double().numpy().reshape(WIDTH, HEADS, -1)
        for emotion in range(EMOTIONS):
            beta = down.T @ along[emotion, 1, layer]
            expected = means("neuron")[emotion, layer] * beta
            np.testing.assert_allclose(anatomy.neurons[emotion, layer], expected, rtol=1e-3, atol=2e-5)
            z = means("head")[emotion, layer].reshape(HEADS, -1)
            expected = np.einsum("dhc,hc,d->h", out, z, along[emotion, 0, layer])
            np.testing.assert_allclose(anatomy.heads[emotion, layer], expected, rtol=1e-3, atol=2e-5)


def test_influence_is_that_of_plain_hooks() -> None:
    anatomy = Anatomy(study("component"))
    size = np.sqrt((seen()["middle"] ** 2).mean(axis=-1)), np.sqrt((seen()["residual"] ** 2).mean(axis=-1))
    by_emotion = [[each[e::EMOTIONS].mean(axis=0) for e in range(EMOTIONS)] for each in size]
    sigma = np.mean(by_emotion, axis=1)
    np.testing.assert_allclose(anatomy.doses, sigma[..., None] * STRENGTHS, rtol=1e-5)
    local, reference = anatomy.frame.local, anatomy.frame.reference
    base = injected_by_hand(0, 0, np.zeros(WIDTH)).mean(axis=0)
    for emotion, place, layer in ((0, 0, 0), (1, 1, 1), (2, 0, 2), (2, 1, 2)):
        steps = []
        for dose in anatomy.doses[place, layer]:
            end = injected_by_hand(layer, place, dose * local[emotion, place, layer]).mean(axis=0)
            steps.append((end - base) @ reference[emotion] / dose)
        assert anatomy.effects[emotion, place, layer] == pytest.approx(np.mean(steps), rel=5e-3, abs=1e-4)
    # What the last MLP writes stays as it is.
    own = np.einsum("ed,ed->e", local[:, 1, -1], reference)
    np.testing.assert_allclose(anatomy.effects[:, 1, -1], own, atol=1e-3)


def test_all_heads_cost_one_pass_an_item() -> None:
    """The masked rerun takes one pass more for each head of each layer: 13 times as many here."""
    model = tiny_qwen2()
    engine, data, answers = Engine(model), items(model, COUNT), readout(model)
    needs = requests_of(selector("circuit_heads").needs, "head", "answer")
    EvidencePass(engine, data, answers, needs, correct_only=False).run()
    assert engine.cost.items_forwarded == COUNT
    assert 10 * engine.cost.items_forwarded <= COUNT * (1 + LAYERS * HEADS)


def test_a_circuit_is_the_best_of_each_layer_by_the_plan() -> None:
    here = study("component")
    budget = 20
    picked = selector("circuit").select(here, budget)
    anatomy = Anatomy(here)
    split = split_budget(budget, neurons=LAYERS * NEURONS, heads=LAYERS * HEADS)
    assert split == (17, 3)
    for emotion, units in enumerate(picked.units):
        assert units.size == budget
        layers, own = np.divmod(units, NEURONS + HEADS)
        for place, of_kind, scores, count, base, width in (
            (1, own < NEURONS, anatomy.neurons, split.neurons, 4, NEURONS),
            (0, own >= NEURONS, anatomy.heads, split.heads, 2, HEADS),
        ):
            counts = allocate(anatomy.effects[emotion, place], count, base=base, width=width)
            assert np.bincount(layers[of_kind], minlength=LAYERS).tolist() == counts.tolist()
            for layer in range(LAYERS):
                chosen = own[of_kind & (layers == layer)] - (0 if place else NEURONS)
                best = np.argsort(-scores[emotion, layer])[: counts[layer]]
                assert set(chosen) == set(best)
        assert picked.scores is not None
        ranked = picked.scores[emotion][units]
        assert (np.diff(ranked) <= 0).all()


@pytest.mark.parametrize(("site", "width"), [("neuron", NEURONS), ("head", HEADS)])
def test_at_a_site_of_one_kind_a_circuit_holds_that_kind(site: str, width: int) -> None:
    here = study(site)
    picked = selector("circuit").select(here, 9)
    assert {units.size for units in picked.units} == {9}
    free = selector(f"circuit_{site}s").select(here, 9)
    np.testing.assert_array_equal(picked.scores, free.scores)
    assert picked.scores is not None
    assert picked.scores.shape == (EMOTIONS, LAYERS * width)


def test_paper_mode_takes_the_published_shares() -> None:
    here, paper = study("component"), study("component", mode="paper")
    heads = [
        [(units % (NEURONS + HEADS) >= NEURONS).sum() for units in selector("circuit").select(each, 20).units]
        for each in (here, paper)
    ]
    assert heads == [[3] * EMOTIONS, [6] * EMOTIONS]
    assert Anatomy(paper).frame.stable == range(2, 3)


def test_directions_are_unit_vectors_of_the_middle_layers() -> None:
    here = study("residual")
    picked = selector("direction").select(here, 2)
    assert picked.vectors is not None
    for emotion, (units, row) in enumerate(zip(picked.units, picked.vectors, strict=True)):
        assert units.tolist() == [1, 2]
        np.testing.assert_allclose(row, expected_directions()[emotion, 1, 1:].ravel(), atol=2e-5)
    assert selector("direction").select(here, 1).units[0].tolist() == [1]


def test_controls_permute_labels_or_emotions() -> None:
    here = study("component")
    picked = selector("circuit").select(here, 20)
    other = selector("circuit_other").select(here, 20)
    assert [units.tolist() for units in other.units] == [
        picked.units[(emotion + 1) % EMOTIONS].tolist() for emotion in range(EMOTIONS)
    ]
    assert of_another_emotion(other).digest != picked.digest
    shuffled = selector("circuit_shuffled").select(here, 20)
    swapped = replace(here, others=here.others_shuffled)
    assert shuffled.digest == selector("circuit").select(swapped, 20).digest != picked.digest
    residual = study("residual")
    turned = selector("direction_shuffled").select(residual, 1)
    assert turned.digest != selector("direction").select(residual, 1).digest


@pytest.mark.parametrize(
    ("name", "site", "wanted"), [("circuit", "residual", "component"), ("direction", "neuron", "residual")]
)
def test_a_site_that_does_not_fit_is_named(name: str, site: str, wanted: str) -> None:
    with pytest.raises(AffectbenchError, match="no such selection") as raised:
        selector(name).select(study(site), 2)
    assert wanted in str(raised.value.hint)


@pytest.mark.parametrize("site", ["neuron", "head"])
@pytest.mark.parametrize("name", ["Gemma2", "Olmo2"])
def test_units_account_for_what_a_norm_lets_through(name: str, site: str) -> None:
    """A norm is gain x / rms(x): what it gives, times rms(x), is what the units write."""
    model = tiny_dense(name)
    block, found = model.layers[1], {}
    module = block.mlp.down_proj if site == "neuron" else block.self_attn.o_proj
    norm = block.post_feedforward_layernorm if site == "neuron" else block.post_attention_layernorm
    handles = [
        module.register_forward_pre_hook(lambda _m, args: found.update(active=args[0][0, -1])),
        norm.register_forward_hook(lambda _m, args, out: found.update(into=args[0][0, -1], out=out[0, -1])),
    ]
    with torch.no_grad():
        model.network(input_ids=items(model, 1).items[0].ids[None])
    for handle in handles:
        handle.remove()
    rms = found["into"].pow(2).mean().sqrt()
    torch.testing.assert_close(
        found["active"] @ model.writes(site, 1), found["out"] * rms, rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("name", ["Gemma2", "Olmo2", "Llama"])
def test_other_decoders_have_circuits(name: str) -> None:
    here = study("component", tiny_dense(name))
    assert {units.size for units in selector("circuit").select(here, 12).units} == {12}
