"""The analyses of a job: what each follows from, and how one is made in the job's session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from affectbench.analyses import PlannedAnalysis, known, planned_analysis, run_analysis
from affectbench.analysis import Analysis
from affectbench.dataset import Dataset
from affectbench.errors import AffectbenchError
from affectbench.placement import Placement, content_hashes
from affectbench.plan import Job
from affectbench.registry import Registry
from affectbench.sae_card import SaeCard
from affectbench.task import ModelCard
from affectbench.transfer import PlannedCell


def inputs_of(registry: Registry, job: Job, dataset: Dataset, cells: Sequence[PlannedCell]) -> dict[str, str]:
    """Hashes of a job's task and model: those that its `cells` have, where it has any."""
    if cells:
        return {"task": cells[0].hashes.task, "model": cells[0].hashes.model}
    task, model = content_hashes(registry, job, dataset)
    return {"task": task, "model": model}


def planned(registry: Registry, job: Job, name: str, inputs: Mapping[str, str]) -> PlannedAnalysis:
    """One analysis of a job, with the hashes of what it follows from.

    Raises `AffectbenchError` where it needs sparse autoencoders and the model has none.
    """
    if known(name).features:
        inputs = {**inputs, "dictionary": _features_of(registry, job.card).weights_digest}
    return planned_analysis(name, job.card.name, job.benchmark.name, job.seed, inputs)


def made(placement: Placement, asked: PlannedAnalysis, progress: Callable[[int], None]) -> Analysis:
    """An analysis of the placement's order; `progress` is called with the items just done."""
    if known(asked.kind).features:
        attach_features(placement)
    return run_analysis(asked, placement.session, command=placement.options.command, progress=progress)


def attach_features(placement: Placement) -> None:
    """Load the sparse autoencoders that the model's card names, where they are not there yet."""
    from affectbench.sae_formats import load_card

    model = placement.session.model
    if model.dictionary is None:
        model.attach(load_card(_features_of(placement.registry, placement.order.job.card), model.device))


def _features_of(registry: Registry, card: ModelCard) -> SaeCard:
    """The card of a model's sparse autoencoders."""
    if card.dictionary is None:
        raise AffectbenchError(
            f"model {card.name} has no sparse autoencoders",
            hint="name a card of kind `sae` under `dictionary` in the model's card",
        )
    return registry.sae(card.dictionary)
