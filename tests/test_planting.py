"""Closed-form planting on synthetic activations, and the shipped planted model against its own unit list."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from affectbench.recipes import measure, planting

E, D, WIDTH, LAYERS = 3, 24, 64, 2
SHIPPED = Path(__file__).parents[1] / "models" / "reference" / "reference-text"


class Mlp(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj = torch.nn.Linear(D, WIDTH, bias=False)
        self.up_proj = torch.nn.Linear(D, WIDTH, bias=False)
        self.down_proj = torch.nn.Linear(WIDTH, D, bias=False)
        self.act_fn = torch.nn.SiLU()


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = Mlp()
        self.self_attn = torch.nn.Module()
        self.self_attn.o_proj = torch.nn.Linear(D, D, bias=False)
        self.post_attention_layernorm = torch.nn.RMSNorm(D)


@pytest.fixture(scope="module")
def planted():
    torch.manual_seed(0)
    layers = torch.nn.ModuleList(Layer() for _ in range(LAYERS))
    head, norm = torch.randn(E, D), 1 + 0.1 * torch.rand(D)
    gold = torch.arange(600) % E
    centre = 3 * torch.randn(D)
    answer = centre + 2 * torch.randn(E, D)[gold] + 0.3 * torch.randn(600, D)
    reading = planting.Reading(answer, gold, torch.randn(900, D))
    space = planting.label_space(head, norm)
    recipe = planting.Recipe(seed=1, per_emotion=4)
    result = planting.plant(layers, [1], space, lambda _layer: reading, lambda: 1.0, recipe)
    return layers, head * norm, space, reading, result, recipe


def test_label_space_writes_move_one_label_each(planted):
    _, effective, space, *_ = planted
    centred = effective - effective.mean(0)
    assert torch.allclose(centred @ space.writes.T, torch.eye(E) - 1 / E, atol=1e-4)
    assert torch.allclose(space.basis.T @ space.basis, torch.eye(E - 1), atol=1e-5)


def test_only_planted_units_write_label_differences(planted):
    layers, effective, _, _, result, _ = planted
    centred = effective - effective.mean(0)
    known = {unit for units in result.planted for unit in units}
    for index, layer in enumerate(layers):
        assert (centred @ layer.self_attn.o_proj.weight).abs().max() < 1e-4
        written = (centred @ layer.mlp.down_proj.weight).abs().max(0).values
        for unit in range(WIDTH):
            assert (written[unit] > 1e-3) == (index * WIDTH + unit in known)


def test_planted_and_decoy_ids_are_distinct_and_in_the_target_layer(planted):
    result = planted[4]
    everything = [unit for lists in (result.planted, result.decoys) for units in lists for unit in units]
    assert len(set(everything)) == len(everything) == 2 * E * 4
    assert {unit // WIDTH for unit in everything} == {1}


def test_every_emotion_gets_the_same_total_strength(planted):
    result, recipe = planted[4], planted[5]
    assert np.allclose([sum(values) for values in result.strengths], recipe.logit)


def test_gates_take_the_stated_class_means_and_are_quiet_for_natural_units(planted):
    layers, _, _, reading, result, _ = planted
    mlp = layers[1].mlp
    with torch.no_grad():
        gate = mlp.gate_proj(reading.answer)
        up = mlp.up_proj(reading.answer)
    mean = torch.stack([gate[reading.gold == e].mean(0) for e in range(E)])
    for e, (units, decoys) in enumerate(zip(result.planted, result.decoys, strict=True)):
        for unit, decoy, name in zip(units, decoys, result.flavours[e], strict=True):
            flavour = planting.FLAVOURS[name]
            others = [i for i in range(E) if i != e]
            for candidate in (unit % WIDTH, decoy % WIDTH):
                assert mean[others, candidate].mean() == pytest.approx(flavour.rest, abs=0.05)
                assert mean[e, candidate] == pytest.approx(flavour.rest + flavour.contrast, abs=0.05)
                assert up[:, candidate].mean() == pytest.approx(1.0, abs=0.05)
    known = {unit % WIDTH for lists in (result.planted, result.decoys) for units in lists for unit in units}
    natural = [unit for unit in range(WIDTH) if unit not in known]
    assert (mean[:, natural] - mean[:, natural].mean(0)).abs().max() < 0.02


def test_dependent_label_rows_are_refused():
    with pytest.raises(ValueError, match="linearly dependent"):
        planting.label_space(torch.ones(E, D), torch.ones(D))


def test_auroc_counts_ties_half():
    assert measure.auroc(np.array([1.0, 2.0]), np.array([1.0, 0.0])) == pytest.approx(0.875)


def test_shipped_units_are_causal_and_decoys_are_not():
    from affectbench.generators import narratives
    from affectbench.recipes.text_probe import load

    probe = load(SHIPPED)
    truth = json.loads((SHIPPED / "planted.json").read_text(encoding="utf-8"))
    items = narratives.examples("test", 8, seed=11)
    batches, gold = probe.batches(items), np.repeat(np.arange(7), 8)
    base = probe.predict(batches)

    def effect(kind: str) -> tuple[float, float]:
        sets = [np.array(truth[kind][label]) for label in truth["emotions"]]
        return measure.ablated(
            measure.effect(probe.layers, sets, 0.0, lambda: probe.predict(batches)), base, gold
        )

    assert 0.55 < np.mean(base == gold) < 0.95
    own, cross = effect("planted")
    assert own < -50
    assert abs(cross) < 6
    assert max(map(abs, effect("decoys"))) < 6
