"""Where the sound stands in a prompt: as the chat template lays it out, or between marks."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from tiny_models import tiny_qwen3_omni

from affectbench.errors import AffectbenchError
from affectbench.examples import Example, RenderedPrompt
from affectbench.intervention import AUDIO, CONTENT
from affectbench.model import Model

CLIP = np.zeros((16, 37), dtype=np.float32)
EXAMPLE = Example("one", "the dog was lost", lambda: CLIP, "anger", "c")
PARTS = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %} song <|audio_start|><|audio_pad|><|audio_end|> "
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %} Emotion :{% endfor %}"
)
STRINGS = "{% for message in messages %}{{ 'very ' + message['content'] }} Emotion :{% endfor %}"
WORDS_BEHIND = ["was", "the", "dog", "lost", "?"]


def model_with(template: str | None) -> Model:
    model = copy.copy(tiny_qwen3_omni())
    model.tokenizer = copy.deepcopy(model.tokenizer)
    model.tokenizer.chat_template = template
    vars(model).pop("_template_hears", None)
    return model


def prompt(text: str) -> RenderedPrompt:
    start = text.find("dog")
    return RenderedPrompt(text, None if start < 0 else (start, start + 8), (" anger", " joy", " sad"))


@pytest.mark.parametrize(
    ("template", "before", "after"),
    [
        (None, ["a", "child"], WORDS_BEHIND),
        (STRINGS, ["very", "a", "child"], [*WORDS_BEHIND, "Emotion", ":"]),
        (PARTS, ["a", "child", "song"], [*WORDS_BEHIND, "Emotion", ":"]),
    ],
)
def test_the_sound_stands_where_the_template_puts_it(
    template: str | None, before: list[str], after: list[str]
) -> None:
    model = model_with(template)
    item = model.prepare(EXAMPLE, prompt("a child {audio} was the dog lost ?"))
    assert item.audio is not None
    size = item.audio.shape[0]
    marked = ["<|audio_start|>", *["<|audio_pad|>"] * size, "<|audio_end|>"]
    words = model.tokenizer.convert_ids_to_tokens(item.ids.tolist())
    assert words == [*before, *marked, *after]
    heard, told = (item.roles & AUDIO).bool(), (item.roles & CONTENT).bool()
    assert [words[place] for place in heard.nonzero().flatten()] == ["<|audio_pad|>"] * size
    assert [words[place] for place in (told & ~heard).nonzero().flatten()] == ["dog", "lost"]


@pytest.mark.parametrize("template", [None, STRINGS, PARTS])
def test_words_before_the_sound_are_found_too(template: str | None) -> None:
    model = model_with(template)
    item = model.prepare(EXAMPLE, prompt("a dog lost {audio} was ?"))
    words = model.tokenizer.convert_ids_to_tokens(item.ids.tolist())
    told = (item.roles & CONTENT).bool() & ~(item.roles & AUDIO).bool()
    assert [words[place] for place in told.nonzero().flatten()] == ["dog", "lost"]


def test_a_sound_without_a_place_and_a_place_without_a_sound_are_errors() -> None:
    model = model_with(PARTS)
    with pytest.raises(AffectbenchError, match="item one: 0 audio placeholders for 5 audio frames"):
        model.prepare(EXAMPLE, prompt("a child was lost ?"))
    silent = Example("two", "the dog was lost", None, "anger", "c")
    with pytest.raises(AffectbenchError, match="item two: 1 audio placeholders for 0 audio frames"):
        model.prepare(silent, prompt("a child {audio} was lost ?"))
