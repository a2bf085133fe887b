"""The evidence for and against one module type: what each experiment found, and what follows from all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from affectbench.analysis import Finding
from affectbench.module_analysis import Made
from affectbench.module_edit import Overlay, Pair
from affectbench.module_experiments import (
    SINGLE,
    Alone,
    Design,
    Measured,
    Mode,
    Recipe,
    Told,
    Trained,
    changes_of_pair,
    damage_conditions,
    measure,
    shuffled,
    train,
    transfer_conditions,
    whole,
)
from affectbench.module_pairs import Changes
from affectbench.module_report import (
    GATE,
    TESTS,
    Scores,
    adaptation_curve,
    adaptation_table,
    change_finding,
    change_lead,
    change_matrix,
    change_table,
    damage_matrix,
    damage_table,
    difference_finding,
    drops,
    kept_of,
    margin,
    recoveries,
    scores_of,
    specificities,
    stands_out,
    transfer_table,
    verdict_finding,
)
from affectbench.module_score import Quantity
from affectbench.module_store import Adaptations
from affectbench.module_types import Modules
from affectbench.session import Session

AS_PUBLISHED = (
    "Tests as far as the paper is known. Zeroing gate, up or down is one and the same damage, and breaks the "
    "language model; a Frobenius norm is larger for larger matrices; one learning rate may suit one type."
)
NOISE, MATCHED = "random change of equal norm", "equal parameters"


@dataclass
class Group:
    """Adaptations to one task, one a seed: the emotion task's, or the control's. Where they learnt nothing,
    there is nothing to compare with."""

    label: str
    session: Session
    pairs: tuple[Pair, ...]
    learnt: bool = True
    changes: list[Changes] = field(init=False)

    def __post_init__(self) -> None:
        self.changes = [changes_of_pair(pair) for pair in self.pairs]


@dataclass
class Evidence:
    """Runs the experiments on groups; the first is the task's, a second the control's.

    Each method asks the models what it needs and gives the parts of one analysis; `verdict` comes last.
    """

    seed: int
    groups: Sequence[Group]
    told: Told | None = None
    mode: Mode = "sound"
    leads: dict[str, Quantity] = field(default_factory=dict)
    """How far gate is above the best other type, by test; on the control with the word before it."""

    @property
    def modules(self) -> Modules:
        return self.groups[0].pairs[0].modules

    @property
    def design(self) -> Design:
        return Design.of(self.mode)

    @property
    def has_gate(self) -> bool:
        return GATE in self.modules.types

    def _lead(self, group: int, test: str, scores: Scores, what: str) -> list[Finding]:
        """The finding whether gate stands out in a test, which the verdict remembers."""
        rivals = [kind for kind in SINGLE if kind in scores and kind != GATE]
        if GATE not in scores or not rivals or not self.groups[group].learnt:
            return []
        name = test if group == 0 else f"control-{test}"
        self.leads[name] = margin(scores)
        return [stands_out(scores, f"{self.groups[group].label}, {what}", f"gate-{name}")]

    def change(self) -> Made:
        """How much the weights of each type changed."""
        made, metric = Made(), self.design.metric
        for place, group in enumerate(self.groups):
            tag = "" if place == 0 else "-control"
            made.tables.append(change_table(group.label, f"change{tag}", group.changes, metric))
            made.matrices.append(change_matrix(group.label, f"layers{tag}", group.changes, metric))
            if not group.learnt:
                made.findings.append(
                    Finding(
                        name=f"not-learnt{tag}",
                        text=f"{group.label}: the adaptation learnt nothing within its budget, by validation "
                        "items: nothing follows from it.",
                    )
                )
            elif self.has_gate:
                made.findings.append(change_finding(group.label, f"gate-change{tag}", group.changes, metric))
                lead = change_lead(group.changes, self.seed, place, metric)
                if lead is not None:
                    self.leads["change" if place == 0 else "control-change"] = lead
            other = max(changes.other for changes in group.changes)
            if other:
                made.notes.append(
                    f"{group.label}: what is of no module type (embeddings, norms, biases) changed too, "
                    f"by a Frobenius norm of up to {other:.3g}."
                )
        made.notes.append("How large a change is says nothing of what it does: see transfer and damage.")
        return made

    def transfer(self) -> Made:
        """What the base gains from the adapted weights of some types."""
        made = Made()
        for place, group in enumerate(self.groups):
            tag = "" if place == 0 else "-control"
            other = any(changes.other for changes in group.changes)
            conditions = transfer_conditions(self.modules, self.design.transfers, other)
            measured = measure(group.session, group.pairs, conditions, told=self.told)
            scores = scores_of(group.session, measured, self.seed, place)
            title = f"Transfer of module types, {group.label}"
            made.tables.append(transfer_table(title, f"transfer{tag}", scores, self.modules))
            found = recoveries(scores)
            made.findings += self._lead(place, "transfer", found, "recovery R by transfer alone")
            for more in ("gate+down", "attn+gate"):
                if more in found and GATE in found:
                    text = f"{group.label}: recovery of {more} less that of gate alone"
                    name = f"{more.replace('+', '-')}{tag}"
                    made.findings.append(difference_finding(text, name, found[more] - found[GATE]))
            if not found:
                gain = (scores["adapted"] - scores["none"]).estimate()
                made.findings.append(
                    Finding(
                        name=f"no-gain{tag}",
                        text=f"{group.label}: the adaptation gains too little to be shared out.",
                        value=gain,
                    )
                )
        return made

    def necessity(self) -> Made:
        """What the adapted model loses under damage."""
        made = Made()
        for place, group in enumerate(self.groups):
            tag = "" if place == 0 else "-control"
            conditions = damage_conditions(self.modules, self.design)
            measured = measure(group.session, group.pairs, conditions, capability=True, told=self.told)
            scores = scores_of(group.session, measured, self.seed, place)
            kept = kept_of(measured, self.seed, 2 + place)
            title = f"Damage to module types, {group.label}"
            made.tables.append(damage_table(title, f"damage{tag}", scores, kept, self.modules, self.design))
            drop = f"Drop in UAR, {group.label}"
            made.matrices.append(damage_matrix(drop, f"drops{tag}", scores, self.modules, self.design))
            if self.mode == "paper":
                made.findings += self._lead(place, "necessity", drops(scores, "zero"), "drop when zeroed")
                continue
            made.findings += self._lead(place, "necessity", drops(scores, "reset"), "drop when reset to base")
            # Without gate, up or down an MLP gives nothing, so zeroing cannot tell them apart.
            specific = specificities(scores, kept, "noise")
            what = "drop when the change is noise, less the capability's"
            made.findings += self._lead(place, "specificity", specific, what)
        return made

    def adaptation(self, store: Adaptations, everything: Trained, recipe: Recipe) -> Made:
        """What types learn alone, at equal rank and with as many parameters as gate has. Weights that are
        trained themselves cannot be matched: there, at equal budget only."""
        told, session = self.told, store.session
        alone = Alone.of(self.modules, recipe.rank, self.design)

        def trained(name: str, rank: int) -> Trained:
            return train(store, name, recipe, self.modules, rank=rank, told=told)

        equal = {"all": everything} | {
            name: trained(name, rank) for name, rank in alone.equal.items() if name != "all"
        }
        matched = [
            equal[name] if rank == alone.equal[name] else trained(name, rank)
            for name, rank in alone.matched.items()
        ]
        control = shuffled(store, everything, recipe, told)
        rows = dict(equal)
        rows |= {f"{each.name}, {MATCHED}": each for each in matched}
        rows[control.name] = control
        scores = self._adapted_scores(session, everything, rows)
        made = Made(
            tables=[adaptation_table("Adapted alone", "adaptation", rows, scores)],
            curves=[
                adaptation_curve("Adapted alone at equal rank: validation", "curves", list(equal.values()))
            ],
        )
        if alone.fused:
            made.notes.append(f"Fused with other types, so not trained alone: {', '.join(alone.fused)}.")
        made.findings += self._lead(0, "adaptation", scores, "UAR when adapted alone at equal rank")
        if self.design.matched:
            alike = {each.name: scores[f"{each.name}, {MATCHED}"] for each in matched}
            made.findings += self._lead(0, "matched", alike, "UAR when adapted alone with equal parameters")
        for tag, name in (("shuffled", control.name), ("noise", NOISE)):
            gain = scores[name] - scores["none"]
            text = f"Control, {name}: gain over the base"
            made.findings.append(difference_finding(text, f"{tag}-gain", gain))
        return made

    def _adapted_scores(self, session: Session, everything: Trained, rows: dict[str, Trained]) -> Scores:
        """UAR of the base, of every row, and of the full adaptation replaced by noise of its size."""
        found = [
            measure(session, everything.pairs, {"none": lambda _pair, _place: Overlay()}, told=self.told)
        ]
        for name, each in rows.items():
            found.append(
                measure(session, each.pairs, {name: lambda pair, _place: whole(pair)}, told=self.told)
            )
        types = everything.types

        def noise(pair: Pair, place: int) -> Overlay:
            return whole(pair, damaged=types, operation="noise", seed=place)

        found.append(measure(session, everything.pairs, {NOISE: noise}, told=self.told))
        names = tuple(name for each in found for name in each.names)
        joined = Measured(names, np.concatenate([each.codes for each in found]))
        return scores_of(session, joined, self.seed, 0)

    def verdict(self) -> Made:
        """Whether gate stands out in every test, and more than it does on the control."""
        if not self.has_gate:
            return Made(findings=[Finding(name="no-gate", text="This model's MLP has no gate.")])
        made, titles = Made(findings=[verdict_finding(self.leads, self.mode)]), TESTS[self.mode]
        if self.mode == "paper":
            made.notes.append(AS_PUBLISHED)
        for test, lead in self.leads.items():
            if test.startswith("control-"):
                continue
            made.findings.append(
                difference_finding(f"{titles[test]}: lead of gate over the best other type", test, lead)
            )
            control = self.leads.get(f"control-{test}")
            if control is not None:
                text = f"{titles[test]}: the lead less that on the control task"
                made.findings.append(difference_finding(text, f"{test}-against-control", lead - control))
        return made
