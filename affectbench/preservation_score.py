"""What is left of the language model under an intervention: measurements -> one score and the aggregate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from affectbench import stats
from affectbench.errors import ScoreError
from affectbench.score_models import Arm, Estimate, PreservationScore

ROUNDING = 1e-6
"""A divergence may come out this far below 0 by rounding; further below is a defect."""


@dataclass(frozen=True)
class PreservationOutcomes:
    """Measurements of one condition, the intervened model beside the same model without intervention.

    Attributes:
        arm, dose: the condition.
        kl: mean over tokens of KL(base || intervened), nats, teacher-forced on fixed neutral text.
        nll, nll_base: summed negative log-likelihood of that text, nats.
        n_tokens, n_bytes: its predicted tokens and its UTF-8 bytes.
        capability, capability_base: (M,) or (K, M) 0/1 correct answers on the same items in the same order,
            for one or for each of K interventions, or None.
        capability_task: what they were measured on; empty without capability.
        degenerate, degenerate_base: (G,) or (K, G) 0/1 for each open generation, or None.
    """

    arm: Arm
    dose: float
    kl: float
    nll: float
    nll_base: float
    n_tokens: int
    n_bytes: int
    capability: npt.ArrayLike | None = None
    capability_base: npt.ArrayLike | None = None
    capability_task: str = ""
    degenerate: npt.ArrayLike | None = None
    degenerate_base: npt.ArrayLike | None = None


def score_preservation(
    measured: PreservationOutcomes, *, seed: int, bootstrap_draws: int = 10_000
) -> PreservationScore:
    """Score one condition; the capability difference is paired and its interval a bootstrap over items.

    Raises:
        ScoreError: a negative divergence, no text, 0/1 arrays of unequal length or with other values.
    """
    where = f"preservation at {measured.arm} {measured.dose:g}"
    if measured.n_tokens < 1 or measured.n_bytes < 1:
        raise ScoreError(f"{where}: no text was measured")
    if not all(map(math.isfinite, (measured.kl, measured.nll, measured.nll_base))):
        raise ScoreError(f"{where}: kl and negative log-likelihoods must be finite")
    if measured.kl < -ROUNDING:
        raise ScoreError(f"{where}: the divergence is negative ({measured.kl:g})")
    kl = max(0.0, measured.kl)
    capability, degenerate = measured.capability, measured.degenerate
    rate = rate_base = sick = sick_base = change = None
    if _both(f"{where}: capability", capability, measured.capability_base):
        rate, rate_base, change = paired_rates(
            f"{where}: capability", capability, measured.capability_base, seed=seed, draws=bootstrap_draws
        )
    if _both(f"{where}: degenerate", degenerate, measured.degenerate_base):
        sick, sick_base = _rate(f"{where}: degenerate", degenerate), _rate(where, measured.degenerate_base)
    bits = math.log(2) * measured.n_bytes
    return PreservationScore(
        arm=measured.arm,
        dose=measured.dose,
        kl=kl,
        bits_per_byte=measured.nll / bits,
        bits_per_byte_base=measured.nll_base / bits,
        perplexity_change=_perplexity_change(where, measured),
        capability=rate,
        capability_base=rate_base,
        capability_change=change,
        capability_task=measured.capability_task,
        degenerate_rate=sick,
        degenerate_rate_base=sick_base,
        pres=preservation(kl, rate, rate_base, sick),
    )


def preservation(
    kl: float, capability: float | None, capability_base: float | None, degenerate_rate: float | None
) -> float | None:
    """Harmonic mean of exp(-kl), min(1, capability / capability_base) and 1 - degenerate_rate.

    None if a part is missing, or if the model had no capability to keep (base 0).

    Raises:
        ScoreError: a divergence that is negative or not finite.
    """
    if not 0 <= kl < math.inf:
        raise ScoreError(f"a divergence is finite and not negative, got {kl}")
    if capability is None or not capability_base or degenerate_rate is None:
        return None
    return harmonic([math.exp(-kl), min(1.0, capability / capability_base), 1.0 - degenerate_rate])


def harmonic(values: Sequence[float]) -> float:
    """Harmonic mean; 0 if any value is 0.

    Raises:
        ScoreError: no values, or one that is negative or not finite.
    """
    if not values or not all(math.isfinite(v) and v >= 0 for v in values):
        raise ScoreError(f"a harmonic mean needs values of 0 or more, got {list(values)}")
    return 0.0 if min(values) == 0 else len(values) / math.fsum(1 / v for v in values)


def aggregate(spec: float | None, strength: float | None, pres: float | None) -> float | None:
    """Harmonic mean of the three axes, each clipped to [0, 1]; None if one of them is missing."""
    if spec is None or strength is None or pres is None:
        return None
    return harmonic([min(1.0, max(0.0, value)) for value in (spec, strength, pres)])


def _perplexity_change(where: str, measured: PreservationOutcomes) -> float:
    try:
        return math.expm1((measured.nll - measured.nll_base) / measured.n_tokens)
    except OverflowError as error:
        raise ScoreError(f"{where}: perplexity rose beyond what a float can hold") from error


def paired_rates(
    where: str, now: npt.ArrayLike | None, base: npt.ArrayLike | None, *, seed: int, draws: int
) -> tuple[float, float, Estimate]:
    """Rate with the intervention, rate without, and their paired difference, bootstrapped over items.

    Args:
        where: how messages call these measurements.
        now, base: (M,) 0/1 for the same items in the same order; or (K, M) for K interventions, whose answers
            to an item are resampled together.

    Raises:
        ScoreError: no items, unequal lengths, or other values than 0 and 1.
    """
    one, two = _zero_one(where, now), _zero_one(where, base)
    if one.shape != two.shape:
        raise ScoreError(f"{where}: {one.shape} and {two.shape} answers, but they must be the same items")
    gained = (one - two).reshape(-1, one.shape[-1]).sum(axis=0)
    n_answers, n_items = one.size, one.shape[-1]
    rates = float(one.mean()), float(two.mean())
    value = rates[0] - rates[1]
    if n_items < 2:
        return *rates, Estimate(value=value)
    found = stats.bootstrap(gained[:, None], lambda sums: sums / n_answers, draws=draws, seed=seed)
    low, high = np.quantile(found, [0.025, 0.975])
    return *rates, Estimate(value=value, low=float(low), high=float(high), se=float(found.std(ddof=1)))


def _both(where: str, now: npt.ArrayLike | None, base: npt.ArrayLike | None) -> bool:
    if (now is None) != (base is None):
        raise ScoreError(f"{where} was measured with or without the intervention only; both are needed")
    return now is not None


def _rate(where: str, values: npt.ArrayLike | None) -> float:
    return float(_zero_one(where, values).mean())


def _zero_one(where: str, values: npt.ArrayLike | None) -> npt.NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim not in (1, 2) or not array.size or not np.isin(array, (0, 1)).all():
        raise ScoreError(f"{where} must hold one 0 or 1 for each item, got shape {array.shape}")
    return array.astype(np.int64)
