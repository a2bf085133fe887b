"""Who spoke when: words from tables and from Praat TextGrids, in the time of their sounds, and where those
sounds begin in a recording.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from affectbench.errors import AffectbenchError
from affectbench.recorded_eeg import TextGridWords, WordColumns
from affectbench.yaml_loading import suggest

JITTER = 0.05
"""Seconds by which words of one segment may disagree about when its sound began in a recording."""
ROUNDED = 1e-3
NOTHING = ("", "n/a", "nan")


@dataclass(frozen=True)
class Spoken:
    """A word: `onset` in seconds of whatever the table counts from, its sound file (`segment`), its sentence,
    and its number in the story."""

    text: str
    onset: float
    duration: float
    segment: str
    sentence: str
    order: int


def table_words(path: Path, columns: WordColumns) -> list[Spoken]:
    """Words of a table with a header, tab-separated where its name ends in .tsv, in the order of the story.

    A byte order mark is none of the header. A row whose number in the story is empty or ``n/a`` is an event
    of another kind and left out. Raises `AffectbenchError` that names file and line for a column that is not
    there, a cell that is no number, a word that lasts no time, and a number that comes twice.
    """
    seen: dict[int, int] = {}
    found = []
    for line, row in _rows(path, columns):
        if row[columns.order].strip().lower() in NOTHING:
            continue
        word = _spoken(path, line, row, columns)
        if word.order in seen:
            raise AffectbenchError(
                f"{path}, line {line}: word {word.order} was in line {seen[word.order]}",
                hint=f"{columns.order!r} numbers the words of the story",
            )
        seen[word.order] = line
        found.append(word)
    return sorted(_some(found, path), key=lambda word: word.order)


def _some(words: list[Spoken], where: Path | str) -> list[Spoken]:
    if not words:
        raise AffectbenchError(f"{where} has no words")
    return words


def _content(path: Path, what: str, hint: str | None = None) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise AffectbenchError(f"there is no {what} {path}", hint=hint) from error
    except OSError as error:
        raise AffectbenchError(f"{path} cannot be read: {error}") from error


def read_text(path: Path, what: str, hint: str | None = None) -> str:
    """A text in UTF-8, without a byte order mark. Raises `AffectbenchError` that says `what` is not there."""
    try:
        return _content(path, what, hint).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AffectbenchError(f"{path} cannot be read as UTF-8 text: {error}") from error


def _rows(path: Path, columns: WordColumns) -> Iterator[tuple[int, Mapping[str, str]]]:
    lines = read_text(path, "table of words").splitlines()
    reader = csv.DictReader(lines, delimiter="\t" if path.suffix == ".tsv" else ",")
    header = reader.fieldnames or []
    for name in columns.model_dump(exclude_none=True).values():
        if name not in header:
            raise AffectbenchError(
                f"{path} has no column {name!r}{suggest(name, header)}", hint=f"columns: {', '.join(header)}"
            )
    for row in reader:
        yield reader.line_num, {key: value or "" for key, value in row.items() if key is not None}


def _spoken(path: Path, line: int, row: Mapping[str, str], columns: WordColumns) -> Spoken:
    def number(column: str) -> float:
        try:
            value = float(row[column])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise AffectbenchError(f"{path}, line {line}: {column} is {row[column]!r}, not a number")
        return value

    onset = number(columns.onset)
    lasts = number(columns.duration) if columns.duration else number(columns.offset or "") - onset
    if lasts <= 0:
        raise AffectbenchError(
            f"{path}, line {line}: {row[columns.word]!r} lasts {lasts:g} s",
            hint="is `offset` the time where a word ends, and `duration` how long it is?",
        )
    return Spoken(
        row[columns.word], onset, lasts, _label(row[columns.segment]), _label(row[columns.sentence]),
        round(number(columns.order)),
    )  # fmt: skip


def _label(cell: str) -> str:
    """A cell as a name: a table that went through a program of statistics says 1.0 for 1."""
    name = cell.strip()
    return name.removesuffix(".0") if name.removesuffix(".0").isdigit() else name


def segment_starts(words: Sequence[Spoken], events: Sequence[Spoken], events_path: Path) -> dict[str, float]:
    """Seconds of a recording at which the sound of each segment starts: the median over the words of
    `events`, timed in the recording, of their onset there less that in the sound.

    Raises `AffectbenchError` where words of a segment disagree by more than 50 ms, as they do where onsets of
    one of both tables are not what they are taken for; and where both name different segments.
    """
    by_order = {word.order: word for word in words}
    gaps: dict[str, list[tuple[float, Spoken]]] = {}
    for event in events:
        word = by_order.get(event.order)
        if word is None:
            continue
        if word.segment != event.segment:
            raise AffectbenchError(
                f"{events_path}: word {event.order} ({event.text!r}) is in segment {event.segment}, in the "
                f"table of words in {word.segment}"
            )
        gaps.setdefault(event.segment, []).append((event.onset - word.onset, event))
    starts = {}
    for segment, found in gaps.items():
        start = float(np.median([gap for gap, _ in found]))
        apart, worst = max(((abs(gap - start), event) for gap, event in found), key=lambda pair: pair[0])
        if apart > JITTER:
            raise AffectbenchError(
                f"{events_path}: word {worst.order} ({worst.text!r}) of segment {segment} is {apart:.2f} s "
                "from where others of the segment put it",
                hint="onsets of the table of words count from the start of their segment's sound, those of "
                "events from the start of the recording",
            )
        starts[segment] = start
    return starts


def completed(words: Sequence[Spoken], events: Sequence[Spoken], starts: Mapping[str, float]) -> list[Spoken]:
    """The words of the table and those that only the events have, brought to the time of their sounds."""
    known = {word.order for word in words}
    further = [
        replace(event, onset=event.onset - starts[event.segment])
        for event in events
        if event.order not in known and event.segment in starts
    ]
    return sorted([*words, *further], key=lambda word: word.order)


def textgrid_words(path: Path, segment: str, rule: TextGridWords, first: int = 1) -> list[Spoken]:
    """Words of one sound from a TextGrid, long or short, in UTF-8 or UTF-16, numbered from `first` on.

    Intervals that are empty or labelled as silence are no words; sentences end at pauses. Raises
    `AffectbenchError` for a file that is no TextGrid, overlapping intervals, and a tier that is not there.
    """
    tier = _tier(path, rule.tier)
    silent = {label.lower() for label in rule.silence}
    found: list[Spoken] = []
    sentence, last = 0, -math.inf
    for start, end, label in tier:
        text = str(label).strip()
        if text.lower() in silent:
            continue
        sentence += start - last >= rule.pause - 1e-9
        last = end
        found.append(
            Spoken(text, start, end - start, segment, f"{segment}-{sentence:03d}", first + len(found))
        )
    return _some(found, f"{path}: tier {rule.tier!r}")


def _tier(path: Path, name: str) -> list[tuple[float, float, str]]:
    """The intervals of a tier, by time. What overlaps by less than a millisecond was rounded."""
    tiers = {
        each["name"]: each["entries"] for each in _parsed(path)["tiers"] if each["class"] == "IntervalTier"
    }
    lowered = {each.lower(): each for each in tiers}
    if name.lower() not in lowered:
        raise AffectbenchError(
            f"{path} has no tier {name!r}{suggest(name, tiers)}", hint=f"tiers: {', '.join(tiers)}"
        )
    found = sorted(
        (float(start), float(end), str(label)) for start, end, label in tiers[lowered[name.lower()]]
    )
    for (_, end, label), (start, _, following) in itertools.pairwise(found):
        if start < end - ROUNDED:
            raise AffectbenchError(
                f"{path}: {label!r} and {following!r} overlap at {start:.3f} s",
                hint="a tier holds one word at a time: mend the file in Praat",
            )
    return found


def _parsed(path: Path) -> Any:
    try:
        from praatio.utilities import textgrid_io
    except ImportError as error:
        raise AffectbenchError(
            f"TextGrids need praatio, which cannot be imported: {error}",
            hint="pip install 'affectbench[eeg]'",
        ) from error
    content = _content(path, "TextGrid")
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return textgrid_io.parseTextgridStr(content.decode("utf-16" if wide else "utf-8-sig"), False)
    except Exception as error:  # praatio raises many kinds for a damaged file; none is swallowed.
        raise AffectbenchError(
            f"{path} cannot be read as a TextGrid: {type(error).__name__}: {error}",
            hint="was the file fetched whole, and is it UTF-8 or UTF-16?",
        ) from error
