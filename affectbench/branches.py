"""Several continuations of one prompt in a single forward pass: a tree of tokens in place of a row each.

The columns of the tree stand behind the prompt. Each attends to the prompt, to its ancestors and to itself,
and has the position it would have if its branch were alone, so the prompt runs once for all branches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from affectbench.errors import AffectbenchError

FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class Branches:
    """The last S columns of a batch. `tokens` (S,) ids; `depth` (S,) tokens from the end of the prompt,
    starting at 1; `sees` (S, S) bool: which of these columns (second axis) each one attends to."""

    tokens: Tensor
    depth: Tensor
    sees: Tensor

    def __len__(self) -> int:
        return int(self.tokens.numel())

    def positions(self, positions: Tensor) -> Tensor:
        """`positions` (..., T), counted through as in plain text, with those of the tree's columns mended."""
        return torch.cat(
            (positions[..., : -len(self)], positions[..., [-len(self) - 1]] + self.depth), dim=-1
        )

    def attention(self, mask: Tensor, config: Any, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
        """What is added to attention scores, (B, 1, T, T), for rows with padding mask (B, T); one for each
        kind of layer where a model has several. Raises `AffectbenchError` for a kind without such a mask."""
        columns = mask.shape[1]
        order = torch.ones(columns, columns, dtype=torch.bool, device=mask.device).tril()
        order[-len(self) :, -len(self) :] = self.sees
        seen = order & mask[:, None]
        window: int | None = getattr(config, "sliding_window", None)
        kinds = set(getattr(config, "layer_types", None) or [FULL if window is None else SLIDING])
        if kinds - {FULL, SLIDING}:
            raise AffectbenchError(
                f"answers of several tokens cannot be compared on layers of kind {', '.join(sorted(kinds))}",
                hint="use answers of one token each, the readout `letters` or the readout `generate`",
            )
        found = {}
        for kind in kinds:
            allowed = seen
            if kind == SLIDING and window is not None:
                place = self.positions(mask.long().cumsum(-1))
                allowed = seen & (place[:, :, None] - place[:, None] < window)
            blocked = torch.zeros(allowed.shape, dtype=dtype, device=mask.device)
            found[kind] = blocked.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]
        return found if len(found) > 1 else found.popitem()[1]


def branches_of(prefixes: Sequence[tuple[int, ...]], device: torch.device) -> Branches:
    """A column for each of `prefixes`, which hold every prefix of each of their members."""
    sees = [[one[: len(other)] == other for other in prefixes] for one in prefixes]
    return Branches(
        torch.tensor([prefix[-1] for prefix in prefixes], device=device),
        torch.tensor([len(prefix) for prefix in prefixes], device=device),
        torch.tensor(sees, device=device),
    )
