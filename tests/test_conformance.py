"""The conformance suite: real families pass, and a broken wrapper fails just the check that it should."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from affectbench.batch import Batch
from affectbench.conformance import CHECKS, Subject, outcome, subject, target, verify
from affectbench.conformance_peers import against
from affectbench.conformance_subject import Measured
from affectbench.errors import AffectbenchError
from affectbench.model import Model
from affectbench.registry import Registry

REGISTRY = Registry()
FAMILIES = [entry.name for entry in REGISTRY.entries("family")]
CLASSES = [
    pytest.param(family, name, id=name, marks=() if place == 0 else pytest.mark.slow)
    for family in FAMILIES
    for place, name in enumerate(REGISTRY.family(family).architectures)  # type: ignore[attr-defined]
]
OMNI, MOE = "qwen2_5_omni_thinker", "qwen3_omni_moe_thinker"


OTHERS = [name for name in FAMILIES if not REGISTRY.family(name).architectures]  # type: ignore[attr-defined]


@pytest.mark.parametrize("family", OTHERS)
def test_a_family_that_cannot_be_made_here_says_why(family: str) -> None:
    """Its class comes with the checkpoint, as Python files."""
    with pytest.raises(AffectbenchError, match="tiny instance") as raised:
        verify(REGISTRY, target(REGISTRY, family))
    assert "--trust-code" in f"{raised.value.hint}"


@pytest.mark.parametrize(("family", "architecture"), CLASSES)
def test_every_family_conforms(family: str, architecture: str) -> None:
    report = verify(REGISTRY, target(REGISTRY, family, architecture=architecture))
    failed = {check.id: check.reason for check in report.checks if check.status == "failed"}
    assert failed == {}
    assert report.count("passed") >= 15
    assert report.architecture == architecture


@pytest.mark.parametrize("card", [entry.name for entry in REGISTRY.entries("model")])
def test_every_card_says_which_class_it_is_of(card: str) -> None:
    """So that its tiny instance can be made where its weights are out of reach."""
    what = target(REGISTRY, card)
    if what.card.family in OTHERS:
        assert what.card.remote_code
        return
    known = REGISTRY.family(what.card.family).architectures  # type: ignore[attr-defined]
    assert what.architecture in known or len(known) == 1


# Broken wrappers. Each is a family of ours with one mistake.


def positions_count_padding(model: Model) -> None:
    model.position_ids = lambda mask: torch.arange(mask.shape[1]).expand(mask.shape)  # type: ignore[method-assign]


def an_answer_is_read_one_column_early(model: Model) -> None:
    decode = model.decode

    def early(batch: Batch, **options: Any) -> Tensor:
        return decode(batch, **options).roll(1, dims=1)

    model.decode = early  # type: ignore[method-assign, assignment]


def an_answer_loses_its_first_letter(model: Model) -> None:
    continuation = model.continuation
    model.continuation = lambda prompt, answer: continuation(prompt, answer[:1] + answer[2:])  # type: ignore[method-assign]


def the_prompt_counts_as_content(model: Model) -> None:
    render = model.render
    model.render = lambda prompt: (render(prompt)[0], (0, len(render(prompt)[0])))  # type: ignore[method-assign]


def down_names_another_module(model: Model) -> None:
    """Of the same width, and linear too."""
    model.down = lambda layer: model.layers[layer].self_attn.o_proj  # type: ignore[method-assign]
    model.width = lambda layer: model.layers[layer].mlp.down_proj.in_features  # type: ignore[method-assign]


def down_is_a_layer_up(model: Model) -> None:
    model.down = lambda layer: model.layers[(layer + 1) % 3].mlp.down_proj  # type: ignore[method-assign]


class Fused(nn.Module):
    """An MLP with gate and up in one matrix, as Phi-3 has it, with a place to hook each half."""

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        self.gate_up_proj, self.down_proj = mlp.gate_up_proj, mlp.down_proj
        self.act_fn, self.other_half = mlp.activation_fn, nn.Identity()

    def forward(self, hidden: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(hidden).chunk(2, dim=-1)
        return self.down_proj(self.other_half(up) * self.act_fn(gate))


def the_gate_is_the_other_half(model: Model) -> None:
    for layer in model.layers:
        layer.mlp = Fused(layer.mlp)
    model.activation = lambda layer: model.layers[layer].mlp.other_half  # type: ignore[method-assign]


def the_halves_are_exchanged(model: Model) -> None:
    for layer in model.layers:
        fused = layer.mlp = Fused(layer.mlp)
        halves = fused.gate_up_proj.weight.data.chunk(2)
        fused.gate_up_proj.weight.data = torch.cat(halves[::-1])


def _look(spy: nn.Module, _module: Any, args: tuple[Tensor]) -> None:
    spy(args[0].clone())


def neurons_are_read_where_nothing_comes_of_it(model: Model) -> None:
    """A module that is run on a copy, and whose output is thrown away."""
    spies = []
    for layer in model.layers:
        spies.append(nn.Identity())
        look = partial(_look, spies[-1])
        layer.mlp.down_proj.register_forward_pre_hook(look)
    site_module = model.site_module

    def dead(site: str, layer: int) -> Any:
        return (spies[layer], "output") if site == "neuron" else site_module(site, layer)

    model.site_module = dead  # type: ignore[method-assign]


def heads_are_those_of_the_layer_above(model: Model) -> None:
    model.output_projection = lambda layer: model.layers[(layer + 1) % 3].self_attn.o_proj  # type: ignore[method-assign]


def the_stream_is_read_before_the_mlp(model: Model) -> None:
    site_module = model.site_module

    def early(site: str, layer: int) -> Any:
        return (model.layers[layer].self_attn, "output") if site == "residual" else site_module(site, layer)

    model.site_module = early  # type: ignore[method-assign]


def a_hook_stays_after_an_error(model: Model) -> None:
    decode = model.decode

    def hooked(batch: Batch, **options: Any) -> Tensor:
        handle = model.layers[0].register_forward_hook(lambda *_: None)
        found = decode(batch, **options)
        handle.remove()
        return found

    model.decode = hooked  # type: ignore[method-assign, assignment]


def batches_are_kept(model: Model) -> None:
    kept, collate = [], model.collate

    def collect(items: Any) -> Batch:
        batch = collate(items)
        kept.append(batch.embeds[:, -1].clone())
        return batch

    model.collate = collect  # type: ignore[method-assign]


def reading_changes_what_is_read(model: Model) -> None:
    """A network that runs in another way while somebody looks."""
    down = model.down(1)
    forward = down.forward
    down.forward = lambda x: forward(x) * (1 + 1e-6 * bool(down._forward_pre_hooks))


def a_setting_is_not_in_the_checkpoint(model: Model) -> None:
    """Scaled after loading, and not saved: the class alone gives other logits."""
    norm = model.network.model.norm
    forward = norm.forward
    norm.forward = lambda hidden: forward(hidden) * 1.1


def embeddings_are_one_token_off(model: Model) -> None:
    collate = model.collate

    def shifted(items: Any) -> Batch:
        batch = collate(items)
        heard = (batch.roles & 4).bool()
        for row in range(len(items)):
            columns = heard[row].nonzero()[:, 0]
            if len(columns):
                sound = batch.embeds[row, columns].clone()
                batch.embeds[row, columns[0]] = batch.embeds[row, columns[0] - 1]
                batch.embeds[row, columns + 1] = sound
        return batch

    model.collate = shifted  # type: ignore[method-assign]


def sounds_are_ignored(model: Model) -> None:
    heard = model.audio_embeddings
    model.audio_embeddings = lambda waveform: torch.zeros_like(heard(waveform))  # type: ignore[method-assign]


def padding_of_one_clip_leaks_into_the_next(model: Model) -> None:
    """One buffer for all clips, in which the end of a longer one stays, and no mask."""
    tower, buffer = model.tower, torch.zeros(1, 16, 400)  # type: ignore[attr-defined]

    def padded(given: dict[str, Tensor]) -> Tensor:
        frames = given["input_features"].shape[-1]
        buffer[..., :frames] = given["input_features"]
        mask = torch.ones(1, 400, dtype=torch.long)
        found = tower({"input_features": buffer, "feature_attention_mask": mask})
        return found[: model.audio_length(frames)]  # type: ignore[attr-defined]

    model.tower = padded  # type: ignore[attr-defined]


def a_replaced_activation_is_rounded(model: Model) -> None:
    """A layer that takes another way where its activation is not its own tensor."""
    for layer in model.layers:
        mlp = layer.mlp
        mlp.forward = partial(_rounding, mlp, [])
        mlp.act_fn.register_forward_hook(lambda _m, _a, out, mlp=mlp: mlp.forward.args[1].append(out))


def _rounding(mlp: Any, own: list[Tensor], hidden: Tensor) -> Tensor:
    own.clear()
    gate = mlp.act_fn(mlp.gate_proj(hidden))
    factor = 1.0 if gate is own[0] else 1.0 + 1e-5
    return mlp.down_proj(gate * mlp.up_proj(hidden) * factor)


def equal_rows_are_run_once(model: Model) -> None:
    """Which rows of several interventions on one item are, to begin with."""
    decode = model.decode

    def once(batch: Batch, **options: Any) -> Tensor:
        rows, back = torch.unique(batch.embeds.flatten(1), dim=0, return_inverse=True)
        if len(rows) == len(batch.embeds) or options.get("prefix") or options.get("cache") or batch.branches:
            return decode(batch, **options)
        firsts = torch.stack([(back == row).nonzero()[0, 0] for row in range(len(rows))])
        return decode(Batch(batch.embeds[firsts], batch.mask[firsts], batch.roles), **options)[back]

    model.decode = once  # type: ignore[method-assign, assignment]


def roles_of_a_batch_are_one_column_off(model: Model) -> None:
    collate = model.collate

    def rolled(items: Any) -> Batch:
        batch = collate(items)
        return replace(batch, roles=batch.roles.roll(-1, dims=1))

    model.collate = rolled  # type: ignore[method-assign]


def a_cache_has_windows_that_the_model_has_not(model: Model) -> None:
    from transformers import DynamicCache

    config = copy(model.text_config)
    config.sliding_window = 3
    model.cache = lambda: DynamicCache(config=config)  # type: ignore[method-assign]


def a_cache_drops_the_last_rows(model: Model) -> None:
    cache = model.cache

    def first_rows(layer: Any, rows: Tensor) -> None:
        layer.keys, layer.values = layer.keys[: len(rows)], layer.values[: len(rows)]

    def broken_cache() -> Any:
        made = cache()
        for layer in made.layers:
            layer.__class__ = type("Broken", (type(layer),), {"batch_select_indices": first_rows})
        return made

    model.cache = broken_cache  # type: ignore[method-assign]


def something_is_read_from_another_place(model: Model) -> None:
    if model.folder is None or "affectbench-tiny" not in model.folder.name:
        model.network.lm_head.weight.mul_(1.1)


@contextmanager
def broken(family: str, architecture: str | None, spoil: Callable[[Model], None]) -> Iterator[Subject]:
    """A subject whose every instance has the mistake, one that is loaded again too."""
    with subject(REGISTRY, target(REGISTRY, family, architecture=architecture)) as found:
        load = found.load

        def again(folder: Path) -> Model:
            model = load(folder)
            spoil(model)
            return model

        assert found.folder is not None
        yield Subject(again(found.folder), again, found.folder)


GPT2, LLAMA, PHI3 = "GPT2LMHeadModel", "LlamaForCausalLM", "Phi3ForCausalLM"
BROKEN = [
    (GPT2, positions_count_padding, "padding", "position_ids"),
    (LLAMA, an_answer_is_read_one_column_early, "forward", "hidden states"),
    (LLAMA, an_answer_loses_its_first_letter, "labels", "continuation"),
    (LLAMA, the_prompt_counts_as_content, "roles", "the item's words are"),
    (LLAMA, down_names_another_module, "sites", "32 channels, the shape says 24"),
    (LLAMA, down_is_a_layer_up, "gate", "not of one MLP"),
    (PHI3, the_gate_is_the_other_half, "gate", "another half of the layer"),
    (PHI3, the_halves_are_exchanged, "wrapped", "load"),
    (LLAMA, neurons_are_read_where_nothing_comes_of_it, "zeroing", "`down` and `site_module`"),
    (LLAMA, heads_are_those_of_the_layer_above, "heads", "not a part of it"),
    (LLAMA, the_stream_is_read_before_the_mlp, "residual", "`layers`"),
    (LLAMA, a_hook_stays_after_an_error, "hooks_gone", "hooks are left in model.layers.0"),
    (LLAMA, batches_are_kept, "memory", "collate"),
    (LLAMA, reading_changes_what_is_read, "capture", "not the same bits"),
    (LLAMA, a_setting_is_not_in_the_checkpoint, "wrapped", "what they change in the network"),
    (LLAMA, a_replaced_activation_is_rounded, "noop", "hooks that put back a copy"),
    (LLAMA, equal_rows_are_run_once, "packed", "`decode`"),
    (LLAMA, roles_of_a_batch_are_one_column_off, "statistics", "roles"),
    (LLAMA, a_cache_has_windows_that_the_model_has_not, "cache", "`cache`"),
    (LLAMA, a_cache_drops_the_last_rows, "generation", "`cache`"),
    (LLAMA, something_is_read_from_another_place, "reload", "`load`"),
    (OMNI, embeddings_are_one_token_off, "audio_forward", "where the placeholders stand"),
    (OMNI, sounds_are_ignored, "audio_heard", "the sound is not heard"),
    (OMNI, padding_of_one_clip_leaks_into_the_next, "audio_alone", "heard after a longer one"),
]


@pytest.mark.parametrize(
    ("name", "spoil", "expected", "said"), BROKEN, ids=[row[1].__name__ for row in BROKEN]
)
def test_a_broken_wrapper_fails_the_check_it_should_and_no_other(
    name: str, spoil: Callable[[Model], None], expected: str, said: str
) -> None:
    family, architecture = (name, None) if name in FAMILIES else ("causal_lm", name)
    with broken(family, architecture, spoil) as examined:
        found = {check.id: outcome(examined, check) for check in CHECKS}
    failed = {check: each.reason for check, each in found.items() if each.status == "failed"}
    assert list(failed) == [expected], failed
    assert said in failed[expected]


def public_under_hooks(examined: Subject, points: Any, given: dict[str, Any]) -> Tensor:
    """What nnsight and pyvene do, by hooks."""
    modules, handles = dict(examined.model.network.named_modules()), []
    for name, side, channels, factors in points:

        def change(value: Tensor, channels: Tensor = channels, factors: Tensor = factors) -> Tensor:
            changed = value.clone()
            changed[..., channels] *= factors
            return changed

        if side == "output":
            hook = modules[name].register_forward_hook(lambda _m, _a, out, change=change: change(out))
        else:
            hook = modules[name].register_forward_pre_hook(lambda _m, a, change=change: (change(a[0]),))
        handles.append(hook)
    try:
        return examined.model.network(**given).logits
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("left_out", [0, 1])
def test_another_tool_that_edits_something_else_is_noticed(left_out: int) -> None:
    """Without the tools themselves, which are optional; with one edit of a layer left out."""
    with subject(REGISTRY, target(REGISTRY, "causal_lm")) as examined:
        found = against(examined, "torch", lambda s, p, given: public_under_hooks(s, p[left_out:], given))
    assert isinstance(found, Measured)
    assert (found.value > found.tolerance) == bool(left_out)


def test_every_check_was_broken_by_something() -> None:
    by_hand = {"nnsight", "pyvene"}
    assert {check.id for check in CHECKS} == {row[2] for row in BROKEN} | by_hand
