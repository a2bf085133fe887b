"""Mixtures of experts are read and edited as if every token's experts were written out in full."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import EXPERTS, LABELS, items, long_readout, readout, tiny_experts, tiny_model, tiny_qwen2
from torch import Tensor

from affectbench.engine import Engine
from affectbench.errors import AffectbenchError
from affectbench.evidence import ATTRIBUTION, MEAN, MEAN_ABS, RATE, EvidencePass, requests_of
from affectbench.experts import IMPLEMENTATION, TAPS, Routed, Taps, expert_width, routed_forward, tap_of
from affectbench.intervention import ROLE_BIT, UNTOUCHED, Intervention, hooked, mean_ablation, scale
from affectbench.model import Model
from affectbench.readout import UNPARSED, Readout

GATED = tuple(name for name in EXPERTS if name != "GptOss")
CASES = [(name, "neuron") for name in EXPERTS] + [(name, "gate") for name in GATED]
Change = Callable[[str, int, Tensor], Tensor]
"""(site, layer, activations (tokens, all units of the layer)) -> the same, edited"""


def written_out(experts: Any, layer: int, change: Change) -> Any:
    """The experts' forward, token by token: every unit of the layer has a place, zero where not sent to."""

    def forward(hidden: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        width = experts.down_proj.shape[1 if experts.is_transposed else 2]
        turn = (lambda w: w) if experts.is_transposed else (lambda w: w.T)
        sent = [(token, slot, int(e)) for token, row in enumerate(index) for slot, e in enumerate(row)]
        gates = hidden.new_zeros(len(hidden), experts.num_experts, width)
        rest = torch.zeros_like(gates)
        for token, _, e in sent:
            grown = hidden[token] @ turn(experts.gate_up_proj[e])
            if experts.has_bias:
                grown = grown + experts.gate_up_proj_bias[e]
            if hasattr(experts, "act_fn"):
                gates[token, e] = experts.act_fn(grown[:width])
                rest[token, e] = grown[width:]
            else:
                gates[token, e], rest[token, e] = experts._apply_gate(grown), 1.0
        gates = change("gate", layer, gates.flatten(1)).view_as(gates)
        neurons = change("neuron", layer, (gates * rest).flatten(1)).view_as(gates)
        output = torch.zeros_like(hidden)
        for token, slot, e in sent:
            wrote = neurons[token, e] @ turn(experts.down_proj[e])
            if experts.has_bias:
                wrote = wrote + experts.down_proj_bias[e]
            output[token] += wrote * weights[token, slot]
        return output

    return forward


def by_hand(model: Model, ids: Tensor, change: Change) -> Tensor:
    """Logits (V,) after `ids` by the public forward, with the experts written out."""
    for layer, experts in enumerate(model.experts):
        experts.forward = written_out(experts, layer, change)
    try:
        found: Tensor = model.network(inputs_embeds=model.embed(ids[None])).logits[0, -1]
        return found
    finally:
        for experts in model.experts:
            del experts.forward


def editing(intervention: Intervention, roles: Tensor) -> Change:
    def change(site: str, layer: int, activation: Tensor) -> Tensor:
        for edit in intervention.edits:
            if edit.site != site or layer not in edit.shape.by_layer(edit.units):
                continue
            channels, places = edit.shape.by_layer(edit.units)[layer]
            value = torch.as_tensor(edit.value[places], dtype=activation.dtype)
            new = activation.clone()
            new[:, channels] = new[:, channels] * value if edit.operation == "scale" else value
            activation = torch.where((roles & ROLE_BIT[edit.positions]).bool()[:, None], new, activation)
        return activation

    return change


def some(model: Model, site: str) -> list[Intervention]:
    rng = np.random.default_rng(3)
    units = [np.sort(rng.choice(model.shape.units, size=60, replace=False)) for _ in range(5)]
    means = rng.normal(size=model.shape.units)
    return [
        UNTOUCHED,
        scale(site, model.shape, units[0], 0.0),
        scale(site, model.shape, units[1], 2.5),
        scale(site, model.shape, units[2], 3.0, "content"),
        scale(site, model.shape, units[3], 0.0, "answer"),
        mean_ablation(site, model.shape, units[4], means),
        Intervention((*scale(site, model.shape, units[1], 2.0).edits,
                      *mean_ablation(site, model.shape, units[0], means, "content").edits)),
        scale(site, model.shape, np.arange(2 * model.shape.width, model.shape.units, 2), 0.0),
    ]  # fmt: skip


@pytest.mark.parametrize(("prefix", "site"), CASES)
def test_packed_edits_equal_experts_written_out(prefix: str, site: str) -> None:
    model = tiny_experts(prefix)
    data, asked, interventions = items(model), readout(model), some(model, site)
    packed = Engine(model).predict(data, asked, interventions).scores
    narrow = Engine(model, tokens=9).predict(data, asked, interventions).scores
    np.testing.assert_allclose(packed, narrow, atol=3e-5)
    first = [tokens[0] for tokens in asked.candidates]
    for place, intervention in enumerate(interventions):
        for row, item in enumerate(data.items):
            with torch.no_grad():
                logits = by_hand(model, item.ids, editing(intervention, item.roles))
            np.testing.assert_allclose(packed[place, row], logits.log_softmax(-1)[first], atol=5e-5)
    assert len({scores.tobytes() for scores in packed}) == len(interventions)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads share a product in parts, whose sums may round otherwise each time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("prefix", EXPERTS)
def test_untouched_experts_answer_as_transformers_own(prefix: str) -> None:
    model = tiny_experts(prefix)
    data, asked = items(model), readout(model)
    found = Engine(model).predict(data, asked, [UNTOUCHED]).scores[0]
    ids = data.items[0].ids[None]
    for implementation in ("eager", "batched_mm", "grouped_mm"):
        model.network.set_experts_implementation(implementation)
        try:
            other = Engine(model).predict(data, asked, [UNTOUCHED]).scores[0]
            with torch.no_grad():
                logits = model.network(input_ids=ids).logits
        finally:
            model.network.set_experts_implementation(IMPLEMENTATION)
        np.testing.assert_allclose(found, other, atol=2e-5, err_msg=implementation)
        with torch.no_grad():
            torch.testing.assert_close(model.network(input_ids=ids).logits, logits, atol=2e-5, rtol=1e-5)
        # Now the last, `grouped_mm`: the very same steps.
    np.testing.assert_array_equal(found, other)


@pytest.mark.parametrize(("prefix", "site"), CASES)
def test_evidence_counts_experts_that_did_not_run_as_zero(prefix: str, site: str) -> None:
    model = tiny_experts(prefix)
    data, asked, statistics = items(model), readout(model), (MEAN, MEAN_ABS, RATE, ATTRIBUTION)
    wanted = frozenset().union(*(requests_of(statistics, site, where) for where in ("content", "answer")))
    found = EvidencePass(Engine(model), data, asked, wanted, correct_only=False).run()
    first = [tokens[0] for tokens in asked.candidates]
    shape = (len(LABELS), model.shape.layers, model.shape.width)
    sums = {(where, name): np.zeros(shape) for where in ("content", "answer") for name in statistics}
    tokens = {where: np.zeros(len(LABELS)) for where in ("content", "answer")}
    for gold, item in zip(data.gold, data.items, strict=True):
        seen: dict[int, Tensor] = {}

        def keep(at: str, layer: int, activation: Tensor, seen: dict[int, Tensor] = seen) -> Tensor:
            if at == site:
                seen[layer] = activation.requires_grad_()
            return activation

        logits = by_hand(model, item.ids, keep)[first]
        margin = logits[gold] - torch.cat([logits[:gold], logits[gold + 1 :]]).max()
        slopes = torch.autograd.grad(margin, list(seen.values()), allow_unused=True)
        for where in tokens:
            mask = (item.roles & ROLE_BIT[where]).bool()
            tokens[where][gold] += int(mask.sum())
            for layer, slope in zip(seen, slopes, strict=True):
                value = seen[layer].detach()[mask]
                sums[where, MEAN][gold, layer] += value.sum(0).numpy()
                sums[where, MEAN_ABS][gold, layer] += value.abs().sum(0).numpy()
                sums[where, RATE][gold, layer] += (value > 0).sum(0).numpy()
                if slope is not None:
                    sums[where, ATTRIBUTION][gold, layer] += (value * slope[mask]).sum(0).numpy()
    for (where, name), total in sums.items():
        np.testing.assert_allclose(
            getattr(found.evidence(site, where), name),
            total / tokens[where][:, None, None],
            atol=2e-5,
            err_msg=f"{where} {name}",
        )
        assert total.any()


def test_longer_answers_and_generation_run_under_packed_edits() -> None:
    model = tiny_experts("Qwen3Moe")
    data, interventions = items(model), some(model, "neuron")
    packed = Engine(model).predict(data, long_readout(model), interventions).scores
    told: list[str] = []

    def parse(text: str, _order: object) -> int:
        told.append(text)
        return UNPARSED

    asked = Readout(readout(model).labels, readout(model).candidates, max_new_tokens=5, parse=parse)
    Engine(model, tokens=100_000).predict(data, asked, interventions)
    together = np.array(told).reshape(len(interventions), len(data))
    assert len({tuple(texts) for texts in together}) > 3
    for place, intervention in enumerate(interventions):
        one = Engine(model, tokens=1).predict(data, long_readout(model), [intervention]).scores[0]
        np.testing.assert_allclose(packed[place], one, atol=3e-5)
        told.clear()
        Engine(model, tokens=100_000).predict(data, asked, [intervention])
        assert told == together[place].tolist()


@pytest.mark.parametrize(
    ("module", "kind", "settings"),
    [
        ("nemotron_h", "NemotronHExperts", {"n_routed_experts": 4, "moe_latent_size": None,
                                            "mlp_hidden_act": "relu2"}),
        ("muse_spark", "MuseSparkExperts", {"num_local_experts": 4, "moe_hidden_size": 16,
                                            "post_norm_eps": 1e-5, "hidden_act": "silu"}),
        ("aria", "AriaExperts", {"moe_num_experts": 4}),
    ],
)  # fmt: skip
def test_rarer_kinds_of_experts_run_as_in_transformers(
    module: str, kind: str, settings: dict[str, Any]
) -> None:
    """Without gates, with a norm behind each expert, and transposed."""
    import importlib

    made = importlib.import_module(f"transformers.models.{module}.modeling_{module}")
    sizes = {"hidden_size": 16, "moe_intermediate_size": 24, "intermediate_size": 24}
    torch.manual_seed(0)
    experts = getattr(made, kind)(SimpleNamespace(**sizes, **settings, _experts_implementation="eager"))
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter)
    hidden, shares = torch.randn(7, 16), torch.rand(7, 2)
    sent = torch.tensor([[0, 1], [1, 0], [2, 3], [0, 3], [3, 1], [1, 2], [2, 0]])
    setattr(experts, TAPS, Taps())
    with torch.no_grad():
        expected = experts(hidden, sent, shares)
        torch.testing.assert_close(routed_forward(experts, hidden, sent, shares), expected)
        with hooked([(tap_of(experts, "neuron"), "output", lambda routed: routed)]):
            torch.testing.assert_close(routed_forward(experts, hidden, sent, shares), expected)
        width = expert_width(experts)
        weight = experts.down_proj if experts.is_transposed else experts.down_proj.transpose(1, 2)
        assert width == weight.shape[1] == 24
        weight[2, 5:] = 0
        expected = experts(hidden, sent, shares)

    def silence(routed: Routed) -> Routed:
        values = routed.values.clone()
        values[routed.experts == 2] *= (torch.arange(width) < 5).float()
        return replace(routed, values=values)

    with torch.no_grad(), hooked([(tap_of(experts, "neuron"), "output", silence)]):
        torch.testing.assert_close(routed_forward(experts, hidden, sent, shares), expected)


def test_experts_out_of_reach_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("Mixtral", 1, **EXPERTS["Mixtral"])
    monkeypatch.setattr(model.experts[0], "_is_expert_parallel", True)
    with pytest.raises(AffectbenchError, match="spread over processes"):
        Engine(model).predict(items(model), readout(model), [UNTOUCHED])
    monkeypatch.undo()
    monkeypatch.setattr(type(model.network), "set_experts_implementation", lambda *_: None)
    model.network.config._experts_implementation = "eager"
    with pytest.raises(AffectbenchError, match=r"MixtralExperts.* run in a way of their own"):
        type(model)(model.network, model.tokenizer, model.card, None)


def test_experts_whose_answers_would_change_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("Mixtral", 1, **EXPERTS["Mixtral"])
    model.network.set_experts_implementation("eager")
    real = type(model.experts[0])._apply_gate
    monkeypatch.setattr(type(model.experts[0]), "_apply_gate", lambda self, x: 1.5 * real(self, x))
    with pytest.raises(AffectbenchError, match="run in a way of their own"):
        type(model)(model.network, model.tokenizer, model.card, None)


def test_a_gate_that_does_not_multiply_is_refused() -> None:
    model = tiny_experts("GptOss")
    with pytest.raises(AffectbenchError, match="gates its neurons in a way of its own"):
        Engine(model).predict(items(model), readout(model), [scale("gate", model.shape, np.arange(3), 0.0)])


def test_dense_layers_beside_experts_are_refused() -> None:
    model = tiny_model("Qwen3Moe", 0, **EXPERTS["Qwen3Moe"], mlp_only_layers=[0])
    with pytest.raises(AffectbenchError, match=r"differ in width: \[24, 96, 96\]"):
        _ = model.shape


def test_experts_that_keep_another_contract_are_named() -> None:
    model = tiny_qwen2()
    kept = model.mlp(0).down_proj
    try:
        del model.mlp(0).down_proj
        with pytest.raises(AffectbenchError, match="layer 0: Qwen2MLP has no `down_proj`"):
            model.down(0)
    finally:
        model.mlp(0).down_proj = kept


def test_a_transformers_without_what_is_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.integrations import moe

    monkeypatch.delattr(moe, "_grouped_linear")
    with pytest.raises(AffectbenchError, match=r"cannot be run with transformers 5.*_grouped_linear") as told:
        tiny_experts("Qwen3Moe", seed=5)
    assert "constraints.txt" in told.value.hint
