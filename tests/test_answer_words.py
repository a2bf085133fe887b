"""The answer-word control: its items, its scores beside the task's, and its way through records and files."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e_content import BENCHMARK, MODEL, PROTOCOL, Bench, card, write_protocol, write_yaml
from example_records import LABELS, example_outcomes

from affectbench.answer_words import answer_word_items, answer_words_digest, answer_words_size
from affectbench.content import builtin_root
from affectbench.operating import judged
from affectbench.outcomes import ANSWER_WORDS, Condition, Outcomes, content_digest
from affectbench.plan import job_of_names
from affectbench.predictions import from_parquet, to_parquet
from affectbench.preservation_score import PreservationOutcomes, score_preservation
from affectbench.ratios import quotients, ratio_estimate
from affectbench.record import Operating
from affectbench.score import score_outcomes
from affectbench.score_models import Estimate, PreservationScore
from affectbench.store import Store
from affectbench.task import Benchmark, InterventionProtocol, load_as
from affectbench.word_score import is_able, is_high, score_answer_words

TASKS = builtin_root() / "tasks"
OPERATING = Operating(suppress_dose=0.0, amplify_dose=2.0, reason="")
DRAWS = 4000


def benchmark(name: str, **changes: Any) -> Benchmark:
    return load_as(TASKS / "benchmarks" / f"{name}.yaml", Benchmark).model_copy(update=changes)


BENCHMARKS = ("reference-narratives", "reference-narratives-letters", "reference-speech", "goemotions")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_cluster_demands_every_label_once_and_nothing_else_changes(name: str) -> None:
    asked = benchmark(name)
    items = answer_word_items(asked)
    assert len(items) == answer_words_size(asked) == 16 * len(asked.labels)
    assert len({example.id for example, _ in items}) == len(items)
    clusters = Counter((example.cluster, example.label) for example, _ in items)
    assert set(clusters.values()) == {1}
    assert len(clusters) == len(items)
    carriers: dict[str, set[str]] = {}
    for example, prompt in items:
        word = asked.verbaliser(example.label).strip()
        assert example.text is not None
        assert f'"{word}"' in example.text
        assert prompt.content_span is not None
        start, end = prompt.content_span
        assert prompt.text[start:end] == example.text
        carriers.setdefault(example.cluster, set()).add(example.text.replace(word, ""))
    assert all(len(found) == 1 for found in carriers.values())


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_prompts_demand_the_tasks_own_answers_and_hold_no_sound(name: str) -> None:
    asked = benchmark(name)
    for example, prompt in answer_word_items(asked):
        assert "{" not in prompt.text
        assert len(prompt.answer_options) == len(asked.labels)
        gold = asked.labels.index(example.label)
        if asked.readout.kind == "letters":
            letter = prompt.answer_options[gold].strip()
            assert f"\n{letter}. {example.label}" in prompt.text
            assert prompt.order is not None
            assert prompt.order["ABCDEFG".index(letter)] == gold
        else:
            assert prompt.answer_options[gold] == asked.verbaliser(example.label)


def test_the_options_come_in_many_orders_so_that_a_place_tells_nothing() -> None:
    places = Counter()
    for example, prompt in answer_word_items(benchmark("reference-narratives-letters")):
        assert prompt.order is not None
        places[prompt.order.index(LABELS.index(example.label))] += 1
    assert len(places) == len(LABELS)
    assert max(places.values()) < 0.3 * sum(places.values())


def test_items_follow_from_the_benchmark_alone_and_their_hash_from_the_items() -> None:
    one = benchmark("reference-narratives")
    assert answer_word_items(one) == answer_word_items(benchmark("reference-narratives"))
    assert answer_words_digest(one) == answer_words_digest(benchmark("reference-narratives", version=9))
    assert answer_words_digest(one) != answer_words_digest(benchmark("reference-narratives-letters"))


def test_answers_follow_what_the_tasks_prompt_ends_in() -> None:
    asked = benchmark("goemotions", prompt="Text: {text}\nEmotion:\n")
    assert all(prompt.text.endswith(":\n") for _, prompt in answer_word_items(asked))


@pytest.mark.parametrize(
    ("name", "said", "asks"),
    [
        ("zero-gain", None, True),
        ("esn-sound", None, True),
        ("esn-paper", None, False),
        ("esn-paper", True, True),
        ("zero-gain", False, False),
    ],
)
def test_sound_protocols_ask_for_it_unless_they_say_otherwise(
    name: str, said: bool | None, asks: bool
) -> None:
    protocol = load_as(TASKS / "interventions" / f"{name}.yaml", InterventionProtocol)
    controls = protocol.controls.model_copy(update={"answer_words": said})
    assert protocol.model_copy(update={"controls": controls}).asks_answer_words is asks


# Scores.


def words(share: float, *, right: float = 1.0, seed: int = 0, clusters: int = 16) -> Outcomes:
    """A model that does the control; suppression and gain hit a `share` of the target's items or answers."""
    rng = np.random.default_rng(seed)
    n = clusters * len(LABELS)
    gold = np.arange(n) % len(LABELS)
    base = np.where(rng.random(n) < right, gold, (gold + 1) % len(LABELS))
    conditions = []
    for arm, dose in (("suppress", 0.0), ("amplify", 2.0)):
        answers = np.tile(base, (len(LABELS), 1))
        for target in range(len(LABELS)):
            hit = rng.random(n) < share
            own = gold == target
            if arm == "suppress":
                answers[target, own & hit] = (target + 1) % len(LABELS)
            else:
                answers[target, hit] = target
        margin = np.zeros(answers.shape)
        conditions.append(Condition(arm, dose, abs(dose - 1), answers, margin, answers[:0]))
    return Outcomes(
        labels=LABELS,
        items=np.array([f"word-{place:03d}" for place in range(n)]),
        gold=gold,
        clusters=np.array([f"form-{place // len(LABELS)}" for place in range(n)]),
        base=base,
        base_margin=np.zeros((n, len(LABELS))),
        conditions=tuple(conditions),
    )


def confound(control: Outcomes, task: Outcomes, operating: Operating = OPERATING, draws: int = DRAWS):
    scores = score_outcomes(task, seed=3, bootstrap_draws=draws)
    return score_answer_words(control, task, scores, operating, seed=3, bootstrap_draws=draws)


def test_the_ratio_is_of_two_specificities_that_one_function_scored() -> None:
    control, task = words(0.4, seed=1), words(0.8, seed=2, clusters=40)
    found, ratio = confound(control, task)
    above = score_outcomes(control, seed=3, bootstrap_draws=DRAWS).doses
    below = score_outcomes(task, seed=3, bootstrap_draws=DRAWS).doses
    assert found.doses == above
    for arm, one, two in zip((ratio.suppress, ratio.amplify), above, below, strict=True):
        assert arm is not None
        assert arm.value == pytest.approx(one.spec.value / two.spec.value)
        assert arm.low is not None
        assert arm.high is not None
        assert arm.low < arm.value < arm.high
    assert (ratio.reason, ratio.uar, ratio.bar) == ("", 1.0, pytest.approx(4 / 7))


def test_the_interval_is_that_of_resampled_clusters_of_both_sets() -> None:
    """Against a loop over resamples that counts recalls item by item."""
    control, task = words(0.5, seed=4, clusters=6), words(0.7, seed=5, clusters=9)
    rng = np.random.default_rng(0)

    def spec(outcomes: Outcomes) -> float:
        names = np.unique(outcomes.clusters)
        rows = np.concatenate([np.flatnonzero(outcomes.clusters == c) for c in rng.choice(names, len(names))])
        gold, base = outcomes.gold[rows], outcomes.base[rows]
        matrix = np.array(
            [
                [(row[rows][gold == e] == e).mean() - (base[gold == e] == e).mean() for e in range(7)]
                for row in outcomes.conditions[0].predictions
            ]
        )
        own = np.diag(matrix).mean()
        return float((matrix.sum() - np.trace(matrix)) / 42 - own)

    brute = np.quantile([spec(control) / spec(task) for _ in range(1500)], [0.025, 0.975])
    ratio = confound(control, task)[1].suppress
    assert ratio is not None
    assert [ratio.low, ratio.high] == pytest.approx(brute.tolist(), abs=0.06)


def test_word_writers_are_caught_and_units_of_the_emotion_pass() -> None:
    task = words(0.8, seed=6, clusters=40)
    writers, emotion = confound(words(0.8, seed=7), task)[1], confound(words(0.02, seed=8), task)[1]
    assert is_high(writers.suppress)
    assert not is_high(emotion.suppress)
    assert emotion.suppress is not None
    assert emotion.suppress.high is not None
    assert writers.suppress is not None
    assert writers.suppress.low is not None
    assert emotion.suppress.high < 0.2 < 0.7 < writers.suppress.low


@pytest.mark.parametrize(
    ("control", "task", "operating", "reason"),
    [
        (words(0.5), words(0.0), OPERATING, "suppress: the task's specificity is not above 0"),
        (words(0.5, right=0.3), words(0.8), OPERATING, "not able: UAR 0."),
        (words(0.5), words(0.8, clusters=1), OPERATING, "suppress: the task's specificity has no interval"),
        (
            words(0.5),
            words(0.8),
            Operating(suppress_dose=None, amplify_dose=2.0, reason=""),
            "suppress: no operating dose",
        ),
        (
            replace(words(0.5), conditions=words(0.5).conditions[1:]),
            words(0.8),
            OPERATING,
            "suppress: the control was not run at dose 0",
        ),
        (replace(words(0.5), conditions=()), words(0.8), OPERATING, "suppress: the control was not run"),
    ],
)
def test_where_there_is_no_ratio_the_record_says_why(
    control: Outcomes, task: Outcomes, operating: Operating, reason: str
) -> None:
    found, ratio = confound(control, task, operating, draws=500)
    assert ratio.suppress is None
    assert ratio.reason.startswith(reason)
    assert ratio.uar == found.baseline.uar
    assert found.baseline.n_items == len(control.items)


def test_a_denominator_near_zero_never_gives_a_finite_guess() -> None:
    rng = np.random.default_rng(0)
    above = rng.normal(0.3, 0.05, 10_000)
    clear, doubtful = rng.normal(0.5, 0.05, 10_000), rng.normal(0.05, 0.05, 10_000)
    known = ratio_estimate(0.6, quotients(above, clear))
    assert known.low is not None
    assert 0.35 < known.low < 0.6
    assert ratio_estimate(6.0, quotients(above, doubtful)) == Estimate(value=6.0)


# Its way through files and cells.


def kept(outcomes: Outcomes) -> list[PreservationScore]:
    text = {
        "kl": [0.0, 0.0],
        "nll": [9.0, 8.0],
        "nll_base": [9.0, 8.0],
        "n_tokens": [6, 5],
        "n_bytes": [24, 20],
    }
    asked = {name: [1, 1] for name in ("capability", "capability_base")}
    said = {name: [0, 0] for name in ("degenerate", "degenerate_base")}
    measured = [
        PreservationOutcomes(arm=c.arm, dose=c.dose, **text, **asked, **said) for c in outcomes.conditions
    ]
    return score_preservation(measured, seed=0, bootstrap_draws=100)


@pytest.mark.parametrize("able", [True, False])
def test_scores_come_again_from_the_predictions_file(tmp_path: Path, able: bool) -> None:
    task = words(0.8, seed=9, clusters=40)
    control = words(0.7, seed=10) if able else replace(words(0.7, right=0.2), conditions=())
    outcomes = {"validation": words(0.8, seed=11), "test": task, ANSWER_WORDS: control}
    path = tmp_path / "predictions.parquet"
    path.write_bytes(to_parquet(outcomes))
    again = from_parquet(path)
    assert content_digest(again) == content_digest(outcomes)
    one, two = (judged(found, kept(task), 0) for found in (outcomes, again))
    assert one == two
    assert (one["word_confound"].suppress is not None) is able is is_able(control)
    changed = replace(control, base=np.roll(control.base, 1))
    assert content_digest(outcomes | {ANSWER_WORDS: changed}) != content_digest(outcomes)


def test_without_the_control_scores_are_what_they_were() -> None:
    task = example_outcomes(0.8, seed=3)
    parts = judged({"validation": task, "test": task}, kept(task), 0)
    assert "word_confound" not in parts
    assert "answer_words" not in parts


def test_a_record_says_why_there_is_no_ratio(bench: Bench, tmp_path: Path) -> None:
    own = tmp_path / "own"
    write_protocol(own, name="no-words", controls={"random_draws": 6, "answer_words": False})
    job = bench.job("magnitude", more=[own], protocol="no-words")
    (without,), _ = bench.run(job, tmp_path / "off", more=[own])
    (record,), _ = bench.run(bench.job("magnitude"), tmp_path / "on")
    assert (without.word_confound, without.hashes.answer_words) == (None, "")
    assert record.word_confound is not None
    assert record.word_confound.reason.startswith("not able: UAR 0.3")
    assert record.word_confound.suppress is None
    assert record.answer_words is not None
    assert (record.answer_words.baseline.n_items, record.answer_words.doses) == (48, [])
    assert len(record.hashes.answer_words) == 16
    stored = Store(tmp_path / "on").read_predictions(record.cell)
    assert len(stored[ANSWER_WORDS].items) == 48
    assert record.scores == without.scores


def test_a_model_that_cannot_take_the_prompts_has_its_reason_too(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "own" / "models" / "checkpoints" / "short"
    shutil.copytree(bench.root / "models" / "checkpoints" / MODEL, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 30}))
    write_yaml(tmp_path / "own" / "models" / "short.yaml", card(name="short", checkpoint="checkpoints/short"))
    registry = bench.registry(tmp_path / "own")
    job = job_of_names(registry, "short", BENCHMARK, ["magnitude"], [PROTOCOL], 0)
    (record,), _ = bench.run(job, tmp_path / "out", more=[tmp_path / "own"])
    assert record.status == "ok"
    assert record.word_confound is not None
    assert record.word_confound.reason.startswith("the model cannot be asked: its prompt has")
    assert record.answer_words is None
    assert ANSWER_WORDS not in Store(tmp_path / "out").read_predictions(record.cell)
