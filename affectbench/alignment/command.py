"""What `align` does: an alignment task and its models become analyses in a results folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from affectbench.alignment.features import States
from affectbench.alignment.intervening import Intervening
from affectbench.alignment.record import TITLES, Made, failed, made_from, record
from affectbench.alignment.work import Workshop, closing
from affectbench.alignment_suite import AlignmentSuite
from affectbench.alignment_task import AlignmentTask, SimulatedEeg
from affectbench.analysis import Analysis, AnalysisStore
from affectbench.errors import AffectbenchError
from affectbench.identity import digest_of
from affectbench.registry import Registry
from affectbench.yaml_loading import suggest

if TYPE_CHECKING:
    from affectbench.alignment.components import Reduced
    from affectbench.alignment.ground import Ground
    from affectbench.alignment.recorded import RecordedGround
    from affectbench.alignment.speech import Piece
    from affectbench.alignment.story import Story
    from affectbench.engine import Engine
    from affectbench.ray_executor import RayExecutor

RUNS = 200
SELECTOR, DRAWS = "attribution", 20
"""What is switched off, and beside how many draws, where no suite says it."""


@dataclass(frozen=True)
class Request:
    """What is asked: a task or a suite of them, the models, studies, selectors and seed where other than
    those that it names, and how it is run."""

    task: str
    models: tuple[str, ...] = ()
    studies: tuple[str, ...] = ()
    selectors: tuple[str, ...] = ()
    runs: int = RUNS
    seed: int | None = None
    include: tuple[Path, ...] = ()
    data: Path | None = None
    output: Path | None = None
    device: str = "cpu"
    ray: RayExecutor | None = None
    command: str = ""
    topomaps: bool = False

    def check(self) -> None:
        """Raise `AffectbenchError` for a study that does not exist."""
        for name in self.studies:
            if name not in TITLES:
                raise AffectbenchError(
                    f"there is no study {name!r}{suggest(name, TITLES)}", hint=f"studies: {', '.join(TITLES)}"
                )


@dataclass
class Aligning:
    """A request on its way. What several studies need is made once; what is stored already is not made
    again. One model is loaded at a time."""

    request: Request
    console: Console
    registry: Registry = field(init=False)
    suite: AlignmentSuite | None = field(init=False)
    task: AlignmentTask = field(init=False)
    folder: Path = field(init=False)
    seed: int = field(init=False)
    _engines: dict[str, Any] = field(init=False, default_factory=dict)
    _bars: Progress | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.request.check()
        self.registry = Registry(self.request.include)
        self.suite = self.registry.alignment_suite(self.request.task)
        self.task = self.registry.alignment(self.suite.task if self.suite else self.request.task)
        self.folder = self.request.output or Path("results") / self.request.task
        own = self.suite.seed if self.suite else 0
        self.seed = own if self.request.seed is None else self.request.seed

    @property
    def studies(self) -> tuple[str, ...]:
        """Those asked for; else the suite's; else all, of recordings the one that needs no labels."""
        own = tuple(TITLES) if isinstance(self.task.source, SimulatedEeg) else ("alignment",)
        return self.request.studies or (self.suite.studies if self.suite else own)

    @property
    def selectors(self) -> tuple[str, ...]:
        named = (*self.suite.selectors, *self.suite.controls) if self.suite else (SELECTOR,)
        return tuple(dict.fromkeys(self.request.selectors or named))

    @property
    def draws(self) -> int:
        return self.suite.draws if self.suite else DRAWS

    @property
    def models(self) -> tuple[str, ...]:
        found = self.request.models or (self.suite.models if self.suite else ()) or self.task.models
        if not found:
            raise AffectbenchError(f"task {self.task.name} names no models", hint="add --model")
        return found

    def run(self) -> list[Analysis]:
        """Make every analysis that is not stored; returns all, in order."""
        found = []
        with Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), console=self.console, disable=not self.console.is_terminal,
        ) as self._bars:  # fmt: skip
            for study in self.studies:
                found += [self._made(made) for made in self._planned(study)]
        return found

    def _planned(self, study: str) -> list[Made]:
        """The analyses of a study, before anything is computed."""
        request = self.request
        if study == "nulls":
            return [made_from(study, "", "", {"runs": request.runs}, self.seed, {}, self._nulls)]
        if study == "recovery":
            source = self.task.simulated
            inputs = {"model": self.model_digest(source.model), "story": digest_of([repr(source)])}
            settings = {"runs": request.runs, "snr": source.snr}
            return [
                made_from(study, source.model, self.task.name, settings, self.seed, inputs, self._recovery)
            ]
        inputs = {"task": self.task.digest, **self._heard_digest()}
        if study == "alignment":
            models = {f"model-{place}": self.model_digest(m) for place, m in enumerate(self.models)}
            asked = {
                "models": list(self.models), "metrics": list(self.task.metrics), "site": self.task.site,
                "mode": self.task.mode,
            }  # fmt: skip
            one = self.models[0] if len(self.models) == 1 else ""
            return [
                made_from(study, one, self.task.name, asked, self.task.seed, inputs | models, self._alignment)
            ]
        intervening = Intervening(self)
        return [made for model in self.models for made in intervening.planned(model, inputs)]

    def _made(self, made: Made) -> Analysis:
        """One analysis: the stored one where it is still right, else a new one, written whole."""
        store = AnalysisStore(self.folder)
        known = store.finished(made.name, made.hashes, made.settings)
        if known is not None and not failed(known):
            self._say(f"{made.name} was finished before and kept")
            return known
        started = time.monotonic(), time.process_time()
        workshop = Workshop(
            self.folder, f"{made.kind}-{made.name}", digest_of([made.name, repr(made.hashes),
            repr(made.settings)]),
            self.advance, self._say, self.request.ray,
        )  # fmt: skip
        with closing(workshop):
            parts = made.parts(workshop)
        analysis = record(
            made, parts, self.request.command, started, workshop, instrument=self._instrument(made)
        )
        store.write(analysis)
        workshop.forget()
        self._say(f"{made.name}: {made.title}")
        for finding in analysis.findings:
            value = "" if finding.value is None else f" {finding.value.value:.3g}"
            self._say(f"  {finding.text}{value}" + ("" if finding.p is None else f" (p {finding.p:.4f})"))
        return analysis

    # The studies.

    def _nulls(self, workshop: Workshop) -> dict[str, Any]:
        from affectbench.alignment import study_nulls

        return study_nulls.study(workshop, self.request.runs, self.seed)

    def _recovery(self, workshop: Workshop) -> dict[str, Any]:
        from affectbench.alignment import study_recovery
        from affectbench.alignment.head import head_model

        source, story = self.task.simulated, self.story
        stage = study_recovery.staged(
            story,
            list(self.states(source.model, story.pieces, story.sounds)),
            head_model(source.montage),
            source.snr,
        )
        return study_recovery.study(workshop, stage, self.request.runs, self.seed)

    def _alignment(self, workshop: Workshop) -> dict[str, Any]:
        from affectbench.alignment import study_alignment
        from affectbench.alignment.comparison import (
            compared,
            kept_pieces,
            quarter_of_memory,
            side_by_side,
        )

        ground = self.ground
        kept = kept_pieces(ground, self.task)
        pieces = [ground.pieces[place] for place in kept]
        if self.task.mode == "paper":
            return self._as_released(workshop, kept, pieces)
        models = {}
        for model in self.models:
            name = f"{model} (control)" if self.is_control(model) else model
            models[name] = self.reduced(model, pieces, self.task.site)
        self._engines.clear()  # Its memory is for the sides.
        found: dict[str, study_alignment.Found] = {}
        for group in side_by_side(models, self.task, pieces, quarter_of_memory()):
            found |= study_alignment.found(workshop, compared(ground, self.task, kept, group))
        return study_alignment.study(found, self.task.seed)

    def _as_released(self, workshop: Workshop, kept: tuple[int, ...], pieces: list[Piece]) -> dict[str, Any]:
        from affectbench.alignment import study_paper

        self._say(f"warning: {study_paper.NOTES[0].removeprefix('Warning: ')}")
        found, ground = {}, self.ground
        for model in self.models:
            states = self.states(model, pieces, ground.sounds, self.task.site)
            stage = study_paper.staged(ground, self.task, kept, states)
            found[model] = study_paper.found(workshop, model, stage)
        return study_paper.study(found, stage)

    # What they share.

    @cached_property
    def story(self) -> Story:
        from affectbench.alignment.story import reference_story

        return reference_story(self.task.simulated.sentences, seed=self.task.simulated.seed)

    @cached_property
    def ground(self) -> Ground:
        """The recordings of the task. Raises `AffectbenchError` where there are none."""
        if isinstance(self.task.source, SimulatedEeg):
            return self._simulated_ground()
        return self._recorded_ground

    @cached_property
    def _recorded_ground(self) -> RecordedGround:
        from affectbench.alignment.gathering import recorded_ground
        from affectbench.dataset import data_folder

        root = data_folder(f"task {self.task.name}", self.task.data or "", self.request.data)
        self.advance(f"looking into {root}", 0, 1)
        found = recorded_ground(self.task, root, self._say)
        self.advance(f"looking into {root}", 1, 1)
        return found

    def _instrument(self, made: Made) -> bool:
        """Whether an analysis says nothing about people, or about real models."""
        from affectbench.plan import card_of

        models = (made.model,) if made.model else self.models
        return isinstance(self.task.source, SimulatedEeg) or any(
            card_of(self.registry, model).instrument for model in models
        )

    def _heard_digest(self) -> dict[str, str]:
        """What the recordings follow from beside the task."""
        source = self.task.source
        if isinstance(source, SimulatedEeg):
            return {"planted": self.model_digest(source.model)}
        return {"recordings": self._recorded_ground.digest}

    def _simulated_ground(self) -> Ground:
        from affectbench.alignment.ground import SimulatedGround
        from affectbench.alignment.head import head_model
        from affectbench.alignment.simulation import Plant

        source, story = self.task.simulated, self.story
        states = list(self.states(source.model, story.pieces, story.sounds))
        if source.point >= len(states[0].points):
            raise AffectbenchError(
                f"task {self.task.name}: source.point {source.point}: {source.model} has "
                f"{len(states[0].points)}"
            )
        groups = None
        if self.task.answer_known:
            from affectbench.alignment.contribution import contributions

            engine = self.engine(source.model)
            states = contributions(engine, story.pieces, story.sounds, states, self.task.baseline)
            groups = tuple(piece.label for piece in story.pieces)
        planted = [each.at([source.point]) for each in states]  # Others need not be held, nor travel.
        return SimulatedGround(
            story, planted, Plant(0, source.lag, source.snr), head_model(source.montage),
            source.subjects, source.rate, source.seed, groups,
        )  # fmt: skip

    def engine(self, model: str) -> Engine:
        from affectbench.engine import Engine
        from affectbench.model_loading import load_from
        from affectbench.plan import card_of, checkpoint_of

        if model not in self._engines:
            card = card_of(self.registry, model)
            self._engines.clear()
            self.advance(f"loading {model}", 0, 1)
            self._engines[model] = Engine(
                load_from(self.registry, card, checkpoint_of(card), self.request.device)
            )
            self.advance(f"loading {model}", 1, 1)
        return self._engines[model]  # type: ignore[no-any-return]

    def states(
        self, model: str, pieces: Sequence[Any], sounds: Any, site: str = "residual"
    ) -> Iterator[States]:
        """States of one piece after the other, each heard when it is asked for."""
        from affectbench.alignment.listening import heard

        def tell(count: int) -> None:
            self.advance(f"{model} hears", count, len(pieces))

        for (each,) in heard(self.engine(model), pieces, sounds, site, progress=tell):
            yield each

    def reduced(self, model: str, pieces: Sequence[Any], site: str = "residual") -> Reduced:
        """Principal components of the states of pieces; the states themselves are in files meanwhile."""
        from affectbench.alignment.components import Reduced

        def tell(done: int, total: int) -> None:
            self.advance(f"{model}, components", done, total)

        states = self.states(model, pieces, self.ground.sounds, site)
        return Reduced.of(states, self.task.components, self.folder, tell)

    def is_control(self, model: str) -> bool:
        """Whether its card says that nothing is left of what was learned."""
        from affectbench.plan import card_of

        return bool(card_of(self.registry, model).control)

    def model_digest(self, model: str) -> str:
        from affectbench.model_loading import weights_digest
        from affectbench.plan import card_of, checkpoint_of

        card = card_of(self.registry, model)
        source = checkpoint_of(card)
        weights = weights_digest(card, source) if Path(source).is_dir() else card.loaded_from
        return digest_of([weights, card.dtype])

    def advance(self, what: str, done: int, total: int) -> None:
        if self._bars is None:
            return
        known = {task.description: task.id for task in self._bars.tasks}
        place = known.get(what)
        if place is None:
            place = self._bars.add_task(what, total=total)
        self._bars.update(place, completed=done, total=total)

    def _say(self, text: str) -> None:
        self.console.print(escape(text), highlight=False, soft_wrap=True)


def task_of(name: str, include: tuple[Path, ...]) -> AlignmentTask:
    """The alignment task of that name, or that of the suite."""
    registry = Registry(include)
    suite = registry.alignment_suite(name)
    return registry.alignment(suite.task if suite else name)


def align(console: Console, request: Request) -> None:
    """Make the analyses of a request and say where to look."""
    aligning = Aligning(request, console)
    found = aligning.run()
    if request.topomaps:
        from affectbench.alignment.topomap import write_topomaps

        for path in write_topomaps(found, aligning.folder):
            console.print(f"Map:   {escape(str(path))}", highlight=False, soft_wrap=True)
    console.print(
        f"Site:  python harness.py leaderboard --results {escape(str(aligning.folder))}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
