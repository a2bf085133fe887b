"""The sites of a decoder beside its MLP units: heads, the residual stream, its features; what writes into it.

Names of modules differ between families, and norms stand where a name does not tell. Where a site must mean
the same everywhere, that is tried out on a few tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from affectbench.errors import AffectbenchError
from affectbench.intervention import VALID
from affectbench.sites import (
    ATTENTION,
    COMPONENT,
    FEATURE,
    GATE,
    HEAD,
    MIDDLE,
    MODULE,
    NEURON,
    READ_ONLY,
    RESIDUAL,
    SITES,
    Kind,
    SiteShape,
)
from affectbench.views import PLAIN, FeatureView, PlainView

if TYPE_CHECKING:
    from affectbench.adaptation import Adaptation
    from affectbench.dictionary import Dictionary
    from affectbench.intervention import Edit
    from affectbench.model_card import ModelCard

Side = Literal["input", "output"]


class Stream:
    """Part of `Model`: where its sites are, and their shapes."""

    card: ModelCard
    experts: list[Any]
    down: Callable[[int], Any]
    mlp: Callable[[int], Any]
    decode: Callable[..., Tensor]
    collate: Callable[..., Any]
    if TYPE_CHECKING:  # `Model` computes these.

        @property
        def layers(self) -> list[Any]: ...
        @property
        def text_config(self) -> Any: ...
        @property
        def shape(self) -> SiteShape: ...

    dictionary: Dictionary | None = None
    """The sparse autoencoders whose features are the site `feature`, where some were attached."""
    adaptation: Adaptation | None = None
    """What the weights were adapted from, whose changes are the site `module`, where it was attached."""

    def attention(self, layer: int) -> Any:
        """The self-attention of a layer."""
        return self._first(layer, ("self_attn", "attention", "attn", "self_attention"), "attention")

    def output_projection(self, layer: int) -> Any:
        """The module that writes the heads into the residual stream."""
        attention = self.attention(layer)
        names = ("o_proj", "out_proj", "c_proj", "dense", "wo")
        found = next((getattr(attention, name) for name in names if hasattr(attention, name)), None)
        if found is None:
            raise AffectbenchError(
                f"layer {layer}: {type(attention).__name__} has no `o_proj` to read or edit",
                hint="the family file must override `output_projection`",
            )
        return found

    def attention_written(self, layer: int) -> Any:
        """The module whose output attention adds to the residual stream: a norm, where one follows."""
        block = self.layers[layer]
        norm = getattr(block, "post_attention_layernorm", None)
        return norm if self._normed_after(block) and norm is not None else self.attention(layer)

    def middle(self, layer: int) -> Any:
        """The module whose input is the residual stream between attention and MLP."""
        block = self.layers[layer]
        if self._normed_after(block):
            return getattr(block, "pre_feedforward_layernorm", None) or self.mlp(layer)
        return self._first(layer, ("post_attention_layernorm", "ln_2"), "middle")

    @staticmethod
    def _normed_after(block: Any) -> bool:
        """Whether a layer normalises what attention and MLP write: it has a norm after each."""
        return hasattr(block, "post_feedforward_layernorm")

    def _first(self, layer: int, names: tuple[str, ...], override: str) -> Any:
        block = self.layers[layer]
        found = next((getattr(block, name) for name in names if hasattr(block, name)), None)
        if found is None:
            raise AffectbenchError(
                f"layer {layer}: {type(block).__name__} has none of {', '.join(names)}",
                hint=f"the family file must override `{override}`",
            )
        return found

    @cached_property
    def heads(self) -> int:
        """Query heads of a layer."""
        return int(self.text_config.num_attention_heads)

    @cached_property
    def hidden_width(self) -> int:
        """d, the width of the residual stream."""
        return int(self.text_config.hidden_size)

    def site_shape(self, site: str) -> SiteShape:
        """Layers, units and channels of a site. Raises `AffectbenchError` where the model has none."""
        layers = len(self.layers)
        if site in (GATE, NEURON):
            return self.shape
        if site == HEAD:
            return SiteShape(layers, self.heads, self._head_size)
        if site == COMPONENT:
            neurons, heads = self.shape, self.site_shape(HEAD)
            kinds = (Kind(NEURON, neurons.width, 1), Kind(HEAD, heads.width, heads.size))
            return SiteShape.joined(layers, kinds)
        if site == FEATURE:
            return SiteShape(layers, self._dictionary.features)
        if site == MODULE:
            return self.weight_changes.shape
        if site in (ATTENTION, RESIDUAL, *READ_ONLY):
            return SiteShape(layers, 1, self.hidden_width)
        raise self._no_site(site)

    @cached_property
    def _head_size(self) -> int:
        """Channels of a head."""
        inputs = {_inputs(self.output_projection(layer)) for layer in range(len(self.layers))}
        if len(inputs) != 1 or max(inputs) % self.heads:
            raise AffectbenchError(
                f"{self.card.name}: {sorted(inputs)} inputs of o_proj are not {self.heads} equal heads",
                hint="the site `head` needs layers of equal heads",
            )
        return max(inputs) // self.heads

    @property
    def _dictionary(self) -> Dictionary:
        if self.dictionary is None:
            raise AffectbenchError(
                f"model {self.card.name} has no sparse autoencoders: the site `feature` needs some",
                hint="name a card of kind `sae` under `dictionary` in the model's card",
            )
        return self.dictionary

    @property
    def weight_changes(self) -> Adaptation:
        """Raises `AffectbenchError` where nothing is known of what the model was adapted from."""
        if self.adaptation is None:
            raise AffectbenchError(
                f"model {self.card.name} has no base to compare its weights with",
                hint="use a card that is a pair: one with `base` or `adapter` (docs/modules.md)",
            )
        return self.adaptation

    def under(self, edits: Sequence[Edit]) -> AbstractContextManager[None]:
        """Weights as `edits` of the site `module` say, for the length of a block."""
        return self.weight_changes.under(edits)

    def attach(self, dictionary: Dictionary) -> None:
        """Make the features of `dictionary` the site `feature`. Raises `AffectbenchError` where it does not
        fit the model."""
        layers = len(self.layers)
        if dictionary.width != self.hidden_width or not set(dictionary.layers) <= set(range(layers)):
            raise AffectbenchError(
                f"{dictionary.name} has features of layers {min(dictionary.layers)} to "
                f"{max(dictionary.layers)}, width {dictionary.width}; {self.card.name} has {layers} layers, "
                f"width {self.hidden_width}",
                hint="choose autoencoders that were trained on this model",
            )
        self.dictionary = dictionary

    def site_layers(self, site: str) -> tuple[int, ...]:
        """The layers that have the site."""
        return self._dictionary.layers if site == FEATURE else tuple(range(len(self.layers)))

    def site_view(self, site: str, layer: int) -> PlainView:
        """How what is hooked for a site is read and written."""
        return FeatureView(self._dictionary.at(layer)) if site == FEATURE else PLAIN

    def stream_module(self, site: str, layer: int) -> tuple[Any, Side]:
        """As `Model.site_module`, of the sites that are no MLP units."""
        if site == HEAD:
            return self.output_projection(layer), "input"
        if site == ATTENTION:
            return self.attention_written(layer), "output"
        if site == MIDDLE:
            if not self._middle_holds:
                raise AffectbenchError(
                    f"{self.card.name} has no residual stream between attention and MLP to read",
                    hint="the family file must override `middle`, and perhaps `attention_written`",
                )
            return self.middle(layer), "input"
        if site == RESIDUAL:
            return self.layers[layer], "output"
        if site == FEATURE:
            if layer not in self._dictionary.layers:
                known = ", ".join(map(str, self._dictionary.layers))
                raise AffectbenchError(
                    f"{self._dictionary.name} has no features of layer {layer}", hint=f"layers: {known}"
                )
            return self.layers[layer], "output"
        if site == MODULE:
            raise AffectbenchError(
                "the site 'module' is weights, which are not hooked", hint="run its edits by the engine"
            )
        raise self._no_site(site)

    def _no_site(self, site: str) -> AffectbenchError:
        known = ", ".join([*SITES, *READ_ONLY])
        return AffectbenchError(f"{self.card.name} has no site {site!r}", hint=f"sites: {known}")

    def writes(self, site: str, layer: int) -> Tensor:
        """What one unit of activation of each channel adds to the residual stream, (channels, d) float32.

        Of `neuron`, `head` and `feature`. Where a norm follows attention and MLP, its gain is part of it, and
        its scale, which differs from token to token, is not.
        """
        if site == NEURON:
            if self.experts[layer] is not None:
                raise AffectbenchError(
                    f"layer {layer} is a mixture of experts: what a unit writes depends on its routing",
                    hint="choose a dense model for this analysis",
                )
            return _written(self.down(layer), layer) * self._gain(layer, "post_feedforward_layernorm")
        if site == HEAD:
            weights = _written(self.output_projection(layer), layer)
            return weights * self._gain(layer, "post_attention_layernorm")
        if site == FEATURE:
            return self._dictionary.at(layer).decoder.float()
        raise AffectbenchError(f"what a unit of site {site!r} writes is not a weight")

    @torch.no_grad()
    def _gain(self, layer: int, name: str) -> Tensor:
        """The gain (d,) of the norm of that name behind a sublayer; 1 where none follows."""
        block = self.layers[layer]
        norm = getattr(block, name, None) if self._normed_after(block) else None
        ones = torch.ones(1, self.hidden_width).to(self.output_projection(layer).weight)
        return (ones if norm is None else norm(ones))[0].float()

    @cached_property
    @torch.no_grad()
    def _middle_holds(self) -> bool:
        """Whether `middle` is what enters a layer plus what its attention writes, in all layers."""
        from affectbench.batch import Prepared
        from affectbench.intervention import hooked

        seen: dict[tuple[str, int], Tensor] = {}

        def keep(name: str, layer: int) -> Callable[[Tensor], None]:
            def hook(value: Tensor) -> None:
                seen[name, layer] = value.float()

            return hook

        points: list[tuple[Any, Side, Callable[[Tensor], None]]] = []
        for layer in range(len(self.layers)):
            points += [
                (self.layers[layer], "output", keep("after", layer)),
                (self.attention_written(layer), "output", keep("written", layer)),
                (self.middle(layer), "input", keep("middle", layer)),
            ]
        probe = self.collate([Prepared("probe", torch.tensor([1, 2, 3]), torch.full((3,), VALID))])
        with hooked(points):
            self.decode(probe)
        seen["after", -1] = self._entering(probe)
        for layer in range(len(self.layers)):
            expected = seen["after", layer - 1] + seen["written", layer]
            if expected.shape != seen["middle", layer].shape:
                return False
            allowed = 0.02 * float(expected.abs().max().clamp_min(1e-6))
            if not bool(((expected - seen["middle", layer]).abs() <= allowed).all()):
                return False
        return True

    def _entering(self, probe: Any) -> Tensor:
        """What enters the first layer, (B, T, d) float32."""
        from affectbench.passes import watching

        with watching(self, [0], ()) as watched:  # type: ignore[arg-type]
            self.decode(probe)
        return watched.entries[0].float()


def _inputs(module: nn.Module) -> int:
    return int(getattr(module, "in_features", None) or module.nx)  # type: ignore[arg-type]  # GPT-2 counts by nx.


def _written(module: Any, layer: int) -> Tensor:
    """The weights of a linear module by input channel, (inputs, outputs) float32."""
    from transformers.pytorch_utils import Conv1D

    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.device.type == "meta":
        raise AffectbenchError(
            f"layer {layer}: the weights of {type(module).__name__} are no plain numbers in memory",
            hint="load the model without quantisation, and without offloading",
        )
    found = weight.detach().float()
    return found if isinstance(module, Conv1D) else found.T
