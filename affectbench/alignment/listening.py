"""A model hears a story: its states for every piece, under any intervention; and a selector's units for
it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectbench.alignment.features import States, hidden_states, prepared
from affectbench.alignment.speech import Piece
from affectbench.errors import AffectbenchError
from affectbench.intervention import UNTOUCHED, Intervention

if TYPE_CHECKING:
    from collections.abc import Mapping

    from affectbench.audio_io import Waveform
    from affectbench.engine import Engine
    from affectbench.registry import Registry
    from affectbench.selector import Selection

TOGETHER = 8
"""Interventions that share a forward pass."""
PROTOCOL = "zero-gain"


def heard(
    engine: Engine,
    pieces: Sequence[Piece],
    sounds: Mapping[str, Waveform],
    site: str,
    interventions: Sequence[Intervention] = (UNTOUCHED,),
    progress: Callable[[int], None] = lambda count: None,
) -> list[list[States]]:
    """States of each piece under each intervention, (interventions, pieces).

    Raises `AffectbenchError` for a model that takes no sound.
    """
    model: Any = engine.model
    if "audio" not in model.modalities:
        raise AffectbenchError(
            f"model {model.card.name} takes no sound", hint="alignment needs a model of modality audio"
        )
    found: list[list[States]] = [[] for _ in interventions]
    for done, piece in enumerate(pieces):
        sound = piece.sound(sounds[piece.segment])
        item = prepared(model, piece.name, sound)
        for start in range(0, len(interventions), TOGETHER):
            chosen = interventions[start : start + TOGETHER]
            for place, states in enumerate(hidden_states(engine, item, len(sound), chosen, site)):
                found[start + place].append(states)
        progress(done + 1)
    return found


def selected(
    registry: Registry, model: str, selector: str, seed: int, output: Path, device: str
) -> tuple[Engine, Selection]:
    """A model, loaded, and the units that a selector finds for it on its default task, in the ordinary
    way."""
    from affectbench.dataset import load_benchmark
    from affectbench.identifying import CellPlan, Identifying
    from affectbench.placement import Options, Order, Placement, planned_cells
    from affectbench.plan import job_of_names
    from affectbench.selector import usable_selector

    job = job_of_names(registry, model, None, [selector], [PROTOCOL], seed)
    dataset = load_benchmark(job.benchmark, None, None)
    cells = planned_cells(registry, job, dataset)
    order = Order(job, dataset, cells, cells)
    placement = Placement(registry, order, Options(output, device), lambda text: None)
    first = cells[0]
    plan = CellPlan(first.cell, first.protocol, usable_selector(selector, registry.selector), first.hashes)
    identifying = Identifying(placement.session, plan, plan.requests)
    study = identifying.study(identifying.collected()[0])
    reason = identifying.too_few(study)
    if reason:
        raise AffectbenchError(f"{selector} on {job.benchmark.name}: {reason}")
    budget = max(1, round(first.cell.fraction * study.shape.units))
    return placement.session.engine, plan.selector.select(study, budget)
