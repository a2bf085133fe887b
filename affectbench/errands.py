"""Who carried what: generated items without any emotion, beside which adaptation to emotion is judged.

As short and as templated as `generators.narratives`, in the same toy language: two people carry one of seven
things each, and one of them is asked about. Item i of a (split, label) is the same whatever number of items
is asked for. Frames (= clusters: the two things, their order, and what stands around) of the splits are
disjoint.
"""

from __future__ import annotations

from itertools import product
from typing import Any, Final

import numpy as np

from affectbench.generators.narrative_templates import HOURS, OPENINGS, PERSONS, PLACES, THINGS

LABELS: Final = THINGS[:7]
SPLITS: Final = ("identification", "validation", "test")
STATEMENT: Final = "{first} carried the {one} and {second} carried the {other}."
FORMS: Final = (
    "{statement}",
    "{statement} The bus to the {place} left at {hour}.",
    "{opening} {third} went from the {place} to the {elsewhere}. {statement}",
)


def examples(split: str, n_per_label: int, seed: int) -> list[dict[str, Any]]:
    """Labelled items of one split, ordered by label and then index.

    Args:
        split: one of `SPLITS`.
        n_per_label: items per label (7 labels).
        seed: items of other seeds are other draws from the same frames.

    Returns:
        dicts with id, text, person (who is asked about), label (what they carried) and cluster.

    Raises:
        ValueError: unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is unknown: use one of {', '.join(SPLITS)}")
    return [_example(split, label, place, seed) for label in LABELS for place in range(n_per_label)]


def _example(split: str, label: str, place: int, seed: int) -> dict[str, Any]:
    own, step = LABELS.index(label), SPLITS.index(split) + 1
    # The things of a frame stand 1, 2 or 3 apart on a ring of seven: each split has a distance of its own.
    frames = list(product((step, -step), (True, False), FORMS))
    distance, first, form = frames[place % len(frames)]
    other = LABELS[(own + distance) % len(LABELS)]
    rng = np.random.default_rng([seed, SPLITS.index(split), own, place])
    asked, bystander, third = (PERSONS[int(k)] for k in rng.choice(len(PERSONS), size=3, replace=False))
    here, elsewhere = (PLACES[int(k)] for k in rng.choice(len(PLACES), size=2, replace=False))
    pair = ((asked, label), (bystander, other))
    (one, thing), (two, more) = pair if first else pair[::-1]
    text = form.format(
        statement=STATEMENT.format(first=one, one=thing, second=two, other=more),
        third=third,
        place=here,
        elsewhere=elsewhere,
        opening=OPENINGS[int(rng.integers(len(OPENINGS)))],
        hour=HOURS[int(rng.integers(len(HOURS)))],
    )
    return {
        "id": f"{split}-{label}-{place:05d}",
        "text": text,
        "person": asked,
        "label": label,
        "cluster": f"{thing}-{more}-{FORMS.index(form)}",
    }
