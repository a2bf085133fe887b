"""Prompts go through each family's chat template: one beginning, the answer where the template puts it.

The templates below are shortened to what a single turn needs; they render it as those of the checkpoints do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from e2e_content import tokenizer

from affectbench.examples import RenderedPrompt
from affectbench.prompt_tokens import PromptTokens

EACH = "{% for m in messages %}"
LLAMA = (
    "{{ bos_token }}{% if not date_string is defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n' }}"
    "{{ 'Today Date: ' + date_string + '\n\n<|eot_id|>' }}" + EACH + "{{ '<|start_header_id|>' + m['role'] + "
    "'<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
CHATML = (
    EACH
    + "{% if loop.first and m['role'] != 'system' %}{{ '<|im_start|>system\n' + DEFAULT + '<|im_end|>\n' }}"
    "{% endif %}{{ '<|im_start|>' + m['role'] + '\n' + THOUGHT + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN = CHATML.replace("THOUGHT + ", "").replace("DEFAULT", "'You are Qwen, created by Alibaba Cloud.'")
THINKING = (
    EACH + "{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' and loop.last %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    + EACH
    + "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}" + EACH + "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + '[/INST]' }}"
    "{% else %}{{ ' ' + m['content'] | trim + eos_token }}{% endif %}{% endfor %}"
)
PHI = (
    EACH + "{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
BARE = EACH + "{{ m['content'] }}{% endfor %}"


@dataclass(frozen=True)
class Layout:
    """A family's template, the prompt it makes of WORDS, and the blank before an answer."""

    template: str
    prompt: str
    gap: str = ""
    begins: bool = False


WORDS = "the dog was lost"
LAYOUTS = {
    "Llama 3.2": Layout(
        LLAMA,
        "<bos><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        f"Today Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n{WORDS}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        begins=True,
    ),
    "Qwen2.5": Layout(
        QWEN,
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud.<|im_end|>\n"
        f"<|im_start|>user\n{WORDS}<|im_end|>\n<|im_start|>assistant\n",
    ),
    "Qwen3": Layout(
        THINKING, f"<|im_start|>user\n{WORDS}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    ),
    "Gemma 2": Layout(
        GEMMA,
        f"<bos><start_of_turn>user\n{WORDS}<end_of_turn>\n<start_of_turn>model\n",
        begins=True,
    ),
    "Mistral v0.3": Layout(MISTRAL, f"<bos>[INST] {WORDS}[/INST]", gap=" ", begins=True),
    "Phi-3": Layout(PHI, f"<|user|>\n{WORDS}<|end|>\n<|assistant|>\n"),
}
MARKS = (
    *("<bos>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>"),
    *("<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]", "<|user|>", "<|assistant|>", "<|end|>"),
)


@cache
def byte_level() -> Any:
    """Words with and without the blank before them are a token each; <bos> begins a text, as Llama's does."""
    from tokenizers.processors import TemplateProcessing

    words = tokenizer()
    words.add_special_tokens({"bos_token": "<bos>", "additional_special_tokens": list(MARKS[1:])})
    begin = ("<bos>", words.convert_tokens_to_ids("<bos>"))
    words.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[begin])
    return words


@cache
def sentence_pieces() -> Any:
    """A tokenizer like Llama 2's and Mistral's, in which a blank is part of the piece that follows."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(set("▁abcdefghijklmnopqrstuvwxyz"))
    pieces = ["<unk>", "</s>", *letters, "▁j", "oy", "joy", "▁joy"]
    merges = [("▁", "j"), ("o", "y"), ("▁j", "oy"), ("j", "oy")]
    core = Tokenizer(
        models.BPE({piece: place for place, piece in enumerate(pieces)}, merges, unk_token="<unk>")
    )
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    core.decoder = decoders.Metaspace()
    words = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="</s>")
    words.add_special_tokens({"bos_token": "<bos>", "additional_special_tokens": list(MARKS[1:])})
    return words


def prompts(words: Any, template: str | None) -> PromptTokens:
    words.chat_template = template
    found = PromptTokens()
    found.tokenizer = words
    return found


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> Layout:
    return LAYOUTS[request.param]


def test_the_prompt_is_the_templates_own(layout: Layout) -> None:
    text, _ = prompts(byte_level(), layout.template).render(RenderedPrompt(WORDS, None, (" joy",)))
    assert text == layout.prompt


def test_a_prompt_has_one_beginning(layout: Layout) -> None:
    found = prompts(byte_level(), layout.template)
    ids, _ = found._tokens(layout.prompt)
    assert ids.count(found.tokenizer.bos_token_id) == int(layout.begins)
    assert found.tokenizer.decode(ids) == layout.prompt


@pytest.mark.parametrize("kind", [byte_level, sentence_pieces])
def test_answers_are_read_as_the_template_writes_them(layout: Layout, kind: Any) -> None:
    """The oracle tokenises the template's own conversation, in which the assistant has answered."""
    found = prompts(kind(), layout.template)
    prompt = RenderedPrompt(WORDS, None, (" joy",))
    turns = [{"role": "user", "content": WORDS}, {"role": "assistant", "content": "joy"}]
    answered = found.tokenizer.apply_chat_template(turns, tokenize=False, date_string="26 Jul 2024")
    assert answered.startswith(layout.prompt + layout.gap + "joy")
    whole = found.tokenizer(answered, add_special_tokens=False)["input_ids"]
    start = len(found._tokens(layout.prompt)[0])
    for answer in (" joy", "joy"):
        told = found.continuation(prompt, answer)
        assert told == whole[start : start + len(told)]
        assert found.tokenizer.decode(told).strip() == "joy"


def test_the_items_words_are_found_where_a_template_trims(layout: Layout) -> None:
    text = f"  Text : {WORDS}\n"
    start = text.index(WORDS)
    prompt = RenderedPrompt(text, (start, start + len(WORDS)), (" joy",))
    rendered, span = prompts(byte_level(), layout.template).render(prompt)
    assert span is not None
    assert rendered[slice(*span)] == WORDS


def test_prompts_do_not_change_from_day_to_day() -> None:
    dated = "{{ strftime_now('%Y-%m-%d') }} " + BARE
    text, _ = prompts(byte_level(), dated).render(RenderedPrompt(WORDS, None, ()))
    assert text == f"2024-07-26 {WORDS}"


def test_without_a_template_the_tokenizer_begins_the_text() -> None:
    found = prompts(byte_level(), None)
    ids, _ = found._tokens(WORDS)
    assert ids[0] == found.tokenizer.bos_token_id
    assert found.tokenizer.bos_token_id not in ids[1:]
    told = found.continuation(RenderedPrompt(f"{WORDS} :", None, ()), " joy")
    assert found.tokenizer.decode(told) == " joy"


@pytest.mark.parametrize(
    "template",
    [
        EACH + "{{ m['role'] + ' ' + m['content'] }}{% endfor %}",  # No place for the answer.
        EACH + "{% if m['role'] != 'user' %}{{ raise_exception('one turn') }}{% endif %}{{ m['content'] }}"
        "{% endfor %}",
    ],
)
def test_a_template_that_does_not_say_how_answers_begin_adds_nothing(template: str) -> None:
    found = prompts(byte_level(), template)
    told = found.continuation(RenderedPrompt(WORDS, None, ()), " joy")
    assert found.tokenizer.decode(told) == "joy"
