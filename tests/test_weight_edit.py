"""Folded weights do what hooks do, and leave every byte as it was."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import (
    EXPERTS,
    items,
    readout,
    tiny_bitnet,
    tiny_experts,
    tiny_gemma2,
    tiny_gpt2,
    tiny_qwen2,
    tiny_qwen3_omni,
)
from torch import Tensor, nn

from affectbench.engine import Engine
from affectbench.errors import AffectbenchError
from affectbench.held_weights import Held
from affectbench.intervention import UNTOUCHED, Intervention, mean_ablation, scale
from affectbench.model import Model
from affectbench.readout import Readout
from affectbench.weight_edit import folded

NAMED: dict[str, Callable[[], Model]] = {
    "qwen2": tiny_qwen2,
    "gemma2": tiny_gemma2,
    "bitnet": tiny_bitnet,
    "gpt2": tiny_gpt2,
    "qwen3_omni": tiny_qwen3_omni,
}
FAMILIES: dict[str, Callable[[], Model]] = NAMED | {
    name: lambda name=name: tiny_experts(name) for name in EXPERTS
}
OWN_GATE = {"bitnet", "GptOss"}
CASES = [(name, "neuron") for name in FAMILIES] + [
    (name, "gate") for name in FAMILIES if name not in OWN_GATE
]


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Model:
    return FAMILIES[request.param]()


def digest(model: Model) -> str:
    """Of every byte of every weight."""
    found = hashlib.sha256()
    for name, value in model.network.state_dict().items():
        found.update(name.encode() + value.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def some(model: Model, factor: float, site: str = "neuron", seed: int = 0) -> Intervention:
    units = np.random.default_rng(seed).choice(model.shape.units, size=model.shape.units // 4, replace=False)
    return scale(site, model.shape, units, factor)


@torch.no_grad()
def logits(model: Model) -> Tensor:
    data = items(model)
    return model.logits(model.decode(model.collate(data.items)))


def hooked_logits(model: Model, intervention: Intervention) -> Tensor:
    with Engine(model).editing([intervention]) as edits:
        edits.roles = model.collate(items(model).items).roles
        return logits(model)


@pytest.mark.parametrize(("family", "site"), CASES)
def test_zeroed_columns_equal_hooks_bit_for_bit(family: str, site: str) -> None:
    model = FAMILIES[family]()
    plain, edit = logits(model), some(model, 0.0, site)
    with folded(model, edit):
        found = logits(model)
    assert torch.equal(found, hooked_logits(model, edit))
    assert not torch.allclose(found, plain, atol=1e-2)
    assert torch.equal(logits(model), plain)


@pytest.mark.parametrize(("family", "site"), CASES)
def test_gains_equal_hooks_but_for_rounding(family: str, site: str) -> None:
    model = FAMILIES[family]()
    for factor in (0.5, 1.7, -1.0):
        edit = some(model, factor, site)
        with folded(model, edit):
            found = logits(model)
        torch.testing.assert_close(found, hooked_logits(model, edit), rtol=1e-5, atol=1e-4)


def test_several_edits_of_a_unit_multiply() -> None:
    model = tiny_qwen2()
    both = Intervention((*some(model, 3.0, "gate").edits, *some(model, 0.5, "neuron", seed=1).edits))
    with folded(model, both):
        found = logits(model)
    torch.testing.assert_close(found, hooked_logits(model, both), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_every_byte_comes_back_however_the_block_ends(model: Model, stop: type[BaseException]) -> None:
    before = digest(model)
    for factor in (0.0, 1.0 / 3.0, 1e4):
        with folded(model, some(model, factor)):
            assert digest(model) != before
        assert digest(model) == before
        with pytest.raises(stop), folded(model, some(model, factor)):
            raise stop
        assert digest(model) == before
    assert model.folds == ()


def test_blocks_nest(model: Model) -> None:
    before, one, two = digest(model), some(model, 0.0, seed=1), some(model, 3.0, seed=2)
    with folded(model, one):
        between = digest(model)
        with pytest.raises(RuntimeError), folded(model, two), folded(model, one):
            raise RuntimeError
        assert digest(model) == between
        with folded(model, two):
            together = logits(model)
    assert digest(model) == before
    both = Intervention((*one.edits, *two.edits))
    torch.testing.assert_close(together, hooked_logits(model, both), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("failing", [0, 1, 4, 5])
def test_an_interrupt_while_weights_are_written_leaves_none_changed(
    failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three layers are written, then three restored: stop before each kind."""
    model, calls, real = tiny_qwen2(), [0], Held.write

    def write(columns: Held, values: Tensor) -> None:
        calls[0] += 1
        if calls[0] == failing + 1:
            raise KeyboardInterrupt
        real(columns, values)

    before = digest(model)
    monkeypatch.setattr(Held, "write", write)
    with pytest.raises(KeyboardInterrupt), folded(model, some(model, 0.0)):
        pass
    assert calls[0] > failing
    assert digest(model) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["qwen2", "gpt2", "Qwen3Moe"])
def test_half_precision_is_restored_and_zeroed_exactly(family: str, dtype: torch.dtype) -> None:
    tiny = FAMILIES[family]()
    model = type(tiny)(copy.deepcopy(tiny.network).to(dtype), tiny.tokenizer, tiny.card, None)
    before, edit, gain = digest(model), some(model, 0.0), some(model, 1.7)
    with folded(model, edit):
        zeroed = logits(model)
    assert torch.equal(zeroed, hooked_logits(model, edit))
    assert digest(model) == before
    with folded(model, gain):
        risen = logits(model)
    assert digest(model) == before
    rounding = torch.finfo(dtype).eps * logits(model).abs().max()
    assert (risen - hooked_logits(model, gain)).abs().max() < 8 * rounding


def test_no_edit_changes_no_byte() -> None:
    model = tiny_qwen2()
    before = digest(model)
    with folded(model, UNTOUCHED), folded(model, some(model, 1.0)):
        assert digest(model) == before


def test_code_that_knows_nothing_of_us_runs_under_the_edit(model: Model) -> None:
    """transformers' own `generate` against the engine's greedy steps under hooks."""
    edit, ids = some(model, 0.0), items(model).items[0].ids[None]
    steps = torch.cat([ids, torch.zeros(1, 0, dtype=torch.long)], dim=1)
    with Engine(model).editing([edit]), torch.no_grad():
        for _ in range(5):
            steps = torch.cat([steps, model.network(input_ids=steps).logits[:, -1:].argmax(-1)], dim=1)
    with Engine(model).folded(edit):
        found = model.network.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False,
            eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
    assert found.tolist() == steps.tolist()


def test_the_example_in_the_guide_runs_under_the_edit() -> None:
    page = Path(__file__).parents[1] / "docs" / "architecture.md"
    (example,) = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    model = tiny_qwen2()
    ids = items(model).items[0].ids[None]
    names: dict[str, Any] = {"scale": scale, "model": model, "engine": Engine(model), "units": np.arange(40)}
    names["inputs"] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "eos_token_id": None}
    exec(example, names)
    with folded(model, scale("neuron", model.shape, np.arange(40), 0.0)):
        expected = model.network.generate(**names["inputs"], max_new_tokens=5, do_sample=False)
    assert torch.equal(names["output"], expected)
    assert not torch.equal(
        expected, model.network.generate(**names["inputs"], max_new_tokens=5, do_sample=False)
    )


def test_the_engine_does_not_mistake_folded_answers_for_plain_ones() -> None:
    model, engine = tiny_qwen2(), Engine(tiny_qwen2())
    data, edit = items(model), some(model, 0.0)
    plain = engine.predict(data, readout(model), [UNTOUCHED, edit]).scores
    with engine.folded(edit):
        under = engine.predict(data, readout(model), [UNTOUCHED]).scores
    np.testing.assert_allclose(under[0], plain[1], atol=2e-5)
    np.testing.assert_array_equal(engine.predict(data, readout(model), [UNTOUCHED]).scores[0], plain[0])


def refused(model: Model, intervention: Intervention, message: str) -> None:
    """What no weight can express is refused, and nothing is changed."""
    before = digest(model)
    with pytest.raises(AffectbenchError, match=message), folded(model, intervention):
        pytest.fail("the block was entered")
    assert digest(model) == before


@pytest.mark.parametrize("positions", ["content", "audio", "answer"])
def test_positions_are_refused(positions: str) -> None:
    edit = scale("neuron", tiny_qwen2().shape, np.arange(3), 0.0, positions)  # type: ignore[arg-type]
    refused(tiny_qwen2(), edit, "a weight acts at every position")


def test_means_and_other_models_edits_are_refused() -> None:
    model, other = tiny_qwen2(), tiny_experts("Mixtral")
    refused(
        model, mean_ablation("gate", model.shape, np.arange(3), np.ones(model.shape.units)), "which multiply"
    )
    refused(model, some(other, 0.0), "does not fit tiny-qwen2")


def test_gates_that_do_more_than_multiply_are_refused() -> None:
    refused(tiny_bitnet(), some(tiny_bitnet(), 0.0, "gate"), "more than a product")
    gpt_oss = tiny_experts("GptOss")
    refused(gpt_oss, some(gpt_oss, 0.0, "gate"), "in a way of its own")


def test_gains_that_do_not_fit_the_dtype_are_refused() -> None:
    tiny = tiny_qwen2()
    model = type(tiny)(copy.deepcopy(tiny.network).half(), tiny.tokenizer, tiny.card, None)
    refused(model, some(model, 1e7), "no finite torch.float16")


def own_copy() -> Model:
    tiny = tiny_qwen2()
    return type(tiny)(copy.deepcopy(tiny.network), tiny.tokenizer, tiny.card, None)


def test_shared_weights_are_refused() -> None:
    model = own_copy()
    model.mlp(1).down_proj.weight = model.mlp(0).down_proj.weight
    refused(model, scale("neuron", model.shape, np.arange(3), 0.0), "share memory")
    last = scale("neuron", model.shape, np.arange(2 * model.shape.width, 2 * model.shape.width + 3), 0.0)
    with folded(model, last):
        assert not model.mlp(2).down_proj.weight[:, :3].any()


class Packed(nn.Linear):
    """Stands for a quantised or adapted layer: its `weight` is not what it computes with."""


def test_weights_that_are_not_plain_numbers_are_refused() -> None:
    model = own_copy()
    model.mlp(0).down_proj.__class__ = Packed
    refused(model, some(model, 0.0), "Packed cannot be scaled column by column")
    model = own_copy()
    weight = model.mlp(0).down_proj.weight
    model.mlp(0).down_proj.weight = nn.Parameter(weight.to(torch.int8), requires_grad=False)
    refused(model, some(model, 0.0), "Parameter of torch.int8")
    model = own_copy()
    for layer in range(model.shape.layers):
        model.mlp(layer).down_proj.to("meta")
    with pytest.raises(AffectbenchError, match="on meta, not plain"), folded(model, some(model, 0.0)):
        pytest.fail("the block was entered")


# What the engine does on its own: one intervention alone in a pass of experts.


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> list[Intervention]:
    """Every intervention that an engine folds."""
    found, real = [], Engine.folded

    def told(self: Engine, intervention: Intervention) -> Any:
        found.append(intervention)
        return real(self, intervention)

    monkeypatch.setattr(Engine, "folded", told)
    return found


def by_hooks(engine: Engine) -> Engine:
    """The same engine, which hooks experts too."""

    class Hooking(Engine):
        _has_experts = False

    return Hooking(engine.model, engine.tokens)


@pytest.mark.parametrize("site", ["gate", "neuron"])
@pytest.mark.parametrize("factor", [0.0, 2.0])
def test_one_intervention_on_experts_is_folded_and_answers_alike(
    blocks: list[Intervention], site: str, factor: float
) -> None:
    model = tiny_experts("Qwen3Moe")
    data, before = items(model), digest(model)
    spoken = Readout(readout(model).labels, readout(model).candidates, 4, lambda text, _: len(text) % 100)
    edits = [some(model, factor, site, seed) for seed in range(2)]
    alone = Engine(model, tokens=1)  # No room for two.
    found = alone.predict(data, readout(model), edits)
    said = alone.predict(data, spoken, edits).codes
    assert {each.digest for each in blocks} == {each.digest for each in edits}
    assert digest(model) == before
    count = len(blocks)
    hooked = by_hooks(alone)
    expected = hooked.predict(data, readout(model), edits)
    assert len(blocks) == count
    if factor == 0.0:
        np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_allclose(found.scores, expected.scores, atol=2e-5)
    np.testing.assert_array_equal(said, hooked.predict(data, spoken, edits).codes)


def test_interventions_that_share_a_pass_are_hooked(blocks: list[Intervention]) -> None:
    experts, dense = tiny_experts("Qwen3Moe"), tiny_qwen2()
    Engine(experts).predict(items(experts), readout(experts), [some(experts, 2.0), some(experts, 0.5)])
    Engine(dense).predict(items(dense), readout(dense), [some(dense, 2.0)])
    Engine(experts).predict(items(experts), readout(experts), [UNTOUCHED])
    assert not blocks


@pytest.mark.parametrize("positions", ["answer", "content"])
def test_what_cannot_be_folded_is_hooked(positions: str) -> None:
    model = tiny_experts("Qwen3Moe")
    one = scale("gate", model.shape, np.arange(9), 3.0, positions)
    found = Engine(model).predict(items(model), readout(model), [one]).scores
    expected = by_hooks(Engine(model)).predict(items(model), readout(model), [one]).scores
    np.testing.assert_array_equal(found, expected)
    assert (found != Engine(model).predict(items(model), readout(model), [UNTOUCHED]).scores).any()


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt, torch.OutOfMemoryError])
def test_a_pass_that_breaks_off_leaves_the_experts_as_they_were(
    monkeypatch: pytest.MonkeyPatch, blocks: list[Intervention], stop: type[BaseException]
) -> None:
    model = tiny_experts("Qwen3Moe")
    before, engine, one = digest(model), Engine(model), some(model, 2.0)
    assert engine.predict(items(model), readout(model), [UNTOUCHED])  # Tried out before.
    within: list[str] = []

    def broken(self: Model, *_: Any, **__: Any) -> Any:
        within.append(digest(model))
        raise stop("in the middle")

    with monkeypatch.context() as patched:
        patched.setattr(Model, "decode", broken)
        with pytest.raises((stop, AffectbenchError)):
            engine.predict(items(model), readout(model), [one])
    assert blocks
    assert before not in within
    assert digest(model) == before
    assert model.folds == ()
