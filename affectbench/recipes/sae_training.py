"""Training of SAEs: BatchTopK, all layers side by side, saved as JumpReLU.

In training the k x B largest activations of a batch of B tokens are kept (Bussmann, Leask, Nanda, arXiv
2412.06410), so a token may have more or fewer than k. A running mean of the smallest activation that was
kept becomes the threshold of the JumpReLU that is saved, so that a token's features do not depend on its
company. Features that have not been active for long learn from the reconstruction's error (Gao et al.,
arXiv 2406.04093). Inputs are scaled to a mean norm of sqrt(d) and decoder rows kept at norm 1; both are
folded in at the end, so that a row has norm 1 in the residual stream, and an activation is a length in it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from affectbench.errors import AffectbenchError
from affectbench.identity import digest_of
from affectbench.recipes.sae_stream import Source, Streams
from affectbench.sae import LayerSAE, SAEError

BATCH = 512
RATE = 1e-3
AUXILIARY = 1 / 32
"""Weight of the loss that revives dead features."""
MEMORY = 0.99
"""Of the running mean of the threshold."""
PAUSE = 20.0
"""Seconds between two savings of the state."""
NAMES = ("encoder", "encoder_bias", "decoder", "decoder_bias")


@dataclass(frozen=True)
class Options:
    """`features` of each layer, `active` ones of a token on average (k), `tokens` to train on, the `seed`."""

    features: int
    active: int
    tokens: int
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.active <= self.features:
            raise AffectbenchError(
                f"{self.active} active of {self.features} features", hint="--active is at most --features"
            )


@dataclass
class Trainer:
    """SAEs of several layers under training: every tensor has the layers as its first axis."""

    options: Options
    layers: int
    width: int
    device: torch.device
    chunks: int = 0
    """Chunks that were used up."""
    scale: Tensor = field(init=False)
    threshold: Tensor = field(init=False)
    unseen: Tensor = field(init=False)
    """Tokens since each feature was active, (layers, features)."""
    parameters: dict[str, Tensor] = field(init=False)
    optimiser: torch.optim.Adam = field(init=False)

    def begin(self, chunk: Tensor) -> None:
        """Set out from the activations (layers, tokens, d) of the first chunk."""
        options, drawn = self.options, torch.Generator().manual_seed(self.options.seed)
        shape = (self.layers, options.features, self.width)
        decoder = torch.randn(shape, generator=drawn).to(self.device)
        decoder /= decoder.norm(dim=-1, keepdim=True)
        self.scale = math.sqrt(self.width) / chunk.norm(dim=-1).mean(dim=1)
        mean = (chunk * self.scale[:, None, None]).mean(dim=1)
        zeros = torch.zeros(self.layers, options.features, device=self.device)
        self._take(
            {"encoder": decoder.transpose(1, 2).clone(), "encoder_bias": zeros, "decoder": decoder,
             "decoder_bias": mean}
        )  # fmt: skip
        self.threshold = torch.zeros(self.layers, device=self.device)
        self.unseen = torch.zeros(self.layers, options.features, device=self.device)

    def _take(self, parameters: dict[str, Tensor]) -> None:
        self.parameters = {name: parameters[name].clone().requires_grad_() for name in NAMES}
        self.optimiser = torch.optim.Adam(list(self.parameters.values()), lr=RATE, betas=(0.9, 0.999))

    def use(self, chunk: Tensor, total: int) -> float:
        """Train on a chunk of activations (layers, tokens, d), the next of `total` chunks; the mean loss.

        Raises `SAEError` where it is not finite.
        """
        if not self.chunks:
            self.begin(chunk)
        parts = torch.split(chunk * self.scale[:, None, None], BATCH, dim=1)
        losses = []
        for place, part in enumerate(parts):
            done = (self.chunks + place / len(parts)) / total
            # The rate falls to zero over the last fifth, after a short rise.
            for group in self.optimiser.param_groups:
                group["lr"] = RATE * min(1.0, 50 * done + 0.02, 5 * (1 - done))
            losses.append(self._step(part))
        self.chunks += 1
        mean = float(torch.stack(losses).mean())
        if not math.isfinite(mean):
            raise SAEError("the training loss is not finite", hint="check the model's activations and dtype")
        return mean

    def _step(self, x: Tensor) -> Tensor:
        encoder, bias, decoder, centre = self.parameters.values()
        pre = torch.baddbmm(bias[:, None], x - centre[:, None], encoder).relu()
        z = self._kept(pre, self.options.active * x.shape[1])
        error = x - torch.baddbmm(centre[:, None], z, decoder)
        spread = (x - x.mean(dim=1, keepdim=True)).pow(2).sum(dim=-1).mean(dim=1)
        loss = (error.pow(2).sum(dim=-1).mean(dim=1) / spread).sum()
        active = (z > 0).any(dim=1)
        self.unseen = torch.where(active, 0.0, self.unseen + x.shape[1])
        dead = self.unseen > 20 * BATCH
        if bool(dead.any()):
            loss = loss + AUXILIARY * self._revived(pre * dead[:, None], error.detach(), decoder)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimiser.step()
        with torch.no_grad():
            decoder /= decoder.norm(dim=-1, keepdim=True)
            smallest = torch.where(z > 0, z, torch.inf).amin(dim=(1, 2))
            memory = MEMORY if bool(self.threshold.any()) else 0.0
            self.threshold = memory * self.threshold + (1 - memory) * smallest.nan_to_num(posinf=0.0)
        return loss.detach()

    @staticmethod
    def _kept(pre: Tensor, count: int) -> Tensor:
        """The `count` largest activations of each layer's batch; the others are 0."""
        flat = pre.flatten(1)
        values, places = flat.topk(min(count, flat.shape[1]), dim=1, sorted=False)
        return torch.zeros_like(flat).scatter(1, places, values).view_as(pre)

    def _revived(self, pre: Tensor, error: Tensor, decoder: Tensor) -> Tensor:
        """What dead features leave of the reconstruction's error, as a share of it."""
        values, places = pre.topk(min(self.width // 2, pre.shape[-1]), dim=-1, sorted=False)
        z = torch.zeros_like(pre).scatter(-1, places, values)
        left = (error - z @ decoder).pow(2).sum(dim=-1).mean(dim=1)
        return (left / error.pow(2).sum(dim=-1).mean(dim=1).clamp_min(1e-12)).sum()

    def saes(self) -> list[LayerSAE]:
        """The SAE of each layer as it is now, of the residual stream itself."""
        found = []
        for place in range(self.layers):
            encoder, bias, decoder, centre = (each.detach()[place] for each in self.parameters.values())
            scale, features = float(self.scale[place]), self.options.features
            threshold = torch.full((features,), float(self.threshold[place]) / scale, device=self.device)
            shift = (bias - centre @ encoder) / scale
            found.append(LayerSAE(encoder.clone(), shift, decoder.clone(), centre / scale, threshold))
        return found

    # Going on after a kill.

    def save(self, path: Path, identity: str) -> None:
        """Leave all that training needs to go on from here."""
        from safetensors.torch import save

        from affectbench.store import write_atomically

        tensors = {name: each.detach() for name, each in self.parameters.items()}
        for name, each in self.parameters.items():
            moments = self.optimiser.state[each]
            tensors |= {f"{name}.{key}": moments[key] for key in ("exp_avg", "exp_avg_sq", "step")}
        tensors |= {"scale": self.scale, "threshold": self.threshold, "unseen": self.unseen}
        facts = {"identity": identity, "chunks": str(self.chunks)}
        write_atomically(path, save({k: v.cpu().contiguous() for k, v in tensors.items()}, facts))

    def load(self, path: Path, identity: str) -> bool:
        """Go on from what `save` left; whether there was something, of the same model, texts and options."""
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            return False
        try:
            with safe_open(path, framework="pt") as stream:
                facts = stream.metadata() or {}
                if facts.get("identity") != identity:
                    return False
                found = {name: stream.get_tensor(name).to(self.device) for name in stream.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return False  # A damaged state is as good as none.
        self._take({name: found[name] for name in NAMES})
        for name, each in self.parameters.items():
            keys = ("exp_avg", "exp_avg_sq", "step")
            self.optimiser.state[each] = {key: found[f"{name}.{key}"] for key in keys}
            self.optimiser.state[each]["step"] = self.optimiser.state[each]["step"].cpu()
        self.scale, self.threshold, self.unseen = found["scale"], found["threshold"], found["unseen"]
        self.chunks = int(facts["chunks"])
        return True


def train(
    streams: Streams,
    sources: tuple[Source, ...],
    options: Options,
    state: Path,
    told: tuple[str, ...],
    progress: Callable[[int, int, float], None] | None = None,
) -> Trainer:
    """SAEs of the streams' layers, trained on `sources`.

    `state` is where training is kept as it goes, between chunks, and gone on from; `told` names the model
    and the texts, so that nothing is taken from another. `progress` is told the tokens done, all tokens,
    and the mean loss. Raises `SAEError` where the loss is not finite.
    """
    trainer = Trainer(options, len(streams.layers), streams.width, streams.model.device)
    total = max(1, round(options.tokens / streams.chunk))
    layers = json.dumps(list(streams.layers))
    identity = digest_of([*told, layers, json.dumps(asdict(options)), str(streams.chunk), str(total)])
    found = trainer.load(state, identity)
    if found and progress is not None:
        progress(trainer.chunks * streams.chunk, total * streams.chunk, math.nan)
    kept = time.monotonic()
    if trainer.chunks < total:
        for chunk in streams.chunks(sources, options.seed, trainer.chunks):
            loss = trainer.use(chunk, total)
            finished = trainer.chunks >= total
            if finished or time.monotonic() - kept > PAUSE:
                trainer.save(state, identity)
                kept = time.monotonic()
            if progress is not None:
                progress(trainer.chunks * streams.chunk, total * streams.chunk, loss)
            if finished:
                break
    return trainer
