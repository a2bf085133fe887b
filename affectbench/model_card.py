"""A model card: which checkpoint, of which family, and what a person must know before running it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from affectbench.task_file import Modality, TaskFile
from affectbench.task_parts import Count, Frozen, Name, Seed, Text
from affectbench.yaml_loading import reject

Placing = Literal["auto", "balanced", "balanced_low_0", "sequential"]
COMMIT = re.compile(r"[0-9a-f]{40}")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Sizes(Frozen):
    """`parameters` that are loaded, decoder `layers`, `hidden` and `intermediate` (MLP) width of a layer.

    What no source tells is left out.
    """

    parameters: Count | None = None
    layers: Count | None = None
    hidden: Count | None = None
    intermediate: Count | None = None


class ModelCard(TaskFile):
    """One checkpoint of a known family.

    `checkpoint` is a folder relative to the card, or a hub id. `revision` is the commit of the hub that is
    loaded; a branch, or none, is not pinned: what it stands for is looked up at each run. `instrument` marks
    a calibration model that is no evidence about real models; `instrument_note` says so to readers. For a
    model that is larger than one device, `device_map` (accelerate's: `auto`, or a device for each part)
    spreads its layers, within `max_memory` of each device, and over `offload_folder` (relative to the card)
    for those on `disk`. `architecture`: the class of transformers, where the family reads several; its tiny
    instance is checked. `dictionary`: the SAE card whose features are this model's units at the site
    `feature`. `adapter`: the folder (relative to the card) of a PEFT LoRA that is merged into the
    checkpoint. `base`: the card, or the folder, of the model that the checkpoint was adapted from. With one
    of the two, the card is a pair: `modules` compares both sides. `adapted`: the card of a pair whose base is
    this checkpoint; what was adapted there can be put into this model, module by module. `shuffled`: a
    control; the entries of each weight are permuted by this seed after loading, so that sizes and statistics
    are all that is left. `untrained`: another; all weights are drawn anew by this seed, by the rule of the
    network's class.

    For people and for `list models`: `gated` checkpoints are given to accounts that accepted a licence (of
    the checkpoint that it names, where that is another); `requires` names further packages, with versions
    where they matter; `sizes`; `chat_template` says what is particular about prompts, and `facts` where all
    this was found. `remote_code`: the checkpoint has code of its own, run only where the user agrees.
    """

    digest_without: ClassVar[frozenset[str]] = frozenset(
        {
            *("dictionary", "gated", "requires", "sizes", "chat_template", "facts", "remote_code"),
            *("architecture", "base", "adapted"),
        }
    )
    later = frozenset({"base", "adapter", "shuffled", "untrained"})

    kind: Literal["model"]
    family: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    checkpoint: Text
    architecture: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")] | None = None
    revision: Text | None = None
    modality: Modality
    licence: Text
    citation: str = ""
    gated: bool | Text = False
    remote_code: bool = False
    requires: tuple[Text, ...] = ()
    sizes: Sizes = Sizes()
    chat_template: str = ""
    facts: str = ""
    instrument: bool = False
    instrument_note: str = ""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    planted: Text | None = None
    default_task: Name | None = None
    dictionary: Name | None = None
    device_map: Placing | dict[str, str | int] | None = None
    max_memory: dict[str | int, str] = Field(default_factory=dict)
    offload_folder: Text | None = None
    base: Text | None = None
    adapter: Text | None = None
    adapted: Name | None = None
    shuffled: Seed | None = None
    untrained: Seed | None = None

    _trusted: bool = PrivateAttr(default=False)

    @model_validator(mode="after")
    def _note(self) -> ModelCard:
        if self.instrument and not self.instrument_note:
            reject("instrument_note", "missing: an instrument must say what was built into it")
        if self.base is not None and self.adapter is not None:
            reject("base", "a card with an `adapter` has its `checkpoint` as base: leave one of them out")
        if self.shuffled is not None and self.untrained is not None:
            reject("untrained", "weights are `shuffled` or `untrained`: leave one of them out")
        if self.adapted is not None and self.is_pair:
            reject("adapted", "a card with `base` or `adapter` is the adapted side itself")
        if self.control and (self.planted is not None or self.device_map is not None):
            key = self.control.split()[0]
            reject(key, f"{key} weights hold no `planted` units, and lie on one device: no `device_map`")
        return self

    @property
    def is_pair(self) -> bool:
        """Whether the card names both what is loaded and what that was adapted from."""
        return self.base is not None or self.adapter is not None

    @property
    def control(self) -> str:
        """What was done to its weights, so that nothing is left of what was learned; nothing: it is no
        control."""
        done = {"shuffled": self.shuffled, "untrained": self.untrained}
        return next((f"{name} {seed}" for name, seed in done.items() if seed is not None), "")

    @property
    def folder(self) -> Path | None:
        """The local folder of the checkpoint; None for a hub id."""
        folder = self._beside(self.checkpoint)
        return folder if folder.is_dir() else None

    def _beside(self, name: str) -> Path:
        """A path that is relative to the card."""
        return (self.path.parent if self.path is not None else Path()) / name

    @property
    def loaded_from(self) -> str:
        """What is loaded where no file of it may be read: the source, its commit, what is done to it."""
        return " ".join([f"{self.folder or self.checkpoint} {self.revision}", self.control]).strip()

    @property
    def adapter_folder(self) -> Path | None:
        """Where the LoRA lies that is merged into the checkpoint; None without one."""
        return None if self.adapter is None else self._beside(self.adapter)

    @property
    def base_folder(self) -> Path | None:
        """The folder that `base` names; None where it names a card, or nothing."""
        folder = None if self.base is None else self._beside(self.base)
        return folder if folder is not None and folder.is_dir() else None

    @property
    def on_hub(self) -> bool:
        """Whether `checkpoint` is a hub id: no folder, and not meant as one."""
        local = self.checkpoint.startswith((".", "/", "reference/"))
        return self.folder is None and not local

    @property
    def pinned(self) -> bool:
        """Whether the card alone says which weights these are."""
        return not self.on_hub or COMMIT.fullmatch(self.revision or "") is not None

    @property
    def weight_bytes(self) -> int | None:
        """Bytes of the weights as they are loaded; None where `sizes` does not tell."""
        return self.sizes.parameters and self.sizes.parameters * BYTES[self.dtype]

    @property
    def trusted(self) -> bool:
        """Whether the user agreed to run the checkpoint's own code. No file can say so."""
        return self._trusted

    def trust(self) -> Self:
        """This card with the user's consent to run the code that comes with its checkpoint."""
        card = self.model_copy()
        card._trusted = True
        return card
