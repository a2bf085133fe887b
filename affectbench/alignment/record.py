"""From the parts of a study to an analysis record: what it follows from, what it took."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from affectbench import __version__
from affectbench.alignment.work import Workshop
from affectbench.analysis import (
    Analysis,
    AnalysisCost,
    AnalysisHashes,
    AnalysisProvenance,
    Settings,
    analysis_name,
)
from affectbench.identity import digest_of, file_digest

TITLES = {
    "alignment": "Alignment with EEG",
    "intervention": "Alignment under intervention",
    "recovery": "Recovery of a planted layer and lag",
    "nulls": "False positives of each null",
}
TOLD = {
    "alignment": "What the hidden states of models share with EEG of people who heard the same speech.",
    "intervention": "Whether switching a selector's emotion units off lowers alignment with EEG, beyond "
    "random units and where speech is affective.",
    "recovery": "How often the layer and the lag that were planted in simulated EEG are found again.",
    "nulls": "How often each null calls independent, smooth series aligned.",
}
ERROR = "error"
"""The finding that says why there is no other."""


@dataclass(frozen=True)
class Made:
    """An analysis before it is made, and the function that makes its parts."""

    kind: str
    name: str
    model: str
    task: str
    settings: Settings
    seed: int
    hashes: AnalysisHashes
    parts: Callable[[Workshop], dict[str, Any]]

    @property
    def title(self) -> str:
        return TITLES[self.kind.removeprefix("eeg-")]


def made_from(
    study: str,
    model: str,
    task: str,
    settings: dict[str, Any],
    seed: int,
    inputs: dict[str, str],
    parts: Callable[[Workshop], dict[str, Any]],
    *further: str,
) -> Made:
    """An analysis of a study, named after what it is of: model, task, and `further` names."""
    kind = f"eeg-{study}"
    hashes = AnalysisHashes(inputs=inputs, code=_code())
    name = analysis_name(kind, model, task, *further, seed=seed)
    return Made(kind, name, model, task, settings, seed, hashes, parts)


def failed(analysis: Analysis) -> bool:
    """Whether an analysis says no more than why it could not be made; it is then made again."""
    return any(finding.name == ERROR for finding in analysis.findings)


def record(
    made: Made,
    parts: dict[str, Any],
    command: str,
    started: tuple[float, float],
    workshop: Workshop,
    *,
    instrument: bool,
) -> Analysis:
    """The sealed analysis. What came from the journal counts at the cost it had; `started`: the clocks of
    wall and CPU when it began; `instrument`: listeners are simulated, or a model is built to calibrate."""
    from affectbench.memory import peak_memory_mib

    wall = time.monotonic() - started[0]
    now = datetime.now(UTC).astimezone()
    return Analysis(
        kind=made.kind,
        name=made.name,
        title=made.title,
        description=TOLD[made.kind.removeprefix("eeg-")],
        model=made.model,
        task=made.task,
        instrument=instrument,
        settings=made.settings,
        seed=made.seed,
        hashes=made.hashes,
        cost=AnalysisCost(
            wall_s=wall,
            cpu_s=max(time.process_time() - started[1], workshop.cpu_s) + workshop.taken_s,
            peak_memory_mib=peak_memory_mib(),
        ),
        provenance=_provenance(command, now - timedelta(seconds=wall), now),
        **parts,
    ).sealed()


def _provenance(command: str, started: datetime, finished: datetime) -> AnalysisProvenance:
    from importlib.metadata import PackageNotFoundError, version

    import torch

    versions = {}
    for name in ("torch", "transformers", "numpy", "scipy", "mne"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unknown"
    return AnalysisProvenance(
        affectbench=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        threads=torch.get_num_threads(),
        versions=versions,
        command=command,
        started=started.isoformat(timespec="seconds"),
        finished=finished.isoformat(timespec="seconds"),
    )


def _code() -> str:
    """Hash of this package's source, 16 hex."""
    return digest_of(file_digest(path) for path in sorted(Path(__file__).parent.glob("*.py")))
