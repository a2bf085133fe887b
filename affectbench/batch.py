"""What goes into a decoder and what is kept of a pass: prepared items, batches of rows, shared beginnings."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from affectbench.branches import Branches


@dataclass(frozen=True)
class Prepared:
    """One item as the decoder will see it.

    `ids` (T,) token ids; `roles` (T,) role bits (see `intervention.ROLE_BIT`); `audio` (A, d) embeddings
    that replace the A tokens whose audio bit is set, or None.
    """

    id: str
    ids: Tensor
    roles: Tensor
    audio: Tensor | None = None

    def __len__(self) -> int:
        return int(self.ids.numel())


@dataclass(frozen=True)
class Batch:
    """Left-padded rows: `embeds` (B, T, d), `mask` (B, T) bool, `roles` (B, T) role bits; the last columns
    may be `branches`, the same for all rows.

    `before`: a cache with the keys and values of columns that stand before these, for all rows alike; `mask`
    covers them too.
    """

    embeds: Tensor
    mask: Tensor
    roles: Tensor
    branches: Branches | None = None
    before: Any = None

    def repeated(self, times: int) -> Batch:
        """The same rows `times` times over: block k holds rows k * B to (k + 1) * B."""
        embeds, mask = self.embeds.repeat(times, 1, 1), self.mask.repeat(times, 1)
        before = self.before
        if before is not None:
            rows = torch.arange(self.embeds.shape[0], device=self.embeds.device).repeat(times)
            before = cache_of_rows(before, rows)
        return Batch(embeds, mask, self.roles, self.branches, before)


def cache_of_rows(cache: Any, rows: Tensor) -> Any:
    """The keys and values of these rows of a cache, which stays as it is when the new one grows."""
    found = copy(cache)
    found.layers = [copy(layer) for layer in cache.layers]
    select_rows(found.layers, rows)
    return found


def select_rows(layers: Sequence[Any], rows: Tensor) -> None:
    """Keep these rows of the cache of each layer, on whatever device it is."""
    for layer in layers:
        keys = getattr(layer, "keys", None)
        layer.batch_select_indices(rows if keys is None else rows.to(keys.device))


@dataclass
class Prefix:
    """Hidden states (B, T, d) at the entry of `layer`: what lies below is not computed again.

    One past the last layer: the hidden states that enter the final norm, of the last columns at least.
    `cache` holds the keys and values of the layers below, where tokens are to follow.
    """

    layer: int
    hidden: Tensor
    cache: Any = None


@dataclass
class Watched:
    """What a forward pass showed: `entries` (B, T, d) by layer as in `Prefix`, and `neurons`, the inputs
    (B, T, width) of down_proj by layer. Where only the last columns are computed, so are both. `cache`
    has the keys and values of all layers, where they were asked for."""

    entries: dict[int, Tensor]
    neurons: dict[int, Tensor]
    cache: Any = None
