"""Models that are controls: their weights shuffled, or never trained."""

from __future__ import annotations

import pytest
import torch

from affectbench.control_weights import initialise_weights, shuffle_weights
from affectbench.errors import AffectbenchError
from affectbench.model_card import ModelCard
from affectbench.model_loading import load_from, weights_digest
from affectbench.plan import checkpoint_of
from affectbench.registry import Registry


class TestShuffledWeights:
    def test_the_weights_are_the_same_numbers_elsewhere(self) -> None:
        registry = Registry(installed=False)
        before, card = registry.model("reference-audio"), registry.model("reference-audio-shuffled")
        one, other = (load_from(registry, each, checkpoint_of(each), "cpu") for each in (before, card))
        moved = 0
        for x, y in zip(one.network.parameters(), other.network.parameters(), strict=True):
            assert torch.equal(x.flatten().sort().values, y.flatten().sort().values)
            moved += not torch.equal(x, y)
        assert moved > 50
        folder = checkpoint_of(card)
        assert weights_digest(before, folder) != weights_digest(card, folder)

    def test_the_seed_decides_and_shared_weights_stay_shared(self) -> None:
        def made(seed: int) -> torch.nn.ModuleDict:
            torch.manual_seed(0)
            first, second = torch.nn.Linear(4, 5, bias=False), torch.nn.Linear(4, 5, bias=False)
            second.weight = first.weight
            network = torch.nn.ModuleDict({"a": first, "b": second})
            shuffle_weights(network, seed)
            return network

        one, again, other = made(1), made(1), made(2)
        assert torch.equal(one["a"].weight, again["a"].weight)
        assert not torch.equal(one["a"].weight, other["a"].weight)
        assert torch.equal(one["a"].weight, one["b"].weight)

    @pytest.mark.parametrize("key", ["shuffled", "untrained"])
    def test_a_planted_card_cannot_be_a_control(self, key: str) -> None:
        content = Registry(installed=False).model("reference-audio").model_dump(mode="json")
        with pytest.raises(ValueError, match=f"{key} weights hold no"):
            ModelCard.model_validate(content | {key: 0})


class TestUntrained:
    def test_weights_are_what_the_class_draws_for_a_new_model(self) -> None:
        """The oracle: the same class made from the same configuration, without any checkpoint."""
        registry = Registry(installed=False)
        before, card = registry.model("reference-audio"), registry.model("reference-audio-untrained")
        trained, found = (load_from(registry, each, checkpoint_of(each), "cpu") for each in (before, card))
        fresh = type(found.network)(found.network.config)
        drawn = dict(fresh.named_parameters())
        learned = dict(trained.network.named_parameters())
        moved = 0
        for name, weight in found.network.named_parameters():
            if drawn[name].std() > 0:  # Drawn: a normal distribution of the same spread, other numbers.
                assert weight.std().item() == pytest.approx(drawn[name].std().item(), rel=0.2)
                assert not torch.equal(weight, learned[name])
                moved += 1
            else:  # Set: norms at one, biases at nought.
                assert torch.equal(weight, drawn[name])
        assert moved > 50
        for name, buffer in found.network.named_buffers():
            torch.testing.assert_close(buffer, dict(fresh.named_buffers())[name])
        folder = checkpoint_of(card)
        others = [before, registry.model("reference-audio-shuffled")]
        assert weights_digest(card, folder) not in {weights_digest(each, folder) for each in others}

    def test_the_seed_decides_and_other_randomness_goes_on(self) -> None:
        registry = Registry(installed=False)
        card = registry.model("reference-audio")

        def made(seed: int) -> torch.Tensor:
            network = load_from(registry, card, checkpoint_of(card), "cpu").network
            torch.manual_seed(5)
            initialise_weights(network, seed)
            assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(5))
            return next(network.parameters())

        one, again, other = made(1), made(1), made(2)
        assert torch.equal(one, again)
        assert not torch.equal(one, other)

    def test_a_network_without_a_rule_is_refused_and_so_are_two_controls_at_once(self) -> None:
        with pytest.raises(AffectbenchError, match="Linear has no rule for fresh weights"):
            initialise_weights(torch.nn.Linear(2, 2), 0)
        content = Registry(installed=False).model("reference-audio-shuffled").model_dump(mode="json")
        with pytest.raises(ValueError, match="leave one of them out"):
            ModelCard.model_validate(content | {"untrained": 0})
