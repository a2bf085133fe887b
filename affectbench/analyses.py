"""Which analyses there are, what one follows from before anything is loaded, and how it is run.

An analysis is a module with a function ``analyse(asked) -> Content``, listed in `ANALYSES` by name and
imported when it is asked for.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectbench import __version__
from affectbench.analysis import (
    Analysis,
    AnalysisCost,
    AnalysisHashes,
    AnalysisProvenance,
    Curve,
    Finding,
    Matrix,
    Settings,
    Table,
    Topography,
    analysis_name,
)
from affectbench.errors import AffectbenchError
from affectbench.identity import digest_of, file_digest
from affectbench.yaml_loading import suggest

if TYPE_CHECKING:
    from affectbench.session import Session

LIBRARIES = ("torch", "transformers", "numpy", "scipy", "scikit-learn")


@dataclass(frozen=True)
class Known:
    """An analysis by name: its title, what it tells, the module that makes it, the settings that can change a
    number of it, and the modules that its numbers come from. `features`: it needs the model's sparse
    autoencoders."""

    title: str
    summary: str
    module: str
    settings: Settings
    uses: tuple[str, ...] = ()
    features: bool = False

    @property
    def code(self) -> str:
        """Hash (16 hex) of the source of its modules."""
        folder = Path(__file__).parent
        return digest_of(file_digest(folder / f"{name}.py") for name in (self.module, *self.uses))


ANALYSES: Mapping[str, Known] = {
    "direction-geometry": Known(
        "Geometry of emotion directions",
        "How directions of emotions in the residual stream lie to each other, and where emotions separate.",
        "direction_geometry",
        {"split": "identification", "positions": "answer", "bootstrap_draws": 500},
        ("geometry", "answer_vectors", "directions"),
    ),
    "answer-prior": Known(
        "Answers and the prior",
        "What recognition owes to the prompt's own prior, and to masked words and what stands before them.",
        "answer_prior",
        {"split": "test", "prior_split": "identification", "words_before": 2, "bootstrap_draws": 1000},
        ("prior", "label_free", "stats"),
    ),
    "feature-reconstruction": Known(
        "Reconstruction alone",
        "What replacing the stream by an SAE's reconstruction does to answers, before anything is ablated.",
        "feature_reconstruction",
        {"split": "test", "positions": "answer", "bootstrap_draws": 500},
        ("label_free", "prior", "stats"),
        features=True,
    ),
    "feature-flow": Known(
        "Information flow over layers",
        "Where features of sparse autoencoders begin to tell emotions apart, and how many are of one alone.",
        "feature_flow",
        {
            "split": "identification",
            "probe_split": "test",
            "positions": "answer",
            "top": 100,
            "tops": [20, 50, 100],
            "shown_top": 50,
            "same_feature_cosine": 0.7,
            "bootstrap_draws": 100,
        },
        ("flow", "causes", "answer_vectors"),
        features=True,
    ),
    "circuit-validation": Known(
        "Units that write an emotion's direction",
        "Whether enhancing or switching off its best neurons and heads moves a model along an emotion.",
        "circuit_validation",
        {"units": [1, 2, 4, 8, 16, 32], "random_draws": 20, "items_per_emotion": 20, "positions": "answer"},
        ("anatomy", "circuit", "directions", "targets", "controls"),
    ),
    "feature-effects": Known(
        "Causal features by emotion and phase",
        "How many features cause an emotion's answers, how strongly and how unevenly, phase by phase.",
        "feature_effects",
        {
            "split": "identification",
            "probe_split": "test",
            "positions": "answer",
            "top": 100,
            "same_feature_cosine": 0.7,
            "candidates": 64,
            "items": 40,
            "matched_repeats": 20,
            "effect_draws": 1000,
            "bootstrap_draws": 0,
            "shown": 5,
        },
        ("feature_flow", "flow", "causes", "tracing", "features", "answer_vectors", "recovery"),
        features=True,
    ),
}


@dataclass(frozen=True)
class PlannedAnalysis:
    """An analysis of one model on one benchmark before anything is loaded."""

    kind: str
    name: str
    hashes: AnalysisHashes
    settings: Settings
    seed: int


@dataclass(frozen=True)
class Asked:
    """What an analysis is given: the session of its job, its seed, its settings, and whom to tell of items
    that are done."""

    session: Session
    seed: int
    settings: Settings
    progress: Callable[[int], None] | None = None

    def number(self, name: str) -> int:
        """A setting that is a whole number."""
        value = self.settings[name]
        assert isinstance(value, int), f"setting {name} is a whole number"
        return value


@dataclass(frozen=True)
class Content:
    """What an analysis gives: counts of what it was made of, and its parts. See `Analysis`."""

    n: dict[str, int]
    findings: Sequence[Finding] = ()
    curves: Sequence[Curve] = ()
    matrices: Sequence[Matrix] = ()
    maps: Sequence[Topography] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = field(default=())


def known(name: str) -> Known:
    """The analysis of that name. Raises `AffectbenchError` with a suggestion where there is none."""
    if name not in ANALYSES:
        raise AffectbenchError(
            f"there is no analysis {name!r}{suggest(name, ANALYSES)}", hint=f"known: {', '.join(ANALYSES)}"
        )
    return ANALYSES[name]


def planned_analysis(
    kind: str, model: str, task: str, seed: int, inputs: Mapping[str, str]
) -> PlannedAnalysis:
    """An analysis by name, of a job whose content has these hashes."""
    found = known(kind)
    hashes = AnalysisHashes(inputs=dict(inputs), code=found.code)
    return PlannedAnalysis(kind, analysis_name(kind, model, task, seed=seed), hashes, found.settings, seed)


def run_analysis(
    planned: PlannedAnalysis,
    session: Session,
    *,
    command: str,
    progress: Callable[[int], None] | None = None,
) -> Analysis:
    """Make an analysis in the session of its job.

    Raises:
        AffectbenchError: it cannot be made of this model and benchmark, or it failed.
    """
    from affectbench.memory import peak_memory_mib
    from affectbench.record import now_iso

    found, card = known(planned.kind), session.model.card
    started, clocks = now_iso(), (time.monotonic(), time.process_time())
    before = replace(session.engine.cost)
    analyse: Any = import_module(f"affectbench.{found.module}").analyse
    try:
        content: Content = analyse(Asked(session, planned.seed, planned.settings, progress))
    except AffectbenchError as error:
        raise AffectbenchError(f"analysis {planned.kind}: {error.message}", hint=error.hint) from error
    except (RuntimeError, ValueError, ArithmeticError) as error:  # Out of memory is a RuntimeError.
        problem = str(error).splitlines()[0] if str(error) else "no message"
        raise AffectbenchError(
            f"analysis {planned.kind} failed: {type(error).__name__}: {problem}"
        ) from error
    spent = session.engine.cost.since(before)
    return Analysis(
        kind=planned.kind,
        name=planned.name,
        title=found.title,
        description=found.summary,
        model=card.name,
        task=session.benchmark.name,
        instrument=card.instrument,
        settings=planned.settings,
        n=content.n,
        seed=planned.seed,
        findings=list(content.findings),
        curves=list(content.curves),
        matrices=list(content.matrices),
        maps=list(content.maps),
        tables=list(content.tables),
        notes=list(content.notes),
        hashes=planned.hashes,
        cost=AnalysisCost(
            wall_s=time.monotonic() - clocks[0] + spent.wall_s,
            cpu_s=time.process_time() - clocks[1] + spent.cpu_s,
            forward_passes=spent.forward_passes,
            peak_memory_mib=peak_memory_mib(),
        ),
        provenance=provenance(command, started, now_iso()),
    ).sealed()


def provenance(command: str, started: str, finished: str) -> AnalysisProvenance:
    """What an analysis says of this process; times are ISO 8601."""
    import torch

    return AnalysisProvenance(
        affectbench=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        threads=torch.get_num_threads(),
        versions={name: _version(name) for name in LIBRARIES},
        command=command,
        started=started,
        finished=finished,
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
