"""Sparse autoencoders of the residual stream: their arithmetic, and a plain file format.

    pre = h W_enc + b_enc;   z = act(pre);   h^ = z W_dec + b_dec;   error = h - h^

`act` is ReLU; JumpReLU, ``pre * 1[pre > theta]`` with a strict sign (Rajamanoharan et al., arXiv
2407.14435); or TopK, the ReLU of the k largest (Gao et al., arXiv 2406.04093). Whatever else a training
library does to its input (subtracting b_dec, dividing by a mean norm) is folded into these five tensors
where it is read (`sae_formats`), so that every SAE here is this arithmetic and nothing else.

A file holds one layer or many: safetensors ``layer.L.encoder`` (d, features), ``encoder_bias`` (features,),
``decoder`` (features, d), ``decoder_bias`` (d,), ``threshold`` (features,), and a JSON header in the
metadata.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from affectbench.errors import AffectbenchError

Activation = Literal["relu", "jumprelu", "topk"]
HOOK = "resid_post"
"""The only place that is read: the residual stream after a decoder layer."""
FORMAT = 1


class SAEError(AffectbenchError):
    """A sparse autoencoder cannot be read, or does not fit what it is to be used with."""


@dataclass(frozen=True)
class LayerSAE:
    """The SAE of one layer. `encoder` (d, features), `encoder_bias` (features,), `decoder` (features, d),
    `decoder_bias` (d,), `threshold` (features,): zeros for ReLU; all float32. With `k`, TopK.

    Raises `SAEError` where shapes disagree or a value is not finite.
    """

    encoder: Tensor
    encoder_bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor
    threshold: Tensor
    k: int | None = None

    def __post_init__(self) -> None:
        width, features = self.encoder.shape if self.encoder.dim() == 2 else (0, 0)
        expected = {
            "encoder": (width, features), "encoder_bias": (features,), "decoder": (features, width),
            "decoder_bias": (width,), "threshold": (features,),
        }  # fmt: skip
        for name, shape in expected.items():
            tensor: Tensor = getattr(self, name)
            if tuple(tensor.shape) != shape or not tensor.numel():
                raise SAEError(
                    f"{name} has shape {tuple(tensor.shape)}, expected {shape}",
                    hint="encoder (d, features), decoder (features, d), biases (features,) and (d,)",
                )
            if not bool(torch.isfinite(tensor).all()):
                raise SAEError(f"{name} has values that are not finite", hint="the file is damaged")
            object.__setattr__(self, name, tensor.detach().float())
        if self.k is not None and not 1 <= self.k <= features:
            raise SAEError(f"k is {self.k}", hint=f"1 to {features}, the number of features")
        # A unit below zero stays off whatever its threshold says: act is ReLU first.
        object.__setattr__(self, "threshold", self.threshold.clamp_min(0.0))

    @property
    def width(self) -> int:
        """d, the width of the residual stream."""
        return self.encoder.shape[0]

    @property
    def features(self) -> int:
        return self.encoder.shape[1]

    @property
    def activation(self) -> Activation:
        if self.k is not None:
            return "topk"
        return "jumprelu" if bool(self.threshold.any()) else "relu"

    def encode(self, h: Tensor, features: Tensor | None = None) -> Tensor:
        """Activations (..., features), float32, of residual vectors `h` (..., d); with `features`, of those
        at these places, which costs less."""
        if self.k is None:
            chosen = slice(None) if features is None else features
            pre = h.to(self.encoder) @ self.encoder[:, chosen] + self.encoder_bias[chosen]
            return pre * (pre > self.threshold[chosen])
        pre = h.to(self.encoder) @ self.encoder + self.encoder_bias
        values, places = pre.topk(self.k, dim=-1)
        found = torch.zeros_like(pre).scatter(-1, places, values.relu())
        return found if features is None else found[..., features]

    def decode(self, z: Tensor) -> Tensor:
        """Residual vectors (..., d), float32, that activations `z` (..., features) stand for."""
        return z.to(self.decoder) @ self.decoder + self.decoder_bias

    def error(self, h: Tensor) -> Tensor:
        """What of `h` (..., d) the SAE leaves out: h - h^."""
        return h.to(self.decoder) - self.decode(self.encode(h))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> LayerSAE:
        """The same SAE elsewhere; with `dtype`, its values are rounded to it (and kept in float32)."""
        moved = {each: getattr(self, each).to(dtype).float().to(device) for each in TENSORS}
        return replace(self, **moved)


TENSORS = tuple(field.name for field in fields(LayerSAE) if field.name != "k")


@dataclass(frozen=True)
class SAE:
    """The SAEs of several layers of one model; the features of a layer are numbered from 0 in each.

    `base` names the model that they were trained on, `digest` the weights (16 hex; of their content unless it
    is given). `facts` are plain data about training, kept with the file. `truth`: the features that were
    planted, as `planted` gives them; no part of the file.

    Raises `SAEError` where there is no layer, or layers differ in width or in the number of features.
    """

    by_layer: Mapping[int, LayerSAE]
    base: str = ""
    digest: str = ""
    facts: Mapping[str, Any] | None = None
    truth: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not self.by_layer:
            raise SAEError("an SAE without layers")
        shapes = {(each.width, each.features) for each in self.by_layer.values()}
        if len(shapes) != 1:
            raise SAEError(
                f"the layers differ in (width, features): {sorted(shapes)}",
                hint="units have one address, layer * features + feature: use layers of one size",
            )
        object.__setattr__(self, "by_layer", dict(sorted(self.by_layer.items())))
        if not self.digest:
            object.__setattr__(self, "digest", content_digest(self._tensors(torch.float32), self._kind))

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"the SAEs of {self.base or 'an unnamed model'}"

    def planted(self) -> Mapping[str, Any] | None:
        """The features known to carry each emotion, and their decoys; None where nothing was planted."""
        return self.truth

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(self.by_layer)

    @property
    def features(self) -> int:
        return next(iter(self.by_layer.values())).features

    @property
    def width(self) -> int:
        return next(iter(self.by_layer.values())).width

    @property
    def _kind(self) -> dict[str, Any]:
        """What the tensors alone do not say."""
        return {
            "hook": HOOK,
            "k": {str(layer): each.k for layer, each in self.by_layer.items() if each.k is not None},
        }

    def at(self, layer: int) -> LayerSAE:
        """The SAE of one layer. Raises `SAEError` where there is none."""
        if layer not in self.by_layer:
            known = ", ".join(map(str, self.layers))
            raise SAEError(f"there is no SAE for layer {layer}", hint=f"layers: {known}")
        return self.by_layer[layer]

    def to(self, device: torch.device | str) -> SAE:
        """The same SAEs on a device; the digest stays."""
        return replace(self, by_layer={layer: each.to(device) for layer, each in self.by_layer.items()})

    def _tensors(self, dtype: torch.dtype) -> dict[str, Tensor]:
        return {
            f"layer.{layer}.{name}": getattr(each, name).to("cpu", dtype).contiguous()
            for layer, each in self.by_layer.items()
            for name in TENSORS
        }

    def save(self, path: Path, dtype: torch.dtype = torch.float32) -> SAE:
        """Write all layers into one file, rounded to `dtype`; returns the SAE that `load` reads back."""
        from safetensors.torch import save

        from affectbench.store import write_atomically

        tensors = self._tensors(dtype)
        header = {
            "format": FORMAT, "layers": list(self.layers), "features": self.features, "width": self.width,
            "base": self.base, "facts": dict(self.facts or {}), **self._kind,
            "digest": content_digest(tensors, self._kind),
        }  # fmt: skip
        write_atomically(path, save(tensors, metadata={"sae": json.dumps(header, sort_keys=True)}))
        return load(path)


def content_digest(tensors: Mapping[str, Tensor], kind: Mapping[str, Any]) -> str:
    """sha256 (16 hex) of tensors, as they are stored, and of what they do not say themselves."""
    digest = hashlib.sha256(json.dumps(kind, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def load(path: Path) -> SAE:
    """Read a file of `SAE.save`. Raises `SAEError` where it is none, is damaged, or was edited."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stream:
            header = read_header(path, stream.metadata())
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise SAEError(f"{path}: not readable as safetensors: {error}") from error
    kind = {"hook": header["hook"], "k": header["k"]}
    if content_digest(tensors, kind) != header["digest"]:
        raise SAEError(f"{path}: the weights do not match the digest", hint="the file was damaged or edited")
    by_layer = {}
    for layer in header["layers"]:
        try:
            parts = {name: tensors[f"layer.{layer}.{name}"] for name in TENSORS}
            by_layer[layer] = LayerSAE(**parts, k=header["k"].get(str(layer)))
        except KeyError as error:
            raise SAEError(f"{path}: the tensor {error} is missing") from error
        except SAEError as error:
            raise SAEError(f"{path}: layer {layer}: {error.message}", hint=error.hint) from error
    return SAE(by_layer, header["base"], header["digest"], header["facts"])


def read_header(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """The JSON header of an SAE file. Raises `SAEError` where it is missing, or of another hook or format."""
    kinds = {"layers": list, "k": dict, "digest": str, "base": str, "facts": dict, "hook": str}
    try:
        header = json.loads((metadata or {})["sae"])
        sound = header["format"] == FORMAT and all(isinstance(header[key], of) for key, of in kinds.items())
    except (KeyError, TypeError, ValueError):
        header, sound = {}, False
    if not sound:
        raise SAEError(
            f"{path}: not an SAE file: its JSON header `sae` is missing or incomplete",
            hint=f"format {FORMAT}, layers, k, digest, base, facts, hook: `SAE.save` writes them",
        )
    check_hook(header["hook"], str(path))
    return dict(header)


def check_hook(hook: str, where: str) -> None:
    """Raises `SAEError` unless `hook` is the residual stream after a layer, in our words or SAELens's."""
    if hook != HOOK and not hook.endswith(f".hook_{HOOK}"):
        raise SAEError(
            f"{where}: it reads {hook!r}",
            hint=f"only SAEs of the residual stream after a layer are supported: {HOOK}, "
            f"blocks.L.hook_{HOOK}",
        )
