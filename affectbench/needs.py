"""Who needs which tool: generated items without any emotion, for a base that knows what tools are for.

A control for adaptations to emotion that are as easy to learn: in `generators.narratives` somebody meets what
causes an emotion, here somebody is about to do what takes a tool, and as often somebody else is in the way.
Item i of a (split, label) is the same whatever number of items is asked for. Verbs and surroundings
(= clusters, with the tool) of the splits are disjoint.
"""

from __future__ import annotations

from itertools import product
from typing import Any, Final

import numpy as np

from affectbench.generators.narrative_templates import HOURS, OPENINGS, PERSONS, PLACES, TOOLS

USES: Final = dict(TOOLS[:7])
LABELS: Final = tuple(USES)
VERBS: Final = {
    "identification": ("wanted to", "had to", "went to"),
    "validation": ("hoped to",),
    "test": ("was about to", "meant to"),
}
SURROUNDINGS: Final = {
    "identification": ("{task}", "{opening} {task}", "The bus to the {place} left at {hour}. {task}"),
    "validation": ("{third} was in the {place}. {task}", "{task} The {place} opens at {hour}."),
    "test": (
        "{third} sat in the {place}. {task}",
        "{task} {third} looked at the clock.",
        "At {hour}, {task}",
    ),
}
DISTRACTED: Final = 0.3
"""Share of the items in which another person does something else."""


def examples(split: str, n_per_label: int, seed: int) -> list[dict[str, Any]]:
    """Labelled items of one split, ordered by label and then index.

    Args:
        split: identification, validation or test.
        n_per_label: items per label (7 tools).
        seed: items of other seeds are other draws from the same frames.

    Returns:
        dicts with id, text, person (who is asked about), label (the tool they need) and cluster.

    Raises:
        ValueError: unknown split.
    """
    if split not in VERBS:
        raise ValueError(f"split {split!r} is unknown: use one of {', '.join(VERBS)}")
    return [_example(split, label, place, seed) for label in LABELS for place in range(n_per_label)]


def _example(split: str, label: str, place: int, seed: int) -> dict[str, Any]:
    frames = list(product(VERBS[split], SURROUNDINGS[split]))
    verb, around = frames[place % len(frames)]
    rng = np.random.default_rng([seed, list(VERBS).index(split), LABELS.index(label), place])
    person, other, third = (PERSONS[int(k)] for k in rng.choice(len(PERSONS), size=3, replace=False))
    text = around.format(
        task=f"{person} {verb} {USES[label]}.",
        third=third,
        place=PLACES[int(rng.integers(len(PLACES)))],
        opening=OPENINGS[int(rng.integers(len(OPENINGS)))],
        hour=HOURS[int(rng.integers(len(HOURS)))],
    )
    if rng.random() < DISTRACTED:
        others = [tool for tool in LABELS if tool != label]
        more = f"{other} {verb} {USES[others[int(rng.integers(len(others)))]]}."
        text = f"{text} {more}" if rng.random() < 0.5 else f"{more} {text}"
    return {
        "id": f"{split}-{label}-{place:05d}",
        "text": text,
        "person": person,
        "label": label,
        "cluster": f"{label}-{verb}-{SURROUNDINGS[split].index(around)}",
    }
