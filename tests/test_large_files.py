"""Identity of files that are too large to be read at each run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from affectbench import large_files
from affectbench.identity import file_digest
from affectbench.large_files import SMALL, kept_digest
from affectbench.store import cache_folder


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as settled, and an empty cache."""
    monkeypatch.setenv("AFFECTBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(large_files, "FRESH", -60.0)
    path = tmp_path / "signal.eeg"
    path.write_bytes(os.urandom(3 * SMALL))
    return path


def unread(_: Path) -> str:
    raise AssertionError("the file was read")


def changed(path: Path) -> None:
    """One byte of the middle, size and time of modification as before."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=times)


def test_a_file_is_read_whole_and_once(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = kept_digest(large)
    assert found == file_digest(large)
    monkeypatch.setattr(large_files, "file_digest", unread)
    assert kept_digest(large) == found


def test_one_byte_in_the_middle_counts_even_with_the_times_set_back(large: Path) -> None:
    before = kept_digest(large)
    changed(large)
    assert kept_digest(large) == file_digest(large) != before


def test_another_file_of_the_same_size_is_read(large: Path) -> None:
    kept_digest(large)
    other = large.with_name("other.eeg")
    other.write_bytes(os.urandom(3 * SMALL))
    assert kept_digest(other) == file_digest(other)


def test_a_file_that_was_just_written_is_read_again(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_files, "FRESH", 60.0)
    kept_digest(large)
    assert not cache_folder("digests").exists()


def test_what_is_no_hash_is_read_again(large: Path) -> None:
    found = kept_digest(large)
    (kept,) = cache_folder("digests").rglob("*.txt")
    for content in ("", "torn", found[:15]):
        kept.write_text(content)
        assert kept_digest(large) == found


def test_without_a_place_to_keep_it_the_hash_is_the_same(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = large.with_name("blocked")
    blocked.write_text("no folder")
    monkeypatch.setenv("AFFECTBENCH_CACHE", str(blocked))
    assert kept_digest(large) == file_digest(large)
