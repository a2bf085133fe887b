"""What a job has computed, kept piece by piece, so that a run that was stopped goes on from the last one.

Pieces are frames appended to a file of this process alone, below `partial/` in the results folder; the files
of earlier processes are only read. So several processes may work in one folder. Each frame has a checksum
that also covers the job's identity: damaged pieces, and those of another job, never pass for its own.

Nothing waits for the disk: what was written outlives a killed process. After a power failure the last pieces
may be missing or damaged; they are computed again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import secrets
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from affectbench.errors import RecordError
from affectbench.store import set_aside, write_atomically

Arrays = Mapping[str, np.ndarray]
MAGIC = b"\xabPC\x01"
HEAD = struct.Struct("<4s16sIQ")
"""Magic, checksum, length of the JSON head, length of the safetensors body; the last two are checked too."""
CHECKED = 20
SNAPSHOT_REST = 50
"""Between two snapshots lie this many times the seconds that one takes: they cost at most 2 %."""


class Piece(NamedTuple):
    """One piece of computation: its arrays, and facts about it (what it cost)."""

    arrays: Arrays
    facts: dict[str, Any]


class _Frame(NamedTuple):
    """Where a piece lies in a file."""

    path: Path
    start: int
    body: int
    end: int
    head: dict[str, Any]


@dataclass
class Journal:
    """The pieces of one job in `folder`; `identity` says by content what the job is, 16 hex.

    `note` is told of damage, and of a folder that cannot be written: the run then goes on without a journal.
    `cells` names the cells that the processes of this job set out to run.
    """

    folder: Path
    identity: str
    note: Callable[[str], None]
    cells: set[str] = field(init=False, default_factory=set)
    _frames: dict[str, _Frame] = field(init=False, default_factory=dict)
    _own: Path = field(init=False)
    _stream: BinaryIO | None = field(init=False, default=None)
    _off: bool = field(init=False, default=False)
    _rested: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._own = self.folder / f"{secrets.token_hex(4)}.journal"
        for path in sorted([*self.folder.glob("*.journal"), *self.folder.glob("*.snapshot")]):
            try:
                self._read(path)
            except (OSError, RecordError) as error:
                self.note(f"{path} cannot be used: {error}; what it holds is computed again")
        for frame in self._frames.values():
            self.cells.update(frame.head.get("cells", ()))

    @property
    def found(self) -> bool:
        """Whether an earlier process left any work done."""
        return any("cost" in frame.head for frame in self._frames.values())

    @property
    def answers(self) -> int:
        """How many (item, intervention) pairs were there at the start."""
        return sum(frame.head.get("answers", 0) for frame in self._frames.values())

    def begin(self, cells: Iterable[str]) -> None:
        """Say which cells this process sets out to run."""
        self.cells.update(cells)
        self.add(f"cells of {self._own.stem}", {}, {"cells": sorted(self.cells)})

    def find(self, key: str) -> Piece | None:
        """The piece with this key, if an earlier process left it."""
        from safetensors.numpy import load

        frame = self._frames.get(key)
        if frame is None:
            return None
        try:
            with frame.path.open("rb") as stream:
                stream.seek(frame.start)
                raw = stream.read(frame.end - frame.start)
        except OSError:  # Another process has finished the job and removed its pieces.
            return None
        found = _frame_at(frame.path, raw, 0, self.identity)
        return None if found is None else Piece(load(raw[found.body :]), found.head)

    def add(self, key: str, arrays: Arrays, facts: Mapping[str, Any]) -> None:
        """Keep a piece; when this returns, a kill does not lose it any more."""
        self._write(lambda: self._append(_packed(self.identity, key, arrays, facts)))

    def snapshot(self, key: str, state: Callable[[], tuple[Arrays, Mapping[str, Any]]], last: bool) -> None:
        """Keep the state of a computation that is under way, in place of its state before.

        All but the `last` are passed over where keeping them would take more than 2 % of the time.
        """
        started = time.monotonic()
        if not last and started < self._rested:
            return
        path = self.folder / f"{key}.snapshot"
        self._write(lambda: write_atomically(path, _packed(self.identity, key, *state()), durable=False))
        now = time.monotonic()
        self._rested = now + SNAPSHOT_REST * (now - started)

    def close(self) -> None:
        """Write no more. What is there stays for the next process."""
        self._off = True
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _write(self, action: Callable[[], object]) -> None:
        if self._off:
            return
        try:
            action()
        except (OSError, RecordError) as error:
            self.close()
            reason = error.strerror if isinstance(error, OSError) else error.message
            self.note(f"no partial results are kept in {self.folder} from here on: {reason}")

    def _append(self, frame: bytes) -> None:
        if self._stream is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._stream = self._own.open("xb", buffering=0)
            with suppress(OSError):  # Without locks, all files count as those of live processes.
                fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        whole = self._stream.tell()
        try:
            rest = memoryview(frame)
            while rest:
                rest = rest[self._stream.write(rest) :]
        except OSError:
            self._stream.truncate(whole)
            raise

    def _read(self, path: Path) -> None:
        with path.open("rb") as stream:
            dead = _dead(stream)
            size = os.fstat(stream.fileno()).st_size
            if size == 0:
                return
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                frames, sound, torn = _scan(path, data, self.identity)
                self._frames |= {frame.head["key"]: frame for frame in frames}
                if sound == size or not dead:  # A live process may be half way through its last frame.
                    return
                if not torn:
                    for frame in frames:
                        self._write(partial(self._append, data[frame.start : frame.end]))
            if torn:
                os.truncate(path, sound)
                self.note(f"{path}: its last piece was cut off and is computed again")
                return
            aside = set_aside(path)
            self._frames |= {frame.head["key"]: frame._replace(path=aside) for frame in frames}
            self.note(f"{path} is damaged: set aside as {aside.name}; what is lost is computed again")


@contextmanager
def marked(partial: Path) -> Iterator[str]:
    """Keep an empty file in `partial` for the length of the block, and give its name: whoever finds it there
    sees this very folder. One that a killed process left goes with the next pieces that are removed."""
    path = partial / f"{secrets.token_hex(8)}.journal"
    with ExitStack() as opened:
        with suppress(OSError):  # Then nobody finds it.
            partial.mkdir(parents=True, exist_ok=True)
            fcntl.flock(opened.enter_context(path.open("xb")), fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield path.name
        finally:
            with suppress(OSError):
                path.unlink(missing_ok=True)
                partial.rmdir()  # Unless jobs have their pieces there.


def remove_pieces(partial: Path, name: str) -> None:
    """Remove the pieces of the job called `name`, in all its versions: it is done.

    Files that a live process still writes stay, and so does what was set aside.
    """
    for folder in partial.glob("*"):
        if folder.name.rpartition("__")[0] == name:
            _tidy(folder)
    _tidy(partial)


def _packed(identity: str, key: str, arrays: Arrays, facts: Mapping[str, Any]) -> bytes:
    from safetensors.numpy import save

    head = json.dumps({"key": key, **facts}).encode()
    body = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    checked: bytes = HEAD.pack(MAGIC, bytes(16), len(head), len(body))[CHECKED:] + head + body
    return MAGIC + _checksum(identity, checked) + checked


def _frame_at(path: Path, data: bytes | mmap.mmap, start: int, identity: str) -> _Frame | None:
    """The frame that begins at `start`, or None where there is no sound one."""
    end = _claimed_end(data, start)
    if end is None or end > len(data):
        return None
    _, checksum, _, body = HEAD.unpack_from(data, start)
    with memoryview(data) as view, view[start + CHECKED : end] as checked:
        if _checksum(identity, checked) != checksum:
            return None
    return _Frame(path, start, end - body, end, json.loads(data[start + HEAD.size : end - body]))


def _claimed_end(data: bytes | mmap.mmap, start: int) -> int | None:
    if len(data) - start < HEAD.size or data[start : start + len(MAGIC)] != MAGIC:
        return None
    _, _, head, body = HEAD.unpack_from(data, start)
    return int(start + HEAD.size + head + body)


def _checksum(identity: str, content: bytes | memoryview) -> bytes:
    return hashlib.blake2b(content, digest_size=16, key=identity.encode()).digest()


def _scan(path: Path, data: mmap.mmap, identity: str) -> tuple[list[_Frame], int, bool]:
    """All sound frames of a file, how many bytes are sound before anything else, and whether what follows
    them is no more than a frame that was cut off."""
    frames: list[_Frame] = []
    at, sound = 0, 0
    while at != -1 and at < len(data):
        frame = _frame_at(path, data, at, identity)
        if frame is None:
            at = data.find(MAGIC, at + 1)
            continue
        if frame.start == sound:
            sound = frame.end
        frames.append(frame)
        at = frame.end
    end = _claimed_end(data, sound)
    short = len(data) - sound < HEAD.size or (end is not None and end > len(data))
    return frames, sound, short and (not frames or frames[-1].end == sound)


def _dead(stream: BinaryIO) -> bool:
    """Whether no live process writes this file. A shared lock is asked for, as a file open for reading can
    have no other on NFS; it goes when the file is closed."""
    try:
        fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _tidy(folder: Path) -> None:
    for path in folder.glob("*.journal"):
        with suppress(OSError), path.open("rb") as stream:
            if _dead(stream):
                path.unlink()
    if not any(folder.glob("*.journal")):
        for path in (*folder.glob("*.snapshot"), *folder.glob(".*.tmp")):
            path.unlink(missing_ok=True)
    with suppress(OSError):  # It holds what was set aside, or the files of a live process.
        folder.rmdir()
