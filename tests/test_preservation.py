"""Preservation under packed interventions equals lm-eval's own HFLM with the hooks attached."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_models import by_hand, tiny_qwen2

from affectbench.engine import Engine
from affectbench.intervention import UNTOUCHED, Intervention, scale
from affectbench.lm_harness import (
    BaseLogs,
    ChoiceQuestions,
    PackedLM,
    choice_task,
    neutral_text,
    rolling_task,
)
from affectbench.preservation import degenerate

TEXTS = ["the child lost a dog", "the night was very sad", "a song found the rain was sad very sad"]
DOCS = [
    {"context": "the dog was", "choices": [" lost", " very sad", " joy"], "answer": 1},
    {"context": "a child", "choices": [" won", " found the rain", " is"], "answer": 0},
    {"context": "Question : the night", "choices": [" was", " song", " fear"], "answer": 2},
]


def interventions() -> list[Intervention]:
    shape = tiny_qwen2().shape
    return [
        scale("gate", shape, np.arange(0, 72, 5), 0.0),
        scale("neuron", shape, np.arange(50, 60), 4.0),
        scale("gate", shape, np.arange(0, 72, 7), 0.0, "content"),
    ]


def by_lm_eval(task: object, metric: str, intervention: Intervention) -> float:
    """The same task through lm-eval's evaluate() on a plain HFLM, hooks attached by hand."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    model = tiny_qwen2()
    lm = HFLM(pretrained=model.network, tokenizer=model.tokenizer, batch_size=1, max_length=64)
    with by_hand(model, intervention):
        found = evaluate(lm, {task.config.task: task}, bootstrap_iters=0, limit=None)  # type: ignore[attr-defined]
    return float(found["results"][task.config.task][f"{metric},none"])  # type: ignore[attr-defined]


def test_bits_per_byte_equals_lm_eval_with_hooks() -> None:
    swept = interventions()[:2]
    found = neutral_text(PackedLM(Engine(tiny_qwen2()), swept), TEXTS)
    for place, intervention in enumerate([UNTOUCHED, *swept]):
        expected = by_lm_eval(rolling_task("neutral", TEXTS), "bits_per_byte", intervention)
        assert found.nll[place].sum() / math.log(2) / found.n_bytes.sum() == pytest.approx(expected, rel=1e-5)


def test_accuracy_equals_lm_eval_with_hooks() -> None:
    swept = interventions()[:2]
    correct = ChoiceQuestions(DOCS).answers(PackedLM(Engine(tiny_qwen2()), swept))
    for place, intervention in enumerate([UNTOUCHED, *swept]):
        assert correct[place].mean() == pytest.approx(
            by_lm_eval(choice_task("capability", DOCS), "acc", intervention)
        )


def test_questions_that_are_asked_again_are_asked_of_the_model_as_it_is_then() -> None:
    questions, engine = ChoiceQuestions(DOCS), Engine(tiny_qwen2())
    first = questions.answers(PackedLM(engine, interventions()[:1]))
    again = questions.answers(PackedLM(engine, interventions()))
    assert (again[:2] == first).all()
    assert (again == ChoiceQuestions(DOCS).answers(PackedLM(engine, interventions()))).all()


def test_divergence_equals_the_definition() -> None:
    model = tiny_qwen2()
    swept = interventions()
    found = neutral_text(PackedLM(Engine(model), swept), TEXTS)
    assert found.kl[0] == pytest.approx(0, abs=1e-7)
    engine = Engine(model)
    for place, text in enumerate(TEXTS):
        ids = torch.tensor([[model.tokenizer.eos_token_id, *model.tokenizer(text)["input_ids"]]])[:, :-1]
        with torch.no_grad():
            base = model.network(input_ids=ids).logits.log_softmax(-1)
            with engine.editing([swept[0]]):
                edited = model.network(input_ids=ids).logits.log_softmax(-1)
        assert found.kl[1, place] == pytest.approx(float((base.exp() * (base - edited)).sum()), rel=1e-4)
        assert (found.n_tokens[place], found.n_bytes[place]) == (ids.shape[1], len(text.encode()))


def test_a_document_of_several_windows_is_counted_as_one() -> None:
    model = tiny_qwen2()
    lm = PackedLM(Engine(model), interventions()[:1])
    whole = neutral_text(lm, TEXTS)
    cut = PackedLM(Engine(model), interventions()[:1])
    cut._max_length = 3
    found = neutral_text(cut, TEXTS)
    assert len(cut.answers) > len(lm.answers)
    assert found.n_tokens.tolist() == whole.n_tokens.tolist()
    assert (found.nll[0] > 0).all()


def test_divergence_of_two_known_distributions() -> None:
    one, two = torch.tensor([0.5, 0.3, 0.2, 0.0]).log(), torch.tensor([0.4, 0.4, 0.2, 0.0]).log()
    assert float(BaseLogs.of(one).divergence(two.clone())) == pytest.approx(0.025267, abs=1e-6)
    assert float(BaseLogs.of(one).divergence(one.clone())) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the dog went home and slept", False),
        ("", True),
        ("I'm sorry, but I can't do that", True),
        ("very sad " * 9, True),
        ("a" * 31, True),
        ("a b c", False),
    ],
)
def test_broken_text_is_told_from_sound_text(text: str, expected: bool) -> None:
    assert degenerate(text) is expected


def test_only_an_endless_reply_is_degenerate_for_its_length() -> None:
    assert degenerate("a reply without end", endless=True)
