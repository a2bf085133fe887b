"""The narrative generator: splits that share nothing, items that do not depend on how many are asked for."""

import re
from collections import Counter

import pytest

from affectbench.generators import narratives
from affectbench.generators.narrative_templates import REACTION_SPLITS, REACTIONS

EVALUATION = ("identification", "validation", "test")


def clusters(split: str) -> set[str]:
    return {item["cluster"] for item in narratives.examples(split, 60, seed=3)}


def sentences(split: str) -> str:
    return " ".join(item["text"] for item in narratives.examples(split, 60, seed=3))


def test_frames_are_disjoint_between_splits():
    seen = [clusters(split) for split in EVALUATION]
    assert len(set.union(*seen)) == sum(map(len, seen))


def test_training_uses_identification_frames_only():
    assert clusters("training") <= clusters("identification")


def test_there_are_enough_test_clusters_for_clustered_statistics():
    per_emotion = Counter(name.split("-")[0] for name in clusters("test"))
    assert all(per_emotion[label] >= 6 for label in narratives.EMOTIONS)
    assert len(clusters("test")) >= 42


@pytest.mark.parametrize("split", EVALUATION)
def test_reactions_of_other_splits_never_occur(split):
    text = sentences(split)
    start, stop = REACTION_SPLITS[split]
    for options in REACTIONS.values():
        for k, template in enumerate(options):
            phrase = re.escape(template.replace("{p} ", "").replace(" of {p}", ""))
            if not start <= k < stop and len(phrase.split()) > 1:
                assert not re.search(rf"[.] [A-Z][a-z]+ {phrase}[.]", text), (split, template)


def test_an_item_does_not_depend_on_how_many_are_asked_for():
    few = {item["id"]: item for item in narratives.examples("test", 3, seed=5)}
    many = {item["id"]: item for item in narratives.examples("test", 30, seed=5)}
    assert few == {key: many[key] for key in few}
    assert narratives.language_text(2, 5, held_out=True) == narratives.language_text(9, 5, held_out=True)[:2]
    assert narratives.cloze(2, 5) == narratives.cloze(9, 5)[:2]


def test_seed_and_split_change_the_draw():
    first = [item["text"] for item in narratives.examples("test", 10, seed=0)]
    assert first != [item["text"] for item in narratives.examples("test", 10, seed=1)]
    assert narratives.language_text(5, 0, held_out=True) != narratives.language_text(5, 0, held_out=False)


def test_labels_are_balanced_and_the_person_is_named():
    items = narratives.examples("validation", 20, seed=0)
    assert Counter(item["label"] for item in items) == dict.fromkeys(narratives.EMOTIONS, 20)
    assert all(item["person"] in item["text"] for item in items)
    assert len({item["id"] for item in items}) == len(items)


def test_distractors_appear_at_the_stated_rate():
    items = narratives.examples("test", 300, seed=0)
    assert 0.25 < sum(item["distractor"] for item in items) / len(items) < 0.35


def test_prompt_follows_the_shared_template_and_answer_is_separate():
    item = narratives.examples("test", 1, seed=0)[0]
    text = narratives.prompt(item)
    assert text.startswith(f"Text: {item['text']} Question: how does {item['person']} feel?")
    assert text.endswith("Emotion:")
    assert narratives.answer(item) == " anger"


def test_no_text_gives_a_label_away():
    words = " ".join(
        [*narratives.language_text(300, 0, True), *narratives.story_text(300, 0), sentences("test")]
    )
    assert not set(narratives.EMOTIONS) & set(re.findall(r"[a-z]+", words.lower()))


def test_cloze_has_four_different_choices_and_the_marked_one_is_right():
    tools = dict(
        re.findall(r"used the (\w+) to ([\w ]+)\.", " ".join(narratives.language_text(900, 1, False)))
    )
    for item in narratives.cloze(100, seed=2):
        assert len(set(item["choices"])) == 4
        right = item["choices"][item["answer"]].strip()
        if item["context"].startswith("To "):
            assert tools[right] in item["context"]
        else:
            carried = dict(re.findall(r"(\w+) carried the (\w+)", item["context"]))
            assert carried[re.findall(r"Later (\w+)", item["context"])[0]] == right


def test_unknown_split_is_refused_by_name():
    with pytest.raises(ValueError, match="'dev' is unknown"):
        narratives.examples("dev", 1, seed=0)
