"""A dictionary of features, as the engine sees it: each layer's residual stream as a sum of directions.

Sparse autoencoders (`affectbench.sae`) are the dictionaries that are shipped; whatever has these attributes
will do. Features take the place of units: feature f of layer L is unit ``L * features + f`` of the site
`feature`. It is read by the encoder, z = encode(h). Changing it to z' adds (z' - z) times its decoder row to
h: what the dictionary does not reconstruct stays as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class LayerDictionary(Protocol):
    """The features of one layer. `decoder` (features, d): row f is what one unit of feature f adds to the
    residual stream; `decoder_bias` (d,) is added whatever is active."""

    @property
    def decoder(self) -> Tensor: ...

    @property
    def decoder_bias(self) -> Tensor: ...

    def encode(self, h: Tensor, features: Tensor | None = None) -> Tensor:
        """Activations (..., features), float32, of residual vectors `h` (..., d); with `features`, of those
        at these places."""
        ...

    def to(self, device: Any) -> LayerDictionary:
        """The same features on another device."""
        ...


class Dictionary(Protocol):
    """`features` in each of `layers`, which are ascending; `width` is d; `name` is for messages; `digest`
    identifies the weights, 16 hex."""

    @property
    def name(self) -> str: ...

    @property
    def features(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def layers(self) -> tuple[int, ...]: ...

    @property
    def digest(self) -> str: ...

    def at(self, layer: int) -> LayerDictionary:
        """The features of one of `layers`. Raises `AffectbenchError` for any other layer."""
        ...

    def planted(self) -> Mapping[str, Any] | None:
        """For each emotion the flat indices of the features known to carry it (`planted`), and of those that
        correlate with it and do nothing (`decoys`); None where nothing was planted."""
        ...
