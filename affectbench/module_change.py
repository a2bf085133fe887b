"""How large a change of weights is: absolute, relative, RMS, top singular value and stable rank.

Pure functions. A change is dW = adapted - base, or s B A of a LoRA pair, whose singular values come from the
small factors: with B = Q_b R_b and A^T = Q_a R_a, they are those of s R_b R_a^T, which is rank x rank.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Metric = Literal["absolute", "relative", "rms", "top", "stable_rank"]
METRICS: tuple[Metric, ...] = ("absolute", "relative", "rms", "top", "stable_rank")
DENSE = 512
"""Up to so many rows or columns a matrix is decomposed whole; larger ones are iterated."""


@dataclass(frozen=True)
class Change:
    """A change of one matrix, or of several as one block-diagonal matrix.

    `square`, `base_square`: squared Frobenius norms of the change and of the base; `numel`: numbers in it;
    `top`: largest singular value of the change.
    """

    square: float
    base_square: float
    numel: int
    top: float

    def value(self, metric: Metric) -> float:
        """Frobenius norm; that over the base's; that over sqrt(numel); top singular value; stable rank, the
        squared ratio of the first and the fourth. NaN where nothing changed or the base is zero."""
        size = float(np.sqrt(self.square))
        if metric == "absolute":
            return size
        if metric == "relative":
            return size / float(np.sqrt(self.base_square)) if self.base_square else float("nan")
        if metric == "rms":
            return size / float(np.sqrt(self.numel))
        if metric == "top":
            return self.top
        return self.square / self.top**2 if self.top else float("nan")


def together(changes: Iterable[Change]) -> Change:
    """Several matrices as one block-diagonal one."""
    found = list(changes)
    return Change(
        sum(each.square for each in found),
        sum(each.base_square for each in found),
        sum(each.numel for each in found),
        max((each.top for each in found), default=0.0),
    )


def change_of(base: Tensor, adapted: Tensor) -> Change:
    """The change of a matrix (n, m), or of (experts, n, m) as one block-diagonal matrix."""
    difference = adapted.float() - base.float()
    blocks = difference if difference.ndim == 3 else difference.unsqueeze(0)
    return Change(
        square_of(difference),
        square_of(base.float()),
        base.numel(),
        max(top_singular(block) for block in blocks),
    )


def low_rank_change(a: Tensor, b: Tensor, scaling: float, base: Tensor) -> Change:
    """The change `scaling` * b @ a of a matrix (n, m), from a (r, m) and b (n, r); never multiplied out."""
    left = torch.linalg.qr(b.double(), mode="r").R
    right = torch.linalg.qr(a.double().T, mode="r").R
    core = scaling * (left @ right.T)
    return Change(
        square_of(core), square_of(base.float()), base.numel(), float(torch.linalg.matrix_norm(core, ord=2))
    )


def top_singular(matrix: Tensor) -> float:
    """Largest singular value of a matrix (n, m); large ones by Lanczos iteration to a relative 1e-6."""
    if not bool(matrix.any()):
        return 0.0
    if min(matrix.shape) <= DENSE:
        return float(torch.linalg.matrix_norm(matrix.double(), ord=2))
    from scipy.sparse.linalg import LinearOperator, svds

    values = matrix.float()

    def product(vector: np.ndarray) -> np.ndarray:
        return np.asarray((values @ torch.from_numpy(vector).float().ravel()).double())

    def transposed(vector: np.ndarray) -> np.ndarray:
        return np.asarray((values.T @ torch.from_numpy(vector).float().ravel()).double())

    operator = LinearOperator(tuple(values.shape), matvec=product, rmatvec=transposed, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(min(values.shape))
    return float(svds(operator, k=1, tol=1e-6, v0=start, return_singular_vectors=False)[0])


def square_of(values: Tensor) -> float:
    """Squared Frobenius norm, summed in float64."""
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2
