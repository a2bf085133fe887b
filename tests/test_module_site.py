"""The site `module`: a unit is what an adaptation changed in one weight of a layer, edited and put back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from e2e_content import write_protocol
from test_module_edit import digest, moved, put
from tiny_models import items, readout, tiny_gpt2, tiny_model, tiny_qwen2

from affectbench.controls import parameter_matched
from affectbench.engine import Engine
from affectbench.errors import AffectbenchError
from affectbench.intervention import UNTOUCHED, Edit, Intervention, add, scale
from affectbench.model import Model
from affectbench.module_edit import FullWeights, Overlay, Pair
from affectbench.module_site import AdaptedModules
from affectbench.module_types import OTHER, members, modules_of
from affectbench.selector import Selection
from affectbench.sites import MODULE, SiteShape
from affectbench.targets import Dosing, random_targets, targets_of
from affectbench.task import InterventionProtocol, TaskFileError, load_as

MODELS = {"qwen2": tiny_qwen2, "phi3": cache(lambda: tiny_model("Phi3", 0)), "gpt2": tiny_gpt2}


@pytest.fixture(params=MODELS)
def adapted(request: pytest.FixtureRequest) -> Iterator[tuple[Model, FullWeights]]:
    """An adapted network with the site, what was adapted, and its digest; the network is shared, so all of it
    is taken back."""
    model: Model = MODELS[request.param]()
    weights = moved(model, [piece.parameter for piece in modules_of(model).pieces])
    base = {name: model.network.get_parameter(name).detach().clone() for name in weights.tensors}
    undo = put(model, weights)
    model.adaptation = AdaptedModules(model, modules_of(model), FullWeights(base, "the base"))
    try:
        yield model, weights
    finally:
        model.adaptation = None
        undo()


def units_of(model: Model, *kinds: str) -> np.ndarray:
    shape, types = model.site_shape(MODULE), model.weight_changes.types
    return np.array(
        [layer * shape.width + types.index(kind) for layer in range(shape.layers) for kind in kinds]
    )


def edit(model: Model, units: np.ndarray, operation: str, value: float = 0.0) -> Intervention:
    shape = model.site_shape(MODULE)
    return Intervention((Edit(MODULE, shape, units, operation, np.full(units.shape, value)),))


def weights_under(model: Model, intervention: Intervention) -> dict[str, torch.Tensor]:
    with model.under(intervention.effective):
        return {name: value.detach().clone() for name, value in model.network.named_parameters()}


def overlaid(model: Model, weights: FullWeights, overlay: Overlay) -> dict[str, torch.Tensor]:
    """The same weights by the analyses' code, from a network at its base."""
    now = {name: model.network.get_parameter(name).detach().clone() for name in weights.tensors}
    base = model.adaptation.other.tensors
    take_back = put(model, replace(weights, tensors=base))
    try:
        with Pair(model, replace(weights, tensors=now)).overlaid(overlay):
            return {name: value.detach().clone() for name, value in model.network.named_parameters()}
    finally:
        take_back()


class TestEdits:
    def test_all_units_at_0_are_the_base_byte_for_byte_and_all_at_1_nothing(self, adapted: Any) -> None:
        model, _ = adapted
        shape, before = model.site_shape(MODULE), digest(model)
        assert shape.parameters
        assert shape.width == len(modules_of(model).types)
        everything = np.arange(shape.units)
        found = weights_under(model, scale(MODULE, shape, everything, 0.0))
        for name, value in model.adaptation.other.tensors.items():
            assert torch.equal(found[name], value)
        assert digest(model) == before
        assert scale(MODULE, shape, everything, 1.0).effective == ()

    @pytest.mark.parametrize("kind", ["k", "up"])
    @pytest.mark.parametrize("operation", ["reset", "zero", "noise", "shuffle"])
    def test_damage_is_that_of_the_analyses(self, adapted: Any, kind: str, operation: str) -> None:
        model, weights = adapted
        before, units = digest(model), units_of(model, kind)
        made = edit(model, units, "scale" if operation == "reset" else operation)
        types = model.weight_changes.types
        expected = overlaid(model, weights, Overlay((*types, OTHER), (kind,), operation))
        found = weights_under(model, made)
        assert any(not torch.equal(found[name], value) for name, value in weights.tensors.items())
        for name, value in expected.items():
            assert torch.equal(found[name], value), name
        assert digest(model) == before

    def test_a_gain_multiplies_the_change_of_its_units_alone(self, adapted: Any) -> None:
        model, weights = adapted
        found = weights_under(
            model, scale(MODULE, model.site_shape(MODULE), units_of(model, "down")[:1], 3.0)
        )
        (piece, *_) = model.adaptation.modules.of(("down",), 0, matrices=True)
        old, new = model.adaptation.other.tensors[piece.parameter], weights.tensors[piece.parameter]
        torch.testing.assert_close(found[piece.parameter], old + 3 * (new - old), rtol=1e-5, atol=1e-6)
        own = {each.parameter for each in model.adaptation.modules.of(("down",), 0)}
        assert all(
            torch.equal(found[name], value) for name, value in weights.tensors.items() if name not in own
        )

    def test_two_edits_of_a_unit_multiply(self, adapted: Any) -> None:
        model, _ = adapted
        shape, units = model.site_shape(MODULE), units_of(model, "up")
        twice = Intervention(scale(MODULE, shape, units, 2.0).edits + scale(MODULE, shape, units, 0.5).edits)
        for name, value in weights_under(model, twice).items():
            torch.testing.assert_close(value, dict(model.network.named_parameters())[name].detach())

    def test_weights_come_back_after_an_error(self, adapted: Any) -> None:
        model, _ = adapted
        before = digest(model)

        def interrupted() -> None:
            with model.under(edit(model, units_of(model, "up"), "zero").effective):
                assert digest(model) != before
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert digest(model) == before
        assert model.folds == ()

    def test_changes_are_frobenius_norms(self, adapted: Any) -> None:
        model, weights = adapted
        found = model.weight_changes.changes("absolute")
        for layer in range(found.shape[0]):
            for place, kind in enumerate(model.weight_changes.types):
                square = 0.0
                for piece in model.adaptation.modules.of((kind,), layer, matrices=True):
                    name = piece.parameter
                    difference = piece.view(weights.tensors[name]) - piece.view(
                        model.adaptation.other.tensors[name]
                    )
                    square += float(difference.square().sum())
                assert found[layer, place] == pytest.approx(square**0.5, rel=1e-4)


@pytest.fixture(params=MODELS)
def recipient(request: pytest.FixtureRequest) -> Iterator[tuple[Model, FullWeights]]:
    """A base network that has the site, and what was adapted elsewhere: of every type, and of none."""
    model: Model = MODELS[request.param]()
    weights = moved(model)
    model.adaptation = AdaptedModules(model, modules_of(model), weights, "base")
    try:
        yield model, weights
    finally:
        model.adaptation = None


class TestIntoTheBase:
    @pytest.mark.parametrize("group", ["q", "down", "mlp", "all"])
    def test_a_whole_change_is_the_adapted_weights_to_the_bit(self, recipient: Any, group: str) -> None:
        model, weights = recipient
        before, types = digest(model), members(group, model.weight_changes.types)
        units = units_of(model, *types)
        found = weights_under(model, add(MODULE, model.site_shape(MODULE), units, np.ones(units.size)))
        assert digest(model) == before
        with Pair(model, weights).overlaid(Overlay(types)):
            for name, value in model.network.named_parameters():
                assert torch.equal(found[name], value), name
        assert digest(model) == before

    def test_a_half_and_the_negative_are_on_the_line_between(self, recipient: Any) -> None:
        model, weights = recipient
        units, shape = units_of(model, "v"), model.site_shape(MODULE)
        half = weights_under(model, add(MODULE, shape, units, np.full(units.size, 0.5)))
        negative = weights_under(model, edit(model, units, "negate"))
        for piece in model.adaptation.modules.of(("v",)):
            base = piece.view(model.network.get_parameter(piece.parameter).detach())
            change = piece.view(weights.tensors[piece.parameter]) - base
            for found, share in ((half, 0.5), (negative, -1.0)):
                torch.testing.assert_close(piece.view(found[piece.parameter]), base + share * change)

    def test_a_change_that_is_put_in_twice_adds_up(self, recipient: Any) -> None:
        model, _ = recipient
        units, shape = units_of(model, "up")[:1], model.site_shape(MODULE)
        one = add(MODULE, shape, units, np.ones(1))
        twice = weights_under(model, Intervention((*one.edits, *one.edits)))
        at_once = weights_under(model, add(MODULE, shape, units, np.full(1, 2.0)))
        for name, value in at_once.items():
            torch.testing.assert_close(twice[name], value)

    def test_the_other_side_is_all_of_it_and_goes_again(self, recipient: Any) -> None:
        model, weights = recipient
        before = digest(model)

        def interrupted() -> None:
            with model.weight_changes.crossed():
                assert model.folds
                for name, value in weights.tensors.items():
                    assert torch.equal(model.network.get_parameter(name), value)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert digest(model) == before
        assert model.folds == ()

    def test_changes_are_those_of_the_pair(self, recipient: Any) -> None:
        model, weights = recipient
        here = model.weight_changes.changes("relative")
        modules = model.adaptation.modules
        for layer, row in enumerate(here):
            for kind, value in zip(modules.types, row, strict=True):
                squares = np.zeros(2)
                for piece in modules.of((kind,), layer, matrices=True):
                    old = piece.view(model.network.get_parameter(piece.parameter).detach())
                    change = piece.view(weights.tensors[piece.parameter]) - old
                    squares += (float(change.square().sum()), float(old.square().sum()))
                assert value == pytest.approx((squares[0] / squares[1]) ** 0.5, rel=1e-4)

    def test_each_side_has_its_own_operation(self, recipient: Any) -> None:
        model, _ = recipient
        with pytest.raises(AffectbenchError, match=r"an edit 'scale' of modules of .*, the base side"):
            weights_under(model, edit(model, units_of(model, "q"), "scale"))

    def test_the_adapted_side_has_nothing_to_add(self, adapted: Any) -> None:
        model, _ = adapted
        with pytest.raises(AffectbenchError, match=r"an edit 'add' of modules of .*, the adapted side"):
            weights_under(model, edit(model, units_of(model, "q"), "add", 1.0))


class TestEngine:
    def answers(self, engine: Engine, interventions: Sequence[Intervention]) -> np.ndarray:
        return engine.predict(items(engine.model), readout(engine.model), interventions).scores

    def test_each_intervention_is_answered_by_its_own_weights(self, adapted: Any) -> None:
        model, weights = adapted
        before = digest(model)
        neurons = scale("neuron", model.shape, np.arange(5), 0.0)
        reset, zero = edit(model, units_of(model, "v"), "scale"), edit(model, units_of(model, "up"), "zero")
        both = Intervention(reset.edits + neurons.edits)
        found = self.answers(Engine(model), [zero, UNTOUCHED, reset, neurons, both])
        assert digest(model) == before
        for place, intervention in enumerate([zero, UNTOUCHED, reset, neurons]):
            if intervention.parts[0]:
                undo = put(model, replace(weights, tensors=weights_under(model, intervention)))
                expected = self.answers(Engine(model), [UNTOUCHED])[0]
                again = self.answers(Engine(model), [neurons])[0] if intervention is reset else None
                undo()
                if again is not None:
                    np.testing.assert_allclose(found[4], again, rtol=1e-5, atol=1e-6)
            else:
                expected = self.answers(Engine(model), [intervention])[0]
            np.testing.assert_allclose(found[place], expected, rtol=1e-5, atol=1e-6)
        assert not np.allclose(found[0], found[1])
        assert not np.allclose(found[2], found[1])

    def test_weights_are_written_once_for_all_batches(
        self, adapted: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, _ = adapted
        neurons = scale("neuron", model.shape, np.arange(5), 0.0)
        reset, zero = edit(model, units_of(model, "v"), "scale"), edit(model, units_of(model, "up"), "zero")
        swept = [UNTOUCHED, reset, zero, neurons, Intervention(reset.edits + neurons.edits)]
        many, asked = items(model), readout(model)
        batches, written, under = Counter[int](), [], type(model.adaptation).under
        whole = Engine(model).predict(many, asked, swept).scores

        def counted(self: AdaptedModules, edits: Sequence[Edit]) -> Any:
            written.append(Intervention(tuple(edits)).digest)
            return under(self, edits)

        engine = Engine(model, tokens=max(map(len, many.items)))
        decode = model.decode
        monkeypatch.setattr(AdaptedModules, "under", counted)
        monkeypatch.setattr(
            model, "decode", lambda *a, **b: (batches.update([len(written)]), decode(*a, **b))[1]
        )
        found = engine.predict(many, asked, swept).scores
        assert written == [reset.digest, zero.digest]
        assert min(batches.values()) > 5, "each edit of weights had many batches"
        np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-5)

    def test_an_error_in_a_pass_leaves_the_weights(
        self, adapted: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, _ = adapted
        before, engine = digest(model), Engine(model)

        def fail(*_args: object, **_named: object) -> None:
            assert digest(model) != before
            raise ZeroDivisionError

        self.answers(engine, [UNTOUCHED])
        monkeypatch.setattr(model, "decode", fail)
        with pytest.raises(ZeroDivisionError) as caught:
            self.answers(engine, [edit(model, units_of(model, "up"), "noise")])
        assert digest(model) == before
        del caught


SHAPE = SiteShape(3, 4, parameters=(10, 10, 5, 20))


def selection(*units: int) -> Selection:
    return Selection(MODULE, SHAPE, ("anger", "joy"), (np.array(units),) * 2)


class TestControls:
    @pytest.mark.parametrize("units", [(0, 4, 8), (3, 7, 11), (2, 6), (0, 1, 2, 3)])
    def test_random_modules_have_as_many_parameters(self, units: tuple[int, ...]) -> None:
        sizes = np.tile(SHAPE.parameters, SHAPE.layers)
        draws = parameter_matched(selection(*units), 50, 0)
        wanted = int(sizes[list(units)].sum())
        for drawn in draws:
            left = wanted - int(sizes[drawn].sum())
            assert 0 <= left < np.delete(sizes, drawn).min(), "no further unit would have fitted"
        assert np.mean([sizes[drawn].sum() == wanted for drawn in draws]) > 0.8
        assert len({tuple(drawn) for drawn in draws}) > 1
        assert all(len(set(drawn.tolist())) == len(drawn) for drawn in draws)
        again = parameter_matched(selection(*units), 50, 0)
        assert all(np.array_equal(one, other) for one, other in zip(draws, again, strict=True))

    def test_the_controls_of_a_selection_of_modules_are_these(self) -> None:
        expected = parameter_matched(selection(0, 4), 5, 7)
        found = random_targets(selection(0, 4), 5, 7)
        assert [each[0].units.tolist() for each in found] == [drawn.tolist() for drawn in expected]

    def test_a_selection_keeps_its_parameters(self, tmp_path: Path) -> None:
        selection(0, 5).save(tmp_path / "s.safetensors")
        assert Selection.load(tmp_path / "s.safetensors").shape == SHAPE


class TestProtocols:
    def test_damage_becomes_an_edit_of_weights(self, tmp_path: Path) -> None:
        arms = {
            "suppress": {"operation": "noise", "doses": [0]},
            "amplify": {"operation": "scale", "doses": [2]},
        }
        path = write_protocol(tmp_path, name="damages", site=MODULE, positions="all", arms=arms)
        dosing = Dosing(load_as(path, InterventionProtocol), {})
        (target, _) = targets_of(selection(1, 5))
        noise, gain = dosing.of("suppress", 0.0, target), dosing.of("amplify", 2.0, target)
        assert [each.operation for each in noise.edits] == ["noise"]
        assert gain.digest == scale(MODULE, SHAPE, np.array([1, 5]), 2.0).digest

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"site": "neuron", "operation": "zero"}, "one of scale, mean, project"),
            ({"site": MODULE, "operation": "mean"}, "one of scale, zero, noise, shuffle"),
            ({"site": MODULE, "operation": "zero", "positions": "content"}, "weights act at all positions"),
            ({"site": MODULE, "operation": "scale", "amplify": "add"}, "which is not there to scale"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, tmp_path: Path, changes: dict[str, str], reason: str) -> None:
        arms = {
            "suppress": {"operation": changes["operation"], "doses": [0]},
            "amplify": {"operation": changes.get("amplify", "scale"), "doses": [2]},
        }
        path = write_protocol(
            tmp_path, name="wrong", site=changes["site"], positions=changes.get("positions", "all"), arms=arms
        )
        with pytest.raises(TaskFileError, match=reason):
            load_as(path, InterventionProtocol)

    def test_weights_are_damaged_nowhere_else(self) -> None:
        with pytest.raises(AffectbenchError, match="an edit 'zero' of site 'neuron'"):
            Edit("neuron", SiteShape(2, 3), np.array([1]), "zero", np.zeros(1))
        with pytest.raises(AffectbenchError, match="an edit 'mean' of site 'module'"):
            Edit(MODULE, SHAPE, np.array([1]), "mean", np.zeros(1))
