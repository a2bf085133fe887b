"""Wheel metrics: golden vectors of the official maps where they are, and small wheels worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from affectbench.cli import app
from affectbench.emotion_wheel import (
    Wheels,
    closed_set_recall,
    hit_rate,
    open_vocabulary,
    parse_list,
    sentiment,
)
from affectbench.errors import AffectbenchError, ScoreError

OFFICIAL = Path(__file__).resolve().parents[2] / "shared/data/emotion_wheel/wheel_mapping.json"
GOLDEN = """
happy / joy | happy | happy | joyful | joy | powerful
angry / anger | mad | angry | mad | anger | mad
worried / fear / anxious | scared | fearful | scared | fear | scared
sad / sadness | sad | sad | sad | sad | sad
surprise / surprised | surprised | surprised | powerful | fear | NONE
disgust / disgusted | disgusted | disgusted | NONE | disgust | NONE
guilt | sad | sad | sad | disgust | sad
shame | mad | angry | NONE | disgust | NONE
pride | happy | happy | powerful | genius | powerful
excited | surprised | happy | joyful | genius | joyful
frustrated | sad | sad | mad | sad | mad
love | happy | happy | peaceful | joy | joyful
contempt | NONE | angry | NONE | NONE | NONE
bored | NONE | bad | sad | sad | sad
relief | happy | NONE | NONE | joy | NONE
trust | happy | happy | powerful | NONE | powerful
calm | happy | happy | peaceful | joy | peaceful
neutral | NONE | NONE | NONE | NONE | NONE
"""
SETS = {
    "MELD": {
        "anger": 345, "joy": 402, "sadness": 208, "neutral": 1256, "disgust": 68, "fear": 50, "surprise": 281,
    },
    "IEMOCAP": {"happy": 442, "neutral": 384, "sad": 245, "anger": 170},
}  # fmt: skip


@pytest.fixture(scope="module")
def official() -> Wheels:
    if not OFFICIAL.is_file():
        pytest.skip("the official wheels (no licence stated) are not on this machine")
    return Wheels.read(OFFICIAL)


def test_labels_are_grouped_as_in_the_golden_table(official: Wheels) -> None:
    rows = [line.split(" | ") for line in GOLDEN.strip().splitlines()]
    for names, *expected in rows:
        for label in names.split(" / "):
            found = [official.cluster(label, wheel) or "NONE" for wheel in range(5)]
            assert found == expected, label
    assert official.cluster("  Worried ", 0) == "scared"


def test_the_middle_rings_are_those_of_the_golden_checks(official: Wheels) -> None:
    for label, expected in {
        "happy": ["joyful", "content", "cheerful", "acceptance", "proud"],
        "worried": ["anxious", "anxious", "anxious", "worried", "anxious"],
        "surprise": ["amazed", "amazed", "aware", "surprised", None],
    }.items():
        assert [official.cluster(label, wheel, "level2") for wheel in range(5)] == expected


def test_the_maps_have_their_published_sizes(official: Wheels) -> None:
    assert (len(official.forms), len(official.synonyms)) == (7356, 1255)
    assert [len(wheel["level1"]) for wheel in official.clusters] == [114, 126, 78, 102, 77]
    rings = [
        [len(set(wheel[level].values())) for wheel in official.clusters] for level in ("level1", "level2")
    ]
    assert rings == [[6, 7, 6, 6, 6], [36, 41, 36, 48, 36]]


def test_countable_items_are_those_of_the_sets(official: Wheels) -> None:
    counted = {}
    for name, sizes in SETS.items():
        gold = [label for label, count in sizes.items() for _ in range(count)]
        counted[name] = hit_rate(official, gold, [["happy"]] * len(gold)).counted
    assert counted == {"MELD": (1354, 1354, 1286, 1354, 1005), "IEMOCAP": (857,) * 5}


def test_the_own_list_of_labels_always_hits(official: Wheels) -> None:
    gold = [label for sizes in SETS.values() for label in sizes]
    found = hit_rate(official, gold, [gold] * len(gold))
    assert found.value == 1.0
    assert found.precision < 0.5 < found.length
    assert found.coverage < 1


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Wheels:
    """Two wheels: a and b are apart in the first and one in the second; n is in neither."""
    one = {"a": "A", "b": "B", "c": "C"}
    two = {"a": "A", "b": "A"}
    content = {
        "format_mapping": {
            "a": ["a"],
            "as": ["a"],
            "b": ["b", "nothing"],
            "c": ["c"],
            "n": ["n"],
            "b d": ["b"],
        },
        "raw_mapping": {"a": ["z", "a"], "b": ["b"], "c": ["c"], "n": []},
        "wheel_map_whole": {
            f"wheel{place}": {"level1": words, "level2": words} for place, words in enumerate((one, two), 1)
        },
    }
    path = tmp_path_factory.mktemp("wheels") / "wheels.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return Wheels.read(path)


def test_hit_rates_are_those_worked_out_by_hand(small: Wheels) -> None:
    found = hit_rate(small, ["a", "b", "n", "c"], [["as"], ["a", "n"], ["n"], []])
    assert found.wheels == (1 / 3, 1.0)  # a hit, b not in wheel 1, c unanswered; c is not in wheel 2.
    assert found.value == pytest.approx(2 / 3)
    assert (found.counted, found.n, found.coverage) == ((3, 2), 4, 5 / 8)
    assert found.length == 1.0
    assert found.precision == pytest.approx((1 + 0 + 0 + 1 + 1) / 5)


def test_f_is_of_the_mean_precision_and_recall(small: Wheels) -> None:
    found = open_vocabulary(small, [["a"], ["a", "b"]], [["a", "b"], ["a"]])
    assert found.wheels == (0.75, 1.0)
    assert (found.precision, found.recall, found.f) == (0.875, 0.875, 0.875)
    nothing = open_vocabulary(small, [["a"], ["n"]], [["c"], ["a"]])
    assert nothing.wheels == (0.0, 0.0)
    assert nothing.counted == (1, 1)
    empty = open_vocabulary(small, [["a"]], [[]])
    assert (empty.precision, empty.recall, empty.f) == (0.0, 0.0, 0.0)


def test_sentiment_is_that_of_the_golden_example_and_of_scikit_learn() -> None:
    golden = sentiment([1.2, -0.4, 0, 0.8], [1, 0, 1, -1])
    assert golden.counted == 3
    assert golden.accuracy == pytest.approx(2 / 3)
    assert golden.weighted_f1 == pytest.approx(2 / 3)
    assert golden.three_way == 0.25
    from sklearn.metrics import accuracy_score, f1_score

    rng = np.random.default_rng(0)
    gold, answers = rng.integers(-3, 4, size=(2, 400))
    found, kept = sentiment(gold.tolist(), answers.tolist()), gold != 0
    assert found.weighted_f1 == pytest.approx(f1_score(gold[kept] > 0, answers[kept] > 0, average="weighted"))
    assert found.accuracy == pytest.approx(accuracy_score(gold[kept] > 0, answers[kept] > 0))
    assert np.isnan(sentiment([0.0], [1.0]).weighted_f1)


def test_neutral_counts_in_the_closed_set(small: Wheels) -> None:
    gold, answers = ["a", "a", "n", "n"], [["a"], ["x", "A "], ["n"], ["a", "n"]]
    assert closed_set_recall(gold, answers) == 0.75


def test_lists_are_parsed_as_published() -> None:
    assert parse_list("['happy', 'very sad']") == ["happy", "very sad"]
    assert parse_list(' ["calm"] ') == ["calm"]
    assert parse_list("happy, , sad") == ["happy", "sad"]
    assert parse_list("[]") == []


def test_labels_are_found_in_free_text_longest_first(small: Wheels) -> None:
    assert small.labels_in("He As b d, and b; never Zebra: as.") == ["as", "b d", "b"]
    assert small.labels_in("") == []


def test_what_is_no_wheel_or_does_not_pair_is_refused(tmp_path: Path, small: Wheels) -> None:
    path = tmp_path / "other.json"
    with pytest.raises(ScoreError, match=r"other.json does not hold emotion wheels: FileNotFoundError"):
        Wheels.read(path)
    path.write_text(
        '{"format_mapping": {}, "raw_mapping": {}, "wheel_map_whole": {"wheel1": {"level1": {}}}}'
    )
    with pytest.raises(ScoreError, match="level1 and level2"):
        Wheels.read(path)
    with pytest.raises(ScoreError, match="2 gold labels and 1 answers"):
        hit_rate(small, ["a", "b"], [["a"]])
    with pytest.raises(ScoreError, match="finite"):
        sentiment([float("nan")], [1.0])


ROWS = [
    {"set": "one", "gold": "a", "answer": ["as"]},
    {"set": "one", "gold": "b", "answer": "['a', 'n']"},
    {"set": "two", "gold": "n", "answer": "It is n, she said."},
    {"set": "two", "gold": "c", "answer": ""},
]


def wheels_of(tmp_path: Path, small: Wheels, rows: list[dict[str, object]], *more: str) -> Any:
    """The command's result on rows; the small wheels are written out for it."""
    answers, maps = tmp_path / "answers.jsonl", tmp_path / "maps.json"
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = {
        "format_mapping": small.forms, "raw_mapping": small.synonyms,
        "wheel_map_whole": {f"wheel{place}": wheel for place, wheel in enumerate(small.clusters)},
    }  # fmt: skip
    maps.write_text(json.dumps(content))
    options = ["--wheels", str(maps)] if "--no-wheels" not in more else []
    kept = [each for each in more if each != "--no-wheels"]
    return CliRunner().invoke(app, ["wheels", str(answers), "--format", "json", *options, *kept])


def test_the_command_scores_each_set(tmp_path: Path, small: Wheels) -> None:
    found = json.loads(wheels_of(tmp_path, small, ROWS).stdout)
    assert found["one"]["wheels"] == [0.5, 1.0]
    assert found["one"]["hit rate"] == 0.75
    assert found["two"]["labels an answer"] == 0.5
    assert found["two"]["closed-set UAR"] == 0.5
    assert found["two"]["wheels"] == [0.0, None]  # Neither n nor c is in the second wheel.
    rows = [{"gold": ["a"], "answer": ["a", "b"]}, {"gold": ["a", "b"], "answer": ["a"]}]
    found = json.loads(wheels_of(tmp_path, small, rows, "--metric", "open").stdout)["answers"]
    assert (found["F"], found["n"]) == (0.875, 2)
    rows = [{"gold": gold, "answer": answer} for gold, answer in ((1.2, 1), (-0.4, 0), (0, 1), (0.8, -1))]
    found = json.loads(wheels_of(tmp_path, small, rows, "--metric", "sentiment", "--no-wheels").stdout)[
        "answers"
    ]
    assert found["weighted_f1"] == pytest.approx(2 / 3)


def test_drawn_answers_are_scored_apart_as_mean_and_spread(tmp_path: Path, small: Wheels) -> None:
    best: list[dict[str, object]] = [{"set": "one", "gold": "a", "answer": ["a"]}]
    drawn = [
        {"set": "one", "gold": gold, "answer": [answer], "sample": sample}
        for sample, answers in ((1, "ab"), (2, "ac"), (3, "cc"))
        for gold, answer in zip("ab", answers, strict=True)
    ]
    failed: dict[str, object] = {"set": "one", "gold": "a", "error": "no sound"}
    found = json.loads(wheels_of(tmp_path, small, [*best, *drawn, failed]).stdout)
    assert (found["one"]["hit rate"], found["one"]["n"], found["one"]["errors"]) == (1.0, 1, 1)
    rates = [1.0, 0.5, 0.0]
    assert found["one, drawn"]["hit rate"] == pytest.approx(np.mean(rates))
    assert found["one, drawn"]["hit rate sd"] == pytest.approx(np.std(rates, ddof=1))
    assert (found["one, drawn"]["samples"], found["one, drawn"]["errors"]) == (3, 0)
    text = wheels_of(tmp_path, small, [*best, *drawn], "--format", "text").stdout
    assert "0.500 ± 0.500" in text


def test_the_command_says_what_is_wrong_with_its_input(tmp_path: Path, small: Wheels) -> None:
    for rows, more, message in (
        (ROWS, ("--metric", "hits"), "metric 'hits' does not exist"),
        (ROWS, ("--no-wheels",), "groups labels by emotion wheels"),
        ([{"gold": "a"}], (), "expected `gold` and `answer`"),
        ([], (), "holds no rows"),
        ([{"gold": "a", "error": "no sound"}], (), "all rows of answers have errors"),
        ([{"gold": "a", "answer": "a", "sample": "x"}], (), "sample 'x'"),
        ([{"gold": 3, "answer": "a"}], (), "expected a label, found 3"),
        ([{"gold": "a", "answer": 1}], ("--metric", "sentiment"), "expected a number, found 'a'"),
    ):
        result = wheels_of(tmp_path, small, rows, *more)  # type: ignore[arg-type]
        assert isinstance(result.exception, AffectbenchError)
        assert message in result.exception.message
