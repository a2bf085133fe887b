"""The studies of units that are switched off: each model under each selector's edits, what they share made
once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from affectbench.alignment.record import ERROR, Made, made_from
from affectbench.analysis import Finding
from affectbench.errors import AffectbenchError

if TYPE_CHECKING:
    from affectbench.alignment.components import Reduced
    from affectbench.alignment.features import States
    from affectbench.alignment.ground import Ground
    from affectbench.alignment.listening import Selecting
    from affectbench.alignment.rdm import FloatArray
    from affectbench.alignment.study_intervention import Untouched
    from affectbench.alignment.work import Workshop
    from affectbench.alignment_task import AlignmentTask
    from affectbench.engine import Engine
    from affectbench.registry import Registry
    from affectbench.selector import Selector


class Stage(Protocol):
    """What is needed of the run that asks for these studies."""

    registry: Registry
    task: AlignmentTask
    seed: int

    @property
    def selectors(self) -> tuple[str, ...]: ...
    @property
    def draws(self) -> int: ...
    @property
    def ground(self) -> Ground: ...
    def engine(self, model: str) -> Engine: ...
    def states(self, model: str, pieces: Sequence[Any], sounds: Any, site: str = ...) -> Iterator[States]: ...
    def reduced(self, model: str, pieces: Sequence[Any], site: str = ...) -> Reduced: ...
    def model_digest(self, model: str) -> str: ...
    def is_control(self, model: str) -> bool: ...
    def advance(self, what: str, done: int, total: int) -> None: ...


@dataclass(frozen=True)
class _Shared:
    """What all selectors of a model share: the model untouched, who selects, and how loud units are."""

    model: str
    kept: tuple[int, ...]
    untouched: Untouched
    selecting: Selecting
    loud: dict[str, FloatArray] = field(default_factory=dict)


@dataclass
class Intervening:
    """Plans and makes the analyses ``eeg-intervention`` of a run, model by model."""

    stage: Stage
    _last: _Shared | None = None

    def planned(self, model: str, inputs: dict[str, str]) -> list[Made]:
        """One analysis a selector, before anything is computed."""
        from affectbench.alignment.listening import PROTOCOL
        from affectbench.content import source_digest

        registry, seed = self.stage.registry, self.stage.seed
        blank = self.stage.is_control(model)
        found = []
        for selector in self.stage.selectors:
            ours = inputs | {
                "model": self.stage.model_digest(model),
                "selector": source_digest(registry.find("selector", selector).path),
                "protocol": registry.intervention(PROTOCOL).digest,
            }
            blind = cast("type[Selector]", registry.selector(selector)).control
            control = "selector" if blind else "model" if blank else ""
            settings = {
                "selector": selector, "protocol": PROTOCOL, "draws": self.stage.draws, "control": control,
                "answer_known": self.stage.task.answer_known, "affect": self.stage.task.affect,
            }  # fmt: skip

            def parts(workshop: Workshop, selector: str = selector) -> dict[str, Any]:
                return self._parts(workshop, model, selector)

            task = self.stage.task.name
            found.append(made_from("intervention", model, task, settings, seed, ours, parts, selector))
        return found

    def _parts(self, workshop: Workshop, model: str, selector: str) -> dict[str, Any]:
        """What is found; where a selector names no units, the reason, so that its row is not missed."""
        from affectbench.alignment import study_intervention as study
        from affectbench.alignment.affect import all_emotions

        shared = self._shared(model)
        try:
            selection = shared.selecting.selection(selector)
        except AffectbenchError as error:
            return {"n": {}, "findings": [Finding(name=ERROR, text=f"No units of {selector}: {error}")]}
        if self.stage.task.affect == "weak":
            selection = all_emotions(selection)
        lowest = min(int(unit) for units in selection.units for unit in units) // selection.shape.width
        places = study.peaks(workshop, shared.untouched, lowest)
        draws, edits = self._edits(shared, selection)
        states = self._heard(shared, edits, places)
        edited = study.edited(shared.untouched, places, selection.labels, draws, states)
        return study.study(workshop, edited, selector, self.stage.seed)

    def _shared(self, model: str) -> _Shared:
        from affectbench.alignment.comparison import kept_pieces
        from affectbench.alignment.listening import Selecting
        from affectbench.alignment.study_intervention import untouched

        if self._last is None or self._last.model != model:
            stage, ground = self.stage, self.stage.ground
            kept = kept_pieces(ground, stage.task)
            self._last = None  # Not two models at a time.
            states = stage.reduced(model, [ground.pieces[place] for place in kept])
            selecting = Selecting.of(stage.registry, stage.engine(model), stage.selectors, stage.seed)
            self._last = _Shared(model, kept, untouched(ground, stage.task, kept, states), selecting)
        return self._last

    def _edits(self, shared: _Shared, selection: Any) -> tuple[dict[str, int], list[Any]]:
        """How many draws of each kind there are, and all edits: none, then the units of each emotion and draw
        off."""
        from affectbench.alignment.drops import LAYERS, LOUDNESS
        from affectbench.alignment.matched import activation_matched, loudness
        from affectbench.controls import layer_matched
        from affectbench.intervention import UNTOUCHED, scale

        stage, site = self.stage, selection.site
        if site not in shared.loud:
            ground = stage.ground
            states = stage.states(
                shared.model, [ground.pieces[place] for place in shared.kept], ground.sounds, site
            )
            shared.loud[site] = loudness(states, selection.shape.size)
        drawn = {
            LAYERS: layer_matched(selection, stage.draws, stage.seed),
            LOUDNESS: activation_matched(selection, shared.loud[site], stage.draws, stage.seed),
        }
        sets = [*selection.units, *(units for each in drawn.values() for units in each)]
        edits = [UNTOUCHED, *(scale(site, selection.shape, units, 0.0) for units in sets)]
        return {kind: len(each) for kind, each in drawn.items()}, edits

    def _heard(self, shared: _Shared, edits: list[Any], places: Any) -> list[list[States]]:
        from affectbench.alignment.listening import heard
        from affectbench.alignment.study_intervention import at_points

        ground = self.stage.ground
        pieces = [ground.pieces[place] for place in shared.kept]
        heard_pieces = heard(
            self.stage.engine(shared.model), pieces, ground.sounds, "residual", edits,
            lambda count: self.stage.advance(f"{shared.model} hears, units off", count, len(pieces)),
            lambda states: at_points(shared.untouched, places, states),
        )  # fmt: skip
        return list(heard_pieces)
