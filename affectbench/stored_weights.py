"""Weights in files: a checkpoint's safetensors read tensor by tensor, and a PEFT LoRA adapter's factors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectbench.errors import AffectbenchError
from affectbench.identity import digest_of, file_digest

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FACTORS = (".lora_A.weight", ".lora_B.weight")
BLOCK = 1 << 24
"""Numbers read at a time of a tensor that is read in rows."""


class StoredWeights:
    """The tensors of a checkpoint folder, one file or sharded. Only what is asked for is read.

    Raises `AffectbenchError` for a folder without readable safetensors.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.folder = folder
        self._files: dict[str, Any] = {}
        paths = sorted(folder.glob("model*.safetensors"))
        if not paths:
            raise AffectbenchError(
                f"{folder} has no model*.safetensors", hint="give the folder of a checkpoint in safetensors"
            )
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path in paths:
            try:
                file: Any = safe_open(path, framework="pt")
                for name in file.keys():  # noqa: SIM118
                    self.shapes[name] = tuple(file.get_slice(name).get_shape())
                    self._files[name] = file
            except (SafetensorError, OSError) as error:
                raise AffectbenchError(
                    f"{path} cannot be read: {error}", hint="fetch the file again"
                ) from error
        _check_complete(folder, self.shapes)

    def read(self, name: str) -> Tensor:
        """One tensor, whole."""
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor

    def blocks(self, name: str) -> Iterator[Tensor]:
        """One tensor, so many rows at a time that a block has at most 2^24 numbers, or one row."""
        shape = self.shapes[name]
        if len(shape) < 2:
            yield self.read(name)
            return
        rows = max(1, BLOCK // max(1, _product(shape[1:])))
        for start in range(0, shape[0], rows):
            yield self._files[name].get_slice(name)[start : start + rows]

    def config(self) -> Any:
        """The decoder's part of the checkpoint's configuration. No code of the checkpoint is run."""
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(self.folder).get_text_config()
        except (OSError, ValueError) as error:
            raise AffectbenchError(
                f"the configuration of {self.folder} could not be read: {str(error).splitlines()[0]}",
                hint="give a folder with the config.json of a class of transformers",
            ) from error


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def _check_complete(folder: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise where the index of a sharded checkpoint names tensors that no file holds."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    named = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {})
    missing = sorted(set(named) - set(shapes))
    if missing:
        raise AffectbenchError(
            f"{folder}: {missing[0]} is missing; {index.name} says it is in {named[missing[0]]}",
            hint="a file of the sharded checkpoint is missing: fetch it",
        )


@dataclass(frozen=True)
class LowRank:
    """The factors of one module's change, ``scaling * b @ a``: a (r, inputs), b (outputs, r). `transposed`:
    the module keeps its weight as (inputs, outputs), as GPT-2's do."""

    a: Tensor
    b: Tensor
    scaling: float
    transposed: bool = False

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])

    def product(self) -> Tensor:
        """The change of the weight as its module keeps it, in float32."""
        change = self.scaling * (self.b.float() @ self.a.float())
        return change.T if self.transposed else change


@dataclass(frozen=True)
class LoraAdapter:
    """A PEFT LoRA: factors by the name of the module that each changes."""

    folder: Path
    factors: dict[str, LowRank] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> LoraAdapter:
        """Read `adapter_config.json` and `adapter_model.safetensors` of a folder.

        Raises `AffectbenchError` for files that are missing or damaged, and for kinds of adapter whose change
        is not ``(alpha / r) B A``.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        config = _adapter_config(folder)
        try:
            stored = load_file(folder / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise AffectbenchError(
                f"the adapter {folder / WEIGHTS} cannot be read: {error}",
                hint="give a folder as PEFT's save_pretrained writes it",
            ) from error
        factors: dict[str, LowRank] = {}
        for name, tensor in stored.items():
            if not name.endswith(FACTORS):
                raise AffectbenchError(
                    f"the adapter {folder} holds {name}, which is no factor of a LoRA",
                    hint="merge it into its model, and name that as `checkpoint` with the old one as `base`",
                )
            if name.endswith(FACTORS[1]):
                continue
            module = name.removesuffix(FACTORS[0])
            b = stored.get(module + FACTORS[1])
            if b is None:
                raise AffectbenchError(f"the adapter {folder} has {name} without its lora_B")
            module = module.removeprefix("base_model.model.")
            factors[module] = LowRank(tensor, b, _scaling(config, module, int(tensor.shape[0])))
        if not factors:
            raise AffectbenchError(
                f"the adapter {folder} changes nothing", hint="it holds no lora_A and lora_B"
            )
        return cls(folder, factors)

    @property
    def digest(self) -> str:
        """Hash of its two files, 16 hex."""
        return adapter_digest(self.folder)


def adapter_digest(folder: Path) -> str:
    """Hash of an adapter's files, 16 hex; raises `AffectbenchError` where one is missing."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise AffectbenchError(
                f"the adapter {folder} has no {name}",
                hint="give a folder as PEFT's save_pretrained writes it",
            )
    return digest_of(file_digest(folder / name) for name in (CONFIG, WEIGHTS))


def _adapter_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AffectbenchError(
            f"the adapter's {path} cannot be read: {error}",
            hint="give a folder as PEFT's save_pretrained writes it",
        ) from error
    if config.get("peft_type") != "LORA":
        raise AffectbenchError(f"{path}: peft_type is {config.get('peft_type')!r}", hint="expected LORA")
    for key in ("use_dora", "modules_to_save", "target_parameters"):
        if config.get(key):
            raise AffectbenchError(
                f"{path}: {key} is set, so its change is more than (alpha / r) B A",
                hint="merge it into its model, and name that as `checkpoint` with the old one as `base`",
            )
    return config


def _scaling(config: dict[str, Any], module: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r) with `use_rslora`; alpha may differ from module to module."""
    alpha = float(config["lora_alpha"])
    for key, own in (config.get("alpha_pattern") or {}).items():
        if module == key or module.endswith(f".{key}"):
            alpha = float(own)
    return float(alpha / rank**0.5) if config.get("use_rslora") else alpha / rank
