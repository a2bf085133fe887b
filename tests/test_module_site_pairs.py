"""Cards whose models have the site `module`: either side of a pair, read from its files or loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from test_module_edit import digest, logits, pair_cards, put  # noqa: F401

from affectbench import module_loading
from affectbench.errors import AffectbenchError
from affectbench.intervention import add, scale
from affectbench.model_loading import load_from
from affectbench.module_edit import FileWeights, FullWeights
from affectbench.module_loading import attach_adaptation, pair_digest
from affectbench.plan import job_of_names, jobs_of_suite
from affectbench.registry import Registry
from affectbench.sites import MODULE
from affectbench.stored_weights import StoredWeights


def recipients(folder: Path, pair: str, **keys: str) -> Registry:
    """The cards of `folder` with that of a base into which modules of `pair` can be put."""
    card = {
        "kind": "model", "version": 1, "name": "recipient", "family": "causal_lm", "modality": "text",
        "licence": "own", "checkpoint": "before", "adapted": pair,
    }  # fmt: skip
    (folder / "models/recipient.yaml").write_text(yaml.safe_dump(card | keys))
    return Registry([folder], installed=False)


class TestPairs:
    @pytest.mark.parametrize("name", ["pair-full", "pair-lora"])
    def test_a_card_that_is_a_pair_has_the_site(self, pair_cards: Path, name: str) -> None:  # noqa: F811
        registry = Registry([pair_cards], installed=False)
        card = registry.model(name)
        model, base = (
            load_from(registry, each, str(each.folder), "cpu") for each in (card, registry.model("pair-base"))
        )
        with pytest.raises(AffectbenchError, match="no base to compare its weights with"):
            model.site_shape(MODULE)
        attach_adaptation(registry, card, model)
        shape = model.site_shape(MODULE)
        with model.under(scale(MODULE, shape, np.arange(shape.units), 0.0).effective):
            for kind in model.weight_changes.types:
                for piece in model.adaptation.modules.of((kind,), matrices=True):
                    now, old = (each.network.get_parameter(piece.parameter) for each in (model, base))
                    assert torch.equal(piece.view(now.detach()), piece.view(old.detach()))
        assert pair_digest(registry, card) == model.weight_changes.digest

    @pytest.mark.parametrize("name", ["pair-full", "pair-lora"])
    def test_a_base_card_becomes_its_pair_module_by_module(self, pair_cards: Path, name: str) -> None:  # noqa: F811
        registry = recipients(pair_cards, name)
        card, pair = registry.model("recipient"), registry.model(name)
        model, whole = (load_from(registry, each, str(each.folder), "cpu") for each in (card, pair))
        before = logits(model)
        attach_adaptation(registry, card, model)
        shape = model.site_shape(MODULE)
        with model.under(add(MODULE, shape, np.arange(shape.units), np.ones(shape.units)).effective):
            for piece in model.adaptation.modules.of(model.weight_changes.types):
                now, new = (each.network.get_parameter(piece.parameter).detach() for each in (model, whole))
                assert torch.equal(piece.view(now), piece.view(new))
        with model.weight_changes.crossed():
            assert torch.equal(logits(model), logits(whole))
        assert torch.equal(logits(model), before)
        assert pair_digest(registry, card) == model.weight_changes.digest

    @pytest.mark.parametrize("name", ["pair-full", "pair-folder", "pair-lora", "recipient"])
    def test_the_other_side_is_read_from_its_files(
        self,
        pair_cards: Path,  # noqa: F811
        name: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        registry = recipients(pair_cards, "pair-full")
        card = registry.model(name)
        other = registry.model("pair-full" if name == "recipient" else "pair-base")
        model, there = (load_from(registry, each, str(each.folder), "cpu") for each in (card, other))
        with monkeypatch.context() as patch:
            patch.setattr(module_loading, "load_from", None)
            attach_adaptation(registry, card, model)
        assert isinstance(model.adaptation.other, FileWeights)
        state = dict(there.network.named_parameters())
        with model.weight_changes.crossed():
            for parameter, value in model.network.named_parameters():
                assert torch.equal(value, state[parameter])
        changed = {
            name for name, value in model.network.named_parameters() if not torch.equal(value, state[name])
        }
        assert set(model.adaptation.other.names) == changed

    @pytest.mark.parametrize("side", ["before", "after"])
    def test_a_side_whose_files_are_laid_out_otherwise_is_loaded(self, pair_cards: Path, side: str) -> None:  # noqa: F811
        registry = Registry([pair_cards], installed=False)
        card = registry.model("pair-full")
        model = load_from(registry, card, str(card.folder), "cpu")
        expected = load_from(registry, registry.model("pair-base"), str(pair_cards / "models/before"), "cpu")
        read = StoredWeights.__init__

        def renamed(self: StoredWeights, folder: Path) -> None:
            read(self, folder)
            if folder.name == side:
                name = next(each for each in self.shapes if "up_proj" in each)
                self.shapes[f"{name}.part"] = self.shapes.pop(name)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StoredWeights, "__init__", renamed)
            attach_adaptation(registry, card, model)
        assert isinstance(model.adaptation.other, FullWeights)
        state = dict(expected.network.named_parameters())
        with model.weight_changes.crossed():
            for parameter, value in model.network.named_parameters():
                assert torch.equal(value, state[parameter])

    def test_a_base_of_another_pair_is_refused(self, pair_cards: Path) -> None:  # noqa: F811
        registry = recipients(pair_cards, "pair-lora", checkpoint="after")
        with pytest.raises(AffectbenchError, match="recipient is not what pair-lora was adapted from"):
            pair_digest(registry, registry.model("recipient"))

    def test_a_protocol_is_about_one_side(self, pair_cards: Path) -> None:  # noqa: F811
        recipients(pair_cards, "pair-lora")
        registry = Registry([pair_cards], installed=False)
        for model, protocol in (("recipient", "module-reset"), ("pair-lora", "module-transfer")):
            with pytest.raises(AffectbenchError, match=f"{model} is the other side"):
                job_of_names(registry, model, "reference-narratives", ["module_q"], [protocol], 0)

    def test_a_suite_of_both_sides_gives_each_its_protocols(self) -> None:
        adapted, base = jobs_of_suite(Registry(installed=False), "adapted-modules", None)
        assert [each.name for each in base.protocols] == ["module-transfer"]
        assert "module-reset" in [each.name for each in adapted.protocols]
        assert "module-transfer" not in [each.name for each in adapted.protocols]

    def test_a_model_without_a_base_is_refused_before_it_is_loaded(self, pair_cards: Path) -> None:  # noqa: F811
        registry = Registry([pair_cards], installed=False)
        with pytest.raises(AffectbenchError, match="pair-base is no pair"):
            pair_digest(registry, registry.model("pair-base"))
