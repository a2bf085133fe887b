"""A card of sparse autoencoders: which model's residual stream, which layers, and where the weights are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from affectbench.errors import AffectbenchError
from affectbench.identity import digest_of, file_digest
from affectbench.task_file import TaskFile
from affectbench.task_parts import Count, Frozen, Text
from affectbench.yaml_loading import reject

LAYER = "{layer}"
Layer = Annotated[int, Field(strict=True, ge=0)]


class FolderSource(Frozen):
    """Weights in files, at `path` relative to the card, which may hold ``{layer}``.

    `format`: ``affectbench`` (one file, as `train-sae` writes it; needs no ``{layer}``), ``saelens`` (a
    folder with cfg.json and sae_weights.safetensors), ``gemma_scope`` (a folder with params.npz, or that
    file), ``llama_scope`` (a folder with hyperparams.json and checkpoints/final.safetensors). `paths` gives
    layers whose place does not follow from their number.
    """

    reader: Literal["files"]
    format: Literal["affectbench", "saelens", "gemma_scope", "llama_scope"]
    path: Text | None = None
    paths: dict[Annotated[str, Field(pattern=r"^\d+$")], Text] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_place(self) -> FolderSource:
        if (self.path is None) == (not self.paths):
            reject("", "give either `path` or `paths`")
        return self

    def place(self, layer: int) -> str:
        """Where the weights of a layer are, relative to the card."""
        return self.paths[str(layer)] if self.path is None else self.path.replace(LAYER, str(layer))


class ReleaseSource(Frozen):
    """A release that SAELens knows, read through the package sae-lens (the extra `sae`), which fetches it
    from the hub. `id` names the SAE of a layer in it, with ``{layer}`` for its number."""

    reader: Literal["release"]
    release: Text
    id: Text


class SaeCard(TaskFile):
    """Sparse autoencoders of one model, of one width, at some or all of its layers.

    `base` names the checkpoint that they were trained on (those of a base model are used with its instructed
    sibling too). `hook`: the residual stream after a layer; no other place is read. `width`: of the residual
    stream; `features`: of each layer. `planted`: a JSON file beside the card that says which features were
    built in, as for models.
    """

    digest_without: ClassVar[frozenset[str]] = frozenset({"facts", "gated"})

    kind: Literal["sae"]
    base: Text
    hook: Literal["resid_post"]
    layers: Annotated[tuple[Layer, ...], Field(min_length=1)]
    width: Count
    features: Count
    activation: Literal["relu", "jumprelu", "topk"]
    source: Annotated[FolderSource | ReleaseSource, Field(discriminator="reader")]
    licence: Text
    gated: bool = False
    citation: str = ""
    facts: str = ""
    planted: Text | None = None

    @model_validator(mode="after")
    def _layers_have_places(self) -> SaeCard:
        if sorted(set(self.layers)) != list(self.layers):
            reject("layers", "list every layer once, ascending")
        source = self.source
        if (
            isinstance(source, FolderSource)
            and source.paths
            and set(source.paths) != {str(layer) for layer in self.layers}
        ):
            reject(("source", "paths"), f"expected one path for each of the layers {list(self.layers)}")
        template = source.id if isinstance(source, ReleaseSource) else source.path or LAYER
        alone = isinstance(source, FolderSource) and source.format == "affectbench"
        if LAYER not in template and len(self.layers) > 1 and not alone:
            reject("source", f"the layers need a place each: write {LAYER} where the layer's number stands")
        return self

    @property
    def beside(self) -> Path:
        """The folder that relative paths start from."""
        return self.path.parent if self.path is not None else Path()

    @property
    def places(self) -> dict[int, Path]:
        """The file or folder of each layer; empty for a release."""
        if isinstance(self.source, ReleaseSource):
            return {}
        return {
            layer: Path(os.path.normpath(self.beside / self.source.place(layer))) for layer in self.layers
        }

    @property
    def truth(self) -> dict[str, Any] | None:
        """What the file `planted` says, if the card names one. Raises `AffectbenchError` if it is missing."""
        if self.planted is None:
            return None
        path = self.beside / self.planted
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise AffectbenchError(
                f"SAE {self.name}: `planted` names {path}, which cannot be read: {error}",
                hint="rebuild it, or take the key out of the card",
            ) from error

    @property
    def weights_digest(self) -> str:
        """Hash (16 hex) of what the card says and of the weights' bytes, without loading them.

        The hub's files of a release are not hashed: the card's words stand for them. A missing file counts
        as missing; loading says so.
        """
        files = sorted(
            file
            for place in set(self.places.values())
            for file in ([place] if place.is_file() else place.rglob("*"))
            if file.suffix in (".safetensors", ".npz", ".json") and file.is_file()
        )
        if self.planted is not None and (self.beside / self.planted).is_file():
            files.append(self.beside / self.planted)
        parts = [part for file in files for part in (file.name, file_digest(file))]
        return digest_of([self.digest, *parts])
