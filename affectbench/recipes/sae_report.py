"""What SAEs keep of a model: explained variance, L0, dead features and the loss recovered, layer by layer.

On texts that were not trained on:

- explained variance: 1 - sum |h - h^|^2 / sum |h - mean h|^2 over the tokens that count;
- L0: features active on a token, on average; dead: share of features that are active on none;
- loss recovered: (zero - reconstructed) / (zero - clean), where each is the cross-entropy of the next token
  with the stream after that layer put to zero, replaced by h^, or left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional

from affectbench.batch import Batch
from affectbench.intervention import hooked
from affectbench.recipes.sae_stream import Source, Streams
from affectbench.sae import SAE, LayerSAE


@dataclass(frozen=True)
class Quality:
    """Figures of one layer; losses in nats a token."""

    layer: int
    explained_variance: float
    l0: float
    dead: float
    loss_recovered: float
    loss_reconstructed: float
    loss_zero: float
    loss_clean: float


@dataclass
class _Sums:
    """Running sums of one layer."""

    tokens: float
    left: Tensor
    total: Tensor
    squares: Tensor
    active: Tensor

    @classmethod
    def empty(cls, sae: LayerSAE) -> _Sums:
        device = sae.encoder.device
        zero = torch.zeros((), dtype=torch.float64, device=device)
        wide = torch.zeros(sae.width, dtype=torch.float64, device=device)
        return cls(0, zero, wide, zero, torch.zeros(sae.features, dtype=torch.float64, device=device))

    def add(self, sae: LayerSAE, h: Tensor) -> None:
        z = sae.encode(h)
        self.tokens += len(h)
        self.left = self.left + (h - sae.decode(z)).double().pow(2).sum()
        self.total = self.total + h.double().sum(0)
        self.squares = self.squares + h.double().pow(2).sum()
        self.active = self.active + (z > 0).double().sum(0)

    @property
    def explained(self) -> float:
        spread = self.squares - self.total.pow(2).sum() / self.tokens
        return float(1 - self.left / spread)


@torch.no_grad()
def measure(
    streams: Streams, saes: SAE, sources: Sequence[Source], progress: Callable[[int, int], None] | None = None
) -> list[Quality]:
    """The figures of every layer on `sources`; `progress` is told batches done and all."""
    sums = {layer: _Sums.empty(saes.at(layer)) for layer in streams.layers}
    losses = {layer: torch.zeros(2, dtype=torch.float64) for layer in streams.layers}
    clean, predicted = 0.0, 0
    batches = list(streams.batches(sources))
    for done, (batch, ids, counted) in enumerate(batches):
        for layer, h in zip(streams.layers, streams.read(batch, counted), strict=True):
            sums[layer].add(saes.at(layer), h)
        count = int((batch.mask[:, 1:] & batch.mask[:, :-1]).sum())
        clean += _loss(streams, batch, ids) * count
        predicted += count
        for layer in streams.layers:
            for place, replaced in enumerate((_decoded(saes.at(layer)), torch.zeros_like)):
                loss = _loss(streams, batch, ids, layer, replaced, counted)
                losses[layer][place] += loss * count
        if progress is not None:
            progress(done + 1, len(batches))
    clean /= predicted
    found = []
    for layer in streams.layers:
        own = sums[layer]
        reconstructed, zero = (losses[layer] / predicted).tolist()
        found.append(
            Quality(
                layer=layer,
                explained_variance=own.explained,
                l0=float(own.active.sum() / own.tokens),
                dead=float((own.active == 0).double().mean()),
                loss_recovered=(zero - reconstructed) / (zero - clean),
                loss_reconstructed=reconstructed,
                loss_zero=zero,
                loss_clean=clean,
            )
        )
    return found


def _decoded(sae: LayerSAE) -> Callable[[Tensor], Tensor]:
    return lambda h: sae.decode(sae.encode(h))


def _loss(
    streams: Streams, batch: Batch, ids: Tensor, layer: int | None = None,
    replaced: Callable[[Tensor], Tensor] | None = None, counted: Tensor | None = None,
) -> float:  # fmt: skip
    """Cross-entropy of the next token, nats, with the stream after `layer` replaced at tokens that count."""
    model = streams.model

    def hook(hidden: Tensor) -> Tensor:
        assert replaced is not None
        assert counted is not None
        here = counted.to(hidden.device).unsqueeze(-1)
        return torch.where(here, replaced(hidden).to(hidden), hidden)

    with hooked([] if layer is None else [(model.layers[layer], "output", hook)]):
        logits = model.logits(model.decode(batch)[:, :-1])
    known = (batch.mask[:, 1:] & batch.mask[:, :-1]).flatten()
    wanted = torch.where(known, ids[:, 1:].flatten(), -100)
    return float(functional.cross_entropy(logits.flatten(0, 1), wanted, ignore_index=-100))


def facts_of(qualities: Sequence[Quality]) -> list[dict[str, float]]:
    """The figures as plain data for a file's header, rounded to five places."""
    return [{name: round(value, 5) for name, value in asdict(each).items()} for each in qualities]


def table(qualities: Sequence[Quality]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| layer | explained variance | L0 | dead | loss recovered | loss: clean | reconstructed | zero |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in qualities:
        lines.append(
            f"| {each.layer} | {each.explained_variance:.3f} | {each.l0:.1f} | {each.dead:.1%} | "
            f"{each.loss_recovered:.3f} | {each.loss_clean:.3f} | {each.loss_reconstructed:.3f} | "
            f"{each.loss_zero:.3f} |"
        )
    return "\n".join(lines) + "\n"
