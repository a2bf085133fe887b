"""Who was recorded, in which files, and when each of them heard what."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from affectbench.alignment.readers import Header, bids_files, read_bids, read_header, read_recording
from affectbench.alignment.recording import Recording
from affectbench.alignment.tables import Spoken, segment_starts, table_words
from affectbench.errors import AffectbenchError
from affectbench.identity import digest_of, file_digest
from affectbench.recorded_eeg import RecordedEeg

Note = Callable[[str], None]
SMALL = 1 << 20
"""Bytes up to which a file counts by all of its content in the identity of a data set."""
CELL = re.compile(r"\\{(subject|run)\\}")


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
        """Hash of the files and of those that belong to them: content of small ones, size, beginning and end
        of others."""
        return digest_of(_identity(path) for file in self.files for path in _siblings(file))


def found_listeners(root: Path, source: RecordedEeg, words: Sequence[Spoken], note: Note) -> list[Listener]:
    """The subjects that a task asks for, whose recordings and events are there.

    A subject that participants.tsv excludes, and one without events or without all segments, is left out and
    `note` hears why. Raises `AffectbenchError` where none is left, and for events that contradict the words.
    """
    runs = bids_files(root, source.task) if source.format == "bids" else _matching(root, source.files)
    segments = list(dict.fromkeys(word.segment for word in words))
    excluded = _excluded(root, source.participants)
    found = []
    for name, files in sorted(runs.items()):
        reason = excluded.get(name, "")
        if name in source.leave_out:
            reason = "the task leaves it out"
        listener = None if reason else _listener(name, root, files, source, words)
        missing = [each for each in segments if listener is not None and each not in listener.starts]
        if listener is None:
            reason = reason or "it has no events.tsv"
        elif missing:
            reason = f"it has not heard segment {missing[0]}, or nothing says when"
        if reason or listener is None:
            note(f"subject {name} is left out: {reason}")
        else:
            found.append(listener)
    if not found:
        raise AffectbenchError(
            f"{root} has no recording that can be used ({len(runs)} subjects are there)",
            hint="fetch recordings with their events; `participants` and `leave_out` exclude some",
        )
    return found


def _listener(
    name: str, root: Path, files: Mapping[str, Path], source: RecordedEeg, words: Sequence[Spoken]
) -> Listener | None:
    """A listener, with the segments that it is known to have heard; None where events are not there."""
    starts: dict[str, tuple[int, float]] = {}
    ordered = sorted(files.items())
    for number, (run, path) in enumerate(ordered):
        if source.events is None:
            starts[run] = (number, source.start)
            continue
        events = events_of(path)
        if not events.is_file():
            return None
        for segment, at in segment_starts(words, table_words(events, source.events), events).items():
            starts[segment] = (number, at)
    return Listener(name, root, tuple(path for _, path in ordered), starts)


def events_of(recording: Path) -> Path:
    """The table of events beside a recording, as BIDS names it."""
    return recording.with_name(re.sub(r"(_eeg)?$", "_events.tsv", recording.stem, count=1))


def _excluded(root: Path, wanted: Mapping[str, str]) -> dict[str, str]:
    """Why participants.tsv excludes subjects, by name. Raises `AffectbenchError` for an absent column."""
    if not wanted:
        return {}
    path = root / "participants.tsv"
    if not path.is_file():
        raise AffectbenchError(
            f"there is no {path}", hint="`participants` of the task selects by its columns"
        )
    header, *rows = [line.split("\t") for line in path.read_text(encoding="utf-8-sig").splitlines() if line]
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


def _matching(root: Path, pattern: str) -> dict[str, dict[str, Path]]:
    """Files by subject and run that match a pattern with {subject} and {run}."""
    known: set[str] = set()

    def group(match: re.Match[str]) -> str:
        name = match.group(1)
        if name in known:
            return f"(?P={name})"
        known.add(name)
        return f"(?P<{name}>[^/]+?)"

    expression = re.compile(CELL.sub(group, re.escape(pattern)))
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(root.glob(re.sub(r"\{(subject|run)\}", "*", pattern))):
        match = expression.fullmatch(path.relative_to(root).as_posix())
        if match is not None:
            parts = match.groupdict()
            found.setdefault(parts["subject"], {})[parts.get("run", "")] = path
    if not found:
        raise AffectbenchError(f"{root} has no file like {pattern}")
    return found


def _siblings(recording: Path) -> list[Path]:
    stem = recording.stem.removesuffix("_eeg")
    return sorted(path for path in recording.parent.glob(f"{stem}*") if path.is_file())


def _identity(path: Path) -> str:
    size = path.stat().st_size
    if size <= SMALL:
        return f"{path.name} {file_digest(path)}"
    with path.open("rb") as file:
        ends = [file.read(SMALL // 4)]
        file.seek(size - SMALL // 4)
        ends.append(file.read())
    return f"{path.name} {size} {digest_of(part.hex() for part in ends)}"
