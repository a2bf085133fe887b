"""What a forward pass leaves out changes nothing that is read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import items, tiny_bitnet, tiny_gemma2, tiny_model, tiny_qwen2

from affectbench.batch import Batch, Prefix
from affectbench.model import Model
from affectbench.passes import can_trim, last_columns, replaced, watching

FAMILIES = ["Qwen2", "Llama", "Mistral", "Qwen3", "Olmo2", "Gemma", "Cohere", "StableLm"]


def batch_of(model: Model, count: int = 4) -> Batch:
    return model.collate(items(model, count).items)


def tiny(name: str) -> Model:
    made = {"Gemma2": tiny_gemma2, "BitNet": tiny_bitnet}
    return made[name]() if name in made else tiny_model(name, 0)


@pytest.mark.parametrize("name", [*FAMILIES, "Gemma2", "BitNet"])
@torch.no_grad()
def test_the_last_layer_can_be_run_for_the_columns_that_are_read(name: str) -> None:
    model = tiny(name)
    assert model.trimmable
    batch = batch_of(model)
    whole = model.decode(batch)
    for last in (1, 3):
        found = model.decode(batch, last=last)
        assert found.shape[1] == last
        torch.testing.assert_close(found, whole[:, -last:], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_cache_holds_all_columns_of_a_layer_that_was_run_for_one() -> None:
    from transformers import DynamicCache

    model = tiny_qwen2()
    batch = batch_of(model)
    whole, short = (DynamicCache(config=model.text_config) for _ in range(2))
    model.decode(batch, cache=whole)
    model.decode(batch, cache=short, last=1)
    for one, other in zip(whole.layers, short.layers, strict=True):
        torch.testing.assert_close(one.keys, other.keys)
        torch.testing.assert_close(one.values, other.values)


@torch.no_grad()
def test_every_entry_gives_what_the_whole_pass_gives() -> None:
    model = tiny_qwen2()
    batch = batch_of(model)
    whole = model.decode(batch)[:, -1]
    entries = list(range(1, len(model.layers) + 1))
    with watching(model, entries, []) as watched:
        model.decode(batch, last=1)
    for layer in entries:
        found = model.decode(batch, prefix=Prefix(layer, watched.entries[layer]), last=1)
        torch.testing.assert_close(found[:, -1], whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("breaks", [False, True], ids=["wrong columns", "raises"])
def test_a_layer_that_minds_fewer_columns_gets_all_of_them(breaks: bool) -> None:
    model = tiny_model("Qwen2", 3)
    final = model.layers[-1]
    plain = final.forward

    def peculiar(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if breaks and hidden_states.shape[1] < 3:
            raise ValueError("too few columns")
        # It looks at all columns behind attention's back.
        return plain(hidden_states - hidden_states.mean(1, keepdim=True), *args, **kwargs)

    final.forward = peculiar
    batch = batch_of(model)
    with torch.no_grad():
        whole = model.decode(batch)
        assert not can_trim(model)
        torch.testing.assert_close(model.decode(batch, last=1)[:, -1], whole[:, -1])
    assert final.forward is peculiar


def test_a_forward_that_was_there_before_comes_back_after_an_error() -> None:
    module, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)

    def kept(hidden: torch.Tensor) -> torch.Tensor:
        return hidden

    other.forward = kept  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="on purpose"):
        break_inside(module, other)
    assert "forward" not in vars(module)
    assert other.forward is kept


def break_inside(*modules: torch.nn.Module) -> None:
    with replaced([(module, last_columns(module.forward, 1)) for module in modules]):
        raise RuntimeError("on purpose")
