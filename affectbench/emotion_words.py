"""Words that name one of six emotions, English, a list of ours: nouns, stems, and whole words.

It serves to see whether a text says an emotion's name instead of expressing it (lexical leakage), to take
such words out (the masked variant of a text), and to check that scenarios hold none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Final

STEMS: Final[Mapping[str, str]] = {
    "anger": "angr anger furious fury infuriat enrag outrag madden irritat annoy livid irate resentf resentm "
    "wrath indignan exasperat seeth hostil frustrat incensed",
    "sadness": "sadness sadden sorrow grief grieve grievi unhapp miserabl misery depress gloom heartbr "
    "heartach melanchol despair despond deject mourn weep wept tearful lonel hopeless disappoint",
    "happiness": "happi happy joy delight gladly gladness gladder gladden elated elation ecsta euphor thrill "
    "overjoy bliss pleased pleasure jubila excite exciti merry merri gleeful cheerf cheeri cheery grateful",
    "fear": "fear afraid scare scari scary terrif terror frighten fright panic horrif horror dread anxi "
    "nervous worri worry petrif apprehens alarmed alarmin uneas",
    "surprise": "surpris astonish astound amaz shock stunned stunning unexpect startl dumbfound flabbergast "
    "speechless disbelie bewilder",
    "disgust": "disgust revolted revolting revulsi repuls repugn nause grossed sicken loath vile abhor "
    "appall distast yuck",
}
"""Beginnings of words, by emotion; the emotion's noun begins with one of them."""
WORDS: Final[Mapping[str, str]] = {
    "anger": "mad rage raging fuming",
    "sadness": "sad sadder saddest sadly",
    "happiness": "glad content glee cheer",
    "fear": "",
    "surprise": "wow",
    "disgust": "gross ew eww ugh",
}
"""Whole words, by emotion, whose beginnings would match too much (``saddle``, ``made``)."""
WORD: Final = re.compile(r"[^\W\d_]+")


def emotions_in(text: str) -> set[str]:
    """The emotions that a text names, by stem or whole word."""
    return {emotion for word in WORD.findall(text) for emotion in _emotions_of(word.lower())}


def names(text: str, emotion: str) -> bool:
    """Whether a text names an emotion by a word of its list."""
    return emotion in emotions_in(text)


def says_noun(text: str, emotion: str) -> bool:
    """Whether a text holds the very noun, such as ``fear`` or ``fears``."""
    return re.search(rf"\b{re.escape(emotion)}s?\b", text, re.IGNORECASE) is not None


def masked(text: str) -> str:
    """The text without the words that name any of the six emotions; the gaps are closed."""
    kept = WORD.sub(lambda match: "" if _emotions_of(match.group().lower()) else match.group(), text)
    return re.sub(r"\s+([.,;:!?])", r"\1", " ".join(kept.split()))


@cache
def _emotions_of(word: str) -> frozenset[str]:
    return frozenset(emotion for emotion, pattern in _patterns().items() if pattern.fullmatch(word))


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    found = {}
    for emotion, stems in STEMS.items():
        whole = WORDS[emotion].split()
        found[emotion] = re.compile("|".join([*(rf"{stem}\w*" for stem in stems.split()), *whole]))
    return found
