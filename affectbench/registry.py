"""What models, SAEs, tasks and selectors there are: built in, in included folders, in installed packages.

Listing reads names and first lines only; nothing is imported before it is asked for by name. All places are
equal: a built-in has no precedence, and a name found twice is an error.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Literal

from affectbench.alignment_suite import AlignmentSuite
from affectbench.alignment_task import AlignmentTask
from affectbench.content import (
    RegistryError,
    builtin_root,
    load_module,
    locate_module,
    outline,
    pick_class,
    source_digest,
)
from affectbench.errors import AffectbenchError
from affectbench.sae_card import SaeCard
from affectbench.sites import CHANNEL_SITES, SITES
from affectbench.task import Benchmark, InterventionProtocol, JudgeCard, ModelCard, Suite, load_as, load_file
from affectbench.yaml_loading import load_document, suggest

__all__ = ["Entry", "Kind", "Registry", "RegistryError", "builtin_root", "source_digest"]

Kind = Literal[
    "model", "sae", "family", "benchmark", "intervention", "suite", "selector", "judge", "alignment"
]
LAYOUT: dict[Kind, tuple[str, str]] = {
    "model": ("models", "*.yaml"),
    "sae": ("models/saes", "*.yaml"),
    "family": ("models", "*.py"),
    "benchmark": ("tasks/benchmarks", "*.yaml"),
    "intervention": ("tasks/interventions", "*.yaml"),
    "suite": ("tasks/suites", "*.yaml"),
    "selector": ("selectors", "*.py"),
    "judge": ("tasks/judges", "*.yaml"),
    "alignment": ("tasks/alignments", "*.yaml"),
}
"""Sub-folder and file pattern of each kind, in the built-ins and in any included folder."""
FILED_AS: dict[str, Kind] = {"expression": "benchmark", "alignment-suite": "alignment"}
"""Kinds of YAML that lie among those of another kind."""

FOLDER_GROUPS = ("affectbench.models", "affectbench.tasks")
SELECTOR_GROUP = "affectbench.selectors"


@dataclass(frozen=True)
class Entry:
    """One piece of content: its kind, name, file, and which place it was found in."""

    kind: Kind
    name: str
    path: Path
    place: str
    entry_point: EntryPoint | None = field(default=None, compare=False)

    @cached_property
    def summary(self) -> str:
        """First line of the file's docstring, or the title of its YAML."""
        if self.path.suffix == ".py":
            return outline(self.path).summary
        data = load_document(self.path).data
        return str(data.get("title") or data.get("description", ""))


@dataclass(frozen=True)
class _Place:
    """A folder to look in. `loose`: files directly in it count too, by what they hold."""

    label: str
    folder: Path
    loose: bool


class Registry:
    """Finds content by kind and name.

    `include`: folders laid out like the repository (models/, tasks/benchmarks/, ..., selectors/), or with
    files directly in them. `installed`: also look at the entry points of installed packages.
    """

    def __init__(self, include: Sequence[Path] = (), *, installed: bool = True) -> None:
        self.include = tuple(Path(folder) for folder in include)
        self.installed = installed
        for folder in self.include:
            if not folder.is_dir():
                raise RegistryError(f"--include {folder}: there is no such folder")

    def entries(self, kind: Kind) -> list[Entry]:
        """All content of a kind, sorted by name. Raises `RegistryError` for a name found in two places."""
        found: dict[str, Entry] = {}
        for entry in self._scan[0]:
            if entry.kind != kind:
                continue
            other = found.setdefault(entry.name, entry)
            if other.path.resolve() != entry.path.resolve():
                raise RegistryError(
                    f"{kind} {entry.name!r} is in two places: {other.path} ({other.place}) "
                    f"and {entry.path} ({entry.place})",
                    hint="rename one of them, or leave one place out",
                )
        return [found[name] for name in sorted(found)]

    def find(self, kind: Kind, name: str) -> Entry:
        """The entry of that name. Raises `RegistryError` with a suggestion and the places searched."""
        entries = {entry.name: entry for entry in self.entries(kind)}
        if name in entries:
            return entries[name]
        ignored = "".join(f"; ignored {reason}" for reason in self.ignored)
        places = ", ".join(f"{place.label} {place.folder}" for place in self._places)
        known = f"known: {', '.join(entries) or 'none'}"
        raise RegistryError(
            f"there is no {kind} {name!r}{suggest(name, entries)}",
            hint=f"{known}; searched {places}{ignored}",
        )

    def benchmark(self, name: str) -> Benchmark:
        return load_as(self.find("benchmark", name).path, Benchmark)

    def intervention(self, name: str) -> InterventionProtocol:
        return load_as(self.find("intervention", name).path, InterventionProtocol)

    def suite(self, name: str) -> Suite:
        return load_as(self.find("suite", name).path, Suite)

    def judge(self, name: str) -> JudgeCard:
        """The card of a judge; the judge itself is not touched."""
        return load_as(self.find("judge", name).path, JudgeCard)

    def alignment(self, name: str) -> AlignmentTask:
        return load_as(self.find("alignment", name).path, AlignmentTask)

    def alignment_suite(self, name: str) -> AlignmentSuite | None:
        """The alignment suite of that name; None where it names a task."""
        found = load_file(self.find("alignment", name).path)
        return found if isinstance(found, AlignmentSuite) else None

    def model(self, name: str) -> ModelCard:
        """The card of a checkpoint; its weights are not touched."""
        return load_as(self.find("model", name).path, ModelCard)

    def sae(self, name: str) -> SaeCard:
        """The card of sparse autoencoders; their weights are not touched."""
        return load_as(self.find("sae", name).path, SaeCard)

    def family(self, name: str) -> type:
        """The wrapper class of a model family, imported now."""
        return self._class(self.find("family", name), "load")

    def selector(self, name: str) -> type:
        """The class of a selector, imported now."""
        return self._class(self.find("selector", name), "select")

    def selector_sites(self, name: str) -> tuple[str, ...]:
        """The sites that a selector can rank units of, as its file declares; nothing is imported.

        Raises `RegistryError` where it declares a site that does not exist.
        """
        path = self.find("selector", name).path
        if path.suffix != ".py":  # Units from a file: it says itself which site they are of.
            return tuple(SITES)
        declared = next((cls.sites for cls in outline(path).classes if cls.name == name), None)
        for site in declared or ():
            if site not in SITES:
                raise RegistryError(
                    f"{path}: site {site!r} does not exist{suggest(site, SITES)}",
                    hint=f"sites: {', '.join(SITES)}",
                )
        return declared or CHANNEL_SITES

    def _class(self, entry: Entry, method: str) -> type:
        if entry.entry_point is not None:
            try:
                holder = entry.entry_point.load()
            except (ImportError, AttributeError) as error:
                raise RegistryError(f"{entry.place}: {entry.entry_point.value}: {error}") from error
        else:
            holder = load_module(entry.kind, entry.name, entry.path)
        return pick_class(holder, entry.kind, entry.name, method, str(entry.path))

    @cached_property
    def _places(self) -> tuple[_Place, ...]:
        places = [_Place("built-in", builtin_root(), False)]
        places += [_Place("--include", folder, True) for folder in self.include]
        if self.installed:
            for group in FOLDER_GROUPS:
                places += [_package_place(point) for point in entry_points(group=group)]
        return tuple(places)

    @property
    def ignored(self) -> list[str]:
        """Files that look like content and are not, each with the reason; `find` tells of them too."""
        return self._scan[1]

    @cached_property
    def _scan(self) -> tuple[list[Entry], list[str]]:
        found: list[Entry] = []
        ignored: list[str] = []
        for place in self._places:
            for kind, path in _candidates(place):
                try:
                    sure = kind or _loose_kind(path)
                    found.append(Entry(sure, _name(sure, path), path, place.label))
                except AffectbenchError as error:
                    ignored.append(str(error))
        if self.installed:
            found += [_selector_entry(point) for point in entry_points(group=SELECTOR_GROUP)]
        return found, ignored


def _candidates(place: _Place) -> Iterator[tuple[Kind | None, Path]]:
    """Files of a place that may be content; the kind is None for a file directly in it."""
    for kind, (folder, pattern) in LAYOUT.items():
        for path in sorted((place.folder / folder).glob(pattern)):
            yield kind, path
    if place.loose:
        for path in sorted(place.folder.iterdir()):
            beside = path.name == "submission.yaml" or path.name.startswith(("_", "test_"))
            if path.is_file() and path.suffix in (".yaml", ".py") and not beside:
                yield None, path


def _name(kind: Kind, path: Path) -> str:
    """The file's stem; a selector named like a standard-library module says its name inside."""
    if kind == "selector":
        declared = [cls.name for cls in outline(path).classes]
        if len(declared) == 1 and declared[0] in sys.stdlib_module_names:
            return declared[0]
    return path.stem


def _loose_kind(path: Path) -> Kind:
    """What a file directly in an included folder holds. Raises `AffectbenchError` where it is no content."""
    if path.suffix == ".yaml":
        kind = load_document(path).data.get("kind")
        for known in LAYOUT:
            if known == FILED_AS.get(str(kind), kind):
                return known
        raise RegistryError(f"{path}: kind {kind!r} is not known{suggest(kind, LAYOUT)}")
    for cls in outline(path).classes:
        if cls.methods & {"select", "scores"}:
            return "selector"
        if "load" in cls.methods:
            return "family"
    raise RegistryError(f"{path}: no class with a `name` and a method `select`, `scores` or `load`")


def _package_place(point: EntryPoint) -> _Place:
    spec = locate_module(point.module)
    label = _package_label(point)
    if not spec.submodule_search_locations:
        raise RegistryError(
            f"{label}: entry point {point.name} of {point.group} must name a package (a folder)"
        )
    return _Place(label, Path(spec.submodule_search_locations[0]), True)


def _selector_entry(point: EntryPoint) -> Entry:
    spec = locate_module(point.module)
    label = _package_label(point)
    if spec.origin is None:
        raise RegistryError(
            f"{label}: entry point {point.name} of {point.group} must name a module or a class in one"
        )
    return Entry("selector", point.name, Path(spec.origin), label, point)


def _package_label(point: EntryPoint) -> str:
    return f"package {point.dist.name if point.dist is not None else point.module}"
