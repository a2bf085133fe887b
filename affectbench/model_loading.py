"""A model card's checkpoint, loaded through its family; and the hash of its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from affectbench.errors import AffectbenchError
from affectbench.identity import checkpoint_digest, digest_of
from affectbench.model_card import ModelCard
from affectbench.registry import Registry

if TYPE_CHECKING:
    from affectbench.model import Model


def weights_digest(card: ModelCard, folder: str) -> str:
    """Hash of a card's checkpoint in `folder`, of the adapter that is merged into it, and of what makes
    it a control."""
    weights = checkpoint_digest(Path(folder))
    if card.control:
        weights = digest_of([weights, card.control])
    if card.adapter_folder is None:
        return weights
    from affectbench.stored_weights import adapter_digest

    return digest_of([weights, adapter_digest(card.adapter_folder)])


def load_from(registry: Registry, card: ModelCard, source: str, device: str) -> Model:
    """Load the checkpoint at `source` through the card's family, with the card's adapter merged into it and
    its weights shuffled or drawn anew where it says so.

    Raises `AffectbenchError` where it cannot, whatever the family raises: damaged weights, a tokenizer that
    is missing, a device that is full.
    """
    import torch
    from transformers.utils import logging

    from affectbench.control_weights import control_weights

    logging.disable_progress_bar()
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise AffectbenchError(f"device {device!r}: this machine has no usable GPU", hint="use --device cpu")
    family = cast("type[Model]", registry.family(card.family))
    try:
        model = family.load(card, source, device=device, dtype=getattr(torch, card.dtype))
        # Without its file, transformers makes a tokenizer that knows no words.
        if not (model.tokenizer.is_fast and model.tokenizer("the")["input_ids"]):
            raise FileNotFoundError("no tokenizer.json, or one that turns text into nothing")
        if card.adapter_folder is not None:
            from affectbench.module_edit import merge_adapter

            merge_adapter(model, card.adapter_folder)
        control_weights(model.network, card)
        return model
    except AffectbenchError:
        raise
    except (
        Exception
    ) as error:  # Loaders raise all kinds for a bad file; each becomes one error with its cause.
        problem = (str(error).strip() or "no message").splitlines()[0]
        raise AffectbenchError(
            f"model {card.name!r} could not be loaded from {source} onto {device}: "
            f"{type(error).__name__}: {problem}",
            hint="check the checkpoint's files and --device",
        ) from error
