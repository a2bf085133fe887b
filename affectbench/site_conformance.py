"""What a model's page says of its wrapper's conformance. Pure functions on reports."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from affectbench.conformance_report import FOLDER, Conformance, Status, read_report
from affectbench.content import builtin_root
from affectbench.errors import AffectbenchError
from affectbench.identity import digest_of
from affectbench.store import Damaged

STATUSES: tuple[Status, ...] = ("passed", "failed", "skipped")


@dataclass(frozen=True)
class Shown:
    """A report and what stands above its table. `same`: it is of the weights and the wrapper that the
    results have; None where a tiny instance says nothing about weights."""

    report: Conformance
    same: bool | None

    @property
    def counts(self) -> str:
        found = {status: self.report.count(status) for status in STATUSES}
        return ", ".join(f"{count} {status}" for status, count in found.items() if count)

    @property
    def versions(self) -> str:
        return ", ".join(f"{name} {version}" for name, version in sorted(self.report.versions.items()))


def shown(report: Conformance, model_hashes: Collection[str]) -> Shown:
    """`model_hashes`: those of the model's records, over weights, precision and the wrapper's source."""
    if report.instance == "tiny":
        return Shown(report, None)
    return Shown(report, digest_of([report.weights, report.dtype, report.family_source]) in model_hashes)


def reports_of(results: Sequence[Path]) -> tuple[dict[str, Conformance], list[Damaged]]:
    """Reports by model, and files that are none: in results folders, beside them, and those shipped.

    Where a model has several, the first place counts.
    """
    places = [place for folder in results for place in (folder / FOLDER, folder.parent / FOLDER)]
    return _read([*places, builtin_root() / "leaderboard" / FOLDER])


def _read(folders: Iterable[Path]) -> tuple[dict[str, Conformance], list[Damaged]]:
    found: dict[str, Conformance] = {}
    damaged: dict[Path, Damaged] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.json")):
            try:
                report = read_report(path)
                found.setdefault(report.model, report)
            except AffectbenchError as error:
                damaged[path.resolve()] = Damaged(path, error.message)
    return found, list(damaged.values())
