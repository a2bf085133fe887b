"""Scores against worked examples, sklearn, and formulas written out as loops over items."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from example_records import LABELS, example_outcomes

from affectbench import stats
from affectbench.effects import effects
from affectbench.outcomes import ERROR, UNPARSED, Condition, Outcomes
from affectbench.score import score_outcomes

PUBLISHED = np.array([[-0.30, -0.02, -0.04], [-0.05, -0.20, 0.01], [-0.10, 0.00, -0.25]])


def answers_with_recall(recall: list[float], per_label: int = 100) -> np.ndarray:
    """Answers to items sorted by gold label: the first `recall` of each are right, the rest one label on."""
    n = len(recall)
    parts = [
        np.where(np.arange(per_label) < round(r * per_label), e, (e + 1) % n) for e, r in enumerate(recall)
    ]
    return np.concatenate(parts)


def outcomes_of(base, rows, arm="suppress", *, gold=None, clusters=None, draws=None) -> Outcomes:
    rows = np.asarray(rows)
    n_labels, n_items = rows.shape
    gold = np.repeat(np.arange(n_labels), n_items // n_labels) if gold is None else np.asarray(gold)
    unknown = np.full((n_labels, n_items), np.nan)
    draws = np.empty((0, n_items), dtype=int) if draws is None else draws
    condition = Condition(arm, 0.0 if arm == "suppress" else 2.0, 1.0, rows, unknown, draws)
    return Outcomes(
        labels=tuple("abcdefg"[:n_labels]),
        items=np.arange(n_items).astype(str),
        gold=gold,
        clusters=np.arange(n_items) if clusters is None else np.asarray(clusters),
        base=np.asarray(base),
        base_margin=unknown.T,
        conditions=(condition,),
    )


def scored(outcomes: Outcomes, draws: int = 300):
    return score_outcomes(outcomes, seed=0, bootstrap_draws=draws)


# Worked examples


def test_published_effect_matrix_as_an_array():
    found = effects(PUBLISHED, -1.0)
    assert found.self_effect == pytest.approx(-0.25)
    assert found.cross_effect == pytest.approx(-0.033333, abs=1e-6)
    assert found.gap_abs == pytest.approx(0.213333, abs=1e-6)
    assert found.row_gap == pytest.approx([-0.27, -0.18, -0.20])
    assert effects(PUBLISHED.T, -1.0).row_gap == pytest.approx([-0.225, -0.19, -0.235])


def test_published_effect_matrix_from_predictions():
    base = [0.6, 0.5, 0.5]
    rows = [answers_with_recall(list(base + row)) for row in PUBLISHED]
    dose = scored(outcomes_of(answers_with_recall(base), rows)).doses[0]
    assert np.array(dose.effect_matrix) == pytest.approx(PUBLISHED)
    assert dose.spec.value == pytest.approx(0.216667, abs=1e-6)
    assert dose.gap == pytest.approx(-0.216667, abs=1e-6)
    assert dose.gap_abs.value == pytest.approx(0.213333, abs=1e-6)
    assert [e.spec.value for e in dose.emotions] == pytest.approx([0.27, 0.18, 0.20])
    assert dose.cross_row == pytest.approx([-0.03, -0.02, -0.05])
    assert dose.cross_column == pytest.approx([-0.075, -0.01, -0.015])
    assert dose.trs.value == pytest.approx(0.25)


def test_constant_answer_has_no_gap_and_is_collapsed():
    base = answers_with_recall([0.6, 0.4, 0.5])
    dose = scored(outcomes_of(base, np.zeros((3, 300), dtype=int))).doses[0]
    assert dose.spec.value == 0
    assert dose.gap_abs.value == pytest.approx(-0.266667, abs=1e-6)
    assert dose.collapsed
    assert not dose.significant


def test_always_answering_the_target_is_collapsed_despite_its_gap():
    base = answers_with_recall([0.6, 0.4, 0.5])
    always = np.repeat(np.arange(3)[:, None], 300, axis=1)
    scores = scored(outcomes_of(base, always, "amplify"))
    dose = scores.doses[0]
    assert dose.spec.value == pytest.approx(1)
    assert dose.gap_abs.value == pytest.approx(0)
    assert dose.uar_change.value == pytest.approx(-0.166667, abs=1e-6)
    assert dose.collapsed
    assert scores.strength.max_trs is None


def test_no_operation_changes_nothing():
    outcomes = example_outcomes()
    same = tuple(
        replace(c, predictions=np.tile(outcomes.base, (7, 1)), margin=outcomes.base_margin.T)
        for c in outcomes.conditions
    )
    scores = scored(replace(outcomes, conditions=same))
    for dose in scores.doses:
        assert not np.any(dose.effect_matrix)
        assert (dose.spec.low, dose.spec.high, dose.p, dose.flip_rate) == (0, 0, 1, 0)
        assert not dose.significant
    assert scores.strength.strength.value == 0
    assert scores.strength.slope == pytest.approx(0)


# Independent formulas


def test_every_statistic_equals_a_loop_over_items():
    outcomes = example_outcomes(0.7, seed=5)
    scores = scored(outcomes)
    n_labels, gold, base = len(LABELS), outcomes.gold, outcomes.base
    for dose, condition in zip(scores.doses, outcomes.conditions, strict=True):
        matrix = np.zeros((n_labels, n_labels))
        shifts = []
        for s in range(n_labels):
            for e in range(n_labels):
                own = [i for i in range(len(gold)) if gold[i] == e]
                after = sum(condition.predictions[s][i] == e for i in own) / len(own)
                matrix[s, e] = after - sum(base[i] == e for i in own) / len(own)
            if condition.arm == "amplify":
                others = [i for i in range(len(gold)) if gold[i] != s]
                after = sum(condition.predictions[s][i] == s for i in others) / len(others)
                shifts.append(after - sum(base[i] == s for i in others) / len(others))
            else:
                shifts.append(-matrix[s, s])
        d = 1 if condition.arm == "amplify" else -1
        off = matrix[~np.eye(n_labels, dtype=bool)]
        assert np.array(dose.effect_matrix) == pytest.approx(matrix)
        assert dose.spec.value == pytest.approx(d * (np.trace(matrix) / n_labels - off.mean()))
        assert dose.gap_abs.value == pytest.approx(d * np.trace(matrix) / n_labels - abs(off).mean())
        assert dose.uar_change.value == pytest.approx(matrix.mean())
        assert dose.trs.value == pytest.approx(np.mean(shifts))
        assert [e.trs.value for e in dose.emotions] == pytest.approx(shifts)
        pairs = [(p, b) for row in condition.predictions for p, b in zip(row, base, strict=True)]
        assert dose.flip_rate == pytest.approx(np.mean([p != b for p, b in pairs]))
        assert dose.margin_mean == pytest.approx(condition.margin.mean(), rel=1e-5)
        assert dose.uar == pytest.approx(scores.baseline.uar + matrix.mean())
        largest = max(max(np.mean(row == e) for e in range(n_labels)) for row in condition.predictions)
        share = largest - max(np.mean(base == e) for e in range(n_labels))
        assert dose.collapse_share == pytest.approx(share)


def test_p_is_the_sign_flip_test_of_the_row_gap_summed_by_cluster():
    outcomes = example_outcomes(0.15, seed=13)
    gold, base = outcomes.gold, outcomes.base
    found = scored(outcomes, draws=500).doses[0].emotions
    names = np.unique(outcomes.clusters)
    table = np.zeros((len(names), 7))
    for s, row in enumerate(outcomes.conditions[0].predictions):
        for i, (answer, before) in enumerate(zip(row, base, strict=True)):
            weight = (1 if gold[i] == s else -1 / 6) / (gold == gold[i]).sum()
            change = int(answer == gold[i]) - int(before == gold[i])
            table[names == outcomes.clusters[i], s] += weight * change
    assert table.sum(axis=0) == pytest.approx([-e.spec.value for e in found])
    p = stats.sign_flip(table, draws=500, seed=0)
    assert [e.p for e in found] == pytest.approx(p)
    assert [e.p_holm for e in found] == pytest.approx(stats.holm(p))


def test_an_emotion_that_moved_the_wrong_way_earns_no_star():
    """One emotion's own recall rises under suppression, surely; the others fall a little, unsurely."""
    per_label, n_labels = 60, 3
    base = answers_with_recall([0.5, 0.5, 0.5], per_label)
    gold = np.repeat(np.arange(n_labels), per_label)
    rows = np.stack([base.copy() for _ in range(n_labels)])
    rows[0, gold == 0] = 0
    for target in (1, 2):
        own = np.flatnonzero((gold == target) & (base == target))[:2]
        rows[target, own] = 0
    dose = scored(outcomes_of(base, rows), draws=2000).doses[0]
    by_label = {emotion.label: emotion for emotion in dose.emotions}
    assert by_label["a"].spec.value < 0
    assert by_label["a"].p_holm < 0.01
    assert dose.p > 0.05
    assert dose.p == min(emotion.p_holm for emotion in dose.emotions if emotion.spec.value > 0)
    assert not dose.significant


def test_recall_and_uar_match_sklearn():
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix

    outcomes = example_outcomes(seed=6)
    baseline = scored(outcomes).baseline
    assert baseline.uar == pytest.approx(balanced_accuracy_score(outcomes.gold, outcomes.base))
    assert baseline.accuracy == pytest.approx(accuracy_score(outcomes.gold, outcomes.base))
    assert (np.array(baseline.confusion) == confusion_matrix(outcomes.gold, outcomes.base)).all()


def test_intervals_equal_resampling_items_cluster_by_cluster():
    from sklearn.metrics import balanced_accuracy_score

    outcomes = example_outcomes(0.5, seed=7)
    found = scored(outcomes, draws=200)
    dose, _, _, strong = found.doses
    names, codes = np.unique(outcomes.clusters, return_inverse=True)
    members = [np.flatnonzero(codes == c) for c in range(len(names))]
    values, shifts, recalls = [], [], []
    for row in np.random.default_rng([0, 0]).integers(0, len(names), size=(200, len(names))):
        chosen = np.concatenate([members[c] for c in row])
        values.append(_spec_of(outcomes, chosen))
        shifts.append(_shift_of(outcomes, chosen))
        recalls.append(balanced_accuracy_score(outcomes.gold[chosen], outcomes.base[chosen]))
    uar = found.baseline.uar_interval
    assert (uar.low, uar.high) == pytest.approx(np.quantile(recalls, [0.025, 0.975]))
    assert (dose.spec.low, dose.spec.high) == pytest.approx(np.quantile(values, [0.025, 0.975]))
    assert dose.spec.se == pytest.approx(np.std(values, ddof=1))
    corrected = dose.spec_corrected
    assert (corrected.low, corrected.high) == pytest.approx(np.quantile(values, [0.025 / 4, 1 - 0.025 / 4]))
    assert (strong.trs.low, strong.trs.high) == pytest.approx(np.quantile(shifts, [0.025, 0.975]))


def _spec_of(outcomes: Outcomes, chosen: np.ndarray) -> float:
    gold, base = outcomes.gold[chosen], outcomes.base[chosen]
    rows = outcomes.conditions[0].predictions[:, chosen]
    matrix = np.array(
        [[(row[gold == e] == e).mean() - (base[gold == e] == e).mean() for e in range(7)] for row in rows]
    )
    off = matrix[~np.eye(7, dtype=bool)].mean()
    return -(np.trace(matrix) / 7 - off)


def _shift_of(outcomes: Outcomes, chosen: np.ndarray) -> float:
    gold, base = outcomes.gold[chosen], outcomes.base[chosen]
    rows = outcomes.conditions[3].predictions[:, chosen]
    others = [gold != s for s in range(7)]
    return np.mean([(rows[s][o] == s).mean() - (base[o] == s).mean() for s, o in enumerate(others)])


def test_strength_is_the_area_over_the_largest_alpha_in_any_order_of_doses():
    outcomes = example_outcomes(seed=8)
    scores = scored(outcomes)
    curve = {0.0: 0.0} | {d.alpha: d.trs.value for d in scores.doses if d.arm == "amplify"}
    expected = np.trapezoid(list(curve.values()), list(curve)) / max(curve)
    assert scores.strength.strength.value == pytest.approx(expected)
    assert np.mean(scores.strength.per_emotion) == pytest.approx(expected)
    turned = scored(replace(outcomes, conditions=outcomes.conditions[::-1]))
    assert turned.strength == scores.strength


def test_margin_slope_is_the_mean_of_fits_to_single_items():
    outcomes = example_outcomes(seed=9, n_per_label=3)
    amplify = [c for c in outcomes.conditions if c.arm == "amplify"]
    alphas = [0.0] + [c.alpha for c in amplify]
    slopes = [
        np.polyfit(alphas, [outcomes.base_margin[i, s]] + [c.margin[s, i] for c in amplify], 1)[0]
        for s in range(7)
        for i in range(21)
    ]
    found = scored(outcomes).strength
    assert found.slope == pytest.approx(np.mean(slopes), rel=1e-5)
    assert found.anti_steerable_share == pytest.approx(np.mean(np.array(slopes) < 0))


# Random controls


def test_random_controls_take_each_row_from_another_draw():
    outcomes = example_outcomes(0.8, seed=10, n_draws=20)
    dose, condition = scored(outcomes).doses[0], outcomes.conditions[0]
    gold, base = outcomes.gold, outcomes.base
    change = np.array(
        [
            [(d[gold == e] == e).mean() - (base[gold == e] == e).mean() for e in range(7)]
            for d in condition.draws
        ]
    )
    specs = []
    for j in range(20):
        matrix = np.array([change[(j + s) % 20] for s in range(7)])
        specs.append(-(np.trace(matrix) / 7 - matrix[~np.eye(7, dtype=bool)].mean()))
    assert dose.random.spec == pytest.approx(specs)
    assert dose.random.z == pytest.approx((dose.spec.value - np.mean(specs)) / np.std(specs, ddof=1))
    assert dose.random.p == pytest.approx(1 / 21)
    gaps = [-(row[2] - np.delete(row, 2).mean()) for row in change]
    expected = (1 + sum(g >= dose.emotions[2].spec.value for g in gaps)) / 21
    assert dose.emotions[2].p_random == pytest.approx(expected)


@pytest.mark.parametrize("n_draws", [0, 6])
def test_fewer_draws_than_emotions_give_no_random_control_and_no_significance(n_draws):
    dose = scored(example_outcomes(1.0, n_draws=n_draws)).doses[0]
    assert dose.random is None
    assert dose.emotions[0].p_random is None
    assert dose.p < 0.05
    assert not dose.significant


def test_a_strong_effect_is_significant_and_none_is_not():
    strong, nothing = scored(example_outcomes(0.9)).doses[0], scored(example_outcomes(0.0)).doses[0]
    assert strong.significant
    assert strong.spec_corrected.low < strong.spec.low < strong.spec.value < strong.spec.high
    assert not nothing.significant


def test_neither_a_collapse_nor_what_random_units_do_too_is_significant():
    outcomes = example_outcomes(0.9)
    alone, condition = scored(outcomes).doses[0], outcomes.conditions[0]
    alike = replace(condition, draws=condition.predictions)
    matched = scored(replace(outcomes, conditions=(alike,))).doses[0]
    assert (alone.significant, matched.significant, matched.random.p) == (True, False, 0.25)
    always = np.repeat(np.arange(7)[:, None], len(outcomes.items), axis=1)
    collapsed = replace(outcomes.conditions[3], predictions=always)
    dose = scored(replace(outcomes, conditions=(collapsed,))).doses[0]
    assert dose.spec_corrected.low > 0.5
    assert dose.random.p < 0.05
    assert not dose.significant


def test_null_selectors_are_rarely_significant():
    hits = sum(scored(example_outcomes(0.0, seed=s, n_per_label=10)).doses[0].significant for s in range(40))
    assert hits <= 4


# Odd input


def test_result_depends_neither_on_item_order_nor_on_code_types():
    outcomes = example_outcomes(seed=11)
    order = np.random.default_rng(0).permutation(len(outcomes.items))
    shuffled = Outcomes(
        labels=outcomes.labels,
        items=outcomes.items[order],
        gold=outcomes.gold[order].astype(np.int8),
        clusters=outcomes.clusters[order],
        base=outcomes.base[order].astype(np.int8),
        base_margin=outcomes.base_margin[order],
        conditions=tuple(
            replace(
                c,
                predictions=c.predictions[:, order].astype(np.int8),
                margin=c.margin[:, order],
                draws=c.draws[:, order].astype(np.int8),
            )
            for c in outcomes.conditions
        ),
    )
    assert scored(shuffled) == scored(outcomes)


def test_seed_decides_the_resamples_and_only_them():
    outcomes = example_outcomes(seed=12)
    one, same, other = (score_outcomes(outcomes, seed=s, bootstrap_draws=300) for s in (1, 1, 2))
    assert one == same
    assert other.doses[0].spec.value == one.doses[0].spec.value
    assert other.doses[0].spec.low != one.doses[0].spec.low


def test_unparsed_and_failed_answers_count_as_wrong_and_are_counted():
    base = answers_with_recall([1.0, 1.0])
    rows = np.tile(base, (2, 1))
    rows[0, :10], rows[1, 150:155] = UNPARSED, ERROR
    dose = scored(outcomes_of(base, rows)).doses[0]
    assert np.array(dose.effect_matrix) == pytest.approx(np.array([[-0.1, 0], [0, -0.05]]))
    assert (dose.n_unparsed, dose.n_error) == (10, 5)


def test_a_label_without_items_is_insufficient_and_nothing_is_scored():
    gold = np.array([0, 1] * 20)
    scores = scored(outcomes_of(gold, np.tile(gold, (3, 1)), gold=gold))
    assert scores.status == "insufficient"
    assert "gold label c" in scores.reason
    assert scores.doses == []
    assert scores.baseline.recall == [1.0, 1.0, None]
    assert scores.baseline.uar is None


def test_a_model_that_answers_nothing_is_insufficient():
    scores = scored(outcomes_of(np.full(40, UNPARSED), np.full((2, 40), UNPARSED)))
    assert scores.status == "insufficient"
    assert scores.baseline.n_unparsed == 40


def test_one_cluster_gives_points_without_intervals():
    outcomes = example_outcomes(0.9)
    scores = scored(replace(outcomes, clusters=np.full(len(outcomes.items), "one")))
    assert scores.status == "insufficient"
    assert "at least 2 clusters" in scores.reason
    dose = scores.doses[0]
    assert dose.spec.value == scored(outcomes).doses[0].spec.value
    assert (dose.spec.low, dose.spec.se, dose.spec_corrected.low, dose.p) == (None, None, None, None)
    assert not dose.significant


def test_too_few_clusters_to_keep_every_emotion_in_a_resample():
    base = answers_with_recall([0.7, 0.7, 0.7])
    scores = scored(outcomes_of(base, np.tile(base, (3, 1)), clusters=np.repeat([0, 1, 2], 100)))
    assert scores.status == "insufficient"
    assert "3 clusters are too few" in scores.reason
    assert scores.doses[0].spec.low is None


def test_generation_readout_without_margins_has_no_slope():
    outcomes = example_outcomes()
    unknown = replace(
        outcomes,
        base_margin=np.full_like(outcomes.base_margin, np.nan),
        conditions=tuple(replace(c, margin=np.full_like(c.margin, np.nan)) for c in outcomes.conditions),
    )
    scores = scored(unknown)
    assert scores.strength.slope is None
    assert scores.doses[1].margin_mean is None
    assert scores.strength.strength == scored(outcomes).strength.strength


def test_suppress_alone_has_no_strength():
    outcomes = example_outcomes()
    assert scored(replace(outcomes, conditions=outcomes.conditions[:1])).strength is None


def test_a_quick_start_cell_scores_at_once():
    outcomes = example_outcomes(n_per_label=30, n_clusters=210)
    score_outcomes(outcomes, seed=0)
    start = time.process_time()
    score_outcomes(outcomes, seed=0)
    assert time.process_time() - start < 1.5
