"""Reading a checkpoint: a folder, or a hub id within reach."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from affectbench.errors import AffectbenchError

if TYPE_CHECKING:
    from affectbench.task import ModelCard


def load_checkpoint(
    card: ModelCard, source: str, network_class: str, *, device: str, dtype: torch.dtype
) -> tuple[Any, Any, Path | None]:
    """Network, tokenizer and, where `source` is one, the folder. `network_class` is a class of transformers.

    Raises `AffectbenchError` where transformers cannot read it.
    """
    import transformers

    folder = Path(source) if Path(source).is_dir() else None
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, revision=card.revision)
        loader = getattr(transformers, network_class)
        network = loader.from_pretrained(source, revision=card.revision, dtype=dtype)
    except (OSError, ValueError) as error:
        raise AffectbenchError(
            f"model {card.name!r} could not be loaded from {source}: {str(error).splitlines()[0]}",
            hint="give a folder with config, safetensors weights and tokenizer, or a hub id within reach",
        ) from error
    return network.to(device), tokenizer, folder
