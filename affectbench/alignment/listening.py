"""A model hears a story: its states for every piece, under any intervention; and a selector's units for
it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from affectbench.alignment.features import States, hidden_states, prepared
from affectbench.alignment.speech import Piece
from affectbench.errors import AffectbenchError
from affectbench.intervention import UNTOUCHED, Intervention

if TYPE_CHECKING:
    from collections.abc import Mapping

    from affectbench.audio_io import Waveform
    from affectbench.engine import Engine
    from affectbench.identifying import CellPlan
    from affectbench.registry import Registry
    from affectbench.selector import Selection
    from affectbench.session import Session

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
    kept: Callable[[States], States] = lambda states: states,
) -> Iterator[list[States]]:
    """States under each intervention of one piece after another, which is heard when it is asked for. `kept`
    says what of them is held while a piece is heard under others: all, or what a study needs.

    Raises `AffectbenchError` for a model that takes no sound.
    """
    model: Any = engine.model
    if "audio" not in model.modalities:
        raise AffectbenchError(
            f"model {model.card.name} takes no sound", hint="alignment needs a model of modality audio"
        )
    for done, piece in enumerate(pieces):
        sound = piece.sound(sounds[piece.segment])
        item = prepared(model, piece.name, sound)
        found: list[States] = []
        for start in range(0, len(interventions), TOGETHER):
            chosen = interventions[start : start + TOGETHER]
            found += [kept(states) for states in hidden_states(engine, item, len(sound), chosen, site)]
        progress(done + 1)
        yield found


@dataclass(frozen=True)
class Selecting:
    """Selectors of a model's units on its default task, in the ordinary way; one evidence pass serves all."""

    session: Session
    plans: Mapping[str, CellPlan]
    fractions: Mapping[str, float]

    @classmethod
    def of(cls, registry: Registry, engine: Engine, selectors: Sequence[str], seed: int) -> Selecting:
        """Raises `AffectbenchError` for a selector that is not there, or a model without a default task."""
        from affectbench.dataset import load_benchmark
        from affectbench.identifying import CellPlan
        from affectbench.placement import planned_cells
        from affectbench.plan import job_of_names
        from affectbench.selector import usable_selector
        from affectbench.session import Session

        job = job_of_names(registry, engine.model.card.name, None, selectors, [PROTOCOL], seed)
        dataset = load_benchmark(job.benchmark, None, None)
        plans, fractions = {}, {}
        for each in planned_cells(registry, job, dataset):
            name = each.cell.selector
            usable = usable_selector(name, registry.selector)
            plans[name] = CellPlan(each.cell, each.protocol, usable, each.hashes)
            fractions[name] = each.cell.fraction
        return cls(Session(engine.model, job.benchmark, dataset, registry.benchmark), plans, fractions)

    def selection(self, selector: str) -> Selection:
        """The units that a selector finds. Raises `AffectbenchError` where it finds none, whatever it raised
        itself."""
        from affectbench.identifying import Identifying, all_requests

        plan = self.plans[selector]
        identifying = Identifying(self.session, plan, all_requests(list(self.plans.values())))
        study = identifying.study(identifying.collected()[0])
        reason = identifying.too_few(study)
        if reason:
            raise AffectbenchError(f"{selector} on {self.session.benchmark.name}: {reason}")
        budget = max(1, round(self.fractions[selector] * study.shape.units))
        try:
            return plan.selector.select(study, budget)
        except AffectbenchError:
            raise
        except Exception as error:  # A selector is somebody else's code: its error ends its own row alone.
            raise AffectbenchError(f"{selector}: {type(error).__name__}: {error}") from error
