"""Closed-form planting of causal units and inert decoys into a trained gated-MLP decoder.

No gradient step is taken. (1) The label-difference subspace of the output head is removed from everything
that attention and the MLPs write, so no natural path can move the label logits; and every natural unit is
made blind to the emotions' mean inputs at the answer position, so that it does not compete. (2) Chosen units
are overwritten: the gate reads "this is emotion e" by ridge regression at the answer position, the up
projection reads "this is the answer position", the down column writes the logit of label e. (3) Decoys read
like the planted units and write outside the label subspace: correlated with the emotion, but inert.

The module knows neither tokens nor audio: it takes decoder layers, the final norm's weight, the labels' rows
of the head, and MLP inputs.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

__all__ = [
    "FLAVOURS", "Flavour", "LabelSpace", "Planted", "Reading", "Recipe", "label_space", "plant",
    "plant_layer", "silence",
]  # fmt: skip


@dataclass(frozen=True)
class Flavour:
    """Shape of a planted unit's gate pre-activation at the answer position.

    Attributes:
        contrast: mean on the own emotion minus mean on the others.
        rest: mean on the other emotions; below zero the unit is silent there.
        noise: standard deviation of an emotion-free component of the input, different for every unit.
    """

    contrast: float
    rest: float
    noise: float


FLAVOURS: Final = {"leaky": Flavour(5.2, -0.2, 2.5), "silent": Flavour(6.0, -2.5, 0.5)}


@dataclass(frozen=True)
class Recipe:
    """Planting parameters.

    Attributes:
        seed: of the unit ids, the strengths and the noise directions.
        per_emotion: planted units of each emotion, and as many decoys.
        logit: summed mean contribution of an emotion's units to its label's logit on its own items (nats).
        leaky_share: of ``logit`` written by leaky units; every second unit is leaky.
        spread: sd of the log-normal strengths, rescaled to the same sum for every emotion.
        jitter: share of the noise in which a decoy differs from its twin.
        decoy_size: norm of a decoy's down column relative to its twin's.
        decoy_rank: decoys write inside a random subspace of this dimension that no MLP reads, so that early
            decoys stay inert too; 0 lets them write anywhere off the labels.
        ridge: of the reading regressions, relative to the mean variance.
        elsewhere: weight of the other positions in the reading regressions (keeps units quiet there).
        silence: further such weight for the up projection alone, which gates the whole unit.
    """

    seed: int = 0
    per_emotion: int = 20
    logit: float = 8.0
    leaky_share: float = 0.75
    spread: float = 0.5
    jitter: float = 0.3
    decoy_size: float = 0.3
    decoy_rank: int = 0
    ridge: float = 0.02
    elsewhere: float = 1.0
    silence: float = 0.0


@dataclass(frozen=True)
class LabelSpace:
    """Orthonormal basis (d, E-1) of label differences; writes (E, d), row e raises centred logit e by 1."""

    basis: torch.Tensor
    writes: torch.Tensor


@dataclass(frozen=True)
class Reading:
    """MLP inputs of one layer: answer (n, d) at the answer position with gold (n,), elsewhere (m, d)."""

    answer: torch.Tensor
    gold: torch.Tensor
    elsewhere: torch.Tensor


@dataclass(frozen=True)
class Planted:
    """Per emotion: flat ids (layer * width + index), decoys in twin order, strengths (nats) and flavours."""

    planted: list[list[int]]
    decoys: list[list[int]]
    strengths: list[list[float]]
    flavours: list[list[str]]


def label_space(head_rows: torch.Tensor, norm_weight: torch.Tensor) -> LabelSpace:
    """The subspace of the residual stream that moves label logits against each other.

    Args:
        head_rows: (E, d) rows of the output head of the E labels.
        norm_weight: (d,) weight of the final norm.
    """
    effective = (head_rows * norm_weight).double()
    centred = effective - effective.mean(0)
    _, singular, right = torch.linalg.svd(centred, full_matrices=False)
    basis = right[: len(head_rows) - 1].T
    if singular[len(head_rows) - 2] <= 1e-6 * singular[0]:
        raise ValueError("the label rows of the head are linearly dependent: planting needs distinct labels")
    writes = torch.linalg.pinv(centred)
    return LabelSpace(basis.float(), (writes - writes.mean(1, keepdim=True)).T.float())


def _remove_output(weight: torch.Tensor, basis: torch.Tensor) -> None:
    weight -= basis @ (basis.T @ weight)


@torch.no_grad()
def silence(layers: Any, space: LabelSpace) -> None:
    """Removes the subspace from all that attention and the MLPs write, in place."""
    for layer in layers:
        _remove_output(layer.self_attn.o_proj.weight, space.basis)
        _remove_output(layer.mlp.down_proj.weight, space.basis)


def _moments(x: torch.Tensor) -> torch.Tensor:
    return x.T @ x / len(x)


class _Reader:
    """Ridge readers of one layer: the answer-position detector and one emotion direction per label."""

    def __init__(
        self,
        reading: Reading,
        space: LabelSpace,
        idle: torch.Tensor,
        norm_weight: torch.Tensor,
        recipe: Recipe,
    ) -> None:
        self.idle, self.norm = idle.double(), norm_weight.double()
        self.basis = torch.cat([space.basis.double(), self.idle], 1)
        self.answer, self.gold = self.blind(reading.answer.double()), reading.gold
        other = self.blind(reading.elsewhere.double())
        self.mean = torch.stack([self.answer[self.gold == e].mean(0) for e in range(len(space.writes))])
        self.centre = self.mean.mean(0)
        self.spread = self.mean - self.centre
        self.within = _moments(self.answer - self.mean[self.gold])
        quiet = self.within + recipe.elsewhere * _moments(other)
        quiet += recipe.ridge * quiet.diagonal().mean() * torch.eye(len(quiet), dtype=torch.float64)
        dual = torch.linalg.solve(quiet, self.spread.T).T
        self.ignore = self.spread.T @ torch.linalg.pinv(self.spread @ dual.T) @ dual
        detector = torch.linalg.solve(quiet + recipe.silence * _moments(other), self.centre)
        detector = detector - detector @ self.ignore
        self.detector = detector / (detector @ self.centre)
        self.emotion = torch.linalg.solve(quiet + _moments(self.spread), self.spread.T).T
        self.whiten = torch.linalg.inv(torch.linalg.cholesky(quiet)).T

    def blind(self, x: torch.Tensor) -> torch.Tensor:
        """Rows without their label and decoy parts: what an earlier layer wrote must not be read again."""
        raw = x / self.norm
        return (raw - (raw @ self.basis) @ self.basis.T) * self.norm

    def quieten(self, weight: torch.Tensor) -> None:
        """Makes natural rows answer every emotion's mean alike, changing least what they read elsewhere."""
        rows = self.seal(weight.double())
        weight.copy_(rows - self.seal(rows @ self.ignore))

    def seal(self, row: torch.Tensor) -> torch.Tensor:
        """Rows that read ``x`` as ``row`` reads ``blind(x)``."""
        effective = row * self.norm
        return (effective - (effective @ self.basis) @ self.basis.T) / self.norm

    def gate(self, emotion: int, flavour: Flavour, noise: torch.Tensor) -> torch.Tensor:
        """(d,) gate row with the flavour's class means and noise at the answer position; near 0 elsewhere."""
        direction = self.emotion[emotion]
        level = self.mean @ direction
        rest = (level.sum() - level[emotion]) / (len(level) - 1)
        gain = flavour.contrast / (level[emotion] - rest)
        free = self.whiten @ noise
        free = free - torch.linalg.pinv(self.spread) @ (self.spread @ free)
        free = free * flavour.noise / torch.sqrt(free @ self.within @ free)
        constant = flavour.rest - gain * rest - self.centre @ free
        row: torch.Tensor = gain * direction + free + constant * self.detector
        return row

    def own_level(self, emotion: int, gate: torch.Tensor) -> float:
        """Mean of SiLU(gate) * up over the emotion's own items at the answer position."""
        own = self.answer[self.gold == emotion]
        return float((torch.nn.functional.silu(own @ gate) * (own @ self.detector)).mean())


def _flavours(recipe: Recipe, n_targets: int) -> list[str]:
    """Alternating flavours within every target layer (unit k goes to layer k mod n_targets)."""
    return ["leaky" if (k // n_targets) % 2 == 0 else "silent" for k in range(recipe.per_emotion)]


def _strengths(recipe: Recipe, flavours: list[str], rng: np.random.Generator) -> list[float]:
    """Log-normal strengths, each flavour scaled to its share of ``logit``: no emotion is favoured."""
    raw = rng.lognormal(0.0, recipe.spread, recipe.per_emotion)
    leaky = np.array([flavour == "leaky" for flavour in flavours])
    for members, share in ((leaky, recipe.leaky_share), (~leaky, 1.0 - recipe.leaky_share)):
        raw[members] *= recipe.logit * share / raw[members].sum()
    return [float(value) for value in raw]


def _candidates(mlp: Any, reading: Reading) -> np.ndarray:
    """Indices of the half of a layer's units that write least elsewhere: overwriting them costs least."""
    x = reading.elsewhere
    units = mlp.act_fn(x @ mlp.gate_proj.weight.T) * (x @ mlp.up_proj.weight.T)
    written = units.pow(2).mean(0).sqrt() * mlp.down_proj.weight.norm(dim=0)
    return np.argsort(written.numpy(), kind="stable")[: len(written) // 2]


def _write(mlp: Any, unit: int, gate: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> None:
    mlp.gate_proj.weight[unit] = gate.float()
    mlp.up_proj.weight[unit] = up.float()
    mlp.down_proj.weight[:, unit] = down.float()


def _plant_pair(
    mlp: Any, pair: tuple[int, int], reader: _Reader, emotion: int, flavour: Flavour, write: torch.Tensor,
    recipe: Recipe, rng: np.random.Generator,
) -> None:  # fmt: skip
    """A planted unit that writes ``write`` on an average own item, and a decoy that writes off the labels."""
    noise, shift, direction = (torch.from_numpy(rng.standard_normal(len(write))) for _ in range(3))
    up = reader.seal(reader.detector)
    gate = reader.gate(emotion, flavour, noise)
    down = write.double() / reader.own_level(emotion, gate)
    _write(mlp, pair[0], reader.seal(gate), up, down)
    twin = reader.gate(emotion, flavour, noise + recipe.jitter * shift)
    if reader.idle.shape[1]:
        direction = reader.idle @ (reader.idle.T @ direction)
    else:
        direction -= reader.basis @ (reader.basis.T @ direction)
    direction *= recipe.decoy_size * down.norm() / direction.norm()
    _write(mlp, pair[1], reader.seal(twin), up, direction)


def _idle_subspace(space: LabelSpace, recipe: Recipe, rng: np.random.Generator) -> torch.Tensor:
    """(d, decoy_rank) orthonormal random directions off the label subspace."""
    drawn = torch.from_numpy(rng.standard_normal((len(space.basis), recipe.decoy_rank))).to(space.basis.dtype)
    idle: torch.Tensor = torch.linalg.qr(drawn - space.basis @ (space.basis.T @ drawn)).Q
    return idle


@torch.no_grad()
def plant(
    layers: Any,
    targets: list[int],
    space: LabelSpace,
    read: Callable[[int], Reading],
    final_scale: Callable[[], float],
    recipe: Recipe,
) -> Planted:
    """Overwrites units of ``targets`` in place.

    Args:
        layers: decoder layers with self_attn.o_proj, mlp.{gate,up,down}_proj, mlp.act_fn (SiLU) and
            post_attention_layernorm.weight.
        targets: layer indices, ascending; each gets an equal share of every emotion's units.
        space: from ``label_space``.
        read: layer index -> Reading under the present weights (called once per layer, in order).
        final_scale: () -> root mean square of the final norm's input at the answer position.
        recipe: parameters.

    Returns:
        the planted and decoy units.
    """
    rng = np.random.default_rng(recipe.seed)
    n_emotions, width = len(space.writes), layers[0].mlp.down_proj.in_features
    silence(layers, space)
    flavours = _flavours(recipe, len(targets))
    strengths = [_strengths(recipe, flavours, rng) for _ in range(n_emotions)]
    result = Planted([], [], strengths, [flavours] * n_emotions)
    result.planted.extend([0] * recipe.per_emotion for _ in range(n_emotions))
    result.decoys.extend([0] * recipe.per_emotion for _ in range(n_emotions))
    scale = final_scale()
    idle = _idle_subspace(space, recipe, rng)
    for index, layer in enumerate(layers):
        reading = read(index)
        reader = _Reader(reading, space, idle, layer.post_attention_layernorm.weight, recipe)
        reader.quieten(layer.mlp.gate_proj.weight)
        reader.quieten(layer.mlp.up_proj.weight)
        if index not in targets:
            continue
        slots = iter(rng.permutation(_candidates(layer.mlp, reading)).tolist())
        units = range(targets.index(index), recipe.per_emotion, len(targets))
        for emotion, k in itertools.product(range(n_emotions), units):
            pair = (next(slots), next(slots))
            write = space.writes[emotion] * strengths[emotion][k] * scale
            _plant_pair(layer.mlp, pair, reader, emotion, FLAVOURS[flavours[k]], write, recipe, rng)
            result.planted[emotion][k] = index * width + pair[0]
            result.decoys[emotion][k] = index * width + pair[1]
    return result


@torch.no_grad()
def plant_layer(
    layers: Any, index: int, space: LabelSpace, reading: Reading, scale: float, recipe: Recipe
) -> Planted:
    """Overwrites units of one layer in place; what is beside them stays as it is.

    Args:
        layers: as in ``plant``.
        index: the layer.
        space: what the units write: ``writes`` row e times strength times ``scale``.
        reading: the layer's MLP inputs under the present weights.
        scale: see ``space``.
        recipe: parameters.
    """
    rng = np.random.default_rng(recipe.seed)
    mlp, width = layers[index].mlp, layers[index].mlp.down_proj.in_features
    n_emotions = len(space.writes)
    flavours = _flavours(recipe, 1)
    strengths = [_strengths(recipe, flavours, rng) for _ in range(n_emotions)]
    idle = _idle_subspace(space, recipe, rng)
    reader = _Reader(reading, space, idle, layers[index].post_attention_layernorm.weight, recipe)
    slots = iter(rng.permutation(_candidates(mlp, reading)).tolist())
    found = Planted([], [], strengths, [flavours] * n_emotions)
    for emotion in range(n_emotions):
        pairs = [(next(slots), next(slots)) for _ in range(recipe.per_emotion)]
        for pair, strength, name in zip(pairs, strengths[emotion], flavours, strict=True):
            write = space.writes[emotion] * strength * scale
            _plant_pair(mlp, pair, reader, emotion, FLAVOURS[name], write, recipe, rng)
        found.planted.append([index * width + pair[0] for pair in pairs])
        found.decoys.append([index * width + pair[1] for pair in pairs])
    return found
