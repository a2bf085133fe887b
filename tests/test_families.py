"""Every family: packed rows under edits answer as one item under one intervention does, read by other means.

The oracle runs the public forward of transformers on one unpadded text at a time, without a cache, with
hooks of its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import pytest
import torch
from remote_standins import REMOTE_FAMILIES, own_logits, tiny_remote
from tiny_models import AUDIO_FAMILIES, DENSE, items, long_readout, readout, tiny_audio, tiny_dense
from torch import Tensor

from affectbench.engine import Engine
from affectbench.errors import AffectbenchError
from affectbench.examples import Example, RenderedPrompt
from affectbench.intervention import (
    ANSWER,
    ROLE_BIT,
    UNTOUCHED,
    VALID,
    Edit,
    Intervention,
    mean_ablation,
    scale,
)
from affectbench.model import Model
from affectbench.readout import Items, Readout

HEARING = (*AUDIO_FAMILIES, *REMOTE_FAMILIES)
FAMILIES = (*DENSE, *HEARING)
FUSED = ("Phi3", "phi4_multimodal")
"""Those with gate and up in one matrix."""
STEPS, KINDS = 5, 100
Sound = np.ndarray | None
SAMPLES = (6_400, 36_800, 16_000, 0, 10_400)
"""Of the clips. The second is longer than the window of a tiny instance's feature extractor."""


def code_of(text: str, _order: object = None) -> int:
    """A number that tells generated texts apart."""
    return zlib.crc32(text.encode()) % KINDS


@dataclass(frozen=True)
class Case:
    """One family's model with five items of mixed lengths; `sounds` are what its audio items were made of."""

    name: str
    model: Model
    data: Items
    sounds: tuple[Sound, ...]

    @cached_property
    def generating(self) -> Readout:
        asked = readout(self.model)
        return Readout(asked.labels, asked.candidates, max_new_tokens=STEPS, parse=code_of)

    @cached_property
    def interventions(self) -> list[Intervention]:
        """Seventeen: each site, operation and choice of positions; first, middle, last, several layers. Six
        where there is sound: their decoders are of the kinds that answer all seventeen."""
        rng = np.random.default_rng(5)
        shape = self.model.shape
        means = rng.normal(size=shape.units)
        first, middle, last = (layer * shape.width + np.array([0, 3, 7, 11]) for layer in range(3))
        some = rng.choice(shape.units, size=9, replace=False)
        heard = "audio" if self.hears else "content"
        found = [UNTOUCHED]
        for site in ("gate", "neuron"):
            found += [
                scale(site, shape, first, 0.0),
                scale(site, shape, middle, 3.0, "answer"),
                scale(site, shape, last, 0.0, heard),
                scale(site, shape, last, -1.0),
                scale(site, shape, some, 2.0),
                mean_ablation(site, shape, last, means, "answer"),
                mean_ablation(site, shape, some, means, "content"),
            ]
        uneven = Edit("neuron", shape, middle, "scale", np.array([0.0, 2.0, -1.0, 1.5]))
        found.append(Intervention((uneven, *found[3].edits)))
        found.append(Intervention((*found[6].edits, *found[11].edits)))
        return [found[place] for place in (0, 1, 3, 12, 14, 15)] if self.hears else found

    @property
    def hears(self) -> bool:
        return self.name in HEARING

    @cached_property
    def heard(self) -> list[dict[str, Tensor]]:
        """What the public forward takes of each item's sound."""
        return [{} if sound is None else self.model.audio_inputs(sound) for sound in self.sounds]  # type: ignore[attr-defined]

    def logits(self, place: int, further: list[int]) -> Tensor:
        """Public forward on one item and `further` tokens: logits (T, V)."""
        ids = torch.cat([self.data.items[place].ids, torch.tensor(further, dtype=torch.long)])
        sound = self.sounds[place]
        if self.name in REMOTE_FAMILIES:
            with torch.no_grad():
                return own_logits(self.model, ids, sound)
        heard = self.heard[place]
        with torch.no_grad():
            found: Tensor = self.model.network(input_ids=ids[None], use_cache=False, **heard).logits[0]
        return found

    @contextmanager
    def hooks(self, place: int, intervention: Intervention) -> Iterator[None]:
        roles = self.data.items[place].roles
        handles = []
        for edit in intervention.edits:
            for layer, (channels, values) in edit.shape.by_layer(edit.units).items():
                change = changer(roles, edit, channels, edit.value[values])
                if edit.site == "gate":
                    module = self.model.activation(layer)
                    handles.append(module.register_forward_hook(lambda _m, _a, out, do=change: do(out)))
                else:
                    module = self.model.down(layer)
                    handles.append(module.register_forward_pre_hook(lambda _m, a, do=change: (do(a[0]),)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @cached_property
    def stops(self) -> set[int]:
        return {1, *range(14, max(40, len(self.model.tokenizer)))}

    @cached_property
    def expected(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, set[int]]:
        """Scores of short and of long answers (K, 5, 3), generated texts' codes (K, 5), their lengths."""
        short = np.zeros((len(self.interventions), 5, 3))
        long, codes, lengths = short.copy(), np.zeros(short.shape[:2], dtype=np.int64), set()
        for k, intervention in enumerate(self.interventions):
            for place in range(5):
                with self.hooks(place, intervention):
                    found = self.logits(place, [])[-1].log_softmax(-1)
                    short[k, place] = [found[tokens[0]] for tokens in readout(self.model).candidates]
                    long[k, place] = [
                        sum(
                            rows[step - len(tokens), token]
                            for rows in [self.logits(place, list(tokens[:-1])).log_softmax(-1)]
                            for step, token in enumerate(tokens)
                        )
                        for tokens in long_readout(self.model).candidates
                    ]
                    told: list[int] = []
                    while len(told) < STEPS:
                        token = int(self.logits(place, told)[-1].argmax())
                        if token in self.stops:
                            break
                        told.append(token)
                codes[k, place] = code_of(self.model.tokenizer.decode(told, skip_special_tokens=True))
                lengths.add(len(told))
        return short, long, codes, lengths

    def some(self, count: int) -> Items:
        data = self.data
        return Items("test", data.items[:count], data.gold[:count], data.clusters[:count])


def changer(roles: Tensor, edit: Edit, channels: Any, values: Any) -> Callable[[Tensor], Tensor]:
    """What `edit` does to activations (1, T, width) of a text that begins with tokens of these roles."""
    value = torch.as_tensor(values, dtype=torch.float32)

    def change(activation: Tensor) -> Tensor:
        more = torch.full((activation.shape[1] - len(roles),), VALID | ANSWER, dtype=torch.uint8)
        where = (torch.cat([roles, more]) & ROLE_BIT[edit.positions]).bool()
        changed = activation.clone()
        part = activation[:, where][..., channels]
        new = part * value if edit.operation == "scale" else value.expand_as(part)
        changed[:, where.nonzero(), torch.as_tensor(channels)] = new
        return changed

    return change


def heard(model: Model) -> tuple[Items, tuple[Sound, ...]]:
    """Items with audio of mixed lengths between words, and one without."""
    rng = np.random.default_rng(4)
    words = ["was", "lost", "?", "the", "song", "is", "very", "sad"]
    made, sounds = [], []
    for place, samples in enumerate(SAMPLES):
        sound = rng.normal(scale=0.1, size=samples).astype(np.float32) if samples else None
        example = Example(
            f"heard-{place}", None, None if sound is None else lambda sound=sound: sound, "joy", "c"
        )
        slot = "" if sound is None else " {audio} "
        prompt = RenderedPrompt(f"the dog{slot}{' '.join(words[: 3 + place])}", None, ())
        made.append(model.prepare(example, prompt))
        sounds.append(sound)
    gold = np.arange(5) % 3
    return Items("test", tuple(made), gold, tuple("abcde")), tuple(sounds)


@cache
def case_of(name: str) -> Case:
    """A family's case, on a model of its own: which tokens end its answers is changed."""
    if name in REMOTE_FAMILIES:
        model = tiny_remote.__wrapped__(name)
        data, sounds = heard(model)
    elif name in AUDIO_FAMILIES:
        seed = 5 if name == "gemma4" else 0  # Rows end at different steps.
        model = tiny_audio.__wrapped__(name, seed=seed)
        data, sounds = heard(model)
    else:
        model = tiny_dense.__wrapped__(name)
        data, sounds = items(model, count=5), (None,) * 5
    case = Case(name, model, data, sounds)
    # A checkpoint may name several tokens that end an answer.
    model.network.generation_config.eos_token_id = sorted(case.stops)
    vars(model).pop("stops", None)
    return case


@pytest.fixture(params=FAMILIES)
def case(request: pytest.FixtureRequest) -> Case:
    return case_of(request.param)


@pytest.mark.parametrize("tokens", [0, 150, 1])
def test_packed_answers_equal_one_at_a_time(case: Case, tokens: int) -> None:
    short, long, codes, _ = case.expected
    every = len(case.interventions)
    for k, n in ((every, 5), (3, 5), (every, 1), (1, 5), (1, 1)) if tokens == 0 else ((every, 5),):
        data, chosen = case.some(n), case.interventions[-k:]
        engine = Engine(case.model, tokens)
        found = engine.predict(data, readout(case.model), chosen).scores
        np.testing.assert_allclose(found, short[-k:, :n], atol=1e-4, rtol=1e-4)
        found = engine.predict(data, long_readout(case.model), chosen).scores
        np.testing.assert_allclose(found, long[-k:, :n], atol=1e-4, rtol=1e-4)
        told = engine.predict(data, case.generating, chosen).codes
        np.testing.assert_array_equal(told, codes[-k:, :n])


def test_rows_end_at_different_steps(case: Case) -> None:
    """Else dropping rows that have ended would not be tested."""
    assert len(case.expected[3]) >= 2


def test_a_row_does_not_depend_on_its_company(case: Case) -> None:
    """Same shapes, same kernels: what the other rows carry changes no bit."""
    shape, asked = case.model.shape, long_readout(case.model)
    last = 2 * shape.width + np.arange(4)
    mine = scale("neuron", shape, last, 0.0)
    one, two = ([scale("neuron", shape, last + 4, dose) for dose in doses] for doses in ((2, 3), (-1, 0.5)))
    for ask in (readout(case.model), asked):
        first = Engine(case.model).predict(case.data, ask, [mine, *one]).scores[0]
        second = Engine(case.model).predict(case.data, ask, [mine, *two]).scores[0]
        assert first.tobytes() == second.tobytes()


def test_an_edit_of_nothing_is_the_untouched_model(case: Case) -> None:
    shape = case.model.shape
    nothing = [
        scale("gate", shape, np.array([], dtype=np.int64), 0.0),
        scale("neuron", shape, np.arange(5), 1.0),
    ]
    for ask in (readout(case.model), long_readout(case.model)):
        plain = Engine(case.model).predict(case.data, ask, [UNTOUCHED]).scores
        for edit in nothing:
            assert Engine(case.model).predict(case.data, ask, [edit]).scores.tobytes() == plain.tobytes()


def test_switching_neurons_off_equals_taking_their_weights_away(case: Case) -> None:
    """An oracle without hooks: a copy of the model whose columns of down_proj are zero."""
    units = np.array([1, 23, 24, 30, 50, 71])
    edited = Engine(case.model).predict(
        case.data, readout(case.model), [scale("neuron", case.model.shape, units, 0.0)]
    )
    kept = case.model.network
    try:
        case.model.network = deepcopy(kept)
        vars(case.model).pop("decoder", None), vars(case.model).pop("layers", None)
        for layer, (channels, _) in case.model.shape.by_layer(units).items():
            case.model.down(layer).weight.data[:, channels] = 0
        expected = [
            case.logits(place, [])[-1].log_softmax(-1)[[t[0] for t in readout(case.model).candidates]]
            for place in range(5)
        ]
    finally:
        case.model.network = kept
        vars(case.model).pop("decoder", None), vars(case.model).pop("layers", None)
    np.testing.assert_allclose(edited.scores[0], torch.stack(expected), atol=1e-4, rtol=1e-4)


def test_passes_go_on_from_a_layer_where_that_holds(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gemma 4's upper layers use the keys of lower ones: entered in the middle, it cannot answer."""
    model = case.model
    assert model.resumable == (case.name != "gemma4")
    if not model.resumable:
        monkeypatch.setitem(vars(model), "resumable", True)
        last = 2 * model.shape.width + np.arange(4)
        doses = [scale("neuron", model.shape, last, dose) for dose in (0.0, 2.0, 3.0, 4.0)]
        with pytest.raises(KeyError):
            Engine(model).predict(case.data, readout(model), doses)


def test_sites_are_found_and_sized(case: Case) -> None:
    """Gates and neurons of every layer, as wide as `down_proj`; a fused projection's gate is half of it."""
    model = case.model
    seen: dict[tuple[str, int], int] = {}
    handles = []
    for site in ("gate", "neuron"):
        for layer in range(3):
            module, side = model.site_module(site, layer)

            def keep(_module: Any, args: Any, output: Any = None, *, key: Any = (site, layer)) -> None:
                seen[key] = (args[0] if output is None else output).shape[-1]

            register = module.register_forward_pre_hook if side == "input" else module.register_forward_hook
            handles.append(register(keep))
    try:
        case.logits(0, [])
    finally:
        for handle in handles:
            handle.remove()
    assert seen == {(site, layer): 24 for site in ("gate", "neuron") for layer in range(3)}
    assert (model.shape.layers, model.shape.width) == (3, 24)


@pytest.mark.parametrize("name", FUSED)
def test_the_gate_of_a_fused_projection_is_its_first_half(name: str) -> None:
    """Its weights set to zero, act(gate) is act(0); the second half's set to zero, it is what it was."""
    case = case_of(name)
    mlp = case.model.mlp(1)
    fused = mlp.gate_up_proj
    hidden = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    gates: list[Tensor] = []
    handle = case.model.activation(1).register_forward_hook(lambda _m, _a, out: gates.append(out.clone()))
    kept = fused.weight.detach().clone()
    try:
        for emptied in (slice(0, 0), slice(0, 24), slice(24, 48)):
            with torch.no_grad():
                fused.weight[emptied] = 0
                mlp(hidden)
                fused.weight.copy_(kept)
    finally:
        handle.remove()
    assert (gates[0] != 0).any()
    assert (gates[1] == 0).all()
    assert torch.equal(gates[2], gates[0])


@pytest.mark.parametrize("name", AUDIO_FAMILIES)
def test_the_sound_changes_the_answer(name: str) -> None:
    case = case_of(name)
    item = case.data.items[0]
    assert item.audio is not None
    heard = case.model.logits(case.model.decode(case.model.collate([item])))[0, -1]
    sound = np.random.default_rng(9).normal(scale=0.1, size=SAMPLES[0]).astype(np.float32)
    other = replace(item, audio=case.model.audio_embeddings(sound))
    told = case.model.logits(case.model.decode(case.model.collate([other])))[0, -1]
    assert not torch.allclose(heard, told, atol=1e-3)
    ids = case.model.tokenizer.convert_tokens_to_ids(case.model.audio_token)
    assert int((item.ids == ids).sum()) == item.audio.shape[0] > 1


def test_candidates_with_a_common_beginning_equal_the_public_forward(case: Case) -> None:
    tree = ((5,), (6, 7), (6, 7, 8, 9), (6, 10), (6, 7, 8, 11))
    labels = tuple("abcde")
    asked = Readout(labels, tree)
    edit = case.interventions[5]
    found = Engine(case.model).predict(case.data, asked, [UNTOUCHED, edit]).scores
    for k, intervention in enumerate((UNTOUCHED, edit)):
        for place in range(5):
            with case.hooks(place, intervention):
                for label, tokens in enumerate(tree):
                    rows = case.logits(place, list(tokens[:-1])).log_softmax(-1)
                    expected = sum(
                        float(rows[step - len(tokens), token]) for step, token in enumerate(tokens)
                    )
                    assert found[k, place, label] == pytest.approx(expected, abs=2e-4, rel=1e-4)


def test_a_model_whose_logits_are_not_what_is_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of("Llama")
    real = case.model.logits
    monkeypatch.setattr(case.model, "logits", lambda hidden: real(hidden) * 1.5)
    with pytest.raises(AffectbenchError, match="other logits"):
        Engine(case.model).predict(case.data, readout(case.model), [UNTOUCHED])


def test_a_model_that_ignores_the_tree_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from affectbench.branches import Branches

    case = case_of("Llama")
    monkeypatch.setattr(Branches, "attention", lambda _tree, mask, _config, _dtype: mask.long())
    with pytest.raises(AffectbenchError, match="pass over"):
        Engine(case.model).predict(case.data, long_readout(case.model), [UNTOUCHED])
