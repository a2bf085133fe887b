"""Who was recorded, in which files, and when each of them heard what."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from affectbench.alignment.readers import Header, read_bids, read_header, read_marks, read_recording
from affectbench.alignment.recording import Recording
from affectbench.alignment.tables import Spoken, read_text, segment_starts, table_words
from affectbench.alignment.takes import Take, bids_takes, matching_takes
from affectbench.errors import AffectbenchError
from affectbench.identity import digest_of
from affectbench.large_files import kept_digest
from affectbench.recorded_eeg import RecordedEeg

Note = Callable[[str], None]


@dataclass(frozen=True)
class Listener:
    """A subject: its `files`, and for each segment which of them holds it, and from which second on."""

    name: str
    root: Path
    files: tuple[Path, ...]
    starts: Mapping[str, tuple[int, float]]

    def read(self, number: int, source: RecordedEeg) -> Recording:
        """One of the recordings, as it is in its file."""
        path = self.files[number]
        if source.format == "bids":
            return read_bids(path, self.root)
        return read_recording(path, variable=source.variable, unit=source.unit)

    def header(self, number: int, source: RecordedEeg) -> Header:
        """What the file says of itself; signals are not read where the format allows."""
        bids = self.root if source.format == "bids" else None
        return read_header(self.files[number], bids=bids, variable=source.variable)

    @property
    def digest(self) -> str:
        """Hash of the content of the files and of those that belong to them."""
        named = [path for file in self.files for path in _siblings(file)]
        return digest_of(f"{path.name} {kept_digest(path)}" for path in named)


def found_listeners(root: Path, source: RecordedEeg, words: Sequence[Spoken], note: Note) -> list[Listener]:
    """The subjects that a task asks for, whose recordings and events are there. Sessions of a subject are
    further recordings of one listener.

    A subject that participants.tsv excludes, and one without events or without all segments, is left out and
    `note` hears why. Raises `AffectbenchError` where none is left, for events that contradict the words, and
    where a subject heard a segment in two recordings.
    """
    bids = source.format == "bids"
    takes = bids_takes(root, source.task) if bids else matching_takes(root, source.files)
    segments = list(dict.fromkeys(word.segment for word in words))
    excluded = _excluded(root, source.participants)
    excluded |= dict.fromkeys(source.leave_out, "the task leaves it out")
    found = []
    for name, own in takes.items():
        listener = excluded.get(name) or _listener(name, root, own, source, words)
        if isinstance(listener, Listener):
            missing = [each for each in segments if each not in listener.starts]
            if not missing:
                found.append(listener)
                continue
            listener = f"it has not heard segment {missing[0]}, or nothing says when"
        note(f"subject {name} is left out: {listener}")
    if not found:
        raise AffectbenchError(
            f"{root} has no recording that can be used ({len(takes)} subjects are there)",
            hint="fetch recordings and their events; `participants`, `sessions`, `leave_out` exclude some",
        )
    return found


def _listener(
    name: str, root: Path, takes: Sequence[Take], source: RecordedEeg, words: Sequence[Spoken]
) -> Listener | str:
    """A listener, with the segments that it is known to have heard, or why there is none."""
    own = [take for take in takes if not source.sessions or take.session in source.sessions]
    if not own:
        return f"it has no recording of session {' or '.join(source.sessions)}"
    starts: dict[str, tuple[int, float]] = {}
    for number, take in enumerate(own):
        heard = _heard(take, root, source, words)
        if isinstance(heard, str):
            return heard
        for segment, at in heard.items():
            if segment in starts:
                first = own[starts[segment][0]].path
                raise AffectbenchError(
                    f"subject {name} heard segment {segment} in {first} and in {take.path}",
                    hint="`sessions` of the task says which sessions count, `leave_out` leaves subjects out",
                )
            starts[segment] = (number, at)
    return Listener(name, root, tuple(take.path for take in own), starts)


def _heard(take: Take, root: Path, source: RecordedEeg, words: Sequence[Spoken]) -> dict[str, float] | str:
    """Seconds of a recording at which the sound of each segment in it starts, or why nothing says so."""
    if source.events is not None:
        events = events_of(take.path)
        if not events.is_file():
            return f"it has no {events.name}"
        return segment_starts(words, table_words(events, source.events), events)
    if not source.mark:
        return {take.run: source.start}
    marks = read_marks(take.path, bids=root if source.format == "bids" else None)
    found = [mark.onset for mark in marks if mark.text == source.mark]
    if len(found) != 1:
        others = ", ".join(sorted({repr(mark.text) for mark in marks})[:8]) or "none"
        return f"{take.path.name} has {len(found)} marks {source.mark!r}, not one (its marks: {others})"
    return {take.run: found[0] + source.start}


def events_of(recording: Path) -> Path:
    """The table of events beside a recording, as BIDS names it."""
    return recording.with_name(re.sub(r"(_eeg)?$", "_events.tsv", recording.stem, count=1))


def _excluded(root: Path, wanted: Mapping[str, str]) -> dict[str, str]:
    """Why participants.tsv excludes subjects, by name. Raises `AffectbenchError` for an absent column."""
    if not wanted:
        return {}
    path = root / "participants.tsv"
    text = read_text(path, "table of subjects", hint="`participants` of the task selects by its columns")
    header, *rows = [line.split("\t") for line in text.splitlines() if line] or [[]]
    for column in ("participant_id", *wanted):
        if column not in header:
            raise AffectbenchError(
                f"{path} has no column {column!r}",
                hint="fetch the newest version of the data set, or take the column out of `participants`",
            )
    found = {}
    for row in rows:
        content = dict(zip(header, row, strict=False))
        for column, value in wanted.items():
            if content.get(column) != value:
                name = content["participant_id"].removeprefix("sub-")
                found[name] = f"{column} is {content.get(column)!r} in participants.tsv"
    return found


def _siblings(recording: Path) -> list[Path]:
    """A recording, its parts and its sidecars: those of its run, and where the electrodes were."""
    belonging = [f"{recording.stem}.*"]
    if recording.stem.endswith("_eeg"):  # As BIDS names it.
        whose = recording.stem.split("_task-")[0]
        belonging += [
            f"{recording.stem.removesuffix('_eeg')}_*",
            f"{whose}_*electrodes.tsv",
            f"{whose}_*coordsystem.json",
        ]
    found = {path for pattern in belonging for path in recording.parent.glob(pattern)}
    return sorted(path for path in found if path.is_file())
