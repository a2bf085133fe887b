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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from affectbench.audio_io import AudioError, read_waveform
from affectbench.examples import DatasetError, Example, ItemError, RenderedPrompt
from affectbench.identity import digest_of, file_digest
from affectbench.prompts import parse_answer, prompt_text
from affectbench.readers import RawItem, read_items
from affectbench.task import SPLITS, Benchmark, SplitName
from affectbench.task_parts import ClusterSplit, Fractions, GeneratorSource, Items, Source
from affectbench.yaml_loading import suggest

__all__ = [
    "Dataset", "DatasetError", "Example", "ItemError", "RenderedPrompt", "load_benchmark", "parse_answer",
    "prompt_text",
]  # fmt: skip

DATA_VARIABLE = "AFFECTBENCH_DATA"
MIN_LABELS = 2


@dataclass(frozen=True)
class Dataset:
    """The items of a benchmark in its three splits, ordered by id.

    `errors`: items that could not be used. `dropped`: why items were left out on purpose, with counts.
    """

    benchmark: Benchmark
    splits: Mapping[SplitName, tuple[Example, ...]]
    errors: tuple[ItemError, ...]
    dropped: Mapping[str, int]

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


def load_benchmark(benchmark: Benchmark, data_dir: Path | None = None, limit: int | None = None) -> Dataset:
    """Read, label, split and check the items of `benchmark`.

    `data_dir` holds the folder that the benchmark names (default: $AFFECTBENCH_DATA; generators need none).
    `limit` caps the items of each label in each split, below the benchmark's own limits. Sound files are
    decoded once here, so that a damaged one is known before any model runs.

    Raises `DatasetError`: no data folder, an unknown label, an id given twice, a cluster in two splits, too
    few clusters, or a split left with fewer than two labels.
    """
    root = _data_folder(benchmark, data_dir)
    dropped: Counter[str] = Counter()
    errors: list[ItemError] = []
    labelled: list[tuple[RawItem, str]] = []
    for raw in read_items(benchmark, root):
        label = _label(benchmark, raw, dropped)
        if label is not None:
            labelled.append((raw, label))
    _check_ids(raw for raw, _ in labelled)
    assigned = _assign(benchmark, labelled)
    splits: dict[SplitName, tuple[Example, ...]] = {}
    for name in SPLITS:
        candidates = [(raw, label) for raw, label in labelled if assigned[raw.id] == name]
        caps = [cap for cap in (getattr(benchmark.limits, name), limit) if cap is not None]
        kept = _keep(benchmark, candidates, min(caps, default=None), errors)
        splits[name] = tuple(sorted(kept, key=lambda example: example.id))
        _check_labels(benchmark, name, splits[name], errors)
    return Dataset(benchmark, splits, tuple(errors), dict(dropped))


def generator_digest(benchmark: Benchmark) -> str:
    """Hash of the code that makes a benchmark's items; empty where they come from files."""
    parts: list[Source | Items] = [benchmark.source, benchmark.preservation.neutral]
    if benchmark.preservation.capability.kind == "multiple_choice":
        parts.append(benchmark.preservation.capability.source)
    if not any(part.reader == "generator" for part in parts):
        return ""
    folder = Path(__file__).parent / "generators"
    return digest_of(file_digest(path) for path in sorted(folder.glob("*.py")))


def _data_folder(benchmark: Benchmark, data_dir: Path | None) -> Path:
    if isinstance(benchmark.source, GeneratorSource):
        return Path()
    chosen = data_dir if data_dir is not None else os.environ.get(DATA_VARIABLE)
    hint = f"give --data DIR, or set {DATA_VARIABLE}, to the folder that holds {benchmark.data}/"
    if not chosen:
        raise DatasetError(f"benchmark {benchmark.name} needs data that are not shipped", hint=hint)
    root = Path(chosen) / str(benchmark.data)
    if not root.is_dir():
        raise DatasetError(f"benchmark {benchmark.name}: there is no folder {root}", hint=hint)
    return root


def _label(benchmark: Benchmark, raw: RawItem, dropped: Counter[str]) -> str | None:
    """The label of a raw item, or None (counted) where it is left out on purpose."""
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


def _mapped(benchmark: Benchmark, raw: RawItem, name: str) -> str | None:
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


def _assign(benchmark: Benchmark, labelled: Sequence[tuple[RawItem, str]]) -> dict[str, SplitName]:
    """The split of every item id. Whole clusters stay together."""
    if isinstance(benchmark.split, ClusterSplit):
        by_cluster = _cluster_splits(benchmark, benchmark.split, {raw.cluster for raw, _ in labelled})
        return {raw.id: by_cluster[raw.cluster] for raw, _ in labelled}
    owner: dict[str, RawItem] = {}
    assigned: dict[str, SplitName] = {}
    for raw, _ in labelled:
        assert raw.split is not None
        first = owner.setdefault(raw.cluster, raw)
        if first.split != raw.split:
            raise DatasetError(
                f"{benchmark.cluster} {raw.cluster!r} is in {first.split} ({first.where}) "
                f"and in {raw.split} ({raw.where})",
                hint=f"no {benchmark.cluster} may be in two splits: move its items, or split by cluster",
            )
        assigned[raw.id] = raw.split
    return assigned


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


def _keep(
    benchmark: Benchmark, candidates: Sequence[tuple[RawItem, str]], cap: int | None, errors: list[ItemError]
) -> list[Example]:
    """The first `cap` usable items of each label, in the order of a hash of their ids."""
    kept: list[Example] = []
    counts: Counter[str] = Counter()
    for raw, label in sorted(candidates, key=lambda candidate: _hash(candidate[0].id)):
        if cap is not None and counts[label] >= cap:
            continue
        reason = _defect(benchmark, raw)
        if reason is not None:
            path = str(raw.audio) if isinstance(raw.audio, Path) else raw.where
            errors.append(ItemError(raw.id, path, reason))
            continue
        counts[label] += 1
        kept.append(Example(raw.id, raw.text, raw.audio, label, raw.cluster, raw.fields))
    return kept


def _defect(benchmark: Benchmark, raw: RawItem) -> str | None:
    """Why an item cannot be used; None for a sound one."""
    if benchmark.modality == "text":
        return None if raw.text else "the text is empty"
    if isinstance(raw.audio, Path):
        try:
            read_waveform(raw.audio)
        except AudioError as error:
            return error.message
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
