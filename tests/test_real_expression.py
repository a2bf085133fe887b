"""Steering `stories260K`, which no one here trained, along a direction, and judging its stories.

The judge of valence learns from sentences of this file. Skipped where the model is absent.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import yaml
from e2e_content import Log

from affectbench.placement import Options
from affectbench.plan import job_of_names
from affectbench.recipes.judge import Labelled, own_neutral, train
from affectbench.record import Record
from affectbench.registry import Registry
from affectbench.run import Run

STORIES = Path(__file__).resolve().parents[2] / "shared" / "models" / "stories260K"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not STORIES.is_dir(), reason=f"not on this machine: {STORIES}"),
]
NAMES = (
    "Lily", "Tim", "Ben", "Sue", "Tom", "Mia", "Max", "Anna", "Sam", "Lucy", "Jack", "Amy", "Bob", "Jill",
    "Dan", "Kim", "Leo", "Zoe", "Eva", "Roy",
)  # fmt: skip
THINGS = (
    "ball", "dog", "cat", "toy", "boat", "bird", "tree", "cake", "kite", "book", "hat", "drum", "doll",
    "duck", "star", "shell", "flower", "rock", "bear", "box",
)  # fmt: skip
TELLING = {
    "happy": ("smiled laughed danced hugged played cheered", "happy fun great nice proud warm"),
    "sad": ("cried sobbed broke fell wept hid", "sad sorry alone tired cold scared"),
}
SPLITS = ("identification", "identification", "validation", "test")
TASK = {
    "kind": "expression", "name": "stories", "version": 1, "licence": "own", "labels": ["happy", "sad"],
    "source": {"reader": "scenarios", "files": {"all": "scenes.jsonl"}},
    "elicit": {"system": "{emotion}", "user": "{scenario} {event}"},
    "plain": {"system": "quiet", "user": "{scenario} {event}"},
    "flat": "{user} Then the child was very {system}.",
    "readout": {"kind": "judge", "judge": "valence", "max_new_tokens": 24},
    "preservation": {
        "neutral": {"reader": "generator", "module": "narratives", "n": 4, "seed": 1},
        "capability": {
            "kind": "multiple_choice",
            "source": {"reader": "generator", "module": "narratives", "n": 4, "seed": 1},
        },
        "prompts": ["Once upon a time"], "max_new_tokens": 8,
    },
}  # fmt: skip
STEERING = {
    "kind": "intervention", "name": "steering", "version": 1, "site": "residual", "positions": "answer",
    "statistics": {"positions": "answer", "items": "all", "minimum_items": 20}, "fractions": [0.4],
    "arms": {
        "suppress": {"operation": "project", "doses": [0]},
        "amplify": {"operation": "add", "relative": True, "doses": [0.5]},
    },
    "controls": {"random_draws": 10, "answer_words": False},
}  # fmt: skip


def sentences() -> Labelled:
    """800 sentences of two moods, made from `TELLING`."""
    dice, rows = random.Random(0), []
    for k in range(800):
        label = ("happy", "sad")[k % 2]
        verbs, words = (dice.choice(part.split()) for part in TELLING[label])
        who, what = dice.choice(NAMES), dice.choice(THINGS)
        shape = dice.choice(("{w} {v} with the {t}.", "{w} was very {a}.", "The {t} was {a}. {w} {v}."))
        rows.append((shape.format(w=who, v=verbs, a=words, t=what), label, str(k)))
    texts, labels, groups = zip(*rows, strict=True)
    return Labelled(texts, labels, groups)


def scenes() -> list[dict[str, object]]:
    return [
        {
            "theme": "story",
            "scenario": f"{name} had a {thing}. One day {name} took the {thing} to the {place}.",
            "event": {
                "positive": f"A friend came to play with the {thing}.",
                "neutral": f"The {thing} was on the {ground}.",
                "negative": f"The {thing} fell into the {wet}.",
            },
            "skeleton_id": f"s-{place}-{k}",
            "split": SPLITS[k % 4],
        }
        for place, ground, wet, things in (
            ("park", "grass", "water", THINGS), ("garden", "path", "mud", THINGS[::-1]),
        )
        for k, (name, thing) in enumerate(zip(NAMES, things, strict=True))
    ]  # fmt: skip


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    root = tmp_path_factory.mktemp("stories")
    for kind, content in (("benchmarks", TASK), ("interventions", STEERING)):
        path = root / "tasks" / kind / f"{content['name']}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(yaml.safe_dump(content))
    (root / "tasks/benchmarks/scenes.jsonl").write_text("\n".join(map(json.dumps, scenes())))
    card = {"kind": "judge", "name": "valence", "version": 1, "licence": "own", "reader": "local"}
    train(sentences(), own_neutral(), "of a test").save(root / "tasks/judges/valence")
    (root / "tasks/judges/valence.yaml").write_text(yaml.safe_dump(card | {"checkpoint": "valence"}))
    registry = Registry([root], installed=False)
    job = job_of_names(registry, str(STORIES), "stories", ["direction"], ["steering"], 0)
    (found,) = Run(registry, Options(root / "out"), Log()).run([job])
    return found


def test_stories_follow_the_direction_they_are_steered_along(record: Record) -> None:
    assert record.status == "ok", record.reason
    assert record.scores is not None
    assert record.expression is not None
    steered = next(each for each in record.expression.conditions if each.condition == "amplify")
    (happy, sad) = np.array(steered.matrix)
    assert happy[0] > sad[0] + 0.2
    assert sad[1] > happy[1] + 0.1
    dose = next(each for each in record.scores.doses if each.arm == "amplify")
    assert dose.spec.low is not None
    assert dose.spec.low > 0
    assert dose.random is not None
    assert dose.random.z is not None
    assert dose.random.z > 1, "random directions of the same length do less"


def test_small_steps_leave_text_that_is_no_worse_formed(record: Record) -> None:
    assert record.expression is not None
    steered = next(each for each in record.expression.conditions if each.condition == "amplify")
    assert steered.degenerate.value <= 0.1
    assert steered.distinct_3 is not None
    assert steered.topicality.value > 0.1
