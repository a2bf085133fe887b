"""Rules of decoding: what is written under them is what transformers' `generate` writes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny_models import items, tiny_dense

from affectbench.decoding import Decoding
from affectbench.engine import Engine
from affectbench.intervention import UNTOUCHED, Intervention, scale
from affectbench.model import Model
from affectbench.task_parts import JudgeReadout
from affectbench.writing import Writer

MOST = 14
RULES: dict[str, dict[str, Any]] = {
    "none": {},
    "penalty": {"repetition_penalty": 1.3},
    "ngram": {"no_repeat_ngram_size": 2},
    "least": {"min_new_tokens": 9},
    "all": {"repetition_penalty": 1.1, "no_repeat_ngram_size": 3, "min_new_tokens": 10},
}


def model_with_many_ends() -> Model:
    """A model of its own, which ends its texts soon: a third of its tokens are ends."""
    model = tiny_dense.__wrapped__("Llama")
    model.network.generation_config.eos_token_id = list(range(14, 14 + len(model.tokenizer) // 3))
    return model


@pytest.fixture(scope="module")
def model() -> Model:
    return model_with_many_ends()


def by_transformers(model: Model, prompt: torch.Tensor, rules: dict[str, Any]) -> list[int]:
    """What follows one prompt, without padding."""
    with torch.no_grad():
        output = model.network.generate(
            input_ids=prompt[None], attention_mask=torch.ones_like(prompt[None]), max_new_tokens=MOST,
            do_sample=False, eos_token_id=model.stops.tolist(), pad_token_id=0, **rules,
        )  # fmt: skip
    return [token for token in output[0, prompt.numel() :].tolist() if token not in model.stops.tolist()]


def edits(model: Model) -> list[Intervention]:
    units = np.arange(0, model.shape.units, 3)
    return [UNTOUCHED, scale("neuron", model.shape, units, 0.0), scale("neuron", model.shape, units, 6.0)]


@pytest.mark.parametrize("name", RULES)
def test_texts_are_those_of_transformers_prompt_by_prompt(model: Model, name: str) -> None:
    engine, data = Engine(model), items(model, 6)
    readout = JudgeReadout(kind="judge", judge="x", max_new_tokens=MOST, **RULES[name])
    written = Writer(engine, Decoding.of(readout)).write(data, edits(model))
    for place, edit in enumerate(edits(model)):
        with engine.folded(edit):
            expected = [by_transformers(model, item.ids, RULES[name]) for item in data.items]
        found = [[int(token) for token in row if token >= 0] for row in written[place]]
        assert found == expected


def test_each_rule_changes_something(model: Model) -> None:
    def texts(rules: dict[str, Any]) -> list[list[int]]:
        return [by_transformers(model, item.ids, rules) for item in items(model, 6).items]

    plain = texts({})
    assert len({len(text) for text in plain}) > 1, "rows end at different steps"
    assert all(texts(RULES[name]) != plain for name in ("penalty", "ngram", "least"))


def test_a_task_without_rules_keeps_its_hash_and_one_with_rules_has_another() -> None:
    plain = JudgeReadout(kind="judge", judge="x")
    assert set(plain.model_dump()) == {"kind", "judge", "max_new_tokens"}
    ruled = JudgeReadout(kind="judge", judge="x", repetition_penalty=1.1)
    assert ruled.model_dump()["repetition_penalty"] == 1.1


@pytest.mark.parametrize(
    "rules",
    [{"min_new_tokens": 101}, {"repetition_penalty": 0.5}, {"no_repeat_ngram_size": -1}],
)
def test_rules_that_make_no_sense_are_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(rules))):
        JudgeReadout(kind="judge", judge="x", **rules)
