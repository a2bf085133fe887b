"""A card that is a pair, loaded: base and adaptation, either in the network, or both sides as files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from affectbench.adaptation import Side
from affectbench.errors import AffectbenchError
from affectbench.hub import snapshot
from affectbench.identity import digest_of
from affectbench.model import Model
from affectbench.model_card import ModelCard
from affectbench.model_loading import load_from, weights_digest
from affectbench.module_edit import Adapted, FileWeights, FullWeights, LoraWeights, Pair
from affectbench.module_pairs import Changes, changes_between, changes_of_adapter, check_shapes
from affectbench.module_site import AdaptedModules
from affectbench.module_types import modules_of
from affectbench.plan import checkpoint_of
from affectbench.registry import Registry
from affectbench.stored_weights import LoraAdapter, StoredWeights


def base_card(registry: Registry, card: ModelCard) -> ModelCard:
    """The card of a pair's base: that of `base`, or the same checkpoint without its adapter.

    Raises `AffectbenchError` for a card that is no pair, and for a base of another family.
    """
    if card.adapter is not None:
        return card.model_copy(update={"adapter": None})
    if card.base is None:
        raise AffectbenchError(
            f"model {card.name} is no pair: its card names neither `base` nor `adapter`",
            hint="add `base: NAME_OR_FOLDER` for a full checkpoint, or `adapter: FOLDER` for a LoRA",
        )
    if card.base_folder is not None:
        folder = str(card.base_folder.resolve())
        return card.model_copy(update={"checkpoint": folder, "base": None, "revision": None})
    found = registry.model(card.base)
    if found.family != card.family:
        raise AffectbenchError(
            f"model {card.name} is of family {card.family}, its base {found.name} of {found.family}",
            hint="a pair is one architecture, before and after",
        )
    return found


def load_pair(registry: Registry, card: ModelCard, device: str = "cpu") -> Pair:
    """The pair of a card: the base network in memory, and the weights that differ after the adaptation.

    Raises `AffectbenchError` where one side cannot be loaded or the two do not fit together.
    """
    before = base_card(registry, card)
    model = load_from(registry, before, checkpoint_of(before), device)
    model.card = card
    if card.adapter_folder is not None:
        return Pair(model, LoraWeights.of(LoraAdapter.read(card.adapter_folder), model))
    stored = _in_files(before, card, model, None)
    if stored is not None:
        return Pair(model, stored)
    after = load_from(registry, card, checkpoint_of(card), device)
    old, new = (dict(each.network.named_parameters()) for each in (model, after))
    check_shapes(
        {name: value.shape for name, value in old.items()},
        {name: value.shape for name, value in new.items()},
        before.name,
        card.name,
    )
    changed = {name: value.detach() for name, value in new.items() if not bool((value == old[name]).all())}
    adapted: Adapted = FullWeights(changed, _side_digest(card))
    return Pair(model, adapted)


def attach_adaptation(registry: Registry, card: ModelCard, model: Model, device: str = "cpu") -> None:
    """Make what an adaptation changed the site `module` of the loaded `model`: the adapted model of a pair,
    or the base that `adapted` says it is.

    The other side's weights are read from its files whenever they are needed. Where files do not hold them as
    a network does (other names, fused experts, no safetensors), the other side is loaded, and of its weights
    those that differ stay. Raises `AffectbenchError` for a card that is neither, and where the sides do not
    fit together.
    """
    other = other_side(registry, card)
    side: Side = "adapted" if card.adapted is None else "base"
    folder = (card if side == "adapted" else other).adapter_folder
    lora = None if folder is None else LoraWeights.of(LoraAdapter.read(folder), model)
    ranks = {} if lora is None else {name: factors.rank for name, factors in lora.factors.items()}
    known: Adapted | None
    if lora is not None and side == "base":
        known = replace(lora, digest=_side_digest(other))
    else:
        known = _in_files(card, other, model, lora)
    if known is not None:
        model.adaptation = AdaptedModules(model, modules_of(model), known, side, ranks)
        return
    there = load_from(registry, other, checkpoint_of(other), device)
    model.adaptation = AdaptedModules.between(there, model, _side_digest(other), side, ranks)


def _in_files(card: ModelCard, other: ModelCard, model: Model, lora: LoraWeights | None) -> Adapted | None:
    """What differs on the other side, in its files; None where these do not hold it as the network would.

    Which tensor is which parameter is not taken from names alone: `model`, loaded from `card`, has to hold
    what its own files do, with the LoRA merged into it where there is one.
    """
    if card.control or other.control:
        return None
    try:
        own, there = StoredWeights(weights_folder(card)), StoredWeights(weights_folder(other))
    except AffectbenchError:
        return None
    tensors = {}
    for name, parameter in model.network.named_parameters():
        weight, parts = parameter.detach(), name.split(".")
        ends = (".".join(parts[place:]) for place in range(len(parts)))
        tensor = next((each for each in ends if own.shapes.get(each) == tuple(weight.shape)), None)
        if tensor is None or there.shapes.get(tensor) != own.shapes[tensor]:
            return None
        held = own.read(tensor).to(weight)
        if lora is not None and name in lora.factors:
            held = lora.read(name, held)
        if not torch.equal(held, weight):
            return None
        if not torch.equal(there.read(tensor).to(weight), weight):
            tensors[name] = tensor
    return FileWeights(there, tensors, _side_digest(other))


def other_side(registry: Registry, card: ModelCard) -> ModelCard:
    """The card of the base of a pair; of the adapted model, where the card is that of a base.

    Raises `AffectbenchError` for a card that is neither, and for a pair that has another base.
    """
    if card.adapted is None:
        return base_card(registry, card)
    pair = registry.model(card.adapted)
    before = base_card(registry, pair)
    if checkpoint_of(before) != checkpoint_of(card) and _side_digest(before) != _side_digest(card):
        raise AffectbenchError(
            f"model {card.name} is not what {pair.name} was adapted from",
            hint=f"`adapted` names a pair whose base has the same weights; it has {before.name}",
        )
    return pair


def pair_digest(registry: Registry, card: ModelCard, read_weights: bool = True) -> str:
    """Hash of the other side of a pair. Raises `AffectbenchError` for a card that is of none."""
    other = other_side(registry, card)
    return _side_digest(other) if read_weights else other.loaded_from


def _side_digest(card: ModelCard) -> str:
    source = checkpoint_of(card)
    local = Path(source).is_dir()
    return weights_digest(card, source) if local else digest_of([source, card.revision or ""])


def changes_of_card(registry: Registry, card: ModelCard) -> Changes:
    """What the adaptation of a pair changed, read from its files: no network is built."""
    base = weights_folder(base_card(registry, card))
    if card.adapter_folder is not None:
        return changes_of_adapter(base, card.adapter_folder)
    return changes_between(base, weights_folder(card))


def weights_folder(card: ModelCard) -> Path:
    """Where a card's checkpoint lies on this machine. Raises `AffectbenchError` where it does not."""
    folder = card.folder or (snapshot(card.checkpoint, card.revision) if card.on_hub else None)
    if folder is None:
        raise AffectbenchError(
            f"model {card.name}: there is no {card.checkpoint} on this machine",
            hint="download it first: huggingface-cli download",
        )
    return folder
