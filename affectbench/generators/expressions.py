"""Everyday scenes and what one might reply to them in an emotion: the data of `reference-text-expressive`.

What it is: a grammar of templates, no natural text. A scene is a scenario and its outcome; a reply is one or
two short sentences that mention something of the scene (its topic) and carry an emotion, most of them without
a word that names one, or that are matter-of-fact (``NONE``). Every function is a pure function of its
arguments, item i the same whatever number is asked for.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from affectbench.emotion_words import emotions_in
from affectbench.generators.expression_replies import LEADS, NONE, VOICES
from affectbench.generators.expression_scenes import (
    ADJECTIVES,
    EVENTS,
    SURNAMES,
    THEMES,
    TIMES,
    VALENCES,
)

__all__ = [
    "EMOTIONS", "LABELS", "NONE", "Scene", "labelled_replies", "parts", "reply", "scenes",
]  # fmt: skip

EMOTIONS: Final = tuple(label for label in VOICES if label != NONE)
LABELS: Final = (*EMOTIONS, NONE)
HELD_OUT_EVERY: Final = 4
"""Of so many parts one is held out."""

_STREAMS: Final = {"training": 1, "fresh": 2, "replies": 3}
_NAMED_KEPT: Final = 0.4
"""Share of the drawn parts with an emotion word that are not drawn again."""


@dataclass(frozen=True)
class Scene:
    """A scenario (without a full stop), what came of it, and the phrases in it that a reply may be about."""

    theme: str
    valence: str
    scenario: str
    event: str
    topics: tuple[str, ...]


def _pick(rng: np.random.Generator, options: Any) -> Any:
    return options[int(rng.integers(len(options)))]


def _matter(rng: np.random.Generator, things: tuple[str, ...]) -> str:
    adjective = f"{_pick(rng, ADJECTIVES)} " if rng.random() < 0.3 else ""
    return f"{_pick(rng, ('the', 'my', 'the', 'our'))} {adjective}{_pick(rng, things)}"


def _person(rng: np.random.Generator, people: tuple[str, ...]) -> str:
    if rng.random() < 0.25:
        return f"{_pick(rng, ('Mr', 'Ms', 'Dr'))} {_pick(rng, SURNAMES)}"
    return f"{_pick(rng, ('the', 'my'))} {_pick(rng, people)}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def scenes(n: int, seed: int, stream: str = "training") -> list[Scene]:
    """Scenes of all themes and valences in turn.

    Args:
        n: how many.
        seed: of the draws.
        stream: ``training``, or ``fresh`` for draws that training never makes.
    """
    return [_scene(np.random.default_rng([seed, _STREAMS[stream], i]), i) for i in range(n)]


def _scene(rng: np.random.Generator, index: int) -> Scene:
    names = tuple(THEMES)
    theme, valence = names[index % len(names)], VALENCES[index // len(names) % len(VALENCES)]
    own = THEMES[theme]
    matter, person = _matter(rng, own.things), _person(rng, own.people)
    scenario = _pick(rng, own.scenarios).format(t=matter, p=person, when=_pick(rng, TIMES))
    event = _sentence(_pick(rng, (*getattr(own, valence), *EVENTS[valence])).format(t=matter, p=person))
    present = tuple(
        topic for topic in (matter, person) if topic in f"{scenario} {event[0].lower()}{event[1:]}"
    )
    return Scene(theme, valence, scenario, event, present)


def parts(options: tuple[str, ...], held_out: bool | None) -> tuple[str, ...]:
    """Template parts seen in training, those held out, or all of them (None)."""
    if held_out is None:
        return options
    return tuple(
        part for k, part in enumerate(options) if (k % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == held_out
    )


def reply(label: str, topic: str, rng: np.random.Generator, held_out: bool | None = False) -> str:
    """A reply on `topic` in the emotion `label` (or ``NONE``), from parts that are held out or not.

    Its first words tell little of the emotion: they are the topic's, or a lead that fits any.
    """
    voice = VOICES[label]
    if rng.random() < 0.4:
        first = f"{_pick(rng, LEADS).format(it=topic)} {_part(rng, voice.closers, held_out)}"
    else:
        first = _part(rng, voice.topics, held_out).format(it=topic)
    draw = rng.random()
    if draw < 0.3:
        return f"{_sentence(first)}."
    if draw < 0.6:
        return f"{_sentence(first)}. {_part(rng, voice.cries, held_out)}"
    closer = _part(rng, voice.closers, held_out, first)
    return (
        f"{_sentence(first)}, and {closer}." if draw < 0.75 else f"{_sentence(first)}. {_sentence(closer)}."
    )


def _part(rng: np.random.Generator, options: tuple[str, ...], held_out: bool | None, said: str = "") -> str:
    """One of the parts that was not yet said; those that name an emotion are drawn less often."""
    while True:
        drawn = str(_pick(rng, parts(options, held_out)))
        if drawn not in said and (not emotions_in(drawn) or rng.random() < _NAMED_KEPT):
            return drawn


def labelled_replies(n_per_label: int, seed: int, held_out: bool | None = False) -> list[tuple[str, str]]:
    """(text, label) of replies to fresh scenes, for training and testing judges; labels incl. ``NONE``."""
    found = []
    for place, label in enumerate(LABELS):
        for i in range(n_per_label):
            rng = np.random.default_rng([seed, _STREAMS["replies"], place, i])
            topic = _pick(rng, _scene(rng, int(rng.integers(1 << 20))).topics)
            found.append((reply(label, topic, rng, held_out), label))
    return found
