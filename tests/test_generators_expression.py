"""Generated scenes and replies: equal draws, parts kept apart, emotion that needs no word for it."""

import re
from collections import Counter

import numpy as np
import pytest

from affectbench import scenarios
from affectbench.emotion_words import emotions_in, masked
from affectbench.generators import expressions
from affectbench.generators.expression_replies import LEADS, VOICES
from affectbench.generators.expression_scenes import THEMES, VALENCES

LISTS = [(label, kind) for label in expressions.LABELS for kind in ("cries", "topics", "closers")]


def occurs(part: str, text: str) -> bool:
    """Whether a reply holds a template part, with any topic."""
    pattern = re.escape(part).replace(re.escape("{it}"), ".+")
    return re.search(pattern, text, re.IGNORECASE) is not None


def test_the_emotions_are_those_of_the_scenarios() -> None:
    assert expressions.EMOTIONS == scenarios.EMOTIONS


def test_a_draw_does_not_depend_on_how_many_are_asked_for() -> None:
    assert expressions.scenes(5, 3) == expressions.scenes(40, 3)[:5]
    assert expressions.scenes(5, 3) != expressions.scenes(5, 4)
    assert expressions.scenes(5, 3) != expressions.scenes(5, 3, "fresh")
    many = expressions.labelled_replies(20, 3)
    few = expressions.labelled_replies(2, 3)
    assert few == [row for place in range(len(expressions.LABELS)) for row in many[20 * place :][:2]]


def test_scenes_have_all_themes_and_valences_equally_often() -> None:
    found = expressions.scenes(240, 0)
    assert set(Counter((scene.theme, scene.valence) for scene in found).values()) == {10}
    assert {scene.theme for scene in found} == set(THEMES)
    assert len({(scene.scenario, scene.event) for scene in found}) > 230
    assert tuple(dict.fromkeys(scene.valence for scene in found)) == VALENCES


def test_scenes_are_about_their_topics_and_name_no_emotion() -> None:
    for scene in expressions.scenes(600, 1):
        text = f"{scene.scenario} {scene.event}"
        assert scene.topics
        assert all(topic.lower() in text.lower() for topic in scene.topics)
        assert not emotions_in(text), text
        assert "{" not in text


@pytest.mark.parametrize(("label", "kind"), LISTS)
def test_seen_and_held_out_parts_make_up_all_parts(label: str, kind: str) -> None:
    options = getattr(VOICES[label], kind)
    seen, held_out = (expressions.parts(options, which) for which in (False, True))
    assert sorted(seen + held_out) == sorted(expressions.parts(options, None)) == sorted(set(options))
    assert len(held_out) == len(options) // 4
    for part in options:
        assert emotions_in(part) <= {label}, "a part names no emotion but its own"
        assert ("{it}" in part) == (kind == "topics")
        assert part[0].islower() or part[0] in "I{" or kind == "cries"


def test_replies_keep_held_out_parts_apart() -> None:
    for which in (False, True):
        for text, label in expressions.labelled_replies(150, 5, which):
            others = [expressions.parts(getattr(VOICES[label], kind), not which) for _, kind in LISTS[:3]]
            own = [expressions.parts(getattr(VOICES[label], kind), which) for _, kind in LISTS[:3]]
            inside = {part for parts in own for part in parts if occurs(part, text)}
            strange = {part for parts in others for part in parts if occurs(part, text)}
            assert inside
            assert all(any(part in mine for mine in inside) for part in strange), (text, strange)


def test_labels_are_equally_frequent_and_few_replies_name_their_emotion() -> None:
    rows = expressions.labelled_replies(200, 9, None)
    assert set(Counter(label for _, label in rows).values()) == {200}
    for label in expressions.EMOTIONS:
        named = np.mean([bool(emotions_in(text)) for text, own in rows if own == label])
        assert 0.03 < named < 0.35, label
    assert not any(emotions_in(text) for text, label in rows if label == expressions.NONE)
    assert all(len(masked(text).split()) >= 3 for text, _ in rows)


def test_replies_are_short_varied_and_on_their_topic() -> None:
    rng = np.random.default_rng(0)
    for label in expressions.LABELS:
        texts = {expressions.reply(label, "the train ticket", rng) for _ in range(200)}
        assert len(texts) > 150
        for text in texts:
            assert "the train ticket" in text.lower()
            assert 3 < len(text.split()) <= 40
            assert text[0].isupper()
            assert text[-1] in ".!?"


def test_leads_do_not_tell_the_label() -> None:
    assert not any(emotions_in(lead) for lead in LEADS)
    starts = {
        label: Counter(
            " ".join(text.split()[:2]) for text, own in expressions.labelled_replies(400, 2) if own == label
        )
        for label in expressions.LABELS
    }
    shared = set.intersection(*(set(found) for found in starts.values()))
    for label, found in starts.items():
        assert sum(found[start] for start in shared) > 0.3 * sum(found.values()), label


def test_no_scene_is_one_of_the_shipped_scenarios() -> None:
    shipped = {scenario.text.strip(". ").lower() for scenario in scenarios.own_scenarios()}
    assert not shipped & {scene.scenario.lower() for scene in expressions.scenes(2000, 0)}
