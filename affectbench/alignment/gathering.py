"""From a folder of recordings, sounds and tables of words to what models are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from affectbench.alignment.grid import COMPONENTS
from affectbench.alignment.listeners import Listener, Note, events_of, found_listeners
from affectbench.alignment.patterns import matching
from affectbench.alignment.readers import Header
from affectbench.alignment.recorded import Line, RecordedGround, placed_words
from affectbench.alignment.speech import Piece, pieces
from affectbench.alignment.tables import Spoken, completed, table_words, textgrid_words
from affectbench.alignment.transcript import punctuated
from affectbench.alignment_task import AlignmentTask
from affectbench.audio_io import SAMPLE_RATE, AudioError, Waveform, read_waveform, sound_digest
from affectbench.errors import AffectbenchError
from affectbench.identity import digest_of
from affectbench.recorded_eeg import RecordedEeg, TableWords

MOST_MISSING = 0.1
"""A listener whose recordings lack more than this share of the pieces is left out, not the pieces."""
SLACK = 0.1
"""Seconds by which a word may end behind its sound: tables are rounded."""


def recorded_ground(task: AlignmentTask, root: Path, note: Note) -> RecordedGround:
    """The recordings of a task in its folder of data; `note` hears of whatever is left out.

    Raises `AffectbenchError` for a file that is not there or cannot be read, and for tables, sounds and
    recordings that contradict each other.
    """
    source = task.source
    assert isinstance(source, RecordedEeg), "the task is of recordings"
    after = max(task.lags.until, max(window.end for window in COMPONENTS))
    words = spoken(root, source, note)
    listeners = found_listeners(root, source, words, note)
    words = _with_events(words, listeners[0], source, note)
    sounds = heard_sounds(root, source.sounds, words)
    line = Line.of(words, after)
    placed = placed_words(words, line)
    headers = {each.name: [each.header(n, source) for n in range(len(each.files))] for each in listeners}
    one_rate(listeners, headers, source)
    channels, listeners = _alike(listeners, headers, source, note)
    listeners, left_out = _held(listeners, headers, pieces(placed), after, note)
    heard = [f"{name} {sound_digest(sound)}" for name, sound in sorted(sounds.items())]
    who = [f"{each.name} {sorted(each.starts.items())} {each.digest}" for each in listeners]
    digest = digest_of([repr(words), *heard, *who, *sorted(left_out)])
    return RecordedGround(
        source, task.band, line, placed, sounds, tuple(listeners), channels, frozenset(left_out), digest
    )


def spoken(root: Path, source: RecordedEeg, note: Note) -> list[Spoken]:
    """The words of the story, timed from the start of the sound of their segment; `note` hears how well a
    transcript fits."""
    rule = source.words
    if isinstance(rule, TableWords):
        return table_words(root / rule.path, rule.columns)
    words: list[Spoken] = []
    for cells, path in matching(root, rule.path):
        words += textgrid_words(path, cells["segment"], rule, first=len(words) + 1)
    return punctuated(words, root, rule, note) if rule.transcript else words


def _with_events(
    words: Sequence[Spoken], listener: Listener, source: RecordedEeg, note: Note
) -> list[Spoken]:
    """The words of the table and those that only events.tsv has: a table of Alice lacks 23."""
    if source.events is None:
        return list(words)
    found = list(words)
    for number, path in enumerate(listener.files):
        starts = {segment: at for segment, (file, at) in listener.starts.items() if file == number}
        found = completed(found, table_words(events_of(path), source.events), starts)
    if len(found) > len(words):
        note(f"{len(found) - len(words)} words are in the events of {listener.name} alone, and kept")
    return found


def heard_sounds(root: Path, pattern: str, words: Sequence[Spoken]) -> dict[str, Waveform]:
    """The sound of each segment at 16 kHz.

    Raises `AffectbenchError` for a sound that is not there or ends before its words do.
    """
    ends: dict[str, Spoken] = {}
    for word in words:
        last = ends.get(word.segment)
        if last is None or word.onset + word.duration > last.onset + last.duration:
            ends[word.segment] = word
    sounds = {}
    for segment, last in ends.items():
        path = root / pattern.replace("{segment}", segment)
        try:
            sounds[segment] = read_waveform(path)
        except AudioError as error:
            raise AffectbenchError(f"{path}: {error.message}", hint=error.hint) from error
        seconds, end = len(sounds[segment]) / SAMPLE_RATE, last.onset + last.duration
        if end > seconds + SLACK:
            raise AffectbenchError(
                f"{path} lasts {seconds:.2f} s, but its word {last.text!r} ends at {end:.2f} s",
                hint="are the onsets of the table of words those of this sound?",
            )
    return sounds


def one_rate(
    listeners: Sequence[Listener], headers: Mapping[str, Sequence[Header]], source: RecordedEeg
) -> None:
    """Recordings of one listener are joined: raises `AffectbenchError` where they differ in rate and the task
    does not resample."""
    for listener in listeners if source.handling.rate is None else ():
        first, *others = zip(listener.files, headers[listener.name], strict=True)
        for path, header in others:
            if header.rate != first[1].rate:
                raise AffectbenchError(
                    f"{path} has {header.rate:g} Hz, and {first[0].name} of the same listener "
                    f"{first[1].rate:g} Hz",
                    hint="`handling.rate` brings all recordings to one rate",
                )


def _alike(
    listeners: Sequence[Listener], headers: Mapping[str, Sequence[Header]], source: RecordedEeg, note: Note
) -> tuple[tuple[str, ...], list[Listener]]:
    """EEG channels of the first listener, and the listeners that have the same, in whatever order."""
    handling, kept = source.handling, []
    channels: tuple[str, ...] = ()
    for listener in listeners:
        for path, header in zip(listener.files, headers[listener.name], strict=True):
            types = [handling.channels.get(n, t) for n, t in zip(header.names, header.types, strict=True)]
            own = tuple(name for name, kind in zip(header.names, types, strict=True) if kind == "eeg")
            unplaced = [
                name for name, kind, there in zip(header.names, types, header.placed, strict=True)
                if kind == "eeg" and not there
            ]  # fmt: skip
            if unplaced and not handling.montage:
                raise AffectbenchError(
                    f"{path}: nothing says where electrode {unplaced[0]!r} is",
                    hint="name a montage of MNE in `handling.montage`",
                )
            channels = channels or own
            if sorted(own) != sorted(channels):
                odd = sorted(set(own) ^ set(channels))
                note(f"subject {listener.name} is left out: {path.name} differs in channel {odd[0]}")
                break
        else:
            kept.append(listener)
    return channels, kept


def _held(
    listeners: Sequence[Listener], headers: Mapping[str, Sequence[Header]], found: Sequence[Piece],
    after: float, note: Note,
) -> tuple[list[Listener], set[str]]:  # fmt: skip
    """Listeners whose recordings hold nearly all pieces, and names of the pieces that not all of them do."""
    kept, left_out = [], set()
    for listener in listeners:
        missing = set()
        for piece in found:
            number, start = listener.starts[piece.segment]
            first, last = start + piece.heard, start + piece.heard + piece.seconds + after
            if first < 0 or last > headers[listener.name][number].seconds:
                missing.add(piece.name)
        if len(missing) > MOST_MISSING * len(found):
            note(f"subject {listener.name} is left out: its recordings lack {len(missing)} pieces")
            continue
        kept.append(listener)
        left_out |= missing
    if not kept:
        raise AffectbenchError(
            "no recording holds what was heard",
            hint="were the recordings fetched whole, and are the events theirs?",
        )
    if left_out:
        note(f"{len(left_out)} of {len(found)} pieces are left out: not every recording holds them whole")
    return kept, left_out
