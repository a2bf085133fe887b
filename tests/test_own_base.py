"""Conditions that are compared with a base of their own: asked another question than the other arm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from example_records import LABELS, example_outcomes

from affectbench.differences import same_items
from affectbench.errors import ScoreError
from affectbench.outcomes import UNPARSED, Outcomes, content_digest, of_labels
from affectbench.predictions import from_parquet, to_parquet
from affectbench.score import score_outcomes

DRAWS = 300


def two_questions(seed: int = 0) -> Outcomes:
    """The amplify arm was asked something else: without intervention nearly nobody names an emotion."""
    outcomes = example_outcomes(0.7, seed=seed)
    rng = np.random.default_rng(seed + 100)
    own = np.where(
        rng.random(len(outcomes.gold)) < 0.1, rng.integers(0, len(LABELS), len(outcomes.gold)), UNPARSED
    )
    return replace(
        outcomes,
        conditions=tuple(
            replace(each, base=own) if each.arm == "amplify" else each for each in outcomes.conditions
        ),
    )


def alone(outcomes: Outcomes, arm: str) -> Outcomes:
    """One arm as outcomes of their own, whose base is that arm's."""
    conditions = tuple(replace(each, base=None) for each in outcomes.conditions if each.arm == arm)
    own = next(each.base for each in outcomes.conditions if each.arm == arm)
    if own is None:
        return replace(outcomes, conditions=conditions)
    nothing = np.full(outcomes.base_margin.shape, np.nan)
    margins = tuple(replace(each, margin=np.full(each.margin.shape, np.nan)) for each in conditions)
    return replace(outcomes, base=own, base_margin=nothing, conditions=margins)


@pytest.mark.parametrize("arm", ["suppress", "amplify"])
def test_each_arm_scores_as_it_does_alone(arm: str) -> None:
    outcomes = two_questions()
    both = [dose for dose in score_outcomes(outcomes, seed=3, bootstrap_draws=DRAWS).doses if dose.arm == arm]
    one = score_outcomes(alone(outcomes, arm), seed=3, bootstrap_draws=DRAWS).doses
    skipped = {
        "spec_corrected",
        "margin_mean",
        "significant",
        "collapsed",
    }  # Of all conditions, or of margins.
    for found, expected in zip(both, one, strict=True):
        assert found.model_dump(exclude=skipped) == expected.model_dump(exclude=skipped)
        assert found.random is not None
        assert [each.base_recall for each in found.emotions] == [
            each.base_recall for each in expected.emotions
        ]


def test_the_baseline_and_its_interval_are_those_of_the_outcomes() -> None:
    outcomes = two_questions()
    found = score_outcomes(outcomes, seed=3, bootstrap_draws=DRAWS)
    expected = score_outcomes(alone(outcomes, "suppress"), seed=3, bootstrap_draws=DRAWS)
    assert found.baseline == expected.baseline
    assert found.strength is not None
    assert found.strength.slope is None


def test_answering_the_target_everywhere_is_no_collapse_where_nothing_called_for_it() -> None:
    outcomes = two_questions()
    shape = (len(LABELS), len(outcomes.gold))
    every = np.repeat(np.arange(len(LABELS))[:, None], shape[1], axis=1)
    nothing = np.full(shape, np.nan)
    conditions = tuple(replace(each, predictions=every, margin=nothing) for each in outcomes.conditions)
    doses = score_outcomes(replace(outcomes, conditions=conditions), seed=0, bootstrap_draws=DRAWS).doses
    assert {dose.arm: dose.collapsed for dose in doses} == {"suppress": True, "amplify": False}
    amplified = next(dose for dose in doses if dose.arm == "amplify")
    assert amplified.self_effect.value > 0.9
    assert amplified.collapse_share > 0.5


def test_they_come_back_from_a_file_and_are_a_part_of_the_digest(tmp_path: Path) -> None:
    outcomes = two_questions()
    path = tmp_path / "kept.parquet"
    path.write_bytes(to_parquet({"test": outcomes}))
    found = from_parquet(path)["test"]
    assert same_items(found, outcomes.ordered())
    for one, two in zip(found.conditions, outcomes.ordered().conditions, strict=True):
        assert (one.base is None) == (two.base is None) == (two.arm == "suppress")
        if one.base is not None and two.base is not None:
            np.testing.assert_array_equal(one.base, two.base)
    assert content_digest({"test": found}) == content_digest({"test": outcomes})
    assert content_digest({"test": outcomes}) != content_digest({"test": example_outcomes(0.7)})


def test_they_follow_their_items_and_labels() -> None:
    outcomes = two_questions()
    some = of_labels(outcomes, ("fear", "anger"))
    (first, *_) = [each for each in some.conditions if each.arm == "amplify"]
    own = outcomes.conditions[-1].base
    assert own is not None
    assert first.base is not None
    chosen = own[np.isin(outcomes.gold, [LABELS.index("fear"), LABELS.index("anger")])]
    assert (first.base == 0).sum() == (chosen == LABELS.index("fear")).sum()
    assert (first.base == UNPARSED).sum() == (chosen == UNPARSED).sum()


def test_one_that_does_not_fit_is_named() -> None:
    outcomes = two_questions()
    with pytest.raises(ScoreError, match="amplify 2: base has shape"):
        replace(outcomes, conditions=(replace(outcomes.conditions[2], base=np.zeros(3, dtype=int)),))
