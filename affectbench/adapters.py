"""LoRA adapters that come with a checkpoint and run for items with a sound alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectbench.batch import Batch
from affectbench.errors import AffectbenchError
from affectbench.intervention import AUDIO

if TYPE_CHECKING:
    from affectbench.task import ModelCard


def attach_adapter(network: Any, card: ModelCard, source: str, folder: str) -> bool:
    """Load the adapter in `folder` of a checkpoint, where there is one; returns whether there is.

    transformers itself loads one that lies beside the weights (``.``). Raises `AffectbenchError` where the
    package peft is missing: without its adapter, a model would hear badly and nobody would know why.
    """
    from transformers.utils import cached_file, is_peft_available

    found = cached_file(
        source, "adapter_config.json", subfolder="" if folder == "." else folder, revision=card.revision,
        _raise_exceptions_for_missing_entries=False,
    )  # fmt: skip
    if found is None:
        return False
    if not is_peft_available():
        raise AffectbenchError(
            f"model {card.name!r} has a LoRA adapter for sounds, which only the package peft can load",
            hint="pip install peft",
        )
    _refuse_renamed(card, Path(source))
    if not network._hf_peft_config_loaded:
        options = {"revision": card.revision, "subfolder": folder}
        network.load_adapter(source, adapter_name=folder, adapter_kwargs=options)
    return True


def _refuse_renamed(card: ModelCard, folder: Path) -> None:
    """transformers 5.23 saves weights under an adapter by names that it does not find again: it would fill
    them with random numbers, and report those of the adapter alone."""
    from safetensors import safe_open

    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, framework="pt") as stored:
            wrong = next((name for name in stored.keys() if ".base_layer." in name), None)  # noqa: SIM118
        if wrong is not None:
            raise AffectbenchError(
                f"model {card.name!r}: {path} was saved with its adapter attached: it has {wrong}",
                hint="save the model before its adapter is added, and the adapter beside it",
            )


def heard(batch: Batch, cache: Any) -> bool:
    """Whether the rows of a batch have a sound, or had one in the tokens that their cache began with.

    Raises `AffectbenchError` where some have and some have not: one pass runs with the adapter or without.
    """
    known: bool | None = getattr(cache, "heard", None)
    if known is not None:
        return known
    rows = (batch.roles & AUDIO).bool().any(-1)
    found = bool(rows.any())
    if found and not bool(rows.all()):
        raise AffectbenchError(
            "items with and without a sound cannot share a pass: the adapter runs for sounds alone",
            hint="give a benchmark either sounds or texts",
        )
    if cache is not None:
        cache.heard = found
    return found


def switch_adapter(network: Any, on: bool) -> None:
    """Let the adapter run, or the decoder alone."""
    if on:
        network.enable_adapters()
    else:
        network.disable_adapters()
