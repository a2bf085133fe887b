"""One cell: evidence -> selection -> interventions -> predictions -> scores -> record."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from affectbench.answering import Answering
from affectbench.cell_result import CellResult
from affectbench.errors import AffectbenchError
from affectbench.evidence import EvidencePass, Key
from affectbench.identifying import CellPlan, Identifying
from affectbench.intervention import ROLE_BIT
from affectbench.memory import peak_memory_mib
from affectbench.module_cell import module_findings, sizes_of
from affectbench.operating import judged, operating_of
from affectbench.outcomes import ADAPTED, ANSWER_WORDS, Outcomes, content_digest, of_labels
from affectbench.overlap import listed_units
from affectbench.pieces import Cost as EngineCost
from affectbench.preservation import Preserver
from affectbench.readout import Items
from affectbench.record import (
    Cost,
    ModelInfo,
    Operating,
    Provenance,
    Record,
    SelectionInfo,
    TaskInfo,
    now_iso,
)
from affectbench.recovery import recovery
from affectbench.replies import Replies
from affectbench.score_models import Arm, Calibration, PreservationScore, WordConfound
from affectbench.selector import TIE_RULE, Selection
from affectbench.session import Session
from affectbench.sites import COMPONENT, FEATURE, GATE, MODULE, NEURON
from affectbench.study import Study
from affectbench.targets import Dosing, Target, random_targets, site_parts, targets_of, with_differences
from affectbench.task import SPLITS
from affectbench.transfer import Carried
from affectbench.transfer import of_labels as selection_of_labels
from affectbench.word_score import bar, is_able

FELL_BACK = "identified_on_all_items"
FAILED_ITEMS = "failed_items"
NOT_REACHED = "fewer_items_than_asked_for"
JUDGE_FAILED = "replies_without_judgement"

Started = tuple[float, float, EngineCost]
"""Wall clock, CPU clock and engine cost when a cell began."""
Measured = tuple[Selection, dict[str, Outcomes], list[PreservationScore]]


@dataclass
class CellRun:
    """Runs one cell in a session. `requests` covers all cells of the session, so that one pass serves all;
    `progress` is called with (item, intervention) pairs as they are done."""

    session: Session
    plan: CellPlan
    model: ModelInfo
    task: TaskInfo
    provenance: Provenance
    requests: frozenset[Key]
    progress: Callable[[int], None] | None = None
    _replies: Replies | None = field(init=False, default=None)

    @property
    def _evidence(self) -> Identifying:
        return Identifying(self.session, self.plan, self.requests)

    def run(self) -> CellResult:
        """Run the cell. A selector that raises, or a model that fails, gives a record of status `error`."""
        started = time.monotonic(), time.process_time(), replace(self.session.engine.cost)
        try:
            return self._run(started)
        except AffectbenchError as error:
            return CellResult(self._record(started, "error", reason=str(error)), {}, None)
        except (RuntimeError, ValueError, ArithmeticError) as error:  # Out of memory is a RuntimeError.
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
            return CellResult(self._record(started, "error", reason=reason), {}, None)

    def replay(self) -> None:
        """Bring the session to where this cell left it when it was run by a process that was stopped.

        Its work is taken from the session's journal; what is damaged there is done again.
        """
        with suppress(AffectbenchError, RuntimeError, ValueError, ArithmeticError):
            if self.plan.carried is not None:
                self._transferred(self.plan.carried)
                return
            found, _ = self._evidence.collected()
            study = self._evidence.study(found)
            if not self._evidence.too_few(study):
                self._measured(found, study)

    def _run(self, started: Started) -> CellResult:
        flags = [FAILED_ITEMS] if self.session.failures else []
        if self.plan.carried is not None:
            return self._tested(started, self.plan.carried, flags)
        found, fell_back = self._evidence.collected()
        study = self._evidence.study(found)
        flags = [FELL_BACK, *flags] if fell_back else flags
        if self._evidence.short(study):
            flags.append(NOT_REACHED)
        reason = self._evidence.too_few(study)
        if reason:
            return CellResult(self._record(started, "insufficient", reason=reason, flags=flags), {}, None)
        selection, outcomes, kept = self._measured(found, study)
        record = self._scored(
            started, selection, outcomes, kept, flags, int(study.evidence.items.sum()),
            calibration=self._calibration(selection),
        )  # fmt: skip
        return CellResult(record, outcomes, selection, self._replies)

    def _tested(self, started: Started, carried: Carried, flags: list[str]) -> CellResult:
        """Test units that were identified on another benchmark."""
        if carried.selection is None:
            status = "error" if carried.error else "insufficient"
            return CellResult(self._record(started, status, reason=carried.reason, flags=flags), {}, None)
        selection, outcomes, kept = self._transferred(carried)
        record = self._scored(
            started, selection, outcomes, kept, flags, carried.items,
            carried=carried.operating, task=self._task_of(selection.labels),
        )  # fmt: skip
        return CellResult(record, outcomes, selection, self._replies)

    def _transferred(self, carried: Carried) -> Measured:
        """What is asked of the model under units from another benchmark: nothing on validation, which would
        tell of the benchmark they are tested on. All items are answered, those of shared labels are kept."""
        self._check_positions()
        selection = carried.selection
        if selection is None:
            raise AffectbenchError(carried.reason)
        preserver = self.session.preserver
        draws = random_targets(selection, self.plan.protocol.controls.random_draws, self.plan.cell.seed)
        dosing = self._dosing(lambda: self._evidence.collected()[0])
        whole = selection_of_labels(selection, self.session.benchmark.labels)
        answers = self._outcomes(self.session.items("test"), whole, draws, dosing)
        outcomes = {"test": of_labels(answers, selection.labels)}
        if self.plan.protocol.transfers:
            outcomes[ADAPTED] = of_labels(self._adapted(whole, dosing), selection.labels)
        self._keep_replies(whole, dosing)
        kept = self._preservation(preserver, selection, draws, dosing)
        if not self.session.no_answer_words(self.plan.protocol):
            words = self._answer_words(carried.operating, whole, dosing)
            outcomes[ANSWER_WORDS] = of_labels(words, selection.labels)
        return selection, outcomes, kept

    def _task_of(self, labels: Sequence[str]) -> TaskInfo:
        """The benchmark as far as these labels go; chance is that among all answers there are."""
        own = [self.session.benchmark.labels.index(label) for label in labels]
        items, clusters = {}, {}
        for split in SPLITS:
            all_items = self.session.items(split)
            kept = np.flatnonzero(np.isin(all_items.gold, own))
            items[split] = len(kept)
            clusters[split] = len({all_items.clusters[place] for place in kept})
        return self.task.model_copy(update={"labels": list(labels), "n_items": items, "n_clusters": clusters})

    def _measured(self, found: EvidencePass, study: Study) -> Measured:
        """The selection, and all that is asked of the model under its interventions."""
        self._check_positions()
        preserver = self.session.preserver  # What is wrong with its files shows before the long part.
        selection = self._select(study)
        if self.plan.protocol.needs_vectors:
            positions = self.plan.protocol.statistics.positions
            shuffled = self.plan.selector.shuffled
            selection = with_differences(
                selection, lambda site: found.evidence(site, positions, shuffled=shuffled)
            )
        draws = random_targets(selection, self.plan.protocol.controls.random_draws, self.plan.cell.seed)
        dosing = self._dosing(lambda: found)
        outcomes = {
            "validation": self._outcomes(self.session.items("validation"), selection, [], dosing),
            "test": self._outcomes(self.session.items("test"), selection, draws, dosing),
        }
        if self.plan.protocol.transfers:
            outcomes[ADAPTED] = self._adapted(selection, dosing)
        self._keep_replies(selection, dosing)
        kept = self._preservation(preserver, selection, draws, dosing)
        if not self.session.no_answer_words(self.plan.protocol):
            _, operating = operating_of(outcomes, kept, self.plan.cell.seed)
            outcomes[ANSWER_WORDS] = self._answer_words(operating, selection, dosing)
        return selection, outcomes, kept

    def _keep_replies(self, selection: Selection, dosing: Dosing) -> None:
        """The judged texts of the test items, where the task is to express."""
        if self.session.expressing is not None:
            self._replies = self.session.expressing.replies(
                self.session.items("test"), targets_of(selection), dosing, self._conditions
            )

    def _dosing(self, evidence: Callable[[], EvidencePass]) -> Dosing:
        """How targets are dosed. Units are replaced by their mean on the benchmark they are tested on."""
        protocol, means = self.plan.protocol, {}
        if self.plan.replaces_by_mean:
            found = evidence()
            for site in site_parts(protocol.site, self.session.model.site_shape(protocol.site)):
                means[site] = found.evidence(site, protocol.positions).overall_mean
        return Dosing(protocol, means)

    def _check_positions(self) -> None:
        """Where no item has such a token (a chat template that rewrites the prompt hides its content), the
        statistics would be zeros and the edits would do nothing."""
        protocol = self.plan.protocol
        for positions in sorted({protocol.positions, protocol.statistics.positions}):
            for split in ("identification", "test"):
                items = self.session.items(split).items
                if not any(bool((item.roles & ROLE_BIT[positions]).any()) for item in items):
                    raise AffectbenchError(
                        f"protocol {protocol.name} works at {positions} positions; no {split} item has any",
                        hint="choose a protocol with positions `all` or `answer`",
                    )

    def _select(self, study: Study) -> Selection:
        budget = max(1, round(self.plan.cell.fraction * study.shape.units))
        name = self.plan.cell.selector
        try:
            selection = self.plan.selector.select(study, budget)
        except (Exception, SystemExit) as error:  # Somebody else's code: whatever it raises is its result.
            raise AffectbenchError(f"selector {name!r} failed: {type(error).__name__}: {error}") from error
        if not isinstance(selection, Selection):
            raise AffectbenchError(
                f"selector {name!r} returned a {type(selection).__name__}, not a Selection"
            )
        if (selection.site, selection.shape, selection.labels) != (study.site, study.shape, study.labels):
            raise AffectbenchError(
                f"selector {name!r} returned a selection for another site, shape or label list",
                hint=f"expected site {study.site!r}, {study.shape}, labels {', '.join(study.labels)}",
            )
        try:
            selection.check_budget(study.shape.units if self.plan.selector.whole else budget)
        except AffectbenchError as error:
            raise AffectbenchError(f"selector {name!r}: {error.message}", hint=error.hint) from error
        return selection

    def _answer_words(self, operating: Operating, selection: Selection, dosing: Dosing) -> Outcomes:
        """The control's answers at the operating doses; without any where the model cannot do it."""
        items = self.session.answer_words
        base = self._outcomes(items, selection, [], dosing, [])
        if not is_able(base):
            return base
        chosen = {("suppress", operating.suppress_dose), ("amplify", operating.amplify_dose)}
        doses = [condition for condition in self._conditions if condition in chosen]
        return self._outcomes(items, selection, [], dosing, doses)

    @property
    def _conditions(self) -> list[tuple[Arm, float]]:
        arms = self.plan.protocol.arms
        suppress: list[tuple[Arm, float]] = [("suppress", dose) for dose in arms.suppress.doses]
        return suppress + [("amplify", dose) for dose in arms.amplify.doses]

    def _outcomes(
        self,
        items: Items,
        selection: Selection,
        draws: Sequence[Target],
        dosing: Dosing,
        doses: Sequence[tuple[Arm, float]] | None = None,
    ) -> Outcomes:
        """Predictions of the untouched model, of each target's intervention and of each random draw, at all
        doses or at these."""
        doses = self._conditions if doses is None else doses
        return Answering(self.session, dosing, self.progress).outcomes(items, selection, draws, doses)

    def _adapted(self, selection: Selection, dosing: Dosing) -> Outcomes:
        """What modules that are put into the base can give at most."""
        return Answering(self.session, dosing).adapted(self.session.items("test"), selection.labels)

    def _preservation(
        self, preserver: Preserver, selection: Selection, draws: Sequence[Target], dosing: Dosing
    ) -> list[PreservationScore]:
        return Answering(self.session, dosing).preserved(
            preserver, selection, draws, self._conditions, self.plan.cell.seed
        )

    def _scored(
        self,
        started: Started,
        selection: Selection,
        outcomes: dict[str, Outcomes],
        kept: list[PreservationScore],
        flags: list[str],
        identified: int,
        carried: Operating | None = None,
        **parts: Any,
    ) -> Record:
        parts |= judged(outcomes, kept, self.plan.cell.seed, carried)
        protocol = self.plan.protocol
        if selection.site == MODULE:
            sizes = sizes_of(selection, self.session.model.weight_changes.adapter_parameters)
            parts["modules"] = module_findings(sizes, outcomes, kept, seed=self.plan.cell.seed)
        if self._replies is not None:
            found = self.session.expression_of(
                self._replies, 0 if carried is not None else identified, self.plan.cell.seed
            )
            parts["expression"] = found
            flags = [*flags, *([JUDGE_FAILED] if found.failed else [])]
        if protocol.asks_answer_words and ANSWER_WORDS not in outcomes:
            reason = self.session.no_answer_words(protocol)
            parts["word_confound"] = WordConfound(bar=bar(len(selection.labels)), reason=reason)
        return self._record(
            started,
            selection=selection,
            predictions=content_digest(outcomes),
            identified=identified,
            flags=flags,
            **parts,
        )

    def _calibration(self, selection: Selection) -> Calibration | None:
        truth = self._truth(selection.site)
        scores = selection.scores
        if truth is None or set(truth["planted"]) != set(selection.labels):
            return None
        if scores is None:  # Ranks stand in for scores: units that were not named are tied at the bottom.
            scores = np.zeros((len(selection.labels), selection.shape.units))
            for row, units in enumerate(selection.units):
                scores[row, units] = np.arange(units.size, 0, -1)
        # -inf excludes a unit: it ranks below every other.
        finite = np.where(np.isfinite(scores), scores, np.nan)
        ranking = np.where(np.isnan(finite), np.nanmin(finite, initial=0.0) - 1.0, finite)
        planted = [truth["planted"][label] for label in selection.labels]
        decoys = [truth["decoys"][label] for label in selection.labels]
        return recovery(ranking, planted, decoys)

    def _truth(self, site: str) -> Mapping[str, Any] | None:
        """The units of a site that are known to carry each emotion, if some were planted."""
        model = self.session.model
        if site in (GATE, NEURON):
            return model.planted()
        if site == COMPONENT and (known := model.planted()) is not None:
            shape = model.site_shape(site)
            return {
                kind: {label: shape.within(NEURON, np.array(units)) for label, units in known[kind].items()}
                for kind in ("planted", "decoys")
            }
        return model.dictionary.planted() if site == FEATURE and model.dictionary is not None else None

    def _record(
        self,
        started: Started,
        status: str = "",
        *,
        selection: Selection | None = None,
        predictions: str = "",
        identified: int = 0,
        **parts: Any,
    ) -> Record:
        wall, cpu, spent = started
        now = self.session.engine.cost
        cost = Cost(
            wall_s=time.monotonic() - wall + now.wall_s - spent.wall_s,
            cpu_s=time.process_time() - cpu + now.cpu_s - spent.cpu_s,
            forward_passes=now.forward_passes - spent.forward_passes,
            items_forwarded=now.items_forwarded - spent.items_forwarded,
            identification_items=identified,
            halvings=now.halvings - spent.halvings,
            peak_memory_mib=peak_memory_mib(),
        )
        info = None
        if selection is not None:
            info = SelectionInfo(
                units_per_emotion=[units.size for units in selection.units],
                units=[listed_units(units) for units in selection.units],
                layer_histogram=[selection.shape.histogram(units).tolist() for units in selection.units],
                ties=TIE_RULE,
            )
        digest = selection.digest if selection is not None else ""
        content: dict[str, Any] = {
            "cell": self.plan.cell,
            "status": status,
            "control": self.plan.selector.control,
            "evidence": sorted(self.plan.selector.needs),
            "protocol_version": self.plan.protocol.version,
            "hashes": self.plan.hashes.model_copy(
                update={
                    "selection": digest,
                    "predictions": predictions,
                    "replies": self._replies.digest if self._replies is not None else "",
                }
            ),
            "model": self.model,
            "task": self.task,
            "selection": info,
            "cost": cost,
            "provenance": self.provenance.model_copy(
                update={"finished": now_iso(), "batch_size": self.session.engine.tokens}
            ),
        }
        return Record.model_validate({key: value for key, value in (content | parts).items() if value != ""})
