"""The evidence pass against brute force over plain forward passes, one item at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import LABELS, items, long_readout, readout, tiny_qwen2

from affectbench.engine import Engine
from affectbench.errors import AffectbenchError
from affectbench.evidence import ATTRIBUTION, MEAN, MEAN_ABS, RATE, EvidencePass, requests_of
from affectbench.intervention import ROLE_BIT, UNTOUCHED
from affectbench.readout import Items

ALL = frozenset({MEAN, MEAN_ABS, RATE, ATTRIBUTION})
PLACES = ("all", "content", "answer")


def collect(
    data: Items,
    *,
    tokens: int = 4096,
    needs: frozenset[str] = ALL,
    places: tuple[str, ...] = PLACES,
    **options: object,
) -> EvidencePass:
    model = tiny_qwen2()
    requests = frozenset().union(
        *(requests_of(needs, site, place) for site in ("gate", "neuron") for place in places)
    )
    return EvidencePass(Engine(model, tokens=tokens), data, readout(model), requests, **options).run()  # type: ignore[arg-type]


def brute_force(data: Items, site: str, positions: str) -> dict[str, np.ndarray]:
    """Statistics by hand: one item at a time, activations kept whole, margin's gradient by autograd."""
    model, asked = tiny_qwen2(), readout(tiny_qwen2())
    first = [tokens[0] for tokens in asked.candidates]
    shape = (len(LABELS), model.shape.layers, model.shape.width)
    sums = {name: np.zeros(shape) for name in ALL}
    tokens = np.zeros(len(LABELS))
    for place, item in enumerate(data.items):
        seen: list[torch.Tensor] = []
        handles = []
        for layer in range(model.shape.layers):
            if site == "gate":
                handles.append(
                    model.mlp(layer).act_fn.register_forward_hook(lambda _m, _a, out, to=seen: to.append(out))
                )
            else:
                handles.append(
                    model.down(layer).register_forward_pre_hook(lambda _m, args, to=seen: to.append(args[0]))
                )
        embeds = model.embed(item.ids[None]).detach().requires_grad_()
        logits = model.network(inputs_embeds=embeds).logits[0, -1, first]
        for handle in handles:
            handle.remove()
        gold = int(data.gold[place])
        margin = logits[gold] - torch.cat([logits[:gold], logits[gold + 1 :]]).max()
        slopes = torch.autograd.grad(margin, seen)
        mask = (item.roles & ROLE_BIT[positions]).bool()
        tokens[gold] += int(mask.sum())
        for layer, (value, slope) in enumerate(zip(seen, slopes, strict=True)):
            chosen, rising = value[0, mask].detach(), slope[0, mask]
            sums[MEAN][gold, layer] += chosen.sum(0).numpy()
            sums[MEAN_ABS][gold, layer] += chosen.abs().sum(0).numpy()
            sums[RATE][gold, layer] += (chosen > 0).sum(0).numpy()
            sums[ATTRIBUTION][gold, layer] += (chosen * rising).sum(0).numpy()
    return {name: total / tokens[:, None, None] for name, total in sums.items()}


@pytest.mark.parametrize("site", ["gate", "neuron"])
@pytest.mark.parametrize("positions", PLACES)
@pytest.mark.parametrize("alone", [False, True], ids=["of several positions", "of one"])
def test_every_statistic_equals_brute_force(site: str, positions: str, alone: bool) -> None:
    data = items(tiny_qwen2())
    asked = (positions,) if alone else PLACES
    found = collect(data, correct_only=False, places=asked).evidence(site, positions)
    expected = brute_force(data, site, positions)
    for name in sorted(ALL):
        np.testing.assert_allclose(getattr(found, name), expected[name], atol=1e-5, err_msg=name)
    assert found.items.tolist() == np.bincount(data.gold).tolist()


def test_batch_size_changes_nothing() -> None:
    data = items(tiny_qwen2())
    wide, narrow = collect(data, correct_only=False), collect(data, tokens=9, correct_only=False)
    for name in sorted(ALL):
        one, many = getattr(narrow.evidence("gate", "all"), name), getattr(wide.evidence("gate", "all"), name)
        np.testing.assert_allclose(one, many, atol=1e-6, err_msg=name)


def test_only_correct_items_count_and_a_limit_holds() -> None:
    model = tiny_qwen2()
    data = items(model, count=30)
    codes = Engine(model).predict(data, readout(model), [UNTOUCHED]).codes[0]
    found = collect(data, correct_only=True)
    np.testing.assert_array_equal(found.codes, codes)
    expected = [int(((codes == data.gold) & (data.gold == label)).sum()) for label in range(len(LABELS))]
    assert found.evidence("gate", "all").items.tolist() == expected
    capped = collect(data, correct_only=False, per_emotion=4)
    assert capped.evidence("gate", "all").items.tolist() == [4, 4, 4]


def test_gold_items_are_measured_as_if_alone() -> None:
    data = items(tiny_qwen2())
    only = [place for place in range(len(data)) if data.gold[place] == 1]
    part = replace(
        data,
        items=tuple(data.items[p] for p in only),
        gold=data.gold[only],
        clusters=tuple(data.clusters[p] for p in only),
    )
    whole = collect(data, correct_only=False).evidence("neuron", "content").mean[1]
    alone = collect(part, correct_only=False).evidence("neuron", "content").mean[1]
    np.testing.assert_allclose(whole, alone, atol=1e-6)


def test_shuffled_labels_keep_the_total_and_depend_on_the_seed() -> None:
    data = items(tiny_qwen2(), count=30)
    found = collect(data, correct_only=False, seed=1)
    gold, shuffled = found.evidence("gate", "all"), found.evidence("gate", "all", shuffled=True)
    total = lambda e: (e.mean * e.tokens[:, None, None]).sum(0)  # noqa: E731
    np.testing.assert_allclose(total(gold), total(shuffled), atol=1e-6)
    assert not np.allclose(gold.mean, shuffled.mean)
    other = collect(data, correct_only=False, seed=2).evidence("gate", "all", shuffled=True)
    assert not np.allclose(other.mean, shuffled.mean)


def test_answers_of_several_tokens_decide_correctness() -> None:
    model = tiny_qwen2()
    data = items(model, count=20)
    found = EvidencePass(Engine(model), data, long_readout(model), requests_of({MEAN}, "gate", "all")).run()
    codes = Engine(model).predict(data, long_readout(model), [UNTOUCHED]).codes[0]
    np.testing.assert_array_equal(found.codes, codes)


def test_a_statistic_that_was_not_collected_is_named() -> None:
    found = collect(items(tiny_qwen2()), needs=frozenset({MEAN}), correct_only=False)
    with pytest.raises(AffectbenchError, match="did not collect 'rate'"):
        _ = found.evidence("gate", "all").rate
    with pytest.raises(AffectbenchError, match="'variance' does not exist"):
        requests_of({"variance"}, "gate", "all")
