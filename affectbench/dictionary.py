"""A dictionary of features, as the engine sees it: each layer's residual stream as a sum of directions.

Sparse autoencoders (`affectbench.sae`) are the dictionaries that are shipped; whatever has these attributes
will do. Features take the place of units: feature f of layer L is unit ``L * features + f`` of the site
`feature`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class LayerDictionary(Protocol):
    """The features of one layer. `decoder` (features, d): row f is what one unit of feature f adds to the
    residual stream; `decoder_bias` (d,) is added whatever is active."""

    @property
    def decoder(self) -> Tensor: ...

    @property
    def decoder_bias(self) -> Tensor: ...

    def encode(self, h: Tensor) -> Tensor:
        """Activations (..., features), float32, of residual vectors `h` (..., d)."""
        ...


class Dictionary(Protocol):
    """`features` in each of `layers`, which are ascending; `digest` identifies the weights, 16 hex."""

    @property
    def features(self) -> int: ...

    @property
    def layers(self) -> tuple[int, ...]: ...

    @property
    def digest(self) -> str: ...

    def at(self, layer: int) -> LayerDictionary:
        """The features of one of `layers`. Raises `AffectbenchError` for any other layer."""
        ...
