"""Sentences by the punctuation of a transcript: made-up texts, and what an aligner might make of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eeg_folder import RUNS

from affectbench.alignment.tables import Spoken
from affectbench.alignment.transcript import by_punctuation, parts, punctuated, sentence_ends
from affectbench.errors import AffectbenchError
from affectbench.recorded_eeg import RecordedEeg, TextGridWords


def timed(text: str, segment: str = "1", pause: float = 0.2) -> list[Spoken]:
    """Words of 0.3 s as an aligner gives them, upper case; a pause where the text has a bar."""
    at, found = 0.5, []
    for word in text.split():
        if word == "|":
            at += pause
            continue
        found.append(Spoken(word.upper(), at, 0.3, segment, "", len(found) + 1))
        at += 0.3
    return found


def sentences(words: list[Spoken]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for word in words:
        groups.setdefault(word.sentence, []).append(word.text.lower())
    return [" ".join(group) for group in groups.values()]


def cut(tmp_path: Path, text: str, spoken: str, least: float = 0.5) -> list[str]:
    path = tmp_path / "text.txt"
    path.write_text(text, encoding="utf-8")
    return sentences(by_punctuation(timed(spoken), path, least)[0])


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("He fished. She slept! Did he? Yes", ["fished.", "slept!", "he?"]),
        ('"Come here," he said. "Now." Then he went.', ["said.", '"Now."', "went."]),
        ('"Will you come?" the boy asked. "No!" he said', ["asked."]),
        ("Mr. Santiago met Dr. J. K. Gray. He left.", ["Gray.", "left."]),
        ("He went to the U.S. in May. It was I. He knew", ["May.", "I."]),
        ("He waited... and then... He slept", ["then..."]),
        ("Wait—he said. (It was late.) “So be it.” ‘Go.’ End", ["said.", "late.)", "it.”", "Go.’"]),
        ("it was late. he slept. so", ["late.", "slept."]),
        ("He had 3.5 of them. 84 days. End", ["them.", "days."]),
        ("No. He said no. It was late etc. Then", ["No.", "no.", "etc."]),
    ],
)  # fmt: skip
def test_where_sentences_of_a_text_end(text: str, ends: list[str]) -> None:
    tokens = text.replace("—", " ").replace("‘", "").split()
    assert [tokens[place] for place in sentence_ends(tokens)] == ends


@pytest.mark.parametrize(
    ("word", "compared"),
    [
        ("Don’t", ["don't"]), ("DON'T", ["don't"]), ("'Tis", ["tis"]), ("boys'", ["boys"]),
        ("eighty-four", ["eighty", "four"]), ("Doña", ["dona"]), ("“So,”", ["so"]), ("...", []),
        ("3.5", ["3", "5"]), ("<unk>", ["unk"]), ("fish_es", ["fish", "es"]),
    ],
)  # fmt: skip
def test_both_sides_are_brought_to_one_spelling(word: str, compared: list[str]) -> None:
    assert parts(word) == compared


class TestAligned:
    def test_the_punctuation_counts_and_not_the_pause(self, tmp_path: Path) -> None:
        found = cut(
            tmp_path,
            "He was old. He fished, alone. Nobody came",
            "he was | old he fished | alone nobody came",
        )
        assert found == ["he was old", "he fished alone", "nobody came"]

    def test_numbers_are_spoken_in_words(self, tmp_path: Path) -> None:
        """The end falls where the pause is, among the words that the text does not have."""
        text = "He had gone 84 days without a fish. 40 of them with the boy. It was late."
        spoken = "he had gone eighty four days without a fish | forty of them with the boy | it was late"
        assert cut(tmp_path, text, spoken) == [
            "he had gone eighty four days without a fish", "forty of them with the boy", "it was late",
        ]  # fmt: skip
        text = "It was the year 1952. 20 men came. All left."
        spoken = "it was the year nineteen fifty two | twenty men came all left"
        assert cut(tmp_path, text, spoken) == [
            "it was the year nineteen fifty two", "twenty men came", "all left",
        ]  # fmt: skip

    def test_hyphens_are_there_on_either_side(self, tmp_path: Path) -> None:
        text = "The well-known man had thirty two. He was well known. Twenty-one came."
        spoken = "the well known man had thirty-two he was well-known twenty one came"
        assert cut(tmp_path, text, spoken) == [
            "the well known man had thirty-two", "he was well-known", "twenty one came",
        ]  # fmt: skip

    def test_words_that_only_one_side_has(self, tmp_path: Path) -> None:
        text = "Chapter One. It began. The very old man slept on. The boy watched him. It ended. Notes by me."
        spoken = "it began the old man uh slept | the the boy watched it ended"
        assert cut(tmp_path, text, spoken) == [
            "it began", "the old man uh slept", "the the boy watched", "it ended",
        ]  # fmt: skip

    def test_quotes_dashes_and_titles(self, tmp_path: Path) -> None:
        text = "“Santiago,” said Mr. Perez—“what is that?” the boy didn’t know. ‘Go!’ He went."
        spoken = "santiago said mr perez what is that the boy didn't know go he went"
        assert cut(tmp_path, text, spoken) == [
            "santiago said mr perez what is that the boy didn't know", "go", "he went",
        ]  # fmt: skip

    def test_a_long_text_with_many_mistakes(self, tmp_path: Path) -> None:
        """The oracle: sentences as they were made. One word in twenty is lost, said twice or another one."""
        rng = np.random.default_rng(0)
        vocabulary = [f"w{place}" for place in range(400)]
        chances = 1 / np.arange(1, 401)
        text, spoken, truth = [], [], []
        for number in range(800):
            words = rng.choice(vocabulary, rng.integers(4, 24), p=chances / chances.sum()).tolist()
            text.append(" ".join(words).capitalize() + rng.choice([".", "!", "?", '."']))
            for word in words:
                kind = rng.choice(["same", "lost", "twice", "other"], p=[0.95, 0.02, 0.01, 0.02])
                said = {"same": [word], "lost": [], "twice": [word, word], "other": ["uh"]}[kind]
                spoken += said
                truth += [number] * len(said)
            spoken.append("|")
        (tmp_path / "text.txt").write_text("\n".join(text), encoding="utf-8")
        began = time.process_time()
        found, matched = by_punctuation(timed(" ".join(spoken)), tmp_path / "text.txt", 0.9)
        assert time.process_time() - began < 20
        assert 0.95 < matched / len(found) < 0.985
        ours, theirs = (np.flatnonzero(np.diff(np.array(each)))
                        for each in ([int(word.sentence) for word in found], truth))  # fmt: skip
        assert len(set(ours) & set(theirs)) > 0.99 * len(theirs)
        assert len(set(ours) - set(theirs)) < 0.01 * len(theirs)

    def test_another_text_is_refused_with_the_share_and_a_word(self, tmp_path: Path) -> None:
        path = tmp_path / "text.txt"
        path.write_text("He was young. Nobody slept.", encoding="utf-8")
        words = timed("he was old and he fished alone")
        with pytest.raises(
            AffectbenchError, match=r"text\.txt: . of 7 timed words .* less than 90%"
        ) as caught:
            by_punctuation(words, path, 0.9)
        assert "'OLD' at 1.10 s of segment 1" in str(caught.value)
        assert "`matched`" in (caught.value.hint or "")

    @pytest.mark.parametrize(
        ("content", "message"), [(None, "there is no transcript"), (b"\xff\xfe\xfd", "UTF-8")]
    )
    def test_a_text_that_cannot_be_read(self, tmp_path: Path, content: bytes | None, message: str) -> None:
        path = tmp_path / "text.txt"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(AffectbenchError, match=message) as caught:
            by_punctuation(timed("a b"), path, 0.9)
        assert str(path) in str(caught.value)


WORDS = (*timed("he was old he fished", "1"), *timed("alone nobody came", "2"))


class TestTask:
    def rule(self, **changes: Any) -> TextGridWords:
        words = {"kind": "textgrid", "path": "{segment}.TextGrid"} | changes
        return RecordedEeg.model_validate(RUNS | {"words": words}).words

    def test_one_text_for_all_sounds_lets_a_sentence_go_on_in_the_next(self, tmp_path: Path) -> None:
        (tmp_path / "story.txt").write_text("He was old. He fished alone. Nobody came.")
        notes: list[str] = []
        found = punctuated(WORDS, tmp_path, self.rule(transcript="story.txt"), notes.append)
        assert sentences(found) == ["he was old", "he fished alone", "nobody came"]
        assert {word.segment for word in found if word.sentence == "002"} == {"1", "2"}
        assert notes == ["8 of 8 timed words (100.0%) are in the transcript, in its order"]

    def test_a_text_for_each_sound(self, tmp_path: Path) -> None:
        (tmp_path / "1.txt").write_text("He was old. He fished")
        (tmp_path / "2.txt").write_text("alone, and nobody went.")
        notes: list[str] = []
        rule = self.rule(transcript="{segment}.txt", matched=0.6)
        found = punctuated(WORDS, tmp_path, rule, notes.append)
        assert [word.sentence for word in found] == ["1-001"] * 3 + ["1-002"] * 2 + ["2-001"] * 3
        assert notes == ["7 of 8 timed words (87.5%) are in the transcript, in its order"]
        with pytest.raises(AffectbenchError, match=r"2\.txt: 2 of 3 timed words"):
            punctuated(WORDS, tmp_path, self.rule(transcript="{segment}.txt"), notes.append)

    def test_a_pause_or_a_transcript(self) -> None:
        with pytest.raises(ValueError, match="give it or `pause`"):
            self.rule(transcript="story.txt", pause=0.3)
        assert "transcript" not in self.rule().model_dump()  # A task without one keeps its digest.
