"""The measures of alignment between two series over the same time steps, each with its estimator.

Most measures are an inner product of something made of each series alone. So a measure says what that is
(`Measure.side`), and one matrix product gives it for any number of layers, lags and mismatched stimuli.
Kendall's tau-b, RV and the pairwise information need both series at once (`Measure.pair`), but not all of
the work: what each series gives alone (`Measure.half`) is made once.

Estimator ``paper`` is what the released code of arXiv 2601.16540 computes, under names that say what that is;
``debiased`` is about zero for independent series of any length. Degenerate series give NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from affectbench.alignment import kernels
from affectbench.alignment.kendall import tau_b
from affectbench.alignment.rdm import Distance, FloatArray, as_series, degenerate, ranks, rdm
from affectbench.errors import AffectbenchError
from affectbench.yaml_loading import suggest

Estimator = Literal["paper", "debiased"]
Family = Literal["geometric", "covariance"]
Side = Callable[[FloatArray, Distance], FloatArray]
Pair = Callable[[FloatArray, FloatArray], float]


@dataclass(frozen=True)
class Measure:
    """One measure: its family and estimator, and either `side` or `pair`.

    `side` maps a series (T, features) to a vector whose inner product with that of another series is the
    measure; `pair` maps what `half` makes of two series to it.
    """

    name: str
    title: str
    family: Family
    estimator: Estimator
    side: Side | None = None
    half: Side | None = None
    pair: Pair | None = None

    def prepared(self, series: FloatArray, distance: Distance) -> FloatArray:
        """What the measure needs of one series: its `side`, or its `half`."""
        made = self.side or self.half
        assert made is not None, "a measure has a side or a half"
        return made(series, distance)

    def joined(self, first: FloatArray, second: FloatArray) -> float:
        """The measure of two series from what `prepared` gives for each."""
        return float(first @ second) if self.pair is None else self.pair(first, second)

    def __call__(self, x: npt.ArrayLike, y: npt.ArrayLike, distance: Distance = "correlation") -> float:
        """The measure of two series (T, p) and (T, q); NaN where either is degenerate.

        Raises `AffectbenchError` where they differ in length.
        """
        first, second = as_series(x), as_series(y)
        if len(first) != len(second):
            raise AffectbenchError(
                f"{self.name}: {len(first)} and {len(second)} time steps",
                hint="bring both series to one grid",
            )
        if degenerate(first) or degenerate(second):
            return float("nan")
        return self.joined(self.prepared(first, distance), self.prepared(second, distance))


def _unit(vector: FloatArray) -> FloatArray:
    """The vector at length one; NaN for one without length."""
    norm = np.linalg.norm(vector)
    return vector / norm if norm > 0 else np.full(vector.shape, np.nan)


def _standard(vector: FloatArray) -> FloatArray:
    """Centred, at length one: inner products are then Pearson correlations."""
    return _unit(vector - vector.mean())


def _pearson_side(series: FloatArray, distance: Distance) -> FloatArray:
    return _standard(rdm(series, distance))


def _spearman_side(series: FloatArray, distance: Distance) -> FloatArray:
    return _standard(ranks(rdm(series, distance)))


def lag_side(times: FloatArray) -> FloatArray:
    """The Spearman side of how far steps at those `times` (T,) are apart."""
    first, second = np.triu_indices(len(times), 1)
    return _standard(ranks(np.abs(times[second] - times[first])))


def lag_taken_out(series: FloatArray, lag: FloatArray, distance: Distance) -> FloatArray:
    """What is left of a series' Spearman side when a `lag_side` is taken out: inner products are partial
    Spearman correlations given the time between two steps."""
    own = _spearman_side(series, distance)
    return _unit(own - (own @ lag) * lag)


@lru_cache(maxsize=64)
def _even_lag(steps: int) -> FloatArray:
    found = lag_side(np.arange(steps, dtype=np.float64))
    found.setflags(write=False)
    return found


def _lag_partial_side(series: FloatArray, distance: Distance) -> FloatArray:
    return lag_taken_out(series, _even_lag(len(series)), distance)


def _kernel_side(
    gram: Callable[[FloatArray], FloatArray],
    centre: Callable[[FloatArray], FloatArray],
    finish: Callable[[FloatArray], FloatArray] = _unit,
) -> Side:
    def side(series: FloatArray, _distance: Distance) -> FloatArray:
        nothing = kernels.nan_like_folded(series)
        return finish(kernels.folded(centre(gram(series)))) if nothing is None else nothing

    return side


def _rbf_lower(series: FloatArray) -> FloatArray:
    return kernels.rbf_gram(series, "lower")


def _hsic_side(series: FloatArray, _distance: Distance) -> FloatArray:
    nothing = kernels.nan_like_folded(series)
    if nothing is not None:
        return nothing
    return kernels.folded(kernels.double_centred(_rbf_lower(series))) / (len(series) - 1)


def _ranked(series: FloatArray, distance: Distance) -> FloatArray:
    return ranks(rdm(series, distance))


def _centred(series: FloatArray, _distance: Distance) -> FloatArray:
    return np.asarray(series - series.mean(axis=0))


def _unit_columns(series: FloatArray, _distance: Distance) -> FloatArray:
    """Columns centred, at length one; NaN where one does not vary."""
    centred = series - series.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(centred / np.linalg.norm(centred, axis=0))


def _rv(x: FloatArray, y: FloatArray) -> float:
    """tr(X'YY'X) / sqrt(tr((X'X)^2) tr((Y'Y)^2)) of centred columns (Escoufier 1973)."""
    norms = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(x.T @ y) ** 2 / norms)


def _pairwise_information(x: FloatArray, y: FloatArray) -> float:
    """Mean over all pairs of unit columns of -ln(1 - rho^2) / 2, in nats; NaN where no pair has variance."""
    with np.errstate(invalid="ignore"):
        rho = x.T @ y
    rho = rho[np.isfinite(rho)]
    if rho.size == 0:
        return float("nan")
    return float(np.mean(-0.5 * np.log1p(-np.minimum(rho**2, 1 - 1e-12))))


_RSA: tuple[tuple[str, str, Side | None, Side | None, Pair | None], ...] = (
    ("rsa_spearman", "RSA, Spearman", _spearman_side, None, None),
    ("rsa_pearson", "RSA, Pearson", _pearson_side, None, None),
    ("tau_b", "RSA, Kendall's tau-b", None, _ranked, tau_b),
)
_double, _u = kernels.double_centred, kernels.u_centred
MEASURES: dict[Estimator, dict[str, Measure]] = {"paper": {}, "debiased": {}}
for _name, _title, _side, _half, _pair in _RSA:
    for _which in MEASURES:
        MEASURES[_which][_name] = Measure(_name, _title, "geometric", _which, _side, _half, _pair)
for _measure in (
    Measure("cka_linear", "CKA, linear", "covariance", "paper", _kernel_side(kernels.linear_gram, _double)),
    Measure("cka_rbf", "CKA, RBF", "covariance", "paper", _kernel_side(_rbf_lower, _double)),
    Measure("rv", "RV", "covariance", "paper", None, _centred, _rv),
    Measure("hsic_rbf", "HSIC, RBF", "covariance", "paper", _hsic_side),
    Measure(
        "dcor_squared", "distance correlation, squared", "covariance", "paper",
        _kernel_side(kernels.distances, _double),
    ),
    Measure(
        "pairwise_mi", "mean pairwise information", "covariance", "paper", None, _unit_columns,
        _pairwise_information,
    ),
    Measure("rsa_lag_partial", "RSA, lag taken out", "geometric", "debiased", _lag_partial_side),
    Measure("cka_linear", "CKA, linear", "covariance", "debiased", _kernel_side(kernels.linear_gram, _u)),
    Measure("cka_rbf", "CKA, RBF", "covariance", "debiased", _kernel_side(kernels.rbf_gram, _u)),
    Measure(
        "dcor_squared", "distance correlation, squared", "covariance", "debiased",
        _kernel_side(kernels.distances, _u),
    ),
    Measure(
        "pairwise_mi", "mean pairwise information", "covariance", "debiased", None, _unit_columns,
        _pairwise_information,
    ),
):  # fmt: skip
    MEASURES[_measure.estimator][_measure.name] = _measure


def measure(name: str, estimator: Estimator) -> Measure:
    """The measure of that name. Raises `AffectbenchError` with a suggestion."""
    known = MEASURES[estimator]
    if name not in known:
        raise AffectbenchError(
            f"metric {name!r} has no estimator {estimator!r}{suggest(name, known)}",
            hint=f"{estimator}: {', '.join(known)}",
        )
    return known[name]
