"""Sparse autoencoders of others: SAELens folders and releases, files of Gemma Scope and Llama Scope.

What these do to their input is folded into the weights, so that all of them are the one arithmetic of `sae`:

- ``apply_b_dec_to_input`` (SAELens; its default): ``(h - b_dec) W_enc + b_enc``: b_enc becomes b_enc -
  b_dec W_enc.
- a mean norm of the activations ("expected_average_only_in"; Llama Scope's
  ``dataset_average_activation_norm``): the SAE sees s h and gives s h^: W_enc becomes s W_enc, W_dec and
  b_dec are divided by s.
- ``rescale_acts_by_decoder_norm`` (TopK): the k largest are chosen by z times the norm of their decoder row.

Normalisation that depends on the token (layer norm, a norm of its own) is refused: a feature would then
have no one direction that it writes. So are gated SAEs and those of other hooks.

Sources: the loaders of SAELens 6.54 (github.com/decoderesearch/SAELens), for Llama Scope too, whose scalar
threshold they read as one of the activations before normalisation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affectbench.sae import SAE, LayerSAE, SAEError, check_hook, load
from affectbench.sae_card import FolderSource, ReleaseSource, SaeCard

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"
Parts = Mapping[str, Tensor]


def load_card(card: SaeCard, device: torch.device | str = "cpu") -> SAE:
    """The SAEs of a card. Raises `SAEError` where weights are missing, or are not what the card says."""
    source = card.source
    try:
        if isinstance(source, FolderSource) and source.format == "affectbench":
            found = _own(card)
        else:
            found = SAE({layer: _layer(card, layer) for layer in card.layers}, card.base)
    except SAEError as error:
        raise SAEError(f"SAE {card.name}: {error.message}", hint=error.hint) from error
    first = found.at(card.layers[0])
    said = (card.width, card.features, card.activation)
    if (first.width, first.features, first.activation) != said:
        raise SAEError(
            f"SAE {card.name}: its weights have width {first.width}, {first.features} features and "
            f"activation {first.activation}; its card says {', '.join(map(str, said))}",
            hint="correct the card, or give it the weights that it speaks of",
        )
    return SAE(found.by_layer, card.base, card.weights_digest, found.facts, card.truth).to(device)


def _own(card: SaeCard) -> SAE:
    parts = [load(_there(path)) for path in dict.fromkeys(card.places.values())]
    by_layer = {layer: each for part in parts for layer, each in part.by_layer.items()}
    missing = sorted(set(card.layers) - set(by_layer))
    if missing:
        raise SAEError(f"its file has no SAE for layer {missing[0]}", hint=f"it has: {sorted(by_layer)}")
    return SAE({layer: by_layer[layer] for layer in card.layers}, facts=parts[0].facts)


def _layer(card: SaeCard, layer: int) -> LayerSAE:
    if isinstance(card.source, ReleaseSource):
        return of_release(card.source.release, card.source.id.replace("{layer}", str(layer)))
    readers = {"saelens": of_saelens, "gemma_scope": of_gemma_scope, "llama_scope": of_llama_scope}
    return readers[card.source.format](card.places[layer])


def _there(path: Path) -> Path:
    if not path.exists():
        raise SAEError(f"there is no {path}", hint="fetch the weights, or correct the card's `source`")
    return path


def of_saelens(folder: Path) -> LayerSAE:
    """The SAE in a folder that SAELens saved (`SAE.save_model`), of version 6 or before."""
    config = _json(folder / CONFIG)
    return of_parts(_safetensors(folder / WEIGHTS), config, str(folder))


def of_parts(weights: Parts, config: Mapping[str, Any], where: str) -> LayerSAE:
    """SAELens's weights and configuration as one `LayerSAE`; `where` names them in errors."""
    kind, k = _architecture(config, where)
    check_hook(_hook(config), where)
    _check_scaling(weights, where)
    parts = {name: _part(weights, name, where) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    normalised = config.get("normalize_activations")
    if normalised not in (None, False, "none"):
        raise SAEError(
            f"{where}: its input is normalised ({normalised}), and the files do not say by what number"
            if normalised in (True, "expected_average_only_in")
            else f"{where}: its input is normalised token by token ({normalised})",
            hint="fold the factor in with SAELens (fold_activation_norm_scaling_factor) and save it again, "
            "or read its release, which knows the factor",
        )
    threshold = _part(weights, "threshold", where) if kind == "jumprelu" else torch.zeros_like(parts["b_enc"])
    if config.get("rescale_acts_by_decoder_norm"):
        norms = parts["W_dec"].norm(dim=-1)
        if not bool((norms > 0).all()):
            raise SAEError(f"{where}: a row of W_dec is zero, and activations are rescaled by its norm")
        parts = _rescaled(parts, norms)
    bias = parts["b_enc"]
    if config.get("apply_b_dec_to_input", True):  # SAELens's default, where a file does not say.
        bias = bias - parts["b_dec"] @ parts["W_enc"]
    return LayerSAE(parts["W_enc"], bias, parts["W_dec"], parts["b_dec"], threshold, k)


def of_gemma_scope(place: Path) -> LayerSAE:
    """The SAE in Gemma Scope's ``params.npz`` (W_enc, b_enc, W_dec, b_dec, threshold), or in the folder that
    holds it. b_dec is not subtracted from the input."""
    path = place / "params.npz" if place.is_dir() else place
    try:
        with np.load(_there(path), allow_pickle=False) as arrays:
            weights = {
                ("W" + name[1:] if name.startswith("w_") else name): torch.from_numpy(np.array(arrays[name]))
                for name in arrays.files
            }
    except (OSError, ValueError) as error:
        raise SAEError(f"{path}: not readable as npz without pickle: {error}") from error
    config = {"architecture": "jumprelu", "apply_b_dec_to_input": False, "hook_name": "resid_post"}
    return of_parts(weights, config, str(path))


def of_llama_scope(folder: Path) -> LayerSAE:
    """The SAE in a folder of Llama Scope: ``hyperparams.json`` and ``checkpoints/final.safetensors``, whose
    input is scaled to a mean norm of sqrt(d). Its threshold is one number."""
    facts = _json(folder / "hyperparams.json")
    weights = _safetensors(folder / "checkpoints" / "final.safetensors")
    where = str(folder)
    try:
        scale = facts["d_model"] ** 0.5 / facts["dataset_average_activation_norm"]["in"]
        threshold, hook = float(facts["jump_relu_threshold"]), str(facts["hook_point_in"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise SAEError(
            f"{where}: hyperparams.json: missing or wrong: {error}",
            hint="d_model, dataset_average_activation_norm.in, jump_relu_threshold, hook_point_in",
        ) from error
    if facts.get("apply_decoder_bias_to_pre_encoder"):
        raise SAEError(
            f"{where}: the decoder's bias is applied to the input", hint="no such SAE was released"
        )
    check_hook(hook, where)
    names = {
        "W_enc": "encoder.weight",
        "W_dec": "decoder.weight",
        "b_enc": "encoder.bias",
        "b_dec": "decoder.bias",
    }
    found = {ours: _part(weights, theirs, where) for ours, theirs in names.items()}
    encoder, decoder = found["W_enc"].T, found["W_dec"].T
    return normalised_by(
        scale, encoder, found["b_enc"], decoder, found["b_dec"],
        torch.full_like(found["b_enc"], threshold * scale),
    )  # fmt: skip


def normalised_by(
    scale: float, encoder: Tensor, encoder_bias: Tensor, decoder: Tensor, decoder_bias: Tensor,
    threshold: Tensor, k: int | None = None,
) -> LayerSAE:  # fmt: skip
    """An SAE of `scale` times the residual stream, as one of the stream itself; activations stay."""
    return LayerSAE(encoder * scale, encoder_bias, decoder / scale, decoder_bias / scale, threshold, k)


def of_release(release: str, identifier: str) -> LayerSAE:
    """One SAE of a release that SAELens knows; it is fetched from the hub where it is not cached.

    Raises `SAEError` where sae-lens is not installed, knows no such SAE, or cannot reach the hub.
    """
    try:
        import sae_lens
    except ImportError as error:
        raise SAEError(
            f"release {release} is read with the package sae-lens, which cannot be imported: {error}",
            hint="pip install -c constraints.txt 'affectbench[sae]', or point a card at downloaded files",
        ) from error
    where = f"{release}, {identifier}"
    try:
        found = sae_lens.SAE.from_pretrained(release=release, sae_id=identifier, device="cpu")
    except Exception as error:  # Whatever the hub's client and SAELens make of names and connections.
        raise SAEError(
            f"{where}: {(str(error) or type(error).__name__).splitlines()[0]}",
            hint="check the card's `release` and `id`, the licence of the weights, and the connection",
        ) from error
    return of_parts(dict(found.state_dict()), found.cfg.to_dict(), where)


def _architecture(config: Mapping[str, Any], where: str) -> tuple[str, int | None]:
    """The activation function and, of TopK, k; SAELens 5 and before say TopK in another way."""
    kind = config.get("architecture", "standard")
    before = config.get("activation_fn", config.get("activation_fn_str"))
    if kind == "standard" and before == "topk":
        config = {**config, "k": (config.get("activation_fn_kwargs") or {}).get("k")}
        kind = "topk"
    if kind not in ("standard", "jumprelu", "topk") or before not in (None, "relu", "topk"):
        raise SAEError(
            f"{where}: architecture {kind!r}" + (f" with {before}" if before else "") + " is not supported",
            hint="standard (ReLU), jumprelu (also what BatchTopK is saved as) and topk are",
        )
    k = config.get("k")
    if kind == "topk" and (not isinstance(k, int) or k < 1):
        raise SAEError(f"{where}: a TopK SAE whose k is {k!r}", hint="expected a whole number")
    return kind, k if kind == "topk" else None


def _hook(config: Mapping[str, Any]) -> str:
    metadata = config.get("metadata") or {}
    return str(config.get("hook_name") or config.get("hook_point") or metadata.get("hook_name"))


def _check_scaling(weights: Parts, where: str) -> None:
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        factor = weights.get(name)
        if factor is not None and not torch.allclose(factor.float(), torch.ones(())):
            raise SAEError(
                f"{where}: its activations are rescaled after training ({name})",
                hint="no reader for it: fold it into W_dec first",
            )


def _rescaled(parts: Parts, norms: Tensor) -> dict[str, Tensor]:
    """Activations in units of their decoder row's norm, which the rows then have no more."""
    return {
        "W_enc": parts["W_enc"] * norms,
        "b_enc": parts["b_enc"] * norms,
        "W_dec": parts["W_dec"] / norms[:, None],
        "b_dec": parts["b_dec"],
    }


def _part(weights: Parts, name: str, where: str) -> Tensor:
    if name not in weights:
        raise SAEError(f"{where}: there is no tensor {name!r}", hint=f"it has: {', '.join(sorted(weights))}")
    return weights[name].detach().float()


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_there(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SAEError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(found, dict):
        raise SAEError(f"{path}: expected keys and values")
    return found


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found: dict[str, Tensor] = load_file(_there(path))
        return found
    except (OSError, SafetensorError) as error:
        raise SAEError(f"{path}: not readable as safetensors: {error}") from error
