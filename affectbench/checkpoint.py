"""Reading a checkpoint: a folder, or a hub id within reach."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from affectbench.errors import AffectbenchError, UntrustedCodeError

if TYPE_CHECKING:
    from affectbench.task import ModelCard


def load_checkpoint(
    card: ModelCard, source: str, network_class: str, *, device: str, dtype: torch.dtype
) -> tuple[Any, Any, Path | None]:
    """Network, tokenizer and, where `source` is one, the folder. `network_class` is a class of transformers.

    Where the card has a `device_map`, accelerate spreads the layers over devices, memory and disk. Raises
    `UntrustedCodeError` where the checkpoint's own code is needed and nobody agreed to run it, and
    `AffectbenchError` where transformers cannot read it.
    """
    import transformers

    check_consent(card, source)
    folder = Path(source) if Path(source).is_dir() else None
    try:
        # The format of mistral-common tells no offsets, and takes marks of sounds for plain text.
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **fetching(card), mistral_format=False)
        loader = getattr(transformers, network_class)
        network, report = loader.from_pretrained(
            source, dtype=dtype, output_loading_info=True, **fetching(card), **_spread(card)
        )
    except (OSError, ValueError) as error:
        hint = "give a folder with config, safetensors weights and tokenizer, or a hub id within reach"
        if "custom code" in str(error):
            hint = "its family has to load that code: write a card with `remote_code: true` (docs/models.md)"
        raise AffectbenchError(
            f"model {card.name!r} could not be loaded from {source}: {str(error).splitlines()[0]}", hint=hint
        ) from error
    if missing := sorted(report["missing_keys"]):
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise AffectbenchError(
            f"model {card.name!r}: {source} has no weights for {missing[0]}{others} of {network_class}",
            hint="they would be random: the checkpoint is of another class, or a part of it is missing",
        )
    return network if card.device_map else network.to(device), tokenizer, folder


def chat_template_of(source: str, revision: str | None) -> str | None:
    """The chat template that comes with a checkpoint's processor, read without building the processor, which
    may need packages for images. None where there is none. Raises `AffectbenchError` where it is broken."""
    from transformers import ProcessorMixin

    try:
        found = ProcessorMixin.get_processor_dict(source, revision=revision)[0].get("chat_template")
    except (OSError, ValueError) as error:
        raise AffectbenchError(
            f"the chat template of {source} could not be read: {str(error).splitlines()[0]}",
            hint="expected chat_template.jinja, or the key `chat_template` in chat_template.json",
        ) from error
    return found.get("default") if isinstance(found, dict) else found


def check_consent(card: ModelCard, source: str) -> None:
    """Raise `UntrustedCodeError` where a checkpoint brings code and the user did not agree to run it."""
    if card.remote_code and not card.trusted:
        where = source
        if card.on_hub:
            where = f"https://huggingface.co/{card.checkpoint}/tree/{card.revision or 'main'}"
        raise UntrustedCodeError(
            f"model {card.name} is loaded by Python code that comes with it, which can do all that you can",
            hint=f"read the *.py files in {where}; then add --trust-code",
        )


def fetching(card: ModelCard) -> dict[str, Any]:
    """What `from_pretrained` is told of where a checkpoint comes from. Without consent, transformers neither
    runs the checkpoint's code nor asks whether it may."""
    return {"revision": card.revision, "trust_remote_code": card.remote_code and card.trusted}


def weights_of(source: str, revision: str | None, prefix: str) -> dict[str, Any]:
    """The weights of a checkpoint whose names begin with `prefix`, by what follows it; other files are not
    read. Raises `AffectbenchError` where there are none."""
    import json

    from safetensors import safe_open
    from transformers.utils import cached_file

    def file(name: str) -> str | None:
        found: str | None = cached_file(
            source, name, revision=revision, _raise_exceptions_for_missing_entries=False
        )
        return found

    index, names = file("model.safetensors.index.json"), {"model.safetensors"}
    if index is not None:
        places = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"]
        names = {place for name, place in places.items() if name.startswith(prefix)}
    weights: dict[str, Any] = {}
    for path in filter(None, map(file, sorted(names))):
        with safe_open(path, framework="pt") as stored:
            weights |= {
                key.removeprefix(prefix): stored.get_tensor(key)
                for key in stored.keys()  # noqa: SIM118
                if key.startswith(prefix)
            }
    if not weights:
        raise AffectbenchError(
            f"{source} has no weights {prefix}*", hint="expected safetensors of the released checkpoint"
        )
    return weights


def _spread(card: ModelCard) -> dict[str, Any]:
    """What `from_pretrained` is told of devices."""
    if not card.device_map:
        return {}
    told: dict[str, Any] = {"device_map": card.device_map}
    if card.max_memory:
        told["max_memory"] = card.max_memory
    if card.offload_folder:
        told["offload_folder"] = str((card.path.parent if card.path else Path()) / card.offload_folder)
    return told


def running_device(module: Any) -> torch.device:
    """Where a module is computed. Accelerate may keep its weights elsewhere, and fetch them for a pass."""
    device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    if device is None:
        device = next(module.parameters()).device
    return torch.device(device)


def devices_of(network: Any) -> str:
    """The devices that a network's layers are spread over, by name, for people: ``cuda:0, cuda:1, disk``."""
    found = dict.fromkeys(getattr(network, "hf_device_map", {}).values())
    return ", ".join(f"cuda:{device}" if isinstance(device, int) else str(device) for device in found)
