"""Small self-contained measurements of the reference models, used by their recipes and cards.

They are kept apart from the harness on purpose: the card's figures do not come from the instrument that the
models calibrate.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

__all__ = ["Statistics", "ablated", "auroc", "collect", "effect", "moved", "scaled", "scores", "top"]

Predict = Callable[[], np.ndarray]


@contextmanager
def scaled(layers: Any, units: np.ndarray, factor: float) -> Iterator[None]:
    """Multiplies flat ``units`` (layer * width + index) by ``factor`` at every position of every pass."""
    width = layers[0].mlp.down_proj.in_features
    handles = []
    for index, layer in enumerate(layers):
        own = units[units // width == index] % width
        if len(own):
            vector = torch.ones(width)
            vector[torch.from_numpy(own)] = factor
            handles.append(
                layer.mlp.down_proj.register_forward_pre_hook(lambda _m, args, v=vector: (args[0] * v,))
            )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Statistics:
    """Per item at the answer position, (n, units): act_fn output, down_proj input, gradient of the gate."""

    gold: np.ndarray
    gate: np.ndarray
    neuron: np.ndarray
    gradient: np.ndarray


def _margin(logits: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
    own = logits.gather(1, gold[:, None])[:, 0]
    others = logits.masked_fill(functional.one_hot(gold, logits.shape[1]).bool(), -torch.inf)
    return own - others.max(1).values


class Trace:
    """Keeps every layer's act_fn output and down_proj input of the last pass, with gradients."""

    def __init__(self, layers: Any) -> None:
        self.gate: list[torch.Tensor] = []
        self.neuron: list[torch.Tensor] = []
        self._handles = []
        for layer in layers:
            self._handles.append(
                layer.mlp.act_fn.register_forward_hook(lambda _m, _a, out: self.gate.append(out))
            )
            self._handles.append(
                layer.mlp.down_proj.register_forward_pre_hook(lambda _m, args: self.neuron.append(args[0]))
            )

    def clear(self) -> None:
        self.gate.clear()
        self.neuron.clear()

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def collect(
    layers: Any, batches: list[Any], answer: Callable[[Any], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
) -> Statistics:
    """Statistics of correctly answered items.

    Args:
        layers: decoder layers.
        batches: whatever ``answer`` takes.
        answer: batch -> label logits (b, E), gold (b,), answer positions (b,); one forward pass.
    """
    parts: list[tuple[np.ndarray, ...]] = []
    trace = Trace(layers)
    try:
        for batch in batches:
            trace.clear()
            logits, gold, positions = answer(batch)
            gradients = torch.autograd.grad(_margin(logits, gold).sum(), trace.gate)
            rows = torch.arange(len(gold))
            kept = (logits.argmax(1) == gold).numpy()
            at = [
                torch.cat([x[rows, positions] for x in xs], -1)
                for xs in (trace.gate, trace.neuron, gradients)
            ]
            parts.append((gold.numpy()[kept], *(x.detach().numpy()[kept] for x in at)))
    finally:
        trace.close()
    return Statistics(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _means(values: np.ndarray, gold: np.ndarray, n_emotions: int) -> np.ndarray:
    return np.stack([values[gold == e].mean(0) for e in range(n_emotions)])


def _against_others(mean: np.ndarray) -> np.ndarray:
    return np.asarray(mean - (mean.sum(0) - mean) / (len(mean) - 1))


def scores(statistics: Statistics, n_emotions: int, site: str, seed: int) -> dict[str, np.ndarray]:
    """Selector scores (E, units), higher = keep; formulas as in the harness's selectors of these names."""
    values, gold = getattr(statistics, site), statistics.gold
    mean, absolute = _means(values, gold, n_emotions), _means(np.abs(values), gold, n_emotions)
    share = _means(values > 0, gold, n_emotions)
    ordered = np.sort(share, 0)
    best = share.argmax(0) == np.arange(n_emotions)[:, None]
    profile = share / np.maximum(share.sum(0), 1e-12)
    entropy = -(profile * np.log(np.maximum(profile, 1e-12))).sum(0)
    firing = best & (share > np.quantile(share, 0.05))
    return {
        "lap": share,
        "lape": np.where(firing, -entropy, -np.inf),
        "mad": _against_others(mean),
        "cas": np.where(best, ordered[-1] - ordered[-2], 0.0),
        "magnitude_abs": _against_others(absolute),
        "attribution": _against_others(_means(statistics.gate * statistics.gradient, gold, n_emotions)),
        "random": np.random.default_rng(seed).random(mean.shape),
    }


def top(score: np.ndarray, fraction: float) -> np.ndarray:
    """Flat ids of the best ``fraction`` of units, ties by id."""
    return np.argsort(-score, kind="stable")[: max(1, round(fraction * len(score)))]


def effect(layers: Any, sets: list[np.ndarray], factor: float, predict: Predict) -> np.ndarray:
    """(E, N) predictions; row s with the set of emotion s multiplied by ``factor``."""
    rows = []
    for units in sets:
        with scaled(layers, units, factor):
            rows.append(predict())
    return np.stack(rows)


def ablated(predictions: np.ndarray, base: np.ndarray, gold: np.ndarray) -> tuple[float, float]:
    """(self, cross): change of recall in points, own emotion and mean over the others; mean over emotions."""
    n = len(predictions)
    recall = np.array([[np.mean(row[gold == e] == e) for e in range(n)] for row in predictions])
    change = 100 * (recall - np.array([np.mean(base[gold == e] == e) for e in range(n)]))
    own = np.eye(n, dtype=bool)
    return float(change[own].mean()), float(change[~own].mean())


def moved(predictions: np.ndarray, base: np.ndarray, gold: np.ndarray) -> float:
    """Points of the other emotions' items that an amplified set moves to its emotion, mean over emotions."""
    shift = [
        np.mean(row[gold != e] == e) - np.mean(base[gold != e] == e) for e, row in enumerate(predictions)
    ]
    return float(100 * np.mean(shift))


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the ROC curve, ties counted half."""
    difference = positive[:, None] - negative[None, :]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))
