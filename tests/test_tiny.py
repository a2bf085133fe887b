"""Tiny instances: real classes, ordinary loading, the same weights for the same seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from affectbench import tiny
from affectbench.errors import AffectbenchError
from affectbench.identity import checkpoint_digest
from affectbench.model import Model
from affectbench.registry import Registry


def test_a_family_without_one_says_what_to_add(tmp_path: Path) -> None:
    with pytest.raises(AffectbenchError, match="makes no tiny instance") as caught:
        Model.write_tiny(tmp_path)
    assert "write_tiny" in str(caught.value.hint)


def test_the_seed_says_it_all_and_leaves_other_random_numbers_alone(tmp_path: Path) -> None:
    family = Registry().family("causal_lm")
    before = torch.random.get_rng_state()
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        family.write_tiny(tmp_path / name, architecture="LlamaForCausalLM", seed=seed)
    assert torch.equal(before, torch.random.get_rng_state())
    one, same, other = (checkpoint_digest(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same != other


def test_an_unknown_class_is_an_error(tmp_path: Path) -> None:
    registry = Registry()
    with pytest.raises(AffectbenchError, match="no model class 'LammaForCausalLM'"):
        registry.family("causal_lm").write_tiny(tmp_path, architecture="LammaForCausalLM")
    with pytest.raises(AffectbenchError, match="makes no tiny LlamaForCausalLM"):
        registry.family("qwen2_5_omni_thinker").write_tiny(tmp_path, architecture="LlamaForCausalLM")


def test_no_weight_keeps_the_value_that_hides_mistakes() -> None:
    """Norms of one and biases of zero would pass where they are forgotten."""
    kind = tiny.network_class("GPT2LMHeadModel")
    network = tiny.random_network(kind, tiny.shrunk(kind.config_class, tiny.tokenizer()), 0)
    for name, parameter in network.named_parameters():
        if "wpe" not in name and "wte" not in name:
            assert not torch.isin(parameter, torch.tensor([0.0, 1.0])).any(), name


def test_kinds_of_attention_are_mixed_and_windows_matter() -> None:
    for name in ("Gemma3ForCausalLM", "Cohere2ForCausalLM"):
        config = tiny.shrunk(tiny.network_class(name).config_class, tiny.tokenizer())
        assert set(config.layer_types) == {"sliding_attention", "full_attention"}
        assert config.sliding_window == 5
