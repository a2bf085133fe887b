"""Preservation, the aggregate, recovery of planted units, and the choice of operating doses."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from example_records import LABELS, example_outcomes, example_record

from affectbench.errors import ScoreError
from affectbench.operating import choose_operating, headline_of
from affectbench.preservation_score import (
    PreservationOutcomes,
    _resample,
    _samples,
    aggregate,
    harmonic,
    paired_rates,
    preservation,
    resampled_preservation,
    score_preservation,
)
from affectbench.record import Operating, ValidationPoint
from affectbench.recovery import auroc, recovery
from affectbench.score import scored
from affectbench.score_models import Estimate

MEASURED = PreservationOutcomes(
    arm="amplify",
    dose=2.0,
    kl=[5.0, 10.0, 10.0],
    nll=[400.0, 400.0, 300.0],
    nll_base=[400.0, 400.0, 200.0],
    n_tokens=[200, 200, 100],
    n_bytes=[800, 700, 500],
    capability=[1, 1, 0, 1, 0, 0, 1, 1],
    capability_base=[1, 1, 1, 1, 0, 1, 1, 1],
    capability_task="cloze",
    degenerate=[0, 0, 0, 1],
    degenerate_base=[0, 0, 0, 0],
)


def test_harmonic_means_of_worked_examples():
    assert [harmonic(t) for t in ((2, 1, 2), (2, 2, 0), (1, 1, 2))] == pytest.approx([1.5, 0, 1.2])
    assert aggregate(0.2, 0.5, 0.9) == pytest.approx(0.369863, abs=1e-6)
    assert aggregate(1.4, 0.5, 0.9) == aggregate(1.0, 0.5, 0.9)
    assert aggregate(-0.1, 0.5, 0.9) == 0
    assert aggregate(0.2, None, 0.9) is None
    for values in ([], [-1.0], [math.nan]):
        with pytest.raises(ScoreError):
            harmonic(values)


def scored_one(measured, **settings):
    return score_preservation([measured], seed=0, **settings)[0]


def test_preservation_of_an_untouched_model_is_one():
    same = replace(
        MEASURED, kl=[0, 0, 0], nll=MEASURED.nll_base, capability=MEASURED.capability_base,
        degenerate=[0, 0, 0, 0],
    )  # fmt: skip
    found = scored_one(same)
    assert found.pres == Estimate(value=1, low=1, high=1, se=0)
    nothing = Estimate(value=0, low=0, high=0, se=0)
    assert [found.kl, found.perplexity_change, found.capability_change, found.degenerate_rate] == [
        nothing
    ] * 4


def test_preservation_parts():
    found = scored_one(MEASURED)
    assert (found.kl.value, found.bits_per_byte_base) == (0.05, pytest.approx(1000 / math.log(2) / 2000))
    assert found.bits_per_byte.value == pytest.approx(1100 / math.log(2) / 2000)
    change = math.exp(1100 / 500) / math.exp(1000 / 500) - 1
    assert found.perplexity_change.value == pytest.approx(change)
    rates = found.capability.value, found.capability_base, found.degenerate_rate.value
    assert rates == (5 / 8, 7 / 8, 0.25)
    assert found.capability_change.value == pytest.approx(-2 / 8)
    assert found.pres.value == pytest.approx(3 / (1 / math.exp(-0.05) + 7 / 5 + 1 / 0.75))


def test_several_interventions_are_averaged():
    def twice(name):
        return np.stack([getattr(MEASURED, name)] * 2)

    names = ("kl", "nll", "capability", "capability_base", "degenerate", "degenerate_base")
    both = scored_one(replace(MEASURED, **{name: twice(name) for name in names}))
    counts = both.counts
    assert (counts.interventions, counts.tokens, counts.degenerate) == (2, "400 400 200", "0 0 0 2")
    assert both.model_copy(update={"counts": None}) == scored_one(MEASURED).model_copy(
        update={"counts": None}
    )


def a_measurement(documents=40, items=80, prompts=30):
    rng = np.random.default_rng(3)
    tokens = rng.integers(20, 200, documents)
    base = rng.random((2, items)) < 0.8
    return PreservationOutcomes(
        arm="amplify", dose=4.0, kl=rng.gamma(1.0, 0.3, (2, documents)) * tokens,
        nll=3.0 * tokens + rng.random((2, documents)), nll_base=2.9 * tokens, n_tokens=tokens,
        n_bytes=4 * tokens, capability=base & (rng.random((2, items)) < 0.8), capability_base=base,
        capability_task="cloze", degenerate=rng.random((2, prompts)) < 0.2,
        degenerate_base=np.zeros((2, prompts), dtype=int),
    )  # fmt: skip


def drawn_plainly(m, rng):
    """Preservation and its parts in one resample, as one would write it without a thought of speed."""
    documents, items, prompts = (
        rng.integers(n, size=n) for n in (len(m.n_tokens), m.capability.shape[1], m.degenerate.shape[1])
    )
    kl = m.kl[:, documents].sum() / (2 * m.n_tokens[documents].sum())
    change = math.expm1(
        (m.nll[:, documents].sum() - 2 * m.nll_base[documents].sum()) / (2 * m.n_tokens[documents].sum())
    )
    now, base = m.capability[:, items].mean(), m.capability_base[:, items].mean()
    broken = m.degenerate[:, prompts].mean()
    return kl, change, now, now - base, broken, preservation(kl, now, base, broken)


def test_intervals_of_preservation_are_those_of_a_plain_loop():
    measured = a_measurement()
    rng = np.random.default_rng(7)
    drawn = np.array([drawn_plainly(measured, rng) for _ in range(6000)])
    found = scored_one(measured)
    names = ("kl", "perplexity_change", "capability", "capability_change", "degenerate_rate", "pres")
    for name, column in zip(names, drawn.T, strict=True):
        estimate, sd = getattr(found, name), column.std()
        ends = np.quantile(column, [0.025, 0.975])
        assert [estimate.low, estimate.high] == pytest.approx(ends, abs=0.2 * sd), name
        assert estimate.se == pytest.approx(sd, rel=0.04), name


def test_interval_of_the_divergence_is_that_of_scipy():
    from scipy.stats import bootstrap

    measured = a_measurement()
    totals = measured.kl.sum(axis=0), 2.0 * measured.n_tokens
    other = bootstrap(
        totals, lambda kl, tokens, axis: kl.sum(axis) / tokens.sum(axis), paired=True, vectorized=True,
        method="percentile", n_resamples=10_000, rng=np.random.default_rng(0),
    )  # fmt: skip
    found = scored_one(measured).kl
    near = pytest.approx(list(other.confidence_interval), abs=0.1 * other.standard_error)
    assert [found.low, found.high] == near


def test_samples_of_one_have_no_interval_and_the_parts_are_resampled_apart():
    single = scored_one(a_measurement(documents=1))
    assert (single.kl.low, single.pres.low) == (None, None)
    assert None not in (single.pres.value, single.capability.low)
    # As many documents as items: were their resamples the same, the parts would move together.
    measured = a_measurement(documents=50, items=50, prompts=50)
    same = replace(measured, kl=1.0 * (1 - measured.capability) * np.array(measured.n_tokens))
    counts = scored_one(same).counts
    drawn = _resample([_samples(counts)], 0, 4000)[0]
    assert abs(np.corrcoef(drawn.kl, drawn.capability)[0, 1]) < 0.06


def test_conditions_of_a_cell_share_their_resamples():
    one = a_measurement()
    worse = replace(one, dose=8.0, kl=2 * np.array(one.kl))
    scores = score_preservation([one, worse], seed=0, bootstrap_draws=500)
    assert scores[0] == scored_one(one, bootstrap_draws=500)
    first, second = resampled_preservation([score.counts for score in scores], seed=0, draws=500)
    assert (second < first).all()
    with pytest.raises(ScoreError, match="same samples"):
        score_preservation([one, a_measurement(documents=3)], seed=0)


def test_capability_interval_is_that_of_the_paired_difference():
    rng = np.random.default_rng(0)
    base = rng.random(400) < 0.8
    now = base & (rng.random(400) < 0.95)
    change = paired_rates("cloze", now, base, seed=0, draws=4000)[2]
    difference = now.astype(int) - base
    assert change.se == pytest.approx(difference.std(ddof=1) / 20, rel=0.05)
    assert change.low < difference.mean() < change.high < 0


def test_preservation_is_missing_where_a_part_is():
    assert preservation(0.1, None, None, 0.0) is None
    assert preservation(0.1, 0.5, 0.0, 0.0) is None
    assert preservation(0.1, 0.5, 0.5, None) is None
    assert preservation(0.1, 0.5, 0.5, 1.0) == 0
    found = scored_one(replace(MEASURED, degenerate=None, degenerate_base=None))
    assert (found.pres, found.degenerate_rate) == (None, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kl": [-0.1, 0, 0]}, "negative"),
        ({"kl": [0, 0, math.nan]}, "finite"),
        ({"nll": [1e9, 0, 0]}, "perplexity"),
        ({"n_tokens": [0, 0, 0]}, "no text"),
        ({"n_bytes": [10, 10]}, "same documents"),
        ({"nll": [[1, 2, 3], [1, 2, 3]]}, "same documents"),
        ({"capability": [1, 0]}, "same items"),
        ({"capability": [2] * 8}, "one 0 or 1"),
        ({"degenerate_base": None}, "both are needed"),
    ],
)
def test_impossible_measurements_are_refused(change, message):
    with pytest.raises(ScoreError, match=message):
        scored_one(replace(MEASURED, **change))


def test_auroc_matches_sklearn_with_ties():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    truth, scores = rng.random(200) < 0.2, rng.integers(0, 8, 200).astype(float)
    assert auroc(scores[truth], scores[~truth]) == pytest.approx(roc_auc_score(truth, scores))


def test_recovery_of_a_perfect_a_useless_and_a_reversed_ranking():
    planted, decoys = [[0, 1], [2, 3]], [[4], [5]]
    perfect = np.zeros((2, 10))
    perfect[0, [0, 1]] = perfect[1, [2, 3]] = 1
    found = recovery(perfect, planted, decoys)
    assert (found.auroc, found.decoy_auroc, found.precision_at_k) == (1, 1, 1)
    flat = recovery(np.zeros((2, 10)), planted, decoys)
    assert (flat.auroc, flat.decoy_auroc) == (0.5, 0.5)
    assert flat.precision_at_k == pytest.approx(0.2)
    assert recovery(-perfect, planted, decoys).auroc == 0


def test_recovery_leaves_out_emotions_without_planted_units():
    found = recovery(np.eye(3, 6), [[0], [], [1]], [[], [], []])
    assert found.auroc_per_emotion == [1.0, None, pytest.approx(0.4)]
    assert found.auroc == pytest.approx(0.7)
    assert found.precision_per_emotion[1] is None
    assert found.decoy_auroc is None


def test_recovery_refuses_contradictions():
    scores = np.zeros((1, 4))
    for planted, decoys, message in [
        ([[4]], [[]], "outside 0..3"),
        ([[0]], [[0]], "planted and as decoy"),
        ([[]], [[]], "nothing to recover"),
        ([[0], [1]], [[]], "disagree"),
    ]:
        with pytest.raises(ScoreError, match=message):
            recovery(scores, planted, decoys)
    with pytest.raises(ScoreError, match="NaN"):
        recovery(scores * np.nan, [[0]], [[]])


def point(arm, dose, spec, pres, collapsed=False):
    return ValidationPoint(arm=arm, dose=dose, spec=spec, pres=pres, collapsed=collapsed)


def test_operating_dose_is_the_most_specific_that_preserves_and_stands():
    points = [
        point("suppress", 0.0, 0.2, 0.95),
        point("amplify", 1.5, 0.1, 0.99),
        point("amplify", 2.0, 0.3, 0.91),
        point("amplify", 4.0, 0.5, 0.5),
        point("amplify", 8.0, 0.9, 0.95, collapsed=True),
    ]
    found = choose_operating(points)
    assert (found.suppress_dose, found.amplify_dose) == (0.0, 2.0)


def test_operating_dose_where_nothing_preserves_collapses_or_is_measured():
    found = choose_operating([point("suppress", 0.0, 0.2, 0.4), point("suppress", 0.5, 0.1, 0.6)])
    assert found.suppress_dose == 0.5
    assert found.amplify_dose is None
    assert "no dose keeps" in found.reason
    assert "amplify: not run" in found.reason
    assert choose_operating([point("suppress", 0.0, 0.2, 0.4, collapsed=True)]).suppress_dose is None
    unmeasured = choose_operating([point("suppress", 0.0, 0.2, None), point("suppress", 0.5, 0.3, None)])
    assert unmeasured.suppress_dose == 0.5
    assert "not measured" in unmeasured.reason


def test_headline_takes_the_worse_preservation_and_no_aggregate_without_all_three_axes():
    record = example_record()
    operating = Operating(suppress_dose=0.0, amplify_dose=2.0, reason="")
    kept = {(p.arm, p.dose): p.pres.value for p in record.preservation}
    found = headline_of(record.scores, None, operating, record.preservation)
    assert found.pres.value == min(kept["suppress", 0.0], kept["amplify", 2.0])
    total = aggregate(found.spec.value, found.strength.value, found.pres.value)
    assert found.agg == Estimate(value=total)
    assert headline_of(record.scores, None, operating, record.preservation[:1]).agg is None
    only_suppress = Operating(suppress_dose=0.0, amplify_dose=None, reason="")
    assert headline_of(record.scores, None, only_suppress, record.preservation).agg is None
    neither = Operating(suppress_dose=None, amplify_dose=2.0, reason="")
    assert headline_of(record.scores, None, neither, record.preservation) is None


def test_headline_of_a_collapsed_test_dose_has_no_aggregate():
    outcomes = example_outcomes()
    always = np.repeat(np.arange(len(LABELS))[:, None], len(outcomes.items), axis=1)
    collapsed = tuple(replace(c, predictions=always) if c.dose == 2 else c for c in outcomes.conditions)
    scores, drawn = scored(replace(outcomes, conditions=collapsed), seed=0, bootstrap_draws=200)
    operating = Operating(suppress_dose=0.0, amplify_dose=2.0, reason="")
    found = headline_of(scores, drawn, operating, example_record().preservation)
    assert found.pres is not None
    assert found.agg is None


def axes_plainly(outcomes, rows):
    """Specificity of the suppress arm at dose 0 and strength, over these items, some of them repeatedly."""
    gold, base = outcomes.gold[rows], outcomes.base[rows]
    emotions = range(len(outcomes.labels))

    def matrix(condition):
        answers = condition.predictions[:, rows]
        return np.array(
            [
                [np.mean(answers[s][gold == e] == e) - np.mean(base[gold == e] == e) for e in emotions]
                for s in emotions
            ]
        )

    def shift(condition):
        answers = condition.predictions[:, rows]
        return np.mean(
            [np.mean(answers[s][gold != s] == s) - np.mean(base[gold != s] == s) for s in emotions]
        )

    zero = next(c for c in outcomes.conditions if (c.arm, c.dose) == ("suppress", 0.0))
    changes = matrix(zero)
    own = np.mean(np.diag(changes))
    others = (changes.sum() - np.trace(changes)) / (changes.size - len(changes))
    curve = sorted((c.alpha, shift(c)) for c in outcomes.conditions if c.arm == "amplify")
    alphas, heights = zip((0.0, 0.0), *curve, strict=True)
    return others - own, np.trapezoid(heights, alphas) / alphas[-1]


def test_interval_of_the_aggregate_joins_one_resample_of_clusters_with_one_of_preservation():
    outcomes = example_outcomes()
    arms = [a_measurement(), replace(a_measurement(), arm="suppress", dose=0.0)]
    arms[1] = replace(arms[1], kl=0.1 * np.array(arms[1].kl))
    kept = score_preservation(arms, seed=0)
    scores, drawn = scored(outcomes, seed=0)
    operating = Operating(suppress_dose=0.0, amplify_dose=4.0, reason="")
    assert {(c.arm, c.dose) for c in outcomes.conditions} >= {("suppress", 0.0), ("amplify", 4.0)}
    found = headline_of(scores, drawn, operating, kept)
    rng = np.random.default_rng(1)
    clusters = np.unique(outcomes.clusters)
    members = [np.flatnonzero(outcomes.clusters == cluster) for cluster in clusters]
    plain = []
    for _ in range(500):
        rows = np.concatenate([members[c] for c in rng.integers(len(members), size=len(members))])
        spec, strength = axes_plainly(outcomes, rows)
        state = rng.integers(2**32)  # Both arms see the same documents, items and prompts.
        pres = min(drawn_plainly(arm, np.random.default_rng(state))[-1] for arm in arms)
        plain.append((spec, strength, pres, aggregate(spec, strength, pres)))
    for name, column in zip(("spec", "strength", "pres", "agg"), np.array(plain).T, strict=True):
        estimate = getattr(found, name)
        ends = np.quantile(column, [0.025, 0.975])
        assert [estimate.low, estimate.high] == pytest.approx(ends, abs=0.3 * column.std()), name
        assert estimate.se == pytest.approx(column.std(), rel=0.1), name
