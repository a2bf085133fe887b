"""Heads, the residual stream, features, components: read and edited as their formulas say, in any decoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from random_features import RandomFeatures
from tiny_models import items, long_readout, readout, tiny_dense, tiny_experts, tiny_gpt2
from torch import Tensor

from affectbench.engine import Engine
from affectbench.errors import AffectbenchError
from affectbench.evidence import EvidencePass, requests_of
from affectbench.intervention import ROLE_BIT, Edit, Intervention, add, mean_ablation, project, scale
from affectbench.model import Model
from affectbench.projection import projections
from affectbench.readout import Items, Readout

FAMILIES = ("Llama", "Qwen2", "Gemma2", "Olmo2", "Phi3", "GPTNeoX", "Granite", "Cohere2")
WITH_MIDDLE = ("Llama", "Qwen2", "Gemma2", "Olmo2", "Phi3")
SITES = ("gate", "neuron", "head", "attention", "residual", "feature")


@cache
def decoder(name: str) -> Model:
    model = tiny_gpt2() if name == "GPT2" else tiny_dense(name)
    model.attach(RandomFeatures(model.hidden_width, 12, (0, 1, 2)))
    return model


def interventions(model: Model, site: str) -> list[Intervention]:
    """Each operation, at several layers and positions."""
    rng = np.random.default_rng(7)
    shape = model.site_shape(site)
    few = np.sort(rng.choice(shape.units, size=min(3, shape.units), replace=False))
    last = np.array([shape.units - 1])

    def values(units: np.ndarray) -> np.ndarray:
        return rng.normal(size=units.size * shape.size)

    found = [
        scale(site, shape, few, 0.0),
        scale(site, shape, last, 2.0, "answer"),
        mean_ablation(site, shape, few, rng.normal(size=shape.layers * shape.channels), "content"),
        add(site, shape, few, values(few)),
        add(site, shape, last, values(last), "answer"),
        add(site, shape, few, 0.3 * values(few), "answer", relative=True),
        project(site, shape, few, values(few)),
        project(site, shape, last, values(last), 0.25, "content"),
    ]
    found.append(Intervention((*found[0].edits, *found[5].edits)))
    return found


def changed(edit: Edit, rows: slice, a: Tensor, whole: Tensor) -> Tensor:
    """The formulas of the operations, for the channels of one layer's units: a (T, units, size)."""
    v = torch.as_tensor(edit.channel_values[rows], dtype=torch.float32)
    if edit.operation == "scale":
        return a * v
    if edit.operation == "mean":
        return v.expand_as(a)
    if edit.operation == "add":
        rms = whole.pow(2).mean(-1).sqrt()[:, None, None] if edit.relative else 1.0
        return a + v * rms
    return a - torch.einsum("tus,us->tu", a, v)[..., None] * v


def one_edit(model: Model, edit: Edit, layer: int, roles: Tensor) -> Callable[[Tensor], Tensor]:
    inside = np.flatnonzero(edit.units // edit.shape.width == layer)
    start, stop = inside[0], inside[-1] + 1  # Units are ascending.
    units = edit.units[inside] % edit.shape.width
    where = (roles & ROLE_BIT[edit.positions]).bool()

    def change(hooked: Tensor) -> Tensor:
        x = hooked.clone()[0]
        if edit.site == "feature":
            found = model.dictionary.at(layer)  # type: ignore[union-attr]
            z = torch.relu(x @ found.encoder + found.encoder_bias)[:, units, None]  # type: ignore[attr-defined]
            new = changed(edit, slice(start, stop), z, x)
            x[where] = (x + (new - z)[..., 0] @ found.decoder[units])[where]
            return x[None]
        a = x.view(len(x), -1, edit.shape.size)
        new = changed(edit, slice(start, stop), a[:, units], x)
        for place, unit in enumerate(units):
            a[where, unit] = new[where, place]
        return x[None]

    return change


def by_hand(model: Model, data: Items, answers: Readout, intervention: Intervention) -> np.ndarray:
    """Scores by the public forward of one unpadded item, with hooks of the test's own."""
    first = [tokens[0] for tokens in answers.candidates]
    rows = []
    for item in data.items:
        handles = []
        for edit in intervention.edits:
            for layer in sorted({int(unit) // edit.shape.width for unit in edit.units}):
                change = one_edit(model, edit, layer, item.roles)
                block = model.layers[layer]
                if edit.site in ("neuron", "head"):
                    module = model.down(layer) if edit.site == "neuron" else model.output_projection(layer)
                    handles.append(module.register_forward_pre_hook(lambda _m, a, do=change: (do(a[0]),)))
                    continue
                module = block
                if edit.site == "gate":
                    module = model.activation(layer)
                elif edit.site == "attention":
                    after = hasattr(block, "post_feedforward_layernorm")
                    module = block.post_attention_layernorm if after else model.attention(layer)

                def after_it(_m, _a, out, do=change):  # type: ignore[no-untyped-def]
                    return (do(out[0]), *out[1:]) if isinstance(out, tuple) else do(out)

                handles.append(module.register_forward_hook(after_it))
        with torch.no_grad():
            rows.append(model.network(input_ids=item.ids[None]).logits[0, -1].log_softmax(-1)[first])
        for handle in handles:
            handle.remove()
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("name", [*FAMILIES, "GPT2"])
def test_every_edit_equals_hooks_on_the_public_forward(name: str, site: str) -> None:
    model = decoder(name)
    data, asked, every = items(model, 5), readout(model), interventions(model, site)
    packed = Engine(model).predict(data, asked, every)
    for place, intervention in enumerate(every):
        expected = by_hand(model, data, asked, intervention)
        np.testing.assert_allclose(packed.scores[place], expected, atol=5e-5, err_msg=str(place))


@pytest.mark.parametrize("site", SITES)
def test_packed_rows_with_longer_answers_equal_one_at_a_time(site: str) -> None:
    model = decoder("Llama")
    data, asked, every = items(model, 4), long_readout(model), interventions(model, site)
    packed, one = Engine(model).predict(data, asked, every), Engine(model, tokens=1)
    for place, intervention in enumerate(every):
        alone = [one.predict(data.at([n]), asked, [intervention]).scores[0, 0] for n in range(len(data))]
        np.testing.assert_allclose(packed.scores[place], np.stack(alone), atol=5e-5)


def test_what_changes_nothing_never_reaches_the_model() -> None:
    model = decoder("Llama")
    for site in ("residual", "feature", "head"):
        shape, units = model.site_shape(site), np.array([0, 1])
        zeros = np.zeros(2 * shape.size)
        for nothing in (
            add(site, shape, units, zeros),
            scale(site, shape, units, 1.0),
            project(site, shape, units, zeros),
        ):
            assert not nothing.effective


def test_a_feature_that_is_silent_is_ablated_without_a_trace() -> None:
    """Golden test: ablating features with z = 0 leaves every bit of the stream."""
    model = decoder("Llama")
    features = RandomFeatures(model.hidden_width, 12, (1,))
    features.at(1).encoder_bias.fill_(-1e6)
    before, model.dictionary = model.dictionary, features
    try:
        data, asked, shape = items(model, 5), readout(model), model.site_shape("feature")
        silent = scale("feature", shape, 12 + np.arange(12), 0.0, "answer")
        stream = model.site_shape("residual")
        nothing = add("residual", stream, np.array([1]), np.full(stream.size, 1e-30), "answer")
        plain = Engine(model).predict(data, asked, [nothing])
        found = Engine(model).predict(data, asked, [silent])
    finally:
        model.dictionary = before
    np.testing.assert_array_equal(found.scores, plain.scores)


def test_ablating_all_active_features_leaves_bias_and_error() -> None:
    """Golden test: h' = b_dec + error, the error being what the autoencoder does not reconstruct."""
    model = decoder("Llama")
    layer = model.dictionary.at(1)  # type: ignore[union-attr]
    shape, seen = model.site_shape("feature"), {}
    data = items(model, 1)

    def keep(_m: object, _a: object, out: Tensor) -> None:
        seen["h"] = out.clone()

    ablated = scale("feature", shape, 12 + np.arange(12), 0.0)
    with torch.no_grad(), Engine(model).editing([ablated]) as edits:
        batch = model.collate(data.items)
        edits.roles = batch.roles
        handle = model.layers[1].register_forward_hook(keep)
        model.decode(batch)
        handle.remove()
        changed_stream = seen["h"]
    handle = model.layers[1].register_forward_hook(keep)
    with torch.no_grad():
        model.decode(batch)
    handle.remove()
    h = seen["h"]
    error = h - (layer.encode(h) @ layer.decoder + layer.decoder_bias)
    torch.testing.assert_close(changed_stream, layer.decoder_bias + error, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_middle_of_a_layer_is_what_enters_it_and_what_attention_writes(name: str) -> None:
    model, seen = decoder(name), {}
    if name not in WITH_MIDDLE:
        with pytest.raises(AffectbenchError, match=r"must override `middle`"):
            model.site_module("middle", 0)
        return
    block, mlp = model.layers[1], model.mlp(1)
    module, side = model.site_module("middle", 1)
    assert side == "input"

    def kept(name: str) -> Callable[..., None]:
        def hook(_m: object, args: tuple[Tensor, ...], *out: object) -> None:
            seen[name] = args[0] if not out else out[0][0] if isinstance(out[0], tuple) else out[0]

        return hook

    norm = getattr(block, "post_feedforward_layernorm", mlp)
    handles = [module.register_forward_pre_hook(kept("middle")), norm.register_forward_hook(kept("written"))]
    handles.append(block.register_forward_hook(kept("after")))
    with torch.no_grad():
        model.network(input_ids=torch.tensor([[3, 4, 5, 6]]))
    for handle in handles:
        handle.remove()
    # The MLP's part is all that is left to add.
    torch.testing.assert_close(seen["middle"] + seen["written"], seen["after"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "site"), [("Llama", "neuron"), ("Llama", "head"), ("GPT2", "neuron"),
                                            ("GPT2", "head"), ("Phi3", "head")])  # fmt: skip
def test_what_units_write_is_what_a_change_of_them_adds(name: str, site: str) -> None:
    model, seen = decoder(name), []
    shape, data = model.site_shape(site), items(model, 1)
    value = np.zeros(shape.size)
    value[-1] = 0.5
    unit = shape.width + shape.width - 1  # The last one of layer 1.
    output = model.down(1) if site == "neuron" else model.output_projection(1)
    for intervention in (Intervention(), add(site, shape, np.array([unit]), value)):
        with torch.no_grad(), Engine(model).editing([intervention]) as edits:
            batch = model.collate(data.items)
            edits.roles = batch.roles
            handle = output.register_forward_hook(lambda _m, _a, out: seen.append(out[0, -1].clone()))
            model.decode(batch)
            handle.remove()
    torch.testing.assert_close(seen[1] - seen[0], 0.5 * model.writes(site, 1)[-1], atol=1e-6, rtol=1e-4)


def test_units_of_a_component_are_neurons_and_then_heads() -> None:
    model = decoder("Llama")
    shape, neurons, heads = (model.site_shape(site) for site in ("component", "neuron", "head"))
    assert shape.width == neurons.width + heads.width
    assert shape.channels == neurons.channels + heads.channels
    units = np.array([shape.width + neurons.width + 1, 3, 2 * shape.width])
    (kind, own, places), (other, theirs, there) = shape.split(units)
    np.testing.assert_array_equal(shape.within("neuron", own), units[places])
    np.testing.assert_array_equal(shape.within("head", theirs), units[there])
    assert (kind.site, own.tolist(), places.tolist()) == ("neuron", [3, 2 * neurons.width], [1, 2])
    assert (other.site, theirs.tolist(), there.tolist()) == ("head", [heads.width + 1], [0])
    assert shape.sizes(units).tolist() == [heads.size, 1, 1]


def test_experts_take_sums_and_shares_as_dense_units_do() -> None:
    model = tiny_experts("Mixtral")
    shape, data, asked = model.shape, items(model, 4), readout(model)
    units = np.arange(0, shape.units, 5)
    found = Engine(model).predict(
        data,
        asked,
        [
            project("neuron", shape, units, np.ones(units.size), 0.36),
            scale("neuron", shape, units, 0.36),
            add("neuron", shape, units, np.full(units.size, 1e-12)),
            Intervention(),
        ],
    )
    np.testing.assert_allclose(found.scores[0], found.scores[1], atol=1e-5)
    np.testing.assert_allclose(found.scores[2], found.scores[3], atol=1e-5)
    with pytest.raises(AffectbenchError, match="cannot be relative"):
        Engine(model).predict(data, asked, [add("neuron", shape, units, np.ones(units.size), relative=True)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda shape: Edit("middle", shape, np.array([0]), "add", np.zeros(shape.size)), "not edited"),
        (lambda shape: Edit("component", shape, np.array([0]), "scale", np.zeros(1)), "neurons and heads"),
        (lambda shape: Edit("nowhere", shape, np.array([0]), "scale", np.zeros(1)), "does not exist"),
        (
            lambda shape: Edit("residual", shape, np.array([0]), "turn", np.zeros(1)),
            "operations: scale, mean",
        ),
        (lambda shape: Edit("residual", shape, np.array([0]), "add", np.zeros(3)), "values for each unit"),
        (lambda shape: Edit("head", shape, np.array([0]), "scale", np.zeros(1), relative=True), "relative"),
    ],
)
def test_an_impossible_edit_says_what_is_possible(make: Callable[..., Edit], message: str) -> None:
    with pytest.raises(AffectbenchError) as error:
        make(decoder("Llama").site_shape("residual"))
    assert message in str(error.value)


def test_features_that_do_not_fit_the_model_are_refused() -> None:
    model = decoder("Llama")
    with pytest.raises(AffectbenchError, match="width 5"):
        model.attach(RandomFeatures(5, 3, (0,)))
    with pytest.raises(AffectbenchError, match="layers 0 to 9"):
        model.attach(RandomFeatures(model.hidden_width, 3, (0, 9)))


STATISTICS = ("mean", "rate", "rms", "attribution")


@pytest.mark.parametrize("site", ["head", "attention", "middle", "residual", "feature"])
@pytest.mark.parametrize("positions", ["answer", "content"])
def test_statistics_equal_sums_over_single_passes(site: str, positions: str) -> None:
    """The oracle hooks the public forward of one item, and takes gradients of what is derived from it."""
    model = decoder("Llama")
    data, asked, shape = items(model, 6), readout(model), model.site_shape(site)
    requests = requests_of(STATISTICS, site, positions)
    found = EvidencePass(Engine(model), data, asked, requests, correct_only=False).run()
    evidence = found.evidence(site, positions)
    sums = {name: np.zeros((3, shape.layers, shape.channels)) for name in STATISTICS}
    tokens = np.zeros(3)
    for place, item in enumerate(data.items):
        gold, where = int(data.gold[place]), (item.roles & ROLE_BIT[positions]).bool()
        tokens[gold] += int(where.sum())
        for layer in range(shape.layers):
            read = activations_of_one(model, asked, item.ids, site, layer, gold)
            for name, values in read.items():
                sums[name][gold, layer] += values[where].sum(0).numpy()
    for name in STATISTICS:
        np.testing.assert_allclose(evidence.of(name), sums[name] / tokens[:, None, None], atol=2e-5)


def activations_of_one(
    model: Model, asked: Readout, ids: Tensor, site: str, layer: int, gold: int
) -> dict[str, Tensor]:
    """Each statistic (T, channels) of one item."""
    seen: dict[str, Tensor] = {}
    block = model.layers[layer]

    def stay(hooked: Tensor) -> Tensor:
        """What the site reads, kept with its gradient; features are put on the path to the answer."""
        if site != "feature":
            seen["a"] = hooked
            hooked.retain_grad()
            return hooked
        features = model.dictionary.at(layer)  # type: ignore[union-attr]
        z = torch.relu(hooked.detach() @ features.encoder + features.encoder_bias)  # type: ignore[attr-defined]
        seen["a"] = z.detach().requires_grad_()
        return hooked.detach() + (seen["a"] - z.detach()) @ features.decoder

    if site == "head":
        handle = model.output_projection(layer).register_forward_pre_hook(lambda _m, a: (stay(a[0]),))
    elif site == "attention":
        handle = block.self_attn.register_forward_hook(lambda _m, _a, out: (stay(out[0]), *out[1:]))
    elif site == "middle":
        handle = block.post_attention_layernorm.register_forward_pre_hook(lambda _m, a: (stay(a[0]),))
    else:
        handle = block.register_forward_hook(lambda _m, _a, out: stay(out))
    with torch.enable_grad():
        embeds = model.embed(ids[None]).detach().requires_grad_()
        scores = model.network(inputs_embeds=embeds).logits[0, -1, [tokens[0] for tokens in asked.candidates]]
        others = torch.cat((scores[:gold], scores[gold + 1 :]))
        (scores[gold] - others.max()).backward()
    handle.remove()
    a, slope = seen["a"].detach()[0], seen["a"].grad[0]  # type: ignore[index]
    rms = a.pow(2).mean(-1, keepdim=True).sqrt().expand_as(a)
    return {"mean": a, "rate": (a > 0).float(), "rms": rms, "attribution": a * slope}


def test_projections_are_of_the_stream_that_enters_the_final_norm() -> None:
    model = decoder("Llama")
    data, every = items(model, 5), [Intervention(), *interventions(model, "residual")[3:6]]
    vectors = np.random.default_rng(2).normal(size=(2, model.hidden_width))
    found = projections(Engine(model), data, every, vectors)
    assert found.shape == (4, 5, 2)
    for place, intervention in enumerate(every):
        for row, item in enumerate(data.items):
            entered = entering_the_norm(model, item.ids, item.roles, intervention)
            np.testing.assert_allclose(found[place, row], entered @ vectors.T, atol=2e-5)


def entering_the_norm(model: Model, ids: Tensor, roles: Tensor, intervention: Intervention) -> np.ndarray:
    handles, seen = [], []
    for edit in intervention.edits:
        for layer in sorted({int(unit) // edit.shape.width for unit in edit.units}):
            change = one_edit(model, edit, layer, roles)
            hook = lambda _m, _a, out, do=change: do(out)  # noqa: E731
            handles.append(model.layers[layer].register_forward_hook(hook))
    handles.append(model.decoder.norm.register_forward_pre_hook(lambda _m, a: seen.append(a[0][0, -1])))
    with torch.no_grad():
        model.network(input_ids=ids[None])
    for handle in handles:
        handle.remove()
    return seen[0].numpy()
