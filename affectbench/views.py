"""How a hooked tensor is read as the activations of a site, and written back.

For most sites it is the activations. The features of a sparse autoencoder are read from the residual stream
by its encoder; what changes of them is added by its decoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from affectbench.dictionary import LayerDictionary


class PlainView:
    """The hooked tensor is the activations, (..., channels)."""

    wide = False
    """Whether activations are float32, whatever the model computes in."""

    def read(self, hooked: Tensor, channels: Tensor | None = None) -> Tensor:
        """The activations, of all channels or of those at these places."""
        return hooked if channels is None else hooked[..., channels]

    def write(
        self, hooked: Tensor, channels: Tensor, before: Tensor, after: Tensor, here: Tensor | None
    ) -> None:
        """Put `after` in the place of `before`, in the tokens `here` (broadcast over channels) or in all."""
        hooked[..., channels] = after if here is None else torch.where(here, after, before)

    def slope(self, gradient: Tensor) -> Tensor:
        """The gradient of something with respect to the activations, from that to the hooked tensor."""
        return gradient


class FeatureView(PlainView):
    """The features of a sparse autoencoder: z = encode(h), h' = h + (z' - z) W_dec, the error term kept."""

    wide = True

    def __init__(self, features: LayerDictionary) -> None:
        self.features = features

    def _on(self, hooked: Tensor) -> LayerDictionary:
        if self.features.decoder.device != hooked.device:
            self.features = self.features.to(hooked.device)
        return self.features

    def read(self, hooked: Tensor, channels: Tensor | None = None) -> Tensor:
        return self._on(hooked).encode(hooked, channels)

    def write(
        self, hooked: Tensor, channels: Tensor, before: Tensor, after: Tensor, here: Tensor | None
    ) -> None:
        change = after - before
        if here is not None:
            change = change * here
        hooked += (change @ self._on(hooked).decoder[channels].float()).to(hooked.dtype)

    def slope(self, gradient: Tensor) -> Tensor:
        return gradient.float() @ self._on(gradient).decoder.float().T


PLAIN = PlainView()
