"""Hashes of files that are too large to be read each time: kept while a file does not change."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path

from affectbench.errors import RecordError
from affectbench.identity import digest_of, file_digest
from affectbench.store import cache_folder, write_atomically

SMALL = 1 << 20
"""Bytes up to which a file is read each time."""
FRESH = 2.0
"""Seconds after a change within which another one may leave a file's times as they are."""
DIGEST = re.compile(r"[0-9a-f]{16}")


def kept_digest(path: Path) -> str:
    """Hash of all of a file's bytes, `identity.file_digest`, 16 hex.

    Where a file over 1 MB has the path, size and times that it had when it was read before, on this machine,
    the hash of that reading.
    """
    before = path.stat()
    if before.st_size <= SMALL:
        return file_digest(path)
    key = digest_of([os.fspath(path.resolve()), *map(str, _state(before))])
    kept = cache_folder("digests") / key[:2] / f"{key}.txt"
    with suppress(OSError, UnicodeDecodeError):
        known = kept.read_text(encoding="ascii")
        if DIGEST.fullmatch(known):
            return known
    settled = max(before.st_mtime, before.st_ctime) < time.time() - FRESH
    found = file_digest(path)
    if settled and _state(path.stat()) == _state(before):
        with suppress(RecordError):  # It is read again next time.
            write_atomically(kept, found.encode(), durable=False)
    return found


def _state(stat: os.stat_result) -> tuple[int, int, int]:
    """The time of change of the inode is there for tools that set the time of modification back."""
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
