"""What is in the items of a task, and what is wrong with them: counts, duplicates, leaks, extremes."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from affectbench.dataset import Dataset, Sound
from affectbench.examples import Example, ItemError
from affectbench.prompts import prompt_text
from affectbench.task import SPLITS, Benchmark, ExpressionBenchmark, SplitName, Statistics

MIN_CLUSTERS, FEW_CLUSTERS = 2, 5
"""Fewer test clusters than the first make every cell insufficient; with fewer than the second an exact
sign-flip test stays above p = 0.06."""
WANTED = int(Statistics.model_fields["minimum_items"].default)
"""Identification items of each emotion that protocols ask for."""
UNEVEN = 10
SPEAKER = "speaker"
"""The field in which corpora that cluster by something else name their speakers."""


@dataclass(frozen=True)
class Group:
    """Items that share something: their ids, labels and splits, each sorted."""

    what: str
    ids: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[SplitName, ...]


@dataclass(frozen=True)
class Extreme:
    """The shortest or longest item: seconds of sound, or characters of text."""

    id: str
    length: float
    unit: str
    text: str | None


@dataclass(frozen=True)
class FirstPrompt:
    """What is put to a model for the first identification item, with its answers and the right one.

    `full`: through a model's chat template and tokenizer, where one was given.
    """

    id: str
    text: str
    options: tuple[str, ...]
    label: str
    full: str | None = None


@dataclass(frozen=True)
class TaskReport:
    """All that is known of a task's items.

    `counts`: items of each label in each split. `clusters`: of each split. `problems` make results wrong or
    impossible; `notes` are to be known when reading them.
    """

    task: str
    version: int
    digest: str
    items_digest: str
    counts: Mapping[SplitName, Mapping[str, int]]
    clusters: Mapping[SplitName, int]
    dropped: Mapping[str, int]
    errors: tuple[ItemError, ...]
    same: tuple[Group, ...]
    near: tuple[Group, ...]
    speakers: tuple[Group, ...]
    shortest: Extreme
    longest: Extreme
    first: FirstPrompt
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def all_sounds(dataset: Dataset, progress: Callable[[int, int], None] | None = None) -> dict[str, Sound]:
    """The sound of every item, by id; those of generators are made now. `progress`: how many of how many."""
    if dataset.benchmark.modality != "audio":
        return {}
    items = [item for name in SPLITS for item in dataset.splits[name]]
    found = dict(dataset.sounds)
    missing = [item for item in items if item.id not in found]
    for done, item in enumerate(missing, start=1):
        found[item.id] = Sound.of(item.waveform())
        if progress is not None:
            progress(done, len(missing))
    return found


def examine(dataset: Dataset, sounds: Mapping[str, Sound]) -> TaskReport:
    """Look at all items. `sounds`: of all items that have one, by id (see `all_sounds`)."""
    task = dataset.benchmark
    placed = [(name, item) for name in SPLITS for item in dataset.splits[name]]
    told_apart = placed
    if isinstance(task, ExpressionBenchmark):  # All emotions share a text.
        told_apart = [(name, item) for name, item in placed if item.label == task.labels[0]]
    same, near = _duplicates(task, told_apart, sounds)
    speakers = _speakers(task, placed)
    counts = {
        name: {label: sum(item.label == label for item in dataset.splits[name]) for label in task.labels}
        for name in SPLITS
    }
    clusters = {name: len({item.cluster for item in dataset.splits[name]}) for name in SPLITS}
    ranked = sorted((_extreme(item, sounds) for _, item in placed), key=lambda one: (one.length, one.id))
    first = dataset.splits["identification"][0]
    prompt = prompt_text(task, first)
    report = TaskReport(
        task=task.name, version=task.version, digest=task.digest, items_digest=dataset.digest_items,
        counts=counts, clusters=clusters, dropped=dataset.dropped, errors=dataset.errors, same=same,
        near=near, speakers=speakers, shortest=ranked[0], longest=ranked[-1],
        first=FirstPrompt(first.id, prompt.text, prompt.answer_options, first.label),
    )  # fmt: skip
    lengths = {one.length for one in ranked}
    notes = (*_shared_notes(task, report), *_size_notes(task, report, placed, lengths))
    return replace(report, problems=tuple(_problems(task, report)), notes=notes)


Placed = tuple[SplitName, Example]


def _duplicates(
    task: Benchmark, placed: Sequence[Placed], sounds: Mapping[str, Sound]
) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
    """Items with the same content, and those whose texts differ in case, punctuation or spaces only."""
    if task.modality == "audio":
        return _shared("sound", placed, lambda item: sounds[item.id].digest), ()
    exact = _shared("text", placed, lambda item: item.text)
    known = {group.ids for group in exact}
    near = _shared("nearly the same text", placed, lambda item: _plain(item.text or "") or item.text)
    return exact, tuple(group for group in near if group.ids not in known)


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(c if c.isalnum() else " " for c in folded).split())


def _speakers(task: Benchmark, placed: Sequence[Placed]) -> tuple[Group, ...]:
    """Speakers in two splits, where items name them and do not cluster by them (then they cannot be)."""
    named = [(name, item) for name, item in placed if SPEAKER in item.fields]
    if task.cluster == SPEAKER:
        return ()
    return tuple(
        group
        for group in _shared("speaker", named, lambda item: item.fields[SPEAKER])
        if len(group.splits) > 1
    )


def _shared(what: str, placed: Iterable[Placed], key: Callable[[Example], Hashable]) -> tuple[Group, ...]:
    """Groups of two or more items with the same key, by their first id."""
    groups: defaultdict[Hashable, list[Placed]] = defaultdict(list)
    for name, item in placed:
        groups[key(item)].append((name, item))
    found = [
        Group(
            f"{what} {value}" if what == SPEAKER else what,
            tuple(sorted(item.id for _, item in members)),
            tuple(sorted({item.label for _, item in members})),
            tuple(sorted({name for name, _ in members}, key=SPLITS.index)),
        )
        for value, members in groups.items()
        if len(members) > 1
    ]
    return tuple(sorted(found, key=lambda group: group.ids))


def _extreme(item: Example, sounds: Mapping[str, Sound]) -> Extreme:
    if item.id in sounds:
        return Extreme(item.id, sounds[item.id].seconds, "s", item.text)
    return Extreme(item.id, len(item.text or ""), "characters", item.text)


def _problems(task: Benchmark, report: TaskReport) -> Iterable[str]:
    errors = report.errors
    if errors:
        yield f"{_count(len(errors), 'item')} cannot be used, first {errors[0].path}: {errors[0].reason}"
    for name in SPLITS:
        absent = [label for label, count in report.counts[name].items() if count == 0]
        if absent:
            yield f"{name} has no item of {', '.join(absent)}"
    if report.clusters["test"] < MIN_CLUSTERS:
        yield f"test has 1 {task.cluster}: there is no interval over it, and every cell will be insufficient"
    leaks = [group for group in report.same if len(group.splits) > 1]
    if leaks and task.modality == "audio":
        yield f"{_count(len(leaks), 'sound')} in two splits, first {_places(leaks[0])}"


def _shared_notes(task: Benchmark, report: TaskReport) -> Iterable[str]:
    groups = (*report.same, *report.near)
    leaks = [group for group in groups if len(group.splits) > 1]
    if leaks and task.modality == "text":
        yield f"{_count(len(leaks), 'text')} in two splits, first {_places(leaks[0])}"
    inside = [group for group in groups if len(group.splits) == 1]
    if inside:
        yield f"{_count(len(inside), _word(task))} more than once in one split, first {_places(inside[0])}"
    torn = [group for group in groups if len(group.labels) > 1]
    if torn:
        labels = " and ".join(torn[0].labels)
        yield f"{_count(len(torn), _word(task))} under several labels, first {_places(torn[0])}: {labels}"
    if report.speakers:
        yield f"{_count(len(report.speakers), SPEAKER)} in two splits; items cluster by {task.cluster}"


def _size_notes(
    task: Benchmark, report: TaskReport, placed: Sequence[Placed], lengths: set[float]
) -> Iterable[str]:
    rare = [label for label, count in report.counts["identification"].items() if 0 < count < WANTED]
    if rare:
        yield f"fewer than {WANTED} identification items, which protocols ask for, of {', '.join(rare)}"
    for name in SPLITS:
        most, least = max(report.counts[name].values()), min(report.counts[name].values())
        if least and most / least >= UNEVEN:
            yield f"{name} is uneven: {most} items of one label, {least} of another"
    sizes = {task.cluster: report.clusters["test"]}
    speakers = {item.fields[SPEAKER] for name, item in placed if name == "test" and SPEAKER in item.fields}
    if speakers:
        sizes[SPEAKER] = len(speakers)
    for what, size in sizes.items():
        if size < FEW_CLUSTERS:
            yield f"test has {_count(size, what)}: little can be said of others"
    if len(lengths) == 1 and task.modality == "audio":
        yield "all sounds are equally long: were they cut, or padded?"


def _word(task: Benchmark) -> str:
    return "sound" if task.modality == "audio" else "text"


def _places(group: Group) -> str:
    shown = ", ".join(group.ids[:3]) + (", ..." if len(group.ids) > 3 else "")
    return f"{shown} ({', '.join(group.splits)})"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
