"""What is left of the language model under an intervention: measurements -> one score and the aggregate.

Neutral documents, capability items and open prompts are three samples. A resample draws each of them anew,
apart from the other two, and computes the whole score from it by the formula of the point value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from affectbench import stats
from affectbench.effects import estimate_of
from affectbench.errors import ScoreError
from affectbench.score_models import Arm, Estimate, PreservationCounts, PreservationScore
from affectbench.stats import FloatArray

ROUNDING = 1e-6
"""A divergence may come out this far below 0 by rounding; further below is a defect."""
DIGITS = 6
"""Divergences are kept to so many decimals, in a record and in its scores alike."""
DOCUMENTS, ITEMS, PROMPTS = 2, 3, 4
"""Streams of resamples."""


@dataclass(frozen=True)
class PreservationOutcomes:
    """Measurements of one condition, the intervened model beside the same model without intervention.

    Attributes:
        arm, dose: the condition.
        kl: (D,) or (K, D) KL(base || intervened) summed over the tokens of each of D neutral documents, for
            one or for each of K interventions; nats, teacher-forced.
        nll: (D,) or (K, D) negative log-likelihood of each document, nats; nll_base: (D,) without.
        n_tokens, n_bytes: (D,) predicted tokens and UTF-8 bytes of each document.
        capability, capability_base: (M,) or (K, M) 0/1 correct answers on the same items in the same order,
            or None.
        capability_task: what they were measured on; empty without capability.
        degenerate, degenerate_base: (G,) or (K, G) 0/1 for each open generation, or None.
        capability_random: (R, M) 0/1 as `capability`, under R draws of random units, or None.
    """

    arm: Arm
    dose: float
    kl: npt.ArrayLike
    nll: npt.ArrayLike
    nll_base: npt.ArrayLike
    n_tokens: npt.ArrayLike
    n_bytes: npt.ArrayLike
    capability: npt.ArrayLike | None = None
    capability_base: npt.ArrayLike | None = None
    capability_task: str = ""
    degenerate: npt.ArrayLike | None = None
    degenerate_base: npt.ArrayLike | None = None
    capability_random: npt.ArrayLike | None = None


class Kept(NamedTuple):
    """What is left, each an array (D,) over resamples; NaN where a part is missing or undefined."""

    kl: FloatArray
    bits_per_byte: FloatArray
    perplexity_change: FloatArray
    capability: FloatArray
    capability_change: FloatArray
    degenerate: FloatArray
    pres: FloatArray


@dataclass(frozen=True)
class _Samples:
    """One condition's samples: documents (D, 5: kl, tokens, nll, nll without, bytes), items (M, 2: correct,
    correct without) and prompts (G, 1: degenerate), summed over the interventions of the condition.

    Tokens and bytes count once an intervention. M or G is 0 where that was not measured.
    """

    interventions: int
    documents: FloatArray
    items: FloatArray
    prompts: FloatArray

    def kept(self, documents: FloatArray, items: FloatArray, prompts: FloatArray) -> Kept:
        """From sums (D, ...) over the rows of each sample."""
        kl, tokens, nll, nll_base, n_bytes = documents.T
        answers, replies = (self.interventions * len(rows) for rows in (self.items, self.prompts))
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            correct, base = items.T / answers
            degenerate = prompts[:, 0] / replies
            mean_kl = np.maximum(kl, 0) / tokens
            ratio = np.minimum(1, correct / base)
            return Kept(
                kl=mean_kl,
                bits_per_byte=nll / (math.log(2) * n_bytes),
                perplexity_change=np.expm1((nll - nll_base) / tokens),
                capability=correct,
                capability_change=correct - base,
                degenerate=degenerate,
                pres=_harmonic([np.exp(-mean_kl), ratio, 1 - degenerate]),
            )

    def whole(self) -> Kept:
        """Arrays (1,) of what the samples themselves say."""
        return self.kept(*(rows.sum(axis=0)[None] for rows in (self.documents, self.items, self.prompts)))


def score_preservation(
    measured: Sequence[PreservationOutcomes], *, seed: int, bootstrap_draws: int = 10_000
) -> list[PreservationScore]:
    """Score the conditions of one cell. All see the same resamples of documents, items and prompts.

    Raises:
        ScoreError: a negative divergence, no text, arrays of unequal length, or 0/1 arrays with other values.
    """
    counts = [_counted(each) for each in measured]
    samples = [_samples(one, each) for one, each in zip(counts, measured, strict=True)]
    drawn = _resample(samples, seed, bootstrap_draws)
    return [_score(*parts) for parts in zip(measured, counts, samples, drawn, strict=True)]


def resampled_preservation(
    counts: Iterable[PreservationCounts], *, seed: int, draws: int
) -> list[FloatArray]:
    """`pres` (draws,) of several conditions of one cell in common resamples; NaN where it is undefined."""
    return [found.pres for found in _resample([_samples(each) for each in counts], seed, draws)]


def _score(
    measured: PreservationOutcomes, counts: PreservationCounts, samples: _Samples, drawn: Kept
) -> PreservationScore:
    point = samples.whole()
    if not np.isfinite(point.perplexity_change[0]):
        raise ScoreError(f"{_where(measured)}: perplexity rose beyond what a float can hold")
    base, sick = measured.capability_base, measured.degenerate_base

    def known(name: str) -> Estimate:
        return estimate_of(getattr(point, name)[0], getattr(drawn, name))

    def found(name: str) -> Estimate | None:
        return known(name) if np.isfinite(getattr(point, name)[0]) else None

    return PreservationScore(
        arm=measured.arm,
        dose=measured.dose,
        kl=known("kl"),
        bits_per_byte=known("bits_per_byte"),
        bits_per_byte_base=float(np.sum(measured.nll_base) / math.log(2) / np.sum(measured.n_bytes)),
        perplexity_change=known("perplexity_change"),
        capability=found("capability"),
        capability_base=None if base is None else float(np.asarray(base).mean()),
        capability_change=found("capability_change"),
        capability_task=measured.capability_task,
        degenerate_rate=found("degenerate"),
        degenerate_rate_base=None if sick is None else float(np.asarray(sick).mean()),
        pres=found("pres"),
        counts=counts,
    )


def _counted(measured: PreservationOutcomes) -> PreservationCounts:
    """Check measurements and sum them over their interventions."""
    where = _where(measured)
    kl, nll = _rows(measured.kl), _rows(measured.nll)
    texts = [np.asarray(each, dtype=np.float64) for each in (measured.n_tokens, measured.n_bytes)]
    base = np.asarray(measured.nll_base, dtype=np.float64)
    if not kl.size or any(each.sum() < 1 for each in texts):
        raise ScoreError(f"{where}: no text was measured")
    if nll.shape != kl.shape or {base.shape, *(each.shape for each in texts)} != {kl.shape[1:]}:
        raise ScoreError(f"{where}: kl, likelihoods, tokens and bytes must be of the same documents")
    if not all(np.isfinite(each).all() for each in (kl, nll, base)):
        raise ScoreError(f"{where}: kl and negative log-likelihoods must be finite")
    mean = float(kl.sum() / (len(kl) * texts[0].sum()))
    if mean < -ROUNDING:
        raise ScoreError(f"{where}: the divergence is negative ({mean:g})")
    correct, correct_base = _pairs(
        f"{where}: capability", measured.capability, measured.capability_base, len(kl)
    )
    degenerate, _ = _pairs(f"{where}: degenerate", measured.degenerate, measured.degenerate_base, len(kl))
    random = measured.capability_random
    drawn = None if random is None else _zero_one(f"{where}: capability under random units", random)
    if drawn is not None and drawn.shape[1:] != correct.shape:
        raise ScoreError(f"{where}: {drawn.shape} answers under random units, for {correct.shape} items")
    return PreservationCounts(
        interventions=len(kl),
        kl=_written(kl.sum(axis=0).round(DIGITS)),
        tokens=_written(len(kl) * texts[0]),
        correct=_written(correct),
        correct_base=_written(correct_base),
        degenerate=_written(degenerate),
        random_correct="" if drawn is None else _written(drawn.sum(axis=0)),
        random_totals="" if drawn is None else _written(drawn.sum(axis=1)),
    )


def _samples(counts: PreservationCounts, measured: PreservationOutcomes | None = None) -> _Samples:
    """The samples behind counts; likelihoods, which counts do not hold, are NaN without the measurements."""
    kl, tokens = numbers(counts.kl), numbers(counts.tokens)
    texts = np.full((3, len(kl)), np.nan)
    if measured is not None:
        times = counts.interventions
        base, n_bytes = (times * np.asarray(each) for each in (measured.nll_base, measured.n_bytes))
        texts = np.stack([_rows(measured.nll).sum(axis=0), base, n_bytes])
    return _Samples(
        interventions=counts.interventions,
        documents=np.column_stack([kl, tokens, *texts]),
        items=np.column_stack([numbers(counts.correct), numbers(counts.correct_base)]),
        prompts=numbers(counts.degenerate)[:, None],
    )


def _resample(samples: Sequence[_Samples], seed: int, draws: int) -> list[Kept]:
    """Each condition's scores in `draws` resamples, which all conditions share."""
    tables = [(each.documents, each.items, each.prompts) for each in samples]
    sums = [
        _resampled_sums(parts, seed, draws, stream)
        for parts, stream in zip(zip(*tables, strict=True), (DOCUMENTS, ITEMS, PROMPTS), strict=True)
    ]
    return [each.kept(*parts) for each, parts in zip(samples, zip(*sums, strict=True), strict=True)]


def _resampled_sums(tables: Sequence[FloatArray], seed: int, draws: int, stream: int) -> list[FloatArray]:
    """Column sums (draws, T) of tables (N, T) with common rows drawn anew; NaN below two rows."""
    sizes = sorted({len(table) for table in tables})
    if len(sizes) > 1:
        raise ScoreError(f"conditions of one cell must be measured on the same samples, not on {sizes} items")
    if sizes[0] < 2:
        return [np.full((draws, table.shape[1]), np.nan) for table in tables]
    whole = np.concatenate(tables, axis=1)
    found = stats.bootstrap(whole, lambda sums: sums, draws=draws, seed=seed, stream=stream)
    return np.split(found, np.cumsum([table.shape[1] for table in tables])[:-1], axis=1)


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
    return float(_harmonic([np.array(value, dtype=np.float64) for value in values]))


def _harmonic(values: Sequence[FloatArray]) -> FloatArray:
    """Harmonic mean of arrays of one shape, 0 where one of them is (+ 0.0 turns -0.0 into 0)."""
    with np.errstate(divide="ignore"):
        return np.asarray(len(values) / sum(1 / (value + 0.0) for value in values))


def aggregate(spec: float | None, strength: float | None, pres: float | None) -> float | None:
    """Harmonic mean of the three axes, each clipped to [0, 1]; None if one of them is missing."""
    if spec is None or strength is None or pres is None:
        return None
    return float(aggregates(*(np.array(value, dtype=np.float64) for value in (spec, strength, pres))))


def aggregates(spec: FloatArray, strength: FloatArray, pres: FloatArray) -> FloatArray:
    """The aggregate of arrays of one shape, such as resamples."""
    return _harmonic([np.clip(value, 0, 1) for value in (spec, strength, pres)])


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
    gained = (one - two).sum(axis=0)[:, None].astype(np.float64)
    rates = float(one.mean()), float(two.mean())
    drawn = _resampled_sums([gained], seed, draws, ITEMS)[0][:, 0] / one.size
    return *rates, estimate_of(rates[0] - rates[1], drawn)


def _where(measured: PreservationOutcomes) -> str:
    return f"preservation at {measured.arm} {measured.dose:g}"


def _pairs(
    where: str, now: npt.ArrayLike | None, base: npt.ArrayLike | None, interventions: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Sums over the interventions, with and without; empty where nothing was measured."""
    if (now is None) != (base is None):
        raise ScoreError(f"{where} was measured with or without the intervention only; both are needed")
    if now is None:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    one, two = _zero_one(where, now), _zero_one(where, base)
    if one.shape != two.shape or len(one) != interventions:
        raise ScoreError(f"{where}: {one.shape} and {two.shape} answers, but they must be the same items")
    return one.sum(axis=0), two.sum(axis=0)


def _rows(values: npt.ArrayLike) -> FloatArray:
    """(K, D) of (K, D) or (D,)."""
    return np.atleast_2d(np.asarray(values, dtype=np.float64))


def _zero_one(where: str, values: npt.ArrayLike | None) -> npt.NDArray[np.int64]:
    """(K, M) of (K, M) or (M,)."""
    array = np.asarray(values)
    if array.ndim not in (1, 2) or not array.size or not np.isin(array, (0, 1)).all():
        raise ScoreError(f"{where} must hold one 0 or 1 for each item, got shape {array.shape}")
    return np.atleast_2d(array.astype(np.int64))


def _written(values: npt.NDArray[np.floating | np.integer]) -> str:
    return " ".join(
        f"{value:.0f}" if float(value).is_integer() else f"{value:.{DIGITS}f}" for value in values
    )


def numbers(text: str) -> FloatArray:
    """What a text of `PreservationCounts` holds."""
    return np.array([float(word) for word in text.split()], dtype=np.float64)
