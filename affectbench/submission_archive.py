"""The archive a submission travels in: a zip, packed the same way every time and unpacked with suspicion.

Nothing is written before every entry's name, kind and size were checked.
"""

from __future__ import annotations

import io
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from affectbench.store import write_atomically
from affectbench.submission import (
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_TOTAL_BYTES,
    Folder,
    SubmissionError,
    allowed,
    copy_folder,
    read_folder,
)

MAX_RATIO = 200
"""Most times that an entry may be larger than its compressed form; JSON and Parquet stay far below it."""
SMALL = 1 << 16
"""Entries of fewer bytes may compress as they like."""
EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(folder: Folder, target: Path) -> Path:
    """Write a submission as a zip: the same bytes for the same files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in folder.files:
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, folder.path(name).read_bytes())
    write_atomically(target, buffer.getvalue())
    return target


@contextmanager
def staged(source: Path) -> Iterator[Folder]:
    """A submission, from its folder or its zip, as a checked copy that is gone afterwards.

    Raises `SubmissionError` or `TaskFileError`; nothing is written outside a temporary folder.
    """
    with TemporaryDirectory(prefix="affectbench-submission-") as scratch:
        root = Path(scratch) / "submission"
        root.mkdir()
        if source.is_dir():
            copy_folder(source, root)
        else:
            unpack(source, root)
        yield read_folder(root)


def unpack(archive: Path, target: Path) -> None:
    """Unpack a submission's zip into an empty folder.

    Raises `SubmissionError`: not a zip, an entry that a submission may not hold, a link, an encrypted or
    repeated entry, one that is not stored or deflated, or more bytes than allowed.
    """
    if not archive.is_file():
        raise SubmissionError(f"there is no submission {archive}", hint="give its folder or its zip")
    size = archive.stat().st_size
    if size > MAX_TOTAL_BYTES:
        raise SubmissionError(f"{archive}: {size} bytes", hint=f"at most {MAX_TOTAL_BYTES}")
    try:
        with zipfile.ZipFile(archive) as opened:
            for entry in _checked([entry for entry in opened.infolist() if not entry.is_dir()]):
                _extract(opened, entry, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeError) as error:
        raise SubmissionError(
            f"{archive}: not a sound zip: {error}", hint="pack it with: python harness.py submit FOLDER"
        ) from error


def _checked(entries: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    if len(entries) > MAX_FILES:
        raise SubmissionError(f"{len(entries)} entries in the archive", hint=f"at most {MAX_FILES}")
    seen: set[str] = set()
    total = 0
    for entry in entries:
        name = allowed(entry.orig_filename)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise SubmissionError(f"{name}: a link or a special file", hint="pack plain files only")
        if entry.flag_bits & 0x1:
            raise SubmissionError(f"{name}: encrypted", hint="pack without a password")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # An LZMA stream asks for as much memory as it likes.
            raise SubmissionError(f"{name}: compressed in another way than deflate", hint="pack it again")
        if name.lower() in seen:
            raise SubmissionError(f"{name}: in the archive twice", hint="pack it once")
        seen.add(name.lower())
        total += entry.file_size
        ratio = entry.file_size / max(1, entry.compress_size)
        if entry.file_size > SMALL and ratio > MAX_RATIO:
            raise SubmissionError(f"{name}: unpacks to {ratio:.0f} times its size", hint="a zip bomb?")
        if entry.file_size > MAX_FILE_BYTES or total > MAX_TOTAL_BYTES:
            raise SubmissionError(
                f"{name}: {entry.file_size} bytes unpacked, {total} with those before it",
                hint=f"at most {MAX_FILE_BYTES} bytes a file and {MAX_TOTAL_BYTES} in all",
            )
    return entries


def _extract(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    """Write one entry; zipfile gives no more bytes than the entry said, and checks its sum at the end."""
    place = target / entry.orig_filename
    place.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(entry) as source, place.open("xb") as sink:
        shutil.copyfileobj(source, sink)
