"""What a record says of the model and the benchmark of its session."""

from __future__ import annotations

from affectbench.checkpoint import devices_of
from affectbench.model import Model
from affectbench.plan import Job
from affectbench.record import ModelInfo, TaskInfo
from affectbench.session import Session
from affectbench.task import SPLITS, SplitName


def task_info(session: Session) -> TaskInfo:
    """The benchmark of a session, with the items that could be prepared."""
    benchmark = session.benchmark
    counts: dict[SplitName, int] = {name: len(session.items(name)) for name in SPLITS}
    clusters: dict[SplitName, int] = {name: len(set(session.items(name).clusters)) for name in SPLITS}
    return TaskInfo(
        id=benchmark.name,
        version=benchmark.version,
        title=benchmark.title or benchmark.name,
        modality=benchmark.modality,
        labels=list(benchmark.labels),
        metric=benchmark.metric,
        readout=benchmark.readout.kind,
        n_items=counts,
        n_clusters=clusters,
        n_failed=len(session.failures),
        chance=1 / len(benchmark.labels),
    )


def model_info(job: Job, model: Model, device: str) -> ModelInfo:
    """A job's model as it was loaded."""
    return ModelInfo(
        id=job.card.name,
        version=job.card.version,
        family=job.card.family,
        revision=job.card.revision or "",
        modality=job.card.modality,
        dtype=job.card.dtype,
        device=devices_of(model.network) if job.card.device_map else device,
        n_layers=model.shape.layers,
        width=model.shape.width,
        n_parameters=model.parameters,
        instrument=job.card.instrument,
        instrument_note=job.card.instrument_note,
    )
