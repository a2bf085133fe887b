"""What a model is shown of a prompt: special tokens once, and the answer position at the prompt's own end."""

from __future__ import annotations

import copy

import pytest
from tiny_models import tiny_qwen2, tokenizer
from tokenizers.processors import TemplateProcessing

from affectbench.examples import Example, RenderedPrompt
from affectbench.intervention import ANSWER, CONTENT
from affectbench.model import Model

TEXT = "the dog was lost"
PROMPT = RenderedPrompt(TEXT, (0, len(TEXT)), (" anger", " joy", " sad"))
EXAMPLE = Example("one", TEXT, None, "anger", "c")


def model_with(single: str, chat_template: str | None = None) -> Model:
    """The tiny model with a tokenizer that adds <eos> as `single` says."""
    words = tokenizer()
    eos = ("<eos>", words.eos_token_id)
    words.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=[eos])
    words.chat_template = chat_template
    model = copy.copy(tiny_qwen2())
    model.tokenizer = words
    return model


def shown(model: Model) -> list[str]:
    return list(model.tokenizer.convert_ids_to_tokens(model.prepare(EXAMPLE, PROMPT).ids.tolist()))


def test_a_chat_template_writes_the_first_token_itself() -> None:
    model = model_with("<eos> $A", "<eos> {{ messages[0]['content'] }} Emotion :")
    assert shown(model) == ["<eos>", "the", "dog", "was", "lost", "Emotion", ":"]
    assert shown(model_with("<eos> $A")) == ["<eos>", "the", "dog", "was", "lost"]


@pytest.mark.parametrize("template", [None, "{{ messages[0]['content'] }} Emotion :"])
def test_the_answer_is_read_before_an_end_token_that_the_tokenizer_adds(template: str | None) -> None:
    model = model_with("$A <eos>", template)
    prepared = model.prepare(EXAMPLE, PROMPT)
    assert "<eos>" not in shown(model)
    assert prepared.roles[-1] & ANSWER
    assert int((prepared.roles & CONTENT).bool().sum()) == 4
    assert model.continuation(PROMPT, " joy") == [model.tokenizer.convert_tokens_to_ids("joy")]
