"""The leaderboard: a static site built from result records alone, the same bytes for the same records.

The site opens from disk and under any path, and asks nothing of a network. It is written beside its final
place and moved there when complete, so readers see the old site or the new one. Pages of entries whose
records did not change are taken over from the old site.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from affectbench import __version__
from affectbench.analysis import Analysis, analyses_of
from affectbench.conformance_report import Conformance
from affectbench.content import builtin_root
from affectbench.errors import AffectbenchError
from affectbench.record import Provenance, Record
from affectbench.site_conformance import reports_of
from affectbench.site_entry import entry
from affectbench.site_pages import Contents, board_files, page_environment
from affectbench.site_summary import Source, Summary, read_sources, source_of
from affectbench.store import Damaged
from affectbench.submission import Submission, published_cards

if TYPE_CHECKING:
    from jinja2 import Template

MARKER = ".affectbench-site"
"""Marks a folder as a site, and remembers what its pages were made of."""

Progress = Callable[[int, int], None]


class SiteError(AffectbenchError):
    """The leaderboard site cannot be built or written."""


@dataclass(frozen=True)
class Site:
    """What was written: the index page, the entry pages by cell id, how many files in all, and how many of
    the entry pages had to be made."""

    index: Path
    entries: dict[str, Path]
    n_files: int
    n_made: int
    damaged: list[Damaged]


def build_site(
    records: Sequence[Record],
    output: Path,
    *,
    damaged: Sequence[Damaged] = (),
    conformance: Mapping[str, Conformance] | None = None,
    analyses: Sequence[Analysis] = (),
    progress: Progress | None = None,
) -> Site:
    """Write the site of these records to a folder, in place of an older site there.

    Args:
        records: in any order, one a cell.
        output: the site's folder; it must be new, empty, or hold a site written by this function.
        damaged: result files that could not be trusted, listed on the index page.
        conformance: reports of `verify-model` by model.
        analyses: what was found beside the cells, each under a name of its own.
        progress: called with (entry pages written, entry pages in all).

    Raises:
        SiteError: two records of one cell, a folder that holds something else, or a failed write.
    """
    sources = [source_of(record) for record in records]
    more = _More(damaged, {}, conformance or {}, sorted(analyses, key=lambda each: each.name))
    return _write_site(sources, output, more, _memory(output), progress)


def build_site_of(folders: Sequence[Path], output: Path, *, progress: Progress | None = None) -> Site:
    """Write the site of all records and analyses in results folders; a record that the old site knows is not
    parsed again.

    Reports of conformance are taken from the same folders, from beside them, and from what is shipped.

    Raises:
        SiteError: as `build_site`.
        RecordError: two folders hold different analyses of one name.
    """
    _check_replaceable(output)
    memory = _memory(output)
    sources, damaged = read_sources(folders, memory.summaries)
    cards: dict[str, Submission] = {}
    for folder in folders:
        found, refused = published_cards(folder)
        cards |= found
        damaged += [Damaged(path, reason) for path, reason in refused]
    conformance, unread = reports_of(folders)
    analyses, untrusted = analyses_of(folders)
    more = _More([*damaged, *unread, *untrusted], cards, conformance, analyses)
    return _write_site(sources, output, more, memory, progress)


@dataclass(frozen=True)
class _More:
    """What a site is made of beside its records."""

    damaged: Sequence[Damaged]
    cards: Mapping[str, Submission]
    conformance: Mapping[str, Conformance]
    analyses: Sequence[Analysis]


@dataclass(frozen=True)
class _Memory:
    """What an older site was made of: summaries by their record's digest; by file, what it was made of and
    the digest of its content."""

    summaries: dict[str, Summary] = field(default_factory=dict)
    pages: dict[str, tuple[str, str]] = field(default_factory=dict)


def _memory(output: Path) -> _Memory:
    """The memory of the site in `output`; empty where it is missing, damaged, or of another version."""
    try:
        stored = json.loads((output / MARKER).read_bytes())
        if stored["builder"] != _builder():
            return _Memory()
        summaries = {name: Summary.model_validate(value) for name, value in stored["summaries"].items()}
        return _Memory(summaries, {name: (key, digest) for name, (key, digest) in stored["pages"].items()})
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return _Memory()


@cache
def _builder() -> str:
    """Digest of all that turns a record into a page: the site's modules, templates and the version."""
    here = Path(__file__).parent
    sources = [
        *here.glob("site_*.py"),
        *here.glob("figures*.py"),
        here / "record.py",
        here / "analysis.py",
        Path(__file__),
    ]
    sources += (builtin_root() / "leaderboard" / "templates").iterdir()
    digest = hashlib.sha256(__version__.encode())
    for path in sorted(sources, key=lambda path: path.name):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _write_site(
    sources: Sequence[Source],
    output: Path,
    more: _More,
    memory: _Memory,
    progress: Progress | None,
) -> Site:
    sources = _in_order(sources)
    _check_replaceable(output)
    scratch = output.parent / f".{output.name}.{secrets.token_hex(4)}.partial"
    writer = _Writer(scratch, output, memory.pages)
    try:
        _write_files(writer, sources, more, progress)
        _move_into_place(scratch, output)
    except OSError as error:
        raise SiteError(
            f"cannot write the site to {output}: {error.strerror or error}",
            hint="free space or choose another folder; a site that was there before is intact",
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    entries = {source.summary.id: output / "entries" / f"{source.summary.id}.html" for source in sources}
    return Site(output / "index.html", entries, writer.n_files, writer.n_made, list(more.damaged))


def _write_files(writer: _Writer, sources: Sequence[Source], more: _More, progress: Progress | None) -> None:
    folder = builtin_root() / "leaderboard"
    environment = page_environment(folder / "templates")
    digests = {source.summary.id: source.digest for source in sources}
    summaries = [source.summary for source in sources]
    contents = Contents(summaries, digests, more.damaged, more.cards, more.conformance, more.analyses)
    for asset in sorted((folder / "assets").iterdir()):
        writer.write(f"assets/{asset.name}", asset.read_bytes())
    for file in board_files(environment, contents):
        writer.keep_or_make(file.name, file.key, file.make)
    comparison = {row.id: group.id for group in contents.groups for row in group.rows}
    template = environment.get_template("entry.html.j2")
    for done, source in enumerate(sources, start=1):
        name = source.summary.id
        make_page = partial(_entry_page, template, source, comparison[name])
        writer.keep_or_make(f"entries/{name}.html", source.digest, make_page)
        writer.keep_or_make(f"records/{name}.json", source.digest, source.content)
        if progress is not None:
            progress(done, len(sources))
    writer.remember({source.digest: source.summary for source in sources})


def _entry_page(template: Template, source: Source, comparison: str) -> bytes:
    return template.render(_entry_values(source.load(), comparison)).encode()


@dataclass
class _Writer:
    """Writes a site into `scratch`; takes files over from the site in `old` where their key is the same.

    `pages` is what the old site remembers; a file without a key is made each time.
    """

    scratch: Path
    old: Path
    pages: Mapping[str, tuple[str, str]]
    n_files: int = 0
    n_made: int = 0
    made: dict[str, tuple[str, str]] = field(default_factory=dict)
    _folders: set[Path] = field(default_factory=set)

    def write(self, name: str, content: bytes) -> None:
        path = self._path(name)
        path.write_bytes(content)
        self.n_files += 1

    def keep_or_make(self, name: str, key: str, make: Callable[[], bytes]) -> None:
        known_key, known_digest = self.pages.get(name, ("", ""))
        if key and known_key == key and self._kept(name, known_digest):
            self.made[name] = (key, known_digest)
            self.n_files += 1
            return
        content = make()
        if key:
            self.made[name] = (key, hashlib.sha256(content).hexdigest())
        self.n_made += name.startswith("entries/")
        self.write(name, content)

    def remember(self, summaries: Mapping[str, Summary]) -> None:
        """Write the marker, with what the next build can take over."""
        stored: dict[str, Any] = {
            "builder": _builder(),
            "pages": self.made,
            "summaries": {digest: summary.model_dump(mode="json") for digest, summary in summaries.items()},
        }
        self.write(MARKER, json.dumps(stored, sort_keys=True, separators=(",", ":")).encode())

    def _kept(self, name: str, digest: str) -> bool:
        """Take an old file over if nobody changed it: as a hard link, or a copy where links are not had."""
        try:
            if hashlib.sha256((self.old / name).read_bytes()).hexdigest() != digest:
                return False
        except OSError:
            return False
        path = self._path(name)
        try:
            os.link(self.old / name, path)
        except OSError:
            shutil.copyfile(self.old / name, path)
        return True

    def _path(self, name: str) -> Path:
        path = self.scratch / name
        if path.parent not in self._folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(path.parent)
        return path


def _in_order(sources: Sequence[Source]) -> list[Source]:
    by_id: dict[str, Source] = {}
    for source in sources:
        name = source.summary.id
        if name in by_id:
            raise SiteError(f"two records of the cell {name}", hint="keep one of them; a cell has one page")
        by_id[name] = source
    return [by_id[name] for name in sorted(by_id)]


def _check_replaceable(output: Path) -> None:
    if output.is_dir():
        if (output / MARKER).exists() or not any(output.iterdir()):
            return
        raise SiteError(
            f"{output} holds files that are not a leaderboard site; they would be deleted",
            hint="choose a new or an empty folder",
        )
    if output.exists() or output.is_symlink():
        raise SiteError(f"{output} is not a folder", hint="choose a new or an empty folder")


def _move_into_place(scratch: Path, output: Path) -> None:
    if not output.exists():
        os.rename(scratch, output)
        return
    old = scratch.with_suffix(".old")
    os.rename(output, old)
    try:
        os.rename(scratch, output)
    except OSError:
        os.rename(old, output)
        raise
    shutil.rmtree(old)


def _entry_values(record: Record, comparison: str) -> dict[str, Any]:
    content = entry(record)
    opened = next((panel.id for panel in content.panels if panel.operating), "d0")
    hidden = {"command", "seed"}
    return {
        "root": "../",
        "entry": content,
        "comparison": comparison,
        "opened": opened,
        "hashes": list(record.hashes.model_dump().items()),
        "provenance_rows": [name for name in Provenance.model_fields if name not in hidden],
    }
