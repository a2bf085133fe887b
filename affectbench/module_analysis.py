"""An analysis of the module track, put together from its parts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from affectbench.analyses import provenance
from affectbench.analysis import (
    Analysis,
    AnalysisCost,
    AnalysisHashes,
    Curve,
    Finding,
    Matrix,
    Settings,
    Table,
)
from affectbench.memory import peak_memory_mib
from affectbench.model_card import ModelCard
from affectbench.record import now_iso

TITLES = {
    "module-change": ("Where the adaptation changed weights", "Change of each module type, base to adapted."),
    "module-transfer": (
        "What module types carry when they are transferred",
        "The base with the adapted weights of some types: how much of the gain comes with them.",
    ),
    "module-necessity": (
        "What the adapted model loses when module types are damaged",
        "The adapted model with one type damaged: drops on the task and on what it should keep.",
    ),
    "module-adaptation": (
        "What module types learn when they are adapted alone",
        "Adaptations of some types under one budget, at equal rank and with equal parameters.",
    ),
    "module-verdict": (
        "Does gate_proj stand out?",
        "The claim of arXiv 2601.15906, test by test: gate against the best other type, and a control.",
    ),
}


@dataclass(frozen=True)
class Clock:
    """When the work began."""

    wall: float = field(default_factory=time.monotonic)
    cpu: float = field(default_factory=time.process_time)
    started: str = field(default_factory=now_iso)


@dataclass
class Made:
    """Parts of one analysis."""

    findings: list[Finding] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    matrices: list[Matrix] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def assembled(
    kind: str,
    name: str,
    card: ModelCard,
    task: str,
    made: Made,
    *,
    n: Mapping[str, int],
    seed: int,
    settings: Settings,
    hashes: AnalysisHashes,
    clock: Clock,
    command: str,
) -> Analysis:
    """The analysis record; its cost is that of the whole run so far."""
    title, description = TITLES[kind]
    return Analysis(
        kind=kind,
        name=name,
        title=f"{title}: {card.title or card.name}",
        description=description,
        model=card.name,
        task=task,
        instrument=card.instrument,
        settings=settings,
        n=dict(n),
        seed=seed,
        findings=made.findings,
        curves=made.curves,
        matrices=made.matrices,
        tables=made.tables,
        notes=made.notes,
        hashes=hashes,
        cost=AnalysisCost(
            wall_s=time.monotonic() - clock.wall,
            cpu_s=time.process_time() - clock.cpu,
            peak_memory_mib=peak_memory_mib(),
        ),
        provenance=provenance(command, clock.started, now_iso()),
    )
