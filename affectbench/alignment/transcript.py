"""Sentences of words that a forced aligner timed, by the punctuation of the text that was read.

An aligner's words have no punctuation, and differ from the text: numbers are spelled out, hyphens are gone, a
word is left out or said twice. So both are brought to one spelling and aligned; the end of a sentence falls
between two timed words, and where the words around it differ, at the longest pause among them.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path

from affectbench.alignment.tables import Spoken, read_text
from affectbench.errors import AffectbenchError
from affectbench.recorded_eeg import TextGridWords

BLANK = re.compile(r"[\s—–]+|--+")
ENDS = re.compile(r"""[.!?…]+["'”’»)\]]*$""")
OPENS = re.compile(r"""^["'“‘«(\[]*""")
INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")
PARTS = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
"""What is compared: letters and digits, and apostrophes between them. A hyphen parts two."""
APOSTROPHES = str.maketrans("’‘ʼ", "'''")
TITLES = ("mr", "mrs", "ms", "dr", "prof", "st", "mt", "capt", "col", "gen", "lt", "sgt", "rev", "messrs")
"""Words that a full stop shortens. Others that may be (no., etc.) end sentences as well."""


def punctuated(
    words: Sequence[Spoken], root: Path, rule: TextGridWords, note: Callable[[str], None]
) -> list[Spoken]:
    """Words of all sounds in their order, with the sentences of the task's transcripts, one for each sound or
    one for all; `note` hears which share of the words is in them.

    Raises `AffectbenchError` as `by_punctuation` does.
    """
    apart = "{segment}" in rule.transcript
    found: list[Spoken] = []
    shared = 0
    for segment, group in itertools.groupby(words, lambda word: word.segment if apart else ""):
        path = root / rule.transcript.replace("{segment}", segment)
        sentences, matched = by_punctuation(list(group), path, rule.matched)
        found += [replace(word, sentence=f"{segment}-{word.sentence}" if apart else word.sentence)
                  for word in sentences]  # fmt: skip
        shared += matched
    share = f"{shared} of {len(words)} timed words ({shared / len(words):.1%})"
    note(f"{share} are in the transcript, in its order")
    return found


def by_punctuation(words: Sequence[Spoken], path: Path, least: float) -> tuple[list[Spoken], int]:
    """The words with the numbers of the sentences that they are in, and how many of them are in the text.

    Raises `AffectbenchError` for a text that is not there or no UTF-8, and where less than the share `least`
    of the words is in it in the order they were spoken.
    """
    text = [token for token in BLANK.split(read_text(path, "transcript")) if token]
    spoken = [(part, place) for place, word in enumerate(words) for part in parts(word.text)]
    written = [(part, place) for place, token in enumerate(text) for part in parts(token)]
    matcher = SequenceMatcher(
        None, [part for part, _ in spoken], [part for part, _ in written], autojunk=False
    )
    pairs = [
        (spoken[block.a + each][1], written[block.b + each][1])
        for block in matcher.get_matching_blocks()
        for each in range(block.size)
    ]
    known = {place for place, _ in pairs}
    if len(known) < least * len(words):
        lost = next(word for place, word in enumerate(words) if place not in known)
        raise AffectbenchError(
            f"{path}: {len(known)} of {len(words)} timed words are in it in their order, less than "
            f"{least:.0%}; the first that is not: {lost.text!r} at {lost.onset:.2f} s of segment "
            f"{lost.segment}",
            hint="is it the text of this sound? `matched` of the task is the least share",
        )
    begins = {_begin(words, pairs, token) for token in sentence_ends(text)} - {0}
    numbers = itertools.accumulate(int(place in begins) for place in range(len(words)))
    return [
        replace(word, sentence=f"{number + 1:03d}") for word, number in zip(words, numbers, strict=True)
    ], len(known)


def parts(word: str) -> list[str]:
    """A word as what is compared: lower case, no accents, no marks; several where a hyphen parts it."""
    plain = unicodedata.normalize("NFKD", word.translate(APOSTROPHES).casefold())
    return PARTS.findall("".join(each for each in plain if not unicodedata.combining(each)))


def sentence_ends(text: Sequence[str]) -> list[int]:
    """Places of the tokens of a text that end a sentence: at ``.``, ``!``, ``?`` or an ellipsis, closing
    quotes behind it or not. None ends where the next token begins in lower case (in a text with capitals), at
    a title that is shortened (Mr.), and at initials (J. K.) but the pronoun I.
    """
    cased = any(token != token.lower() for token in text)
    found = []
    for place, token in enumerate(text):
        if not ENDS.search(token):
            continue
        bare = OPENS.sub("", ENDS.sub("", token))
        following = OPENS.sub("", text[place + 1]) if place + 1 < len(text) else ""
        short = bare.lower() in TITLES or (bare != "I" and INITIALS.fullmatch(bare) is not None)
        if following and (short or (cased and following[:1].islower())):
            continue
        found.append(place)
    return found


def _begin(words: Sequence[Spoken], pairs: Sequence[tuple[int, int]], token: int) -> int:
    """The first word behind the sentence that ends with `token`: after the last word that is matched up to
    there, at or before the first that is matched later, at the longest pause between both."""
    at = bisect_left(pairs, token + 1, key=lambda pair: pair[1])
    low = pairs[at - 1][0] + 1 if at else 0
    high = pairs[at][0] if at < len(pairs) else len(words)
    return max(range(low, max(low, high) + 1), key=lambda place: _pause(words, place))


def _pause(words: Sequence[Spoken], place: int) -> float:
    """Seconds of silence before a word: without bounds where another sound begins or none follows."""
    if place in (0, len(words)) or words[place].segment != words[place - 1].segment:
        return float("inf")
    before = words[place - 1]
    return words[place].onset - before.onset - before.duration
