"""Checks of where a wrapper says that units are: found, sized, read without a trace, summed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affectbench.conformance_oracle import public
from affectbench.conformance_subject import (
    PART,
    Check,
    Failed,
    Measured,
    Result,
    Skipped,
    Subject,
    distance,
    same_bits,
)
from affectbench.evidence import MEAN, EvidencePass, requests_of
from affectbench.experts import Routed
from affectbench.intervention import AUDIO, CONTENT, ROLE_BIT, hooked, scale
from affectbench.sites import GATE, NEURON

WIDTHS = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
EXPERT_WIDTHS = ("moe_intermediate_size", "expert_intermediate_size", *WIDTHS)
EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function", "mlp_hidden_act")
Seen = dict[tuple[str, int], list[Any]]


def _said(config: Any, names: tuple[str, ...]) -> Any:
    """The first of these that a config says."""
    return next((getattr(config, name) for name in names if getattr(config, name, None) is not None), None)


@contextmanager
def _watched(subject: Subject) -> Iterator[Seen]:
    """What each site of each layer showed, a copy for each time that it was passed."""
    seen: Seen = {}

    def read(point: tuple[str, int], activation: Tensor | Routed) -> None:
        seen.setdefault(point, []).append(_copy(activation))

    points = [
        (*subject.model.site_module(site, layer), partial(read, (site, layer)))
        for site in subject.sites
        for layer in range(len(subject.model.layers))
    ]
    with hooked(points):
        yield seen


def sites(subject: Subject) -> Result:
    """Counted in one pass of the class's own forward, and compared with its config."""
    model, config = subject.model, subject.model.text_config
    layers, width = model.shape.layers, model.shape.width
    said = _said(config, ("num_hidden_layers",))
    if said is not None and said != layers:
        raise Failed(f"{layers} layers were found, the config has {said}")
    one = _said(config, EXPERT_WIDTHS if subject.routed else WIDTHS)
    times = _said(config, EXPERT_COUNTS) if subject.routed else 1
    if one is not None and times is not None and one * times != width:
        raise Failed(f"{width} units were found in a layer, the config has {one * times}")
    place = subject.places[0]
    with _watched(subject) as seen:
        public(subject, place)
    for site in subject.sites:
        for layer in range(layers):
            shown = seen.get((site, layer), [])
            if len(shown) != 1:
                raise Failed(f"layer {layer}: the module of {site!r} was passed {len(shown)} times, not once")
            found = shown[0]
            size = found.count * found.values.shape[-1] if isinstance(found, Routed) else found.shape[-1]
            if size != width:
                raise Failed(f"layer {layer}: {site!r} shows {size} channels, the shape says {width}")
    return f"{layers} layers of {width}, sites {', '.join(subject.sites)}"


def gate(subject: Subject) -> Result:
    """Gates are an activation function's output, and a gate moves its own neuron by the same factor."""
    if GATE not in subject.sites:
        raise Skipped("its experts gate their neurons in a way of their own; the site 'neuron' is there")
    place = subject.places[0]
    with _watched(subject) as before:
        public(subject, place)
    lowest = _lowest(subject.model.text_config)
    normed = False
    for layer in range(subject.model.shape.layers):
        values = _values(before[GATE, layer][0])
        if lowest is not None and float(values.min()) < lowest - 1e-3:
            raise Failed(
                f"layer {layer}: 'gate' goes down to {float(values.min()):.3g}, but act(x) is never below "
                f"{lowest:.3g}: this is another half of the layer, or it comes before the activation"
            )
        units = _one_unit_of_each(subject, layer)
        edit = scale(GATE, subject.model.shape, layer * subject.model.shape.width + units, 3.0)
        with subject.engine.editing([edit]) as edits:
            edits.roles = subject.items.items[place].roles[None].to(subject.model.device)
            with _watched(subject) as after:
                public(subject, place)
        channel = int(units[0])
        one, two = (_values(seen[NEURON, layer][0]) for seen in (before, after))
        normed |= _moved(one.flatten(0, -2), two.flatten(0, -2), channel, layer, subject.tolerance)
    return "a norm stands between gate and neuron" if normed else None


def _lowest(config: Any) -> float | None:
    """The lowest value that the config's activation function gives; None where it names none."""
    from transformers.activations import ACT2FN

    name = _said(config, ACTIVATIONS)
    if not isinstance(name, str) or name not in ACT2FN:
        return None
    return float(ACT2FN[name](torch.linspace(-50, 50, 20001)).min())


def _values(activation: Tensor | Routed) -> Tensor:
    return (activation.values if isinstance(activation, Routed) else activation).float()


def _one_unit_of_each(subject: Subject, layer: int) -> np.ndarray:
    """The same channel of a layer's every expert, or one channel where it has none."""
    experts = subject.model.experts[layer]
    count = 1 if experts is None else int(experts.num_experts)
    return np.arange(count) * (subject.model.shape.width // count) + 1


def _moved(before: Tensor, after: Tensor, channel: int, layer: int, tolerance: float) -> bool:
    """Whether other neurons (tokens, width) moved too, by one factor a token: a norm. Raises `Failed` where
    `channel` did not move, or the others did in another way."""
    others = torch.arange(before.shape[-1], device=before.device) != channel
    where = f"layer {layer}: three times gate {channel}"
    if distance(after[:, others], before[:, others]) <= tolerance:
        if distance(after[:, channel], 3 * before[:, channel]) > tolerance:
            raise Failed(f"{where} is not three times neuron {channel}: they are not of one MLP")
        return False
    factor = (after * before)[:, others].sum(-1, keepdim=True) / before[:, others].square().sum(
        -1, keepdim=True
    )
    if distance(after[:, others], factor * before[:, others]) > tolerance * 10:
        raise Failed(f"{where} moves other neurons too: 'gate' and 'neuron' are not of one MLP")
    return True


def capture(subject: Subject) -> Result:
    """The public forward with a reading hook in every site."""
    for place in subject.places:
        plain = public(subject, place)
        with _watched(subject):
            same_bits(public(subject, place), plain, f"item {place} while every site is read")
        same_bits(public(subject, place), plain, f"item {place} after every site was read")
    return None


def noop(subject: Subject) -> Result:
    """Edits of nothing, and hooks that put back a copy of what they are given."""
    plain = subject.scores()
    shape = subject.model.shape
    for site in subject.sites:
        for edit in (
            scale(site, shape, np.array([], dtype=np.int64), 0.0),
            scale(site, shape, np.arange(3), 1.0),
        ):
            same_bits(subject.scores([edit])[0], plain[0], f"an edit of {site!r} that changes nothing")
    copied: list[tuple[Any, Any, Callable[..., Any]]] = [
        (*subject.model.site_module(site, layer), _copy)
        for site in subject.sites
        for layer in range(shape.layers)
    ]
    with hooked(copied):
        same_bits(subject.scores(), plain, "hooks that put back a copy of every site")
    return None


def _copy(activation: Tensor | Routed) -> Tensor | Routed:
    if isinstance(activation, Routed):
        return replace(activation, values=activation.values.clone())
    return activation.clone()


def wrapped(subject: Subject) -> Result:
    """The same checkpoint, loaded by transformers alone and never given to a wrapper."""
    if subject.folder is None or not subject.small:
        raise Skipped("the checkpoint is not in a folder, or too large to be loaded twice")
    if not subject.model.all_of_class:
        raise Skipped(PART)
    model: Any = subject.model
    fresh = type(model.network).from_pretrained(subject.folder, dtype=model.dtype).eval().to(model.device)
    worst = 0.0
    ours = model.network
    for place in subject.places:
        expected = public(subject, place)
        model.network = fresh
        try:
            found = public(subject, place)
        finally:
            model.network = ours
        worst = max(worst, distance(expected, found))
    return Measured(worst, subject.tolerance, "logits of the wrapped class and of the class as it comes")


def statistics(subject: Subject) -> Result:
    """Mean activations by role of tokens: the evidence pass on all items, and hooks on one item at a time."""
    places = subject.places
    data = subject.some(places)
    roles = {"all": 0xFF, "content": CONTENT, "answer": ROLE_BIT["answer"]}
    if subject.hears:
        roles["audio"] = AUDIO
    worst = 0.0
    for positions, bit in roles.items():
        wanted = frozenset().union(*(requests_of({MEAN}, site, positions) for site in subject.sites))
        ran = EvidencePass(subject.engine, data, subject.readout(), wanted, correct_only=False).run()
        for site in subject.sites:
            found = ran.evidence(site, positions)
            total = (found.mean * found.tokens[:, None, None]).sum(0)
            worst = max(worst, distance(total, _summed(subject, site, bit)))
    return Measured(worst, 10 * subject.tolerance, "sums of activations over tokens")


def _summed(subject: Subject, site: str, bit: int) -> np.ndarray:
    """Sum (layers, width) of activations over the tokens with a role, through the public forward."""
    shape = subject.model.shape
    total = torch.zeros(shape.layers, shape.width, dtype=torch.float64)
    for place in subject.places:
        marked = (subject.items.items[place].roles & bit).bool()
        with _watched(subject) as seen:
            public(subject, place)
        for layer in range(shape.layers):
            found = seen[site, layer][0]
            if isinstance(found, Routed):
                weights = marked.view(-1, 1, 1).to(found.values)
                total[layer] += found.summed(found.values * weights, 1)[0].double().cpu()
            else:
                total[layer] += found[0][marked.to(found.device)].double().sum(0).cpu()
    return total.numpy()


CHECKS = (
    Check(
        "sites", "Sites found and sized",
        "Every layer has its gates and neurons, as many as the config says, passed once in a forward pass.",
        "`layers`, `activation`, `down` and `width`", sites,
    ),
    Check(
        "gate", "Gates are gates",
        "A gate is an activation function's output, and scales its own neuron and no other.",
        "`activation` and `down`: in a layer with fused halves the gate is what goes through the activation",
        gate, ("sites",),
    ),
    Check(
        "wrapped", "Wrapping changes no answer",
        "The class gives the same logits as it does when transformers loads it alone.",
        "`load` and `__init__`: what they change in the network", wrapped,
    ),
    Check(
        "capture", "Capture changes nothing, bit for bit",
        "Reading every site leaves the logits as they were.",
        "the modules that `site_module` names", capture, ("sites",),
    ),
    Check(
        "noop", "No-op parity, bit for bit",
        "Edits that change nothing, and hooks that put back what they are given, leave the scores alone.",
        "the modules that `site_module` names: a hook must be able to replace what passes", noop,
        ("capture", "forward"),
    ),
    Check(
        "statistics", "What selectors see is what the class computes",
        "Mean activations by role of tokens equal those of the public forward, item by item.",
        "`prepare` (roles) and `site_module`", statistics,
        ("sites", "audio_forward", "padding", "cache"),
    ),
)  # fmt: skip
