"""From a benchmark and a data directory to labelled, split, checked items.

Which items of a label are kept under a limit depends on a hash of their ids alone, so neither the order of
files nor the platform matters. An unusable item becomes an `ItemError`; data that contradict the benchmark
are a `DatasetError`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from affectbench.audio_io import SAMPLE_RATE, AudioError, Waveform, read_waveform, sound_digest
from affectbench.examples import (
    DatasetError,
    Example,
    ItemError,
    MissingDataError,
    RenderedPrompt,
)
from affectbench.identity import digest_of, file_digest
from affectbench.prompts import parse_answer, prompt_text
from affectbench.readers import RawItem, read_items
from affectbench.sources import GeneratorSource, HubSource, ScenarioSource, Source
from affectbench.task import SPLITS, Benchmark, RecognitionBenchmark, SplitName
from affectbench.task_parts import ClusterSplit, Fractions, Items
from affectbench.yaml_loading import suggest

__all__ = [
    "Dataset", "DatasetError", "Example", "ItemError", "RenderedPrompt", "load_benchmark", "parse_answer",
    "prompt_text",
]  # fmt: skip

DATA_VARIABLE = "AFFECTBENCH_DATA"
MIN_LABELS = 2


@dataclass(frozen=True)
class Sound:
    """What is known of an item's sound once it has been decoded: its length, and a hash of its samples."""

    seconds: float
    digest: str

    @classmethod
    def of(cls, wave: Waveform) -> Sound:
        return cls(wave.size / SAMPLE_RATE, sound_digest(wave))


@dataclass(frozen=True)
class Dataset:
    """The items of a benchmark in its three splits, ordered by id.

    `errors`: items that could not be used. `dropped`: why items were left out on purpose, with counts.
    `sounds`: the sounds that were decoded, by id of their item.
    """

    benchmark: Benchmark
    splits: Mapping[SplitName, tuple[Example, ...]]
    errors: tuple[ItemError, ...]
    dropped: Mapping[str, int]
    sounds: Mapping[str, Sound] = field(default_factory=dict)

    def split(self, name: SplitName) -> list[Example]:
        """The items of one split."""
        return list(self.splits[name])

    def gold(self, name: SplitName) -> list[int]:
        """Label index of every item of a split."""
        return [self.benchmark.labels.index(example.label) for example in self.splits[name]]

    @cached_property
    def digest_items(self) -> str:
        """16 hex of the sha256 of split, id, label, cluster, text and fields of all items.

        Sound files go in by name, so that a copy in another format is the same task.
        """
        digest = hashlib.sha256()
        for name in SPLITS:
            for item in self.splits[name]:
                fields = dict(sorted(item.fields.items()))
                row = [name, item.id, item.label, item.cluster, item.text, fields]
                digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        return digest.hexdigest()[:16]


def load_benchmark(
    benchmark: Benchmark,
    data_dir: Path | None = None,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Read, label, split and check the items of `benchmark`.

    `data_dir` holds the folder that the benchmark names (default: $AFFECTBENCH_DATA; generators need none).
    `limit` caps the items of each label in each split, below the benchmark's own limits. Sound files are
    decoded once here, so that a damaged one is known before any model runs; `progress` is told how many of
    how many are.

    Raises `DatasetError`: no data folder, an unknown label, an id given twice, a cluster in two splits, too
    few clusters, or a split left with fewer than two labels.
    """
    dropped: Counter[str] = Counter()
    labelled: list[tuple[RawItem, str]] = []
    for raw in _raw_items(benchmark, data_dir):
        label = _label(benchmark, raw, dropped)
        if label is not None:
            labelled.append((raw, label))
    _check_ids(raw for raw, _ in labelled)
    assigned = _assign(benchmark, labelled, dropped)
    candidates = {
        name: [(raw, label) for raw, label in labelled if assigned.get(raw.id) == name] for name in SPLITS
    }
    caps = {
        name: min((cap for cap in (getattr(benchmark.limits, name), limit) if cap is not None), default=None)
        for name in SPLITS
    }
    total = sum(_n_kept(candidates[name], caps[name]) for name in SPLITS)
    keeper = _Keeper(benchmark, total, progress)
    splits: dict[SplitName, tuple[Example, ...]] = {}
    for name in SPLITS:
        kept = keeper.kept(candidates[name], caps[name])
        splits[name] = tuple(sorted(kept, key=lambda example: example.id))
        _check_labels(benchmark, name, splits[name], keeper.errors)
    return Dataset(benchmark, splits, tuple(keeper.errors), dict(dropped), keeper.sounds)


def generator_digest(benchmark: Benchmark) -> str:
    """Hash of the code that makes a benchmark's items; empty where they come from files."""
    parts: list[Source | ScenarioSource | Items] = [benchmark.source, benchmark.preservation.neutral]
    if benchmark.preservation.capability.kind == "multiple_choice":
        parts.append(benchmark.preservation.capability.source)
    if not any(part.reader == "generator" for part in parts):
        return ""
    here = Path(__file__).parent
    files = sorted((here / "generators").glob("*.py"))
    module = getattr(benchmark.source, "module", "")
    if module in ("errands", "needs"):
        files.append(here / f"{module}.py")
    return digest_of(file_digest(path) for path in files)


def _data_folder(benchmark: Benchmark, data_dir: Path | None) -> Path | None:
    """Where the data are; None for items that are made, lie beside the benchmark, or come from the hub."""
    source = benchmark.source
    if isinstance(source, GeneratorSource) or (isinstance(source, ScenarioSource) and benchmark.data is None):
        return None
    try:
        return data_folder(f"benchmark {benchmark.name}", benchmark.data, data_dir)
    except MissingDataError:
        if isinstance(source, HubSource):
            return None
        raise


def data_folder(what: str, name: str | None, data_dir: Path | None) -> Path:
    """The folder `name` of the directory of data: that given, or $AFFECTBENCH_DATA.

    Raises `MissingDataError`, which begins with `what`, where it is not there.
    """
    chosen = data_dir if data_dir is not None else os.environ.get(DATA_VARIABLE)
    root = Path(chosen) / name if chosen and name else None
    if root is not None and root.is_dir():
        return root
    hint = f"give --data DIR, or set {DATA_VARIABLE}, to the folder that holds {name}/"
    if root is None:
        raise MissingDataError(f"{what} needs data that are not shipped", hint=hint)
    raise MissingDataError(f"{what}: there is no folder {root}", hint=hint)


def _raw_items(benchmark: Benchmark, data_dir: Path | None) -> Iterator[RawItem]:
    """The items of the source. Raises `MissingDataError` that says how to get the data."""
    try:
        yield from read_items(benchmark, _data_folder(benchmark, data_dir))
    except MissingDataError as error:
        if not benchmark.obtain:
            raise
        hint = f"{error.hint}\nhow to get it: {benchmark.obtain}"
        raise MissingDataError(error.message, hint=hint) from error


def _label(benchmark: Benchmark, raw: RawItem, dropped: Counter[str]) -> str | None:
    """The label of a raw item, or None (counted) where it is left out on purpose."""
    if raw.left_out is not None:
        dropped[raw.left_out] += 1
        return None
    if not isinstance(benchmark, RecognitionBenchmark):
        return raw.labels[0]
    labels = [_mapped(benchmark, raw, name) for name in raw.labels]
    if len(set(labels)) > 1:
        if benchmark.multi_label == "error":
            raise DatasetError(
                f"{raw.where}: item {raw.id} has several labels: {', '.join(raw.labels)}",
                hint="set `multi_label: drop` or `multi_label: first` in the benchmark",
            )
        if benchmark.multi_label == "drop":
            dropped["several labels"] += 1
            return None
    if labels[0] is None:
        dropped[f"label {raw.labels[0]}"] += 1
    return labels[0]


def _mapped(benchmark: RecognitionBenchmark, raw: RawItem, name: str) -> str | None:
    if name in benchmark.label_map:
        return benchmark.label_map[name]
    if name in benchmark.labels:
        return name
    known = list(dict.fromkeys([*benchmark.labels, *benchmark.label_map]))
    raise DatasetError(
        f"{raw.where}: item {raw.id} has the unknown label {name!r}{suggest(name, known)}",
        hint=f"known: {', '.join(known)}; add it to `label_map` of {benchmark.name}, with null to drop it",
    )


def _check_ids(items: Iterable[RawItem]) -> None:
    seen: dict[str, str] = {}
    for item in items:
        if item.id in seen:
            raise DatasetError(
                f"{item.where}: id {item.id!r} was used before, at {seen[item.id]}",
                hint="make ids unique over all splits",
            )
        seen[item.id] = item.where


def _assign(
    benchmark: Benchmark, labelled: Sequence[tuple[RawItem, str]], dropped: Counter[str]
) -> dict[str, SplitName]:
    """The split of every item id that stays. Whole clusters stay together."""
    rule = benchmark.split
    if isinstance(rule, ClusterSplit):
        units = {raw.id: raw.cluster if rule.field is None else raw.fields[rule.field] for raw, _ in labelled}
        by_unit = _cluster_splits(benchmark, rule, set(units.values()))
        assigned = {item: by_unit[unit] for item, unit in units.items()}
    else:
        assigned = {raw.id: raw.split for raw, _ in labelled if raw.split is not None}
    homes: dict[str, set[SplitName]] = {}
    for raw, _ in labelled:
        homes.setdefault(raw.cluster, set()).add(assigned[raw.id])
    astray = {cluster for cluster, found in homes.items() if len(found) > 1}
    if not astray:
        return assigned
    if getattr(rule, "overlap", "error") == "error":
        _refuse_overlap(benchmark, labelled, assigned, astray)
    for raw, _ in labelled:
        home = max(homes[raw.cluster], key=SPLITS.index)
        if assigned[raw.id] != home:
            del assigned[raw.id]
            dropped[f"{benchmark.cluster} also in {home}"] += 1
    return assigned


def _refuse_overlap(
    benchmark: Benchmark,
    labelled: Sequence[tuple[RawItem, str]],
    assigned: Mapping[str, SplitName],
    astray: set[str],
) -> None:
    first = next(raw for raw, _ in labelled if raw.cluster in astray)
    other = next(
        raw for raw, _ in labelled if raw.cluster == first.cluster and assigned[raw.id] != assigned[first.id]
    )
    more = f"; so are {len(astray) - 1} more" if len(astray) > 1 else ""
    raise DatasetError(
        f"{benchmark.cluster} {first.cluster!r} is in {assigned[first.id]} ({first.where}) "
        f"and in {assigned[other.id]} ({other.where}){more}",
        hint=f"no {benchmark.cluster} may be in two splits: move its items, split by cluster, or leave "
        "them out with `overlap: drop`",
    )


def _cluster_splits(benchmark: Benchmark, split: ClusterSplit, clusters: set[str]) -> dict[str, SplitName]:
    if len(clusters) < len(SPLITS):
        found = ", ".join(sorted(clusters)) or "none"
        raise DatasetError(
            f"benchmark {benchmark.name}: {len(clusters)} different values of {benchmark.cluster}: {found}",
            hint="three disjoint splits need at least 3; is the data set complete, the right column read?",
        )
    if split.fractions is not None:
        return _shared_out(split.fractions, split.seed, clusters)
    listed: dict[str, SplitName] = {c: name for name in SPLITS for c in getattr(split.clusters, name)}
    unlisted = sorted(clusters - set(listed))
    if unlisted:
        odd = unlisted[0]
        raise DatasetError(
            f"benchmark {benchmark.name}: {benchmark.cluster} {odd!r} is in no split{suggest(odd, listed)}",
            hint="list it under split.clusters",
        )
    return listed


def _shared_out(fractions: Fractions, seed: int, clusters: set[str]) -> dict[str, SplitName]:
    """Clusters in the order of a hash, cut at the cumulated fractions; every split gets at least one."""
    order = sorted(clusters, key=lambda cluster: _hash(f"{seed}:{cluster}"))
    first = min(max(round(fractions.identification * len(order)), 1), len(order) - 2)
    second = round((fractions.identification + fractions.validation) * len(order))
    second = min(max(second, first + 1), len(order) - 1)
    parts = (order[:first], order[first:second], order[second:])
    return {cluster: name for name, part in zip(SPLITS, parts, strict=True) for cluster in part}


def _n_kept(candidates: Sequence[tuple[RawItem, str]], cap: int | None) -> int:
    counts = Counter(label for _, label in candidates)
    return sum(count if cap is None else min(cap, count) for count in counts.values())


class _Keeper:
    """Keeps usable items, decodes their sounds, and remembers which items could not be used."""

    def __init__(self, benchmark: Benchmark, total: int, progress: Callable[[int, int], None] | None) -> None:
        self.benchmark = benchmark
        self.errors: list[ItemError] = []
        self.sounds: dict[str, Sound] = {}
        self._total, self._progress, self._done = total, progress, 0

    def kept(self, candidates: Sequence[tuple[RawItem, str]], cap: int | None) -> list[Example]:
        """The first `cap` usable items of each label, in the order of a hash of their ids."""
        kept: list[Example] = []
        counts: Counter[str] = Counter()
        for raw, label in sorted(
            candidates, key=lambda candidate: _hash(candidate[0].group or candidate[0].id)
        ):
            if cap is not None and counts[label] >= cap:
                continue
            reason = self._defect(raw)
            if reason is not None:
                path = str(raw.audio) if isinstance(raw.audio, Path) else raw.where
                self.errors.append(ItemError(raw.id, path, reason))
                continue
            counts[label] += 1
            kept.append(Example(raw.id, raw.text, raw.audio, label, raw.cluster, raw.fields))
        return kept

    def _defect(self, raw: RawItem) -> str | None:
        """Why an item cannot be used; None for a sound one."""
        if self.benchmark.modality == "text":
            return None if raw.text else "the text is empty"
        if raw.audio is None or isinstance(self.benchmark.source, GeneratorSource):
            return None
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, max(self._total, self._done))
        try:
            wave = read_waveform(raw.audio) if isinstance(raw.audio, Path) else raw.audio()
        except AudioError as error:
            return error.message
        self.sounds[raw.id] = Sound.of(wave)
        return None


def _check_labels(
    benchmark: Benchmark, name: SplitName, examples: Sequence[Example], errors: Sequence[ItemError]
) -> None:
    found = [label for label in benchmark.labels if any(example.label == label for example in examples)]
    if len(found) < MIN_LABELS:
        unusable = (
            f"; {len(errors)} items could not be used, first {errors[0].path}: {errors[0].reason}"
            if errors
            else ""
        )
        labels = ", ".join(found) or "no label"
        raise DatasetError(
            f"benchmark {benchmark.name}: split {name} has items of {labels}{unusable}",
            hint="a split needs items of at least two labels",
        )
    prompt_text(benchmark, examples[0])


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
