"""Scenarios for expression: our own set keeps to its design, and the authors' files read as published."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from affectbench.emotion_words import emotions_in, masked, names, says_noun
from affectbench.examples import DatasetError
from affectbench.scenarios import EMOTIONS, VALENCES, Scenario, own_scenarios, read_scenarios

SEV = Path(__file__).parents[2] / "shared" / "data" / "sev"
OUTWARD = {"laugh", "smile", "smiled", "laughed", "cried", "cry", "tears", "screamed", "sobbed", "grinned"}
WORDS_LOW, WORDS_HIGH = 9, 19


@pytest.fixture(scope="module")
def ours() -> list[Scenario]:
    return own_scenarios()


def sentences(scenarios: list[Scenario]) -> list[str]:
    return [text for s in scenarios for text in (s.text, *(s.events[valence] for valence in VALENCES))]


def test_eight_themes_of_twenty_scenarios_each_in_one_split(ours: list[Scenario]) -> None:
    assert Counter(Counter(s.theme for s in ours).values()) == {20: 8}
    by_theme = Counter((s.theme, s.split) for s in ours)
    assert {
        split: {n for (_, s), n in by_theme.items() if s == split} for split in {s.split for s in ours}
    } == {
        "identification": {10},
        "validation": {4},
        "test": {6},
    }


def test_no_sentence_comes_twice_so_no_scenario_is_shared_between_splits(ours: list[Scenario]) -> None:
    texts = [text.lower() for text in sentences(ours)]
    assert len(texts) == len(set(texts)) == 8 * 20 * 4


def test_no_sentence_names_an_emotion_or_shows_it_outwardly(ours: list[Scenario]) -> None:
    named = {text: found for text in sentences(ours) if (found := emotions_in(text))}
    shown = [text for text in sentences(ours) if OUTWARD & set(text.lower().strip(".").split())]
    assert (named, shown) == ({}, [])


def test_sentences_are_plain_and_of_like_length(ours: list[Scenario]) -> None:
    lengths = {text: len(text.split()) for text in sentences(ours)}
    assert {text: n for text, n in lengths.items() if not WORDS_LOW <= n <= WORDS_HIGH} == {}
    assert all(text.endswith(".") and text.isascii() for text in lengths)
    assert all(s.text.startswith("I ") for s in ours)


@pytest.mark.skipif(not SEV.is_dir(), reason="the authors' files are not on this machine")
@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("sev.jsonl", "7b5313524f54b285c77d31c880b51939cfbcb2db12986bd409da0daae2807a86"),
        ("test_set.jsonl", "9519ae1bffae6df5f5caf4a707c8d5034040bedb591a12bfb89afbbbe5ec2fdc"),
    ],
)
def test_the_authors_files_hold_what_they_published(name: str, digest: str, ours: list[Scenario]) -> None:
    assert hashlib.sha256((SEV / name).read_bytes()).hexdigest() == digest
    found = read_scenarios(SEV / name)
    assert (len(found), sum(len(s.events) for s in found)) == (160, 480)
    assert Counter(Counter(s.theme for s in found).values()) == {20: 8}
    assert not set(sentences(found)) & set(sentences(ours)), "ours is not made of theirs"


def row(**changes: object) -> str:
    events = {"positive": "It came.", "neutral": "It stood.", "negative": "It fell."}
    full = {"theme": "Work", "scenario": "I made a box.", "event": events, "skeleton_id": "work-01"}
    return json.dumps({key: value for key, value in (full | changes).items() if value is not None})


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([row(event={"positive": "It came."})], r"rows.jsonl:1: event.neutral: Field required"),
        ([row(mood="calm")], r"rows.jsonl:1: mood: Extra inputs"),
        ([row(skeleton_id="a b")], r"rows.jsonl:1: skeleton_id"),
        ([row(), row(scenario="I made a chair.")], r"rows.jsonl:2: 'work-01' is already in .*rows.jsonl:1"),
        ([row(), row(skeleton_id="work-02")], r"rows.jsonl:2: 'i made a box.' is already in"),
        ([], "there is no scenario in it"),
    ],
)
def test_a_malformed_file_is_refused_with_its_place(tmp_path: Path, lines: list[str], message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        read_scenarios(path)


@pytest.mark.parametrize(
    ("text", "emotions"),
    [
        ("I am so angry, FURIOUS even!", {"anger"}),
        ("She was saddened, and I was unhappy.", {"sadness"}),
        ("He sat in the saddle and made a content list", {"happiness"}),
        ("What a joy; I'm overjoyed", {"happiness"}),
        ("fearless, scared, worrying", {"fear"}),
        ("I was shocked and disgusted", {"surprise", "disgust"}),
        ("The gladiator bought groceries, elastic and a stun gun at the mall", set()),
        ("He was late again and nobody told me", set()),
    ],
)
def test_emotion_words_are_found_by_stem_and_not_inside_other_words(text: str, emotions: set[str]) -> None:
    assert emotions_in(text) == emotions
    assert {emotion for emotion in EMOTIONS if names(text, emotion)} == emotions


def test_the_noun_is_told_from_its_derivations() -> None:
    assert says_noun("My Fears came back.", "fear")
    assert not says_noun("fearless and afraid", "fear")
    assert all(says_noun(f"It is {emotion}!", emotion) and names(emotion, emotion) for emotion in EMOTIONS)


def test_masking_leaves_no_emotion_word_and_all_other_words() -> None:
    text = "I am angry, so angry and sad: this box was made badly. Fear!"
    assert masked(text) == "I am, so and: this box was made badly.!"
    assert emotions_in(masked(text)) == set()
