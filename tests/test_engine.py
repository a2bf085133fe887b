"""The engine's contract: packing, reuse and hooks change no answer; every edit does what its formula says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tiny_models import items, long_readout, readout, tiny_gpt2, tiny_qwen2

from affectbench.engine import Engine
from affectbench.errors import AffectbenchError
from affectbench.intervention import ROLE_BIT, UNTOUCHED, Edit, Intervention, mean_ablation, scale
from affectbench.model import Model
from affectbench.readout import FAILED, UNPARSED, Items, Readout, codes_of, margins_of, to_labels

SITES = ("gate", "neuron")


@pytest.fixture
def model() -> Model:
    return tiny_qwen2()


def some_interventions(model: Model, site: str = "gate") -> list[Intervention]:
    rng = np.random.default_rng(3)
    means = rng.normal(size=model.shape.units)
    found = [UNTOUCHED]
    for place in range(5):
        units = rng.choice(model.shape.units, size=7, replace=False)
        found.append(scale(site, model.shape, units, [0.0, 2.0, 4.0, 0.5, 1.5][place]))
    late = np.arange(2 * model.shape.width, 2 * model.shape.width + 5)
    found += [
        scale(site, model.shape, late, 0.0),
        mean_ablation(site, model.shape, late, means),
        scale(site, model.shape, late, 3.0, "content"),
        scale(site, model.shape, rng.choice(model.shape.units, size=9, replace=False), 0.0, "answer"),
    ]
    return found


def alone(model: Model, data: Items, answers: Readout, intervention: Intervention) -> np.ndarray:
    """Scores one item and one intervention at a time: no packing, no padding, no reuse."""
    rows = []
    for place, item in enumerate(data.items):
        single = Items(
            f"{data.split}-{place}", (item,), data.gold[place : place + 1], data.clusters[place : place + 1]
        )
        rows.append(Engine(model, tokens=1).predict(single, answers, [intervention]).scores[0, 0])
    return np.stack(rows)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("answers", [readout, long_readout])
def test_packed_rows_equal_one_at_a_time(model: Model, site: str, answers: object) -> None:
    data, asked = items(model), answers(model)  # type: ignore[operator]
    interventions = some_interventions(model, site)
    packed = Engine(model).predict(data, asked, interventions)
    for place, intervention in enumerate(interventions):
        np.testing.assert_allclose(packed.scores[place], alone(model, data, asked, intervention), atol=2e-5)


def test_token_budget_changes_no_answer(model: Model) -> None:
    data, interventions = items(model), some_interventions(model)
    wide = Engine(model, tokens=100_000).predict(data, readout(model), interventions)
    narrow = Engine(model, tokens=9).predict(data, readout(model), interventions)
    np.testing.assert_allclose(wide.scores, narrow.scores, atol=2e-5)


def by_hand(model: Model, data: Items, answers: Readout, intervention: Intervention) -> np.ndarray:
    """Scores by the public forward of one unpadded item, with hooks of the test's own."""
    first = [tokens[0] for tokens in answers.candidates]
    rows = []
    for item in data.items:
        handles = []
        for edit in intervention.edits:
            for layer, (channels, places) in edit.shape.by_layer(edit.units).items():
                value = torch.as_tensor(edit.value[places], dtype=torch.float32)
                where = (item.roles & ROLE_BIT[edit.positions]).bool()

                def change(x, channels=channels, value=value, where=where, edit=edit):  # type: ignore[no-untyped-def]
                    x = x.clone()
                    part = x[:, where][..., channels]
                    new = part * value if edit.operation == "scale" else value.expand_as(part)
                    x[:, where.nonzero(), torch.as_tensor(channels)] = new
                    return x

                if edit.site == "gate":
                    module = model.activation(layer)
                    handles.append(module.register_forward_hook(lambda _m, _a, out, do=change: do(out)))
                else:
                    module = model.down(layer)
                    handles.append(module.register_forward_pre_hook(lambda _m, a, do=change: (do(a[0]),)))
        with torch.no_grad():
            rows.append(model.network(input_ids=item.ids[None]).logits[0, -1].log_softmax(-1)[first])
        for handle in handles:
            handle.remove()
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("make", [tiny_qwen2, tiny_gpt2])
def test_every_kind_of_edit_equals_hooks_on_the_public_forward(make: Callable[[], Model], site: str) -> None:
    model = make()
    data, interventions = items(model), some_interventions(model, site)
    both = Intervention((*interventions[1].edits, *interventions[-1].edits))
    last = 2 * model.shape.width
    mixed = [
        both,
        scale(site, model.shape, np.array([3, last - 1, last + 2]), 2.0),
        scale(site, model.shape, np.array([last + 1, last + 4]), 0.0, "content"),
        scale(site, model.shape, np.array([last + 1, last + 4]), 3.0, "answer"),
        scale(site, model.shape, np.array([30, 31, last]), 0.0, "answer"),
        mean_ablation(site, model.shape, np.array([2, 30]), np.linspace(-1, 1, model.shape.units)),
    ]
    packed = Engine(model).predict(data, readout(model), [*interventions, *mixed])
    for place, intervention in enumerate([*interventions, *mixed]):
        expected = by_hand(model, data, readout(model), intervention)
        np.testing.assert_allclose(packed.scores[place], expected, atol=3e-5, err_msg=str(place))


def test_a_norm_after_the_mlp_is_noticed(model: Model) -> None:
    """Then what an edited layer writes is no longer a sum over neurons, and nothing may be folded."""
    from tiny_models import tiny_gemma2

    assert Engine(model).foldable == {"gate", "neuron"}
    gemma = tiny_gemma2()
    assert Engine(gemma).foldable == frozenset()
    data, units = items(gemma), np.array([1, 30, 31, 60])
    found = Engine(gemma).predict(data, readout(gemma), [scale("neuron", gemma.shape, units, 3.0)]).scores[0]
    expected = by_hand(gemma, data, readout(gemma), scale("neuron", gemma.shape, units, 3.0))
    np.testing.assert_allclose(found, expected, atol=3e-5)


def test_a_norm_between_gate_and_neurons_is_noticed() -> None:
    """BitNet normalises act(gate) * up before down_proj: neurons fold, gates do not."""
    from tiny_models import tiny_bitnet

    bitnet = tiny_bitnet()
    assert Engine(bitnet).foldable == {"neuron"}
    data, units = items(bitnet), np.array([1, 30, 31, 60])
    for site in SITES:
        edit = scale(site, bitnet.shape, units, 3.0)
        found = Engine(bitnet).predict(data, readout(bitnet), [edit]).scores[0]
        np.testing.assert_allclose(found, by_hand(bitnet, data, readout(bitnet), edit), atol=3e-5)


def test_scores_equal_the_public_forward(model: Model) -> None:
    data, asked = items(model), readout(model)
    scores = Engine(model).predict(data, asked, [UNTOUCHED]).scores[0]
    for place, item in enumerate(data.items):
        with torch.no_grad():
            logits = model.network(input_ids=item.ids[None]).logits[0, -1].log_softmax(-1)
        np.testing.assert_allclose(
            scores[place], logits[[tokens[0] for tokens in asked.candidates]], atol=1e-5
        )


def test_tails_equal_the_public_forward_on_the_whole_text(model: Model) -> None:
    data, asked = items(model), long_readout(model)
    scores = Engine(model).predict(data, asked, [UNTOUCHED]).scores[0]
    for place, item in enumerate(data.items):
        for label, tokens in enumerate(asked.candidates):
            full = torch.cat([item.ids, torch.tensor(tokens)])[None]
            with torch.no_grad():
                logits = model.network(input_ids=full).logits[0].log_softmax(-1)
            expected = sum(float(logits[len(item) - 1 + step, token]) for step, token in enumerate(tokens))
            assert scores[place, label] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("site", SITES)
def test_zeroing_units_equals_zeroing_down_proj_columns(model: Model, site: str) -> None:
    data, units = items(model), np.array([1, 30, 31, 60, 71])
    edited = Engine(model).predict(data, readout(model), [scale(site, model.shape, units, 0.0)]).scores
    kept = [model.down(layer).weight.clone() for layer in range(model.shape.layers)]
    try:
        for layer, (channels, _) in model.shape.by_layer(units).items():
            model.down(layer).weight.data[:, channels] = 0
        surgical = Engine(model).predict(data, readout(model), [UNTOUCHED]).scores
    finally:
        for layer, weight in enumerate(kept):
            model.down(layer).weight.data.copy_(weight)
    np.testing.assert_allclose(edited, surgical, atol=1e-5)


def test_noop_is_bit_identical_and_never_reaches_the_model(model: Model) -> None:
    units = np.arange(10)
    noop = scale("gate", model.shape, units, 1.0)
    data = items(model)
    plain = Engine(model).predict(data, readout(model), [UNTOUCHED])
    same = Engine(model).predict(data, readout(model), [noop])
    assert plain.scores.tobytes() == same.scores.tobytes()
    assert noop.digest == UNTOUCHED.digest


def test_mean_ablation_writes_the_mean(model: Model) -> None:
    means = np.linspace(-1, 1, model.shape.units)
    units = np.array([0, 5, 25])
    seen = {}
    engine = Engine(model)
    batch = model.collate(items(model).items)
    with engine.editing([mean_ablation("gate", model.shape, units, means)]) as edits:
        edits.roles = batch.roles
        handle = model.down(0).register_forward_pre_hook(lambda _m, args: seen.update(down=args[0].clone()))
        up = model.mlp(0).up_proj.register_forward_hook(lambda _m, _a, out: seen.update(up=out.clone()))
        with torch.no_grad():
            model.decode(batch)
        handle.remove()
        up.remove()
    expected = seen["up"][..., [0, 5]] * torch.tensor(means[[0, 5]], dtype=torch.float32)
    torch.testing.assert_close(seen["down"][..., [0, 5]], expected)


def test_known_interventions_are_not_run_again(model: Model) -> None:
    engine, data = Engine(model), items(model)
    interventions = some_interventions(model)
    first = engine.predict(data, readout(model), interventions)
    spent = engine.cost.forward_passes
    again = engine.predict(data, readout(model), interventions[::-1])
    assert engine.cost.forward_passes == spent
    np.testing.assert_array_equal(first.scores[::-1], again.scores)


def test_other_prompts_or_answers_are_not_mistaken_for_known_ones(model: Model) -> None:
    engine = Engine(model)
    a = engine.predict(items(model, seed=0), readout(model), [UNTOUCHED]).scores
    b = engine.predict(items(model, seed=1), readout(model), [UNTOUCHED]).scores
    assert not np.allclose(a, b)


def test_hooks_are_gone_after_an_error(model: Model) -> None:
    hooks = [
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.network.modules()
    ]
    engine = Engine(model)
    with pytest.raises(RuntimeError, match="boom"), engine.editing(some_interventions(model)):
        raise RuntimeError("boom")
    after = [
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.network.modules()
    ]
    assert hooks == after
    assert not any("forward" in vars(module) for module in model.network.modules())


def test_out_of_memory_halves_the_batch_and_loses_nothing(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, interventions = items(model), some_interventions(model)
    expected = Engine(model).predict(data, readout(model), interventions).scores
    real = model.decode

    def small_memory(batch, **options):  # type: ignore[no-untyped-def]
        if batch.embeds.shape[0] > 24:
            raise torch.OutOfMemoryError("pretend")
        return real(batch, **options)

    monkeypatch.setattr(model, "decode", small_memory)
    engine = Engine(model)
    found = engine.predict(data, readout(model), interventions)
    assert engine.cost.halvings > 0
    np.testing.assert_allclose(found.scores, expected, atol=2e-5)


def test_not_finite_scores_are_failures_not_labels(model: Model) -> None:
    data = items(model)
    broken = Intervention((Edit("gate", model.shape, np.array([0]), "scale", np.array([1e38])),))
    found = Engine(model).predict(data, readout(model), [broken, UNTOUCHED])
    assert (found.codes[0] == FAILED).any()
    assert (found.codes[1] >= 0).all()


def test_generation_equals_transformers_generate(model: Model) -> None:
    data = items(model)
    told: list[str] = []

    def parse(text: str, _order: object) -> int:
        told.append(text)
        return UNPARSED

    asked = Readout(readout(model).labels, readout(model).candidates, max_new_tokens=6, parse=parse)
    found = Engine(model, tokens=100_000).predict(
        data, asked, [UNTOUCHED, scale("gate", model.shape, np.arange(20), 0.0)]
    )
    assert (found.codes == UNPARSED).all()
    order = [place for batch in Engine(model, tokens=100_000).batches(data.items) for place in batch]
    for row, place in enumerate(order):
        ids = data.items[place].ids[None]
        output = model.network.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False,
            eos_token_id=model.tokenizer.eos_token_id, pad_token_id=model.tokenizer.pad_token_id,
        )  # fmt: skip
        assert told[row] == model.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


def test_option_orders_map_back_to_labels() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.1, 0.7, 0.2]], dtype=np.float32)
    orders = np.array([[0, 1, 2], [2, 0, 1]])
    labels = to_labels(scores, orders)
    np.testing.assert_allclose(labels, [[0.1, 0.7, 0.2], [0.7, 0.2, 0.1]])
    np.testing.assert_array_equal(codes_of(labels), [1, 0])
    np.testing.assert_allclose(margins_of(labels)[1], [0.5, -0.5, -0.6], atol=1e-6)


@pytest.mark.parametrize(
    ("units", "message"), [([99_999], "does not exist"), ([-1], "does not exist"), ([3, 3], "more than once")]
)
def test_impossible_units_are_named(model: Model, units: list[int], message: str) -> None:
    with pytest.raises(AffectbenchError, match=message):
        scale("gate", model.shape, np.array(units), 0.0)
