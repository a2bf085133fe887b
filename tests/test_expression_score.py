"""What is measured of judged replies, against values worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affectbench.errors import RecordError
from affectbench.expression_score import distinct, rescored, score_expression
from affectbench.outcomes import ERROR, UNPARSED, Condition, Outcomes
from affectbench.replies import COLUMNS, FLAGS, WORDS, Replies, read_replies
from affectbench.score import score_outcomes
from affectbench.text_measures import Topicality

LABELS = ("anger", "joy")
ROWS: list[dict[str, Any]] = [
    # Prompted: anger right, anger judged joy, joy right, joy without judgement.
    {"item": "a__anger", "gold": 0, "code": 0, "masked_code": 0, "noun": True, "stem": True,
     "topicality": 0.5},
    {"item": "b__anger", "gold": 0, "code": 1, "masked_code": 1, "stem": True},
    {"item": "a__joy", "gold": 1, "code": 1, "masked_code": UNPARSED, "capped": True},
    {"item": "b__joy", "gold": 1, "code": ERROR, "masked_code": ERROR, "failure": "parse",
     "degenerate": True},
    # Plain.
    {"prompt": "plain", "item": "a", "gold": -1, "code": UNPARSED, "masked_code": UNPARSED},
    {"prompt": "plain", "item": "b", "gold": -1, "code": 1, "masked_code": 1},
    # Steered to anger, then to joy.
    *(
        {"prompt": "plain", "condition": "amplify", "dose": 2.0, "target": LABELS[s], "item": item, "gold": s,
         "code": code, "masked_code": code}
        for s, codes in enumerate([(0, 0), (1, UNPARSED)])
        for item, code in zip("ab", codes, strict=True)
    ),
    # Anger suppressed: its own texts count, those of joy do not.
    {"condition": "suppress", "dose": 0.0, "target": "anger", "item": "a__anger", "gold": 0,
     "code": UNPARSED},
    {"condition": "suppress", "dose": 0.0, "target": "anger", "item": "a__joy", "gold": 1, "code": 0},
    {"condition": "suppress", "dose": 0.0, "target": "joy", "item": "a__joy", "gold": 1, "code": 1},
]  # fmt: skip


def replies(rows: list[dict[str, Any]]) -> Replies:
    default: dict[str, Any] = dict.fromkeys(FLAGS, False) | {
        "prompt": "elicited", "condition": "base", "dose": math.nan, "target": "", "failure": "",
        "text": "one two three four", "topicality": 0.0, "masked_code": UNPARSED,
    }  # fmt: skip
    full = [default | {"cluster": row["item"][0]} | row for row in rows]
    columns = {name: np.array([row[name] for row in full], dtype=object) for name in WORDS}
    kinds = {"dose": np.float64, "topicality": np.float32} | dict.fromkeys(FLAGS, bool)
    for name in COLUMNS:
        if name not in WORDS:
            columns[name] = np.array([row[name] for row in full], dtype=kinds.get(name, np.int16))
    return Replies(LABELS, columns)


@pytest.fixture(scope="module")
def scores() -> Any:
    return score_expression(replies(ROWS), "judge", "digest", seed=0, groups=(3, 4))


def test_prompted_texts_are_counted_by_what_they_were_told(scores: Any) -> None:
    found = scores.prompting
    assert found.rows == list(LABELS)
    assert found.matrix == [[0.5, 0.5, 0.0], [0.0, 0.5, 0.0]]
    assert (found.n, found.n_clusters, found.judged_share) == (4, 2, 0.75)
    assert (found.accuracy.value, found.masked_accuracy.value) == (0.5, 0.25)
    assert found.accuracy_judged == pytest.approx(2 / 3)
    assert (found.n_parse, found.n_request, found.n_model) == (1, 0, 0)
    assert (found.noun.value, found.stem.value) == (0.25, 0.5)
    assert (found.degenerate.value, found.capped.value, found.topicality.value) == (0.25, 0.25, 0.125)
    assert found.none.value == 0.0
    assert found.distinct_3 == 2 / 8


def test_plain_texts_have_no_emotion_to_be_right_about(scores: Any) -> None:
    found = scores.plain
    assert (found.rows, found.matrix) == (["no emotion"], [[0.0, 0.5, 0.5]])
    assert (found.accuracy, found.masked_accuracy, found.noun, found.stem) == (None, None, None, None)


def test_steered_and_suppressed_texts_are_counted_by_their_target(scores: Any) -> None:
    steered, suppressed = scores.conditions
    assert (steered.condition, steered.dose, steered.matrix) == ("amplify", 2.0, [[1, 0, 0], [0, 0.5, 0.5]])
    assert steered.accuracy.value == 0.75
    assert (suppressed.condition, suppressed.n) == ("suppress", 2)
    assert suppressed.matrix == [[0, 0, 1], [0, 1, 0]]


def test_intervals_are_percentiles_over_whole_scenarios(scores: Any) -> None:
    """Two scenarios give three resamples: a twice (1/4), both (1/2), b twice (1/4)."""
    found = scores.prompting.accuracy
    assert (found.low, found.high) == (0.0, 1.0)
    assert scores.prompting.low[0][0] == 0.0
    assert scores.prompting.high[0][0] == 1.0
    assert scores.failed
    assert (scores.n_groups, scores.n_asked) == (3, 4)


def test_the_order_of_conditions_is_that_of_the_rows_and_scoring_again_is_the_same(scores: Any) -> None:
    assert rescored(scores, replies(ROWS), 0) == scores


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a b c d", "a b c e"], 3 / 4),
        (["a b c", "a b c"], 1 / 2),
        (["a b"], None),
        ([], None),
        (["x x x x x"], 1 / 3),
    ],
)
def test_distinct_triples_over_all_texts_together(texts: list[str], expected: float | None) -> None:
    assert distinct(texts) == expected


def test_topicality_is_the_cosine_of_tfidf_vectors() -> None:
    measure = Topicality(["boat harbour", "boat mountain"])
    idf = 1 + math.log(3 / 2)  # harbour: in one of two texts; boat: in both, so 1.
    cosine = 1 / math.sqrt(1 + idf**2)
    found = measure.of(["The boat!", "harbour boat", "nothing here", ""], ["boat harbour"] * 4)
    np.testing.assert_allclose(found, [cosine, 1.0, 0.0, 0.0], atol=1e-12)


def test_a_file_of_replies_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "replies.parquet"
    path.write_bytes(replies(ROWS).to_parquet())
    again = read_replies(path)
    assert again.digest == replies(ROWS).digest
    assert score_expression(again, "judge", "digest", seed=0, groups=(3, 4)) == score_expression(
        replies(ROWS), "judge", "digest", seed=0, groups=(3, 4)
    )
    changed = [dict(row) for row in ROWS]
    changed[0]["text"] = "other"
    assert replies(changed).digest != again.digest
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RecordError, match=r"replies\.parquet are damaged"):
        read_replies(path)


def test_a_model_that_prompts_do_not_move_is_scored_where_it_was_not_prompted() -> None:
    """All elicited replies express nothing; steered plain ones do."""
    n, nothing = 12, np.full(12, UNPARSED, dtype=np.int8)
    gold = np.tile([0, 1], 6)
    steered = Condition(
        "amplify", 1.0, 1.0, np.stack([np.full(n, 0), np.full(n, 1)]).astype(np.int8),
        np.full((2, n), np.nan, dtype=np.float32), np.zeros((0, n), dtype=np.int8), base=nothing,
    )  # fmt: skip
    outcomes = Outcomes(
        labels=LABELS,
        items=np.array([f"i{k}" for k in range(n)]),
        gold=gold,
        clusters=np.repeat(np.arange(6), 2),
        base=nothing,
        base_margin=np.full((n, 2), np.nan, dtype=np.float32),
        conditions=(steered,),
    )
    found = score_outcomes(outcomes, seed=0, bootstrap_draws=200)
    assert found.status == "ok", found.reason
    assert found.doses[0].effect_matrix == [[1.0, 0.0], [0.0, 1.0]]
    assert not found.doses[0].collapsed
    assert (
        score_outcomes(
            replace(outcomes, conditions=(replace(steered, base=None),)), seed=0, bootstrap_draws=200
        ).reason
        == "the model without intervention gives no item a label: there is nothing to change"
    )
