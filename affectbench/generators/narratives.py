"""Short emotional narratives in a templated toy language: the data of the text reference benchmark.

What it is: a calibration grammar, no natural text. An item is an event frame (sometimes with the reaction of
the person asked about, sometimes with another person's reaction as a distractor). Every function is a pure
function of its arguments: item i of a (split, label) is the same whatever number of items is asked for.

Splits: the frames (= clusters) and the reactions of ``identification``, ``validation`` and ``test`` are
disjoint. ``training`` uses the frames and reactions of ``identification`` with other random draws, so a model
trained on it has never seen a validation or test frame or reaction with a label; it meets them, without
labels, in ``story_text`` only.
"""

from typing import Any, Final

import numpy as np

from affectbench.generators.narrative_templates import (
    AMBIGUOUS,
    AMBIGUOUS_SPLITS,
    COLOURS,
    EMOTIONS,
    FOODS,
    FRAME_SPLITS,
    FRAMES,
    HOURS,
    OPEN_PROMPTS,
    OPENINGS,
    PERSONS,
    PLACES,
    REACTION_SPLITS,
    REACTIONS,
    THINGS,
    TOOLS,
)

__all__ = [
    "EMOTIONS", "PROMPT", "SPLITS", "answer", "cloze", "examples", "language_text", "open_prompts", "prompt",
    "story_text",
]  # fmt: skip

SPLITS: Final = ("training", "identification", "validation", "test")
PROMPT: Final = "Text: {text} Question: how does {person} feel? Emotion:"

_STREAMS: Final = {
    name: code for code, name in enumerate((*SPLITS, "language", "held_out", "story", "cloze", "open"))
}
_REACTION_RATE: Final = 0.5
_DISTRACTOR_RATE: Final = 0.3
_AMBIGUOUS_RATE: Final = 0.2
_OPENING_RATE: Final = 0.15

Example = dict[str, Any]


def _rng(stream: str, seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng([seed, _STREAMS[stream], *key])


def _pick(rng: np.random.Generator, options: Any) -> Any:
    return options[int(rng.integers(len(options)))]


def _fill(template: str, rng: np.random.Generator, person: str, other: str) -> str:
    tool, use = _pick(rng, TOOLS)
    return template.format(
        p=person,
        o=other,
        thing=_pick(rng, THINGS),
        place=_pick(rng, PLACES),
        food=_pick(rng, FOODS),
        tool=tool,
        use=use,
    )


def _sentence(clause: str) -> str:
    return clause[0].upper() + clause[1:] + "."


def _people(rng: np.random.Generator, n: int) -> list[str]:
    return [PERSONS[int(i)] for i in rng.choice(len(PERSONS), size=n, replace=False)]


def _frame(source: str, label: str, index: int, rng: np.random.Generator) -> tuple[str, str, bool]:
    """Returns (template, cluster id, ambiguous); other frames are used in turn, so clusters are balanced."""
    start, stop = AMBIGUOUS_SPLITS[source]
    shared = [k for k in range(start, stop) if label in AMBIGUOUS[k][1]]
    if shared and rng.random() < _AMBIGUOUS_RATE:
        k = int(_pick(rng, shared))
        return AMBIGUOUS[k][0], f"ambiguous-{k:02d}", True
    start, stop = FRAME_SPLITS[source]
    k = start + index % (stop - start)
    return FRAMES[label][k], f"{label}-{k:02d}", False


def _reaction(source: str, label: str, rng: np.random.Generator) -> str:
    start, stop = REACTION_SPLITS[source]
    return str(_pick(rng, REACTIONS[label][start:stop]))


def _example(split: str, label: str, index: int, seed: int) -> Example:
    source = "identification" if split == "training" else split
    rng = _rng(split, seed, EMOTIONS.index(label), index)
    person, other, bystander = _people(rng, 3)
    template, cluster, ambiguous = _frame(source, label, index, rng)
    clause = _fill(template, rng, person, other)
    if rng.random() < _OPENING_RATE:
        clause = f"{_pick(rng, OPENINGS)} {clause}"
    sentences = [_sentence(clause)]
    if rng.random() < _REACTION_RATE:
        sentences.append(_sentence(_fill(_reaction(source, label, rng), rng, person, other)))
    distractor = bool(rng.random() < _DISTRACTOR_RATE)
    if distractor:
        felt = _pick(rng, [e for e in EMOTIONS if e != label])
        sentence = _sentence(_fill(_reaction(source, felt, rng), rng, bystander, other))
        sentences.insert(int(rng.integers(1, len(sentences) + 1)), sentence)
    return {
        "id": f"{split}-{label}-{index:05d}",
        "text": " ".join(sentences),
        "person": person,
        "label": label,
        "cluster": cluster,
        "distractor": distractor,
        "ambiguous": ambiguous,
    }


def examples(split: str, n_per_emotion: int, seed: int) -> list[Example]:
    """Labelled items of one split, ordered by label and then index.

    Args:
        split: one of ``SPLITS``.
        n_per_emotion: items per label (7 labels).
        seed: any non-negative integer; items of other seeds are other draws from the same frames.

    Returns:
        dicts with id, text, person, label, cluster (event frame), distractor, ambiguous.

    Raises:
        ValueError: unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is unknown: use one of {', '.join(SPLITS)}")
    return [_example(split, label, i, seed) for label in EMOTIONS for i in range(n_per_emotion)]


def prompt(example: Example) -> str:
    """The prompt of an item; the answer is ``answer(example)``, a single token with a leading space."""
    return PROMPT.format(text=example["text"], person=example["person"])


def answer(example: Example) -> str:
    return f" {example['label']}"


def _tool_fact(rng: np.random.Generator, person: str) -> str:
    tool, use = _pick(rng, TOOLS)
    if rng.random() < 0.5:
        return f"{person} used the {tool} to {use}."
    return f"To {use}, {person} used the {tool}."


def _recall(rng: np.random.Generator, person: str, other: str) -> tuple[str, str, str]:
    """A two-person statement, and what the asked person carried and what the other one did."""
    first, second = (str(THINGS[int(i)]) for i in rng.choice(len(THINGS), size=2, replace=False))
    opening = f"{person} carried the {first} and {other} carried the {second}."
    if rng.random() < 0.5:
        return f"{opening} Later {person} put down the", first, second
    return f"{opening} Later {other} put down the", second, first


def _neutral_sentence(rng: np.random.Generator) -> str:
    person, other = _people(rng, 2)
    kind = int(rng.integers(6))
    if kind <= 1:
        return _tool_fact(rng, person)
    if kind == 2:
        start, carried, _ = _recall(rng, person, other)
        return f"{start} {carried}."
    if kind == 3:
        first, second = (f"the {_pick(rng, THINGS)} was {_pick(rng, COLOURS)}" for _ in range(2))
        return _sentence(f"{first} and {second}")
    if kind == 4:
        return f"The bus to the {_pick(rng, PLACES)} left at {_pick(rng, HOURS)}."
    return f"{_pick(rng, OPENINGS)} {person} went from the {_pick(rng, PLACES)} to the {_pick(rng, PLACES)}."


def language_text(n: int, seed: int, held_out: bool) -> list[str]:
    """Neutral documents of two or three sentences (no event frame, no reaction, no label).

    ``held_out`` draws from a random stream that training never reads: the text for perplexity.
    """
    stream = "held_out" if held_out else "language"
    documents = []
    for i in range(n):
        rng = _rng(stream, seed, i)
        documents.append(" ".join(_neutral_sentence(rng) for _ in range(2 + int(rng.integers(2)))))
    return documents


def story_text(n: int, seed: int) -> list[str]:
    """Unlabelled stories for language-model training: one person, one emotion, two to four sentences.

    Frames and reactions of all splits mix here, which is how a model can place a held-out frame near the
    labelled ones without ever having seen its label.
    """
    stories = []
    for i in range(n):
        rng = _rng("story", seed, i)
        emotion = str(_pick(rng, EMOTIONS))
        person, other = _people(rng, 2)
        sentences = []
        for _ in range(1 + int(rng.integers(2))):
            sentences.append(_sentence(_fill(_pick(rng, FRAMES[emotion]), rng, person, other)))
            sentences.append(_sentence(_fill(_pick(rng, REACTIONS[emotion]), rng, person, other)))
        stories.append(" ".join(sentences))
    return stories


def cloze(n: int, seed: int) -> list[dict[str, Any]]:
    """Non-emotional four-choice items: four in five ask which tool serves a use, one in five
    asks to recall who carried what.

    Returns:
        dicts with id, context, choices (4 strings with a leading space), answer (index of the right choice).
    """
    items = []
    for i in range(n):
        rng = _rng("cloze", seed, i)
        person, other = _people(rng, 2)
        if i % 5:
            right, use = _pick(rng, TOOLS)
            context = f"To {use}, {person} used the"
            wrong = [tool for tool, _ in TOOLS if tool != right]
            options = [right, *(wrong[int(k)] for k in rng.choice(len(wrong), size=3, replace=False))]
        else:
            context, right, other_thing = _recall(rng, person, other)
            wrong = [thing for thing in THINGS if thing not in (right, other_thing)]
            options = [
                right,
                other_thing,
                *(wrong[int(k)] for k in rng.choice(len(wrong), size=2, replace=False)),
            ]
        order = rng.permutation(4)
        items.append(
            {
                "id": f"cloze-{i:05d}",
                "context": context,
                "choices": [f" {options[int(k)]}" for k in order],
                "answer": int(np.flatnonzero(order == 0)[0]),
            }
        )
    return items


def open_prompts(n: int, seed: int) -> list[str]:
    """Neutral sentence beginnings for free generation."""
    prompts = []
    for i in range(n):
        rng = _rng("open", seed, i)
        person, other = _people(rng, 2)
        prompts.append(_fill(str(_pick(rng, OPEN_PROMPTS)), rng, person, other))
    return prompts
