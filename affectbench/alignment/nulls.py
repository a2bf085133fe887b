"""What an alignment is compared with: time labels permuted, shifted, or the hidden states of other speech.

EEG and hidden states are both smooth in time, so their RDMs share the lag between two steps whatever was
heard. Permuting time labels destroys that in one of them: its p values are far too small
(arXiv 2601.16540 uses it; the rates are measured by the analysis ``eeg-nulls``). Hidden states of *other*
speech of the same length keep it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from affectbench.alignment.rdm import FloatArray, as_series

Order = npt.NDArray[np.int64]
Draw = Callable[[int, np.random.Generator], Order]
INVALID = (
    "permuting time labels ignores that both series are smooth in time: it calls independent series aligned "
    "nearly always"
)


def any_order(steps: int, rng: np.random.Generator) -> Order:
    """A permutation of all time steps."""
    return rng.permutation(steps)


def shifted_order(steps: int, rng: np.random.Generator) -> Order:
    """A circular shift by 1 to T - 1 steps."""
    return np.roll(np.arange(steps), int(rng.integers(1, steps)))


def block_order(steps: int, rng: np.random.Generator) -> Order:
    """Blocks of about the root of T steps, permuted."""
    blocks = np.array_split(np.arange(steps), max(2, round(np.sqrt(steps))))
    return np.concatenate([blocks[place] for place in rng.permutation(len(blocks))])


def phases_randomised(series: npt.ArrayLike, rng: np.random.Generator) -> FloatArray:
    """A series (T, features) with the same spectra and cross-spectra: one random phase a frequency, the same
    for all features (Prichard and Theiler 1994)."""
    values = as_series(series)
    spectrum = np.fft.rfft(values, axis=0)
    phases = rng.uniform(0, 2 * np.pi, (len(spectrum), 1))
    phases[0] = 0.0
    if len(values) % 2 == 0:
        phases[-1] = 0.0
    return np.asarray(np.fft.irfft(spectrum * np.exp(1j * phases), n=len(values), axis=0))


@lru_cache(maxsize=16)
def _places(steps: int) -> npt.NDArray[np.int64]:
    """Where a pair of steps stands in a condensed vector, (T, T); on the diagonal, nowhere (-1)."""
    found = np.full((steps, steps), -1, dtype=np.int64)
    upper = np.triu_indices(steps, 1)
    found[upper] = np.arange(upper[0].size)
    found.T[upper] = found[upper]
    return found


def reordered(condensed: FloatArray, order: Order) -> FloatArray:
    """The condensed vector (m,) of a series whose steps were put into another order."""
    upper = np.triu_indices(len(order), 1)
    return condensed[_places(len(order))[order[upper[0]], order[upper[1]]]]


def reordering_null(
    x: FloatArray, y: FloatArray, draw: Draw, draws: int, rng: np.random.Generator
) -> FloatArray:
    """Inner products (draws,) of a condensed vector (m,) with another one under drawn orders of its steps."""
    steps = round((1 + np.sqrt(1 + 8 * x.size)) / 2)
    return np.array([x @ reordered(y, draw(steps, rng)) for _ in range(draws)])


def p_value(observed: float, null: Sequence[float] | FloatArray) -> float:
    """One-sided (#{null >= observed} + 1) / (n + 1); NaN where the statistic is."""
    values = np.asarray(null, dtype=np.float64)
    if np.isnan(observed) or np.isnan(values).any():
        return float("nan")
    return float(((values >= observed - 1e-12).sum() + 1) / (values.size + 1))
