"""Kendall's tau-b of ranks in O(m log m), for as many pairs of dissimilarity matrices as an alignment has.

SciPy's function sorts both vectors each time. Here each is ranked once; without ties, one vector in the
order of the other is a permutation, and tau follows from its inversions. They are counted by the compiled
part of SciPy's function where this version has it, else in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from affectbench.alignment.rdm import FloatArray


def tau_b(first: FloatArray, second: FloatArray) -> float:
    """Tau-b of two vectors of ranks (m,) from 1, ties given their average; NaN where one is NaN or does not
    vary."""
    size = len(first)
    if size < 2 or np.isnan(first[0]) or np.isnan(second[0]):
        return float("nan")
    order, across = (np.full(size, -1, dtype=np.int32) for _ in range(2))
    order[first.astype(np.int32) - 1] = second.astype(np.int32) - 1
    across[second.astype(np.int32) - 1] = 0
    if order.min() < 0 or across.min() < 0:  # Ties: their ranks are missing, as others are there twice.
        from scipy.stats import kendalltau

        return float(kendalltau(first, second, method="asymptotic").statistic)
    return 1.0 - 4.0 * _counted(order) / (size * (size - 1))


def _counted(order: npt.NDArray[np.int32]) -> int:
    compiled = _compiled()
    if compiled is None:
        return inversions(order)
    return int(compiled(np.arange(1, len(order) + 1), order.astype(np.intp) + 1))


@cache
def _compiled() -> Callable[[npt.NDArray[Any], npt.NDArray[Any]], int] | None:
    """What counts discordant pairs in SciPy, which promises no such function; None where it is not there, or
    does not count these."""
    try:
        from scipy.stats._stats import _kendall_dis

        found: Any = _kendall_dis
        right = found(np.arange(1, 5), np.array([2, 4, 1, 3])) == 3
    except (ImportError, TypeError, ValueError):
        return None
    return found if right else None


def inversions(order: npt.NDArray[np.int32]) -> int:
    """How many pairs of a permutation of 0 ... m - 1 are in the wrong order.

    Bit by bit from the highest: among values that agree in all higher bits, which stand together, a pair is
    wrong where a one stands before a zero. Then each group is parted, zeros first.
    """
    size, found = len(order), 0
    places = np.arange(size, dtype=np.int32)
    values = order
    for bit in range(max(0, (size - 1).bit_length() - 1), -1, -1):
        ones = (values >> bit) & 1
        start = (values >> (bit + 1)) << (bit + 1)  # All smaller values stand before, as many as there are.
        before = np.cumsum(ones, dtype=np.int32)
        before -= ones
        before -= before[start]
        zero = ones == 0
        found += int(before[zero].sum(dtype=np.int64))
        to = np.where(zero, places - before, start + before + np.int32(1 << bit))
        moved = np.empty_like(values)
        moved[to] = values
        values = moved
    return found
