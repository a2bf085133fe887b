"""What a cell identifies its units with: statistics that it needs, on which items; what a selector sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from affectbench.evidence import MEAN, EvidencePass, Key, merged, requests_of
from affectbench.intervention import Intervention
from affectbench.readout import Predictions
from affectbench.record import Cell, Hashes, Identification
from affectbench.selector import Selector
from affectbench.session import Session
from affectbench.sites import COMPONENT, COMPONENT_PARTS
from affectbench.study import Study
from affectbench.task import InterventionProtocol
from affectbench.transfer import Carried


@dataclass(frozen=True)
class CellPlan:
    """A cell with the objects that its names stand for and the hashes known before it runs; with what it
    takes over where its units were identified on another benchmark."""

    cell: Cell
    protocol: InterventionProtocol
    selector: Selector
    hashes: Hashes
    carried: Carried | None = None

    @property
    def requests(self) -> frozenset[Key]:
        """The statistics this cell needs."""
        site, statistics = self.protocol.site, self.protocol.statistics.positions
        needs = self.selector.needs if self.carried is None else frozenset()
        found = requests_of(needs, site, statistics)
        for part in COMPONENT_PARTS if site == COMPONENT else (site,):
            if self.replaces_by_mean:
                found |= requests_of({MEAN}, part, self.protocol.positions)
            if self.protocol.needs_vectors and self.carried is None:
                found |= requests_of({MEAN}, part, statistics)
        return found

    @property
    def replaces_by_mean(self) -> bool:
        """Whether units are replaced by their mean, over the positions that are edited."""
        return self.protocol.arms.suppress.operation == "mean"


@dataclass(frozen=True)
class Identifying:
    """The evidence for one cell in a session. `requests` covers all cells of the session, so that one pass
    serves all."""

    session: Session
    plan: CellPlan
    requests: frozenset[Key]

    def too_few(self, study: Study) -> str:
        """Why there is too little to select from; empty where there is enough."""
        least, needed = int(study.evidence.items.min()), self.plan.protocol.statistics.minimum_items
        if self.sample is not None:
            needed = min(needed, self.sample.items or needed)
        if least >= needed:
            return ""
        label = study.labels[int(study.evidence.items.argmin())]
        return f"{least} usable identification items for {label!r}, {needed} needed"

    def collected(self) -> tuple[EvidencePass, bool]:
        """The evidence pass, and whether too few correct answers made it use all items."""
        wanted = self.plan.protocol.statistics
        mine = self.requests | self.plan.requests
        seed = self.plan.cell.seed
        if self.sample is not None:
            return self._sampled(mine, self.sample)
        if wanted.items == "all":
            return self.session.collect(mine, correct_only=False, seed=seed, progress=None), False
        if wanted.items == "correct_or_all" and self._accepted() < wanted.minimum_items:
            return self.session.collect(mine, correct_only=False, seed=seed, progress=None), True
        found = self.session.collect(mine, correct_only=True, seed=seed, progress=None)
        fewest = int(found.counted[: len(self.session.benchmark.labels)].min())
        if wanted.items == "correct_or_all" and fewest < wanted.minimum_items:
            return self.session.collect(mine, correct_only=False, seed=seed, progress=None), True
        return found, False

    def _accepted(self) -> float:
        """How many groups of replies a judge accepts; without limit where answers are read."""
        if self.session.expressing is None:
            return math.inf
        return int(self.session.usable(True).sum()) / len(self.session.benchmark.labels)

    @property
    def sample(self) -> Identification | None:
        """The sample of the benchmark's own items that units are identified on, if there is one."""
        origin = self.plan.cell.identification
        return origin if origin is not None and origin.items is not None and not origin.task else None

    def _sampled(self, requests: frozenset[Key], sample: Identification) -> tuple[EvidencePass, bool]:
        """As `collected` for a sample; whether correct answers are enough is judged on all items, so that the
        items of all budgets are chosen in one way."""
        wanted, gold = self.plan.protocol.statistics, self.session.items("identification").gold
        right = np.bincount(gold[self.session.usable(True)], minlength=len(self.session.benchmark.labels))
        fell_back = wanted.items == "correct_or_all" and int(right.min()) < wanted.minimum_items
        correct = wanted.items != "all" and not fell_back
        seed = self.plan.cell.seed
        found = self.session.collect(requests, correct_only=correct, seed=seed, progress=None, sample=sample)
        return found, fell_back

    def study(self, found: EvidencePass) -> Study:
        """All that the cell's selector may see."""
        site, positions = self.plan.protocol.site, self.plan.protocol.statistics.positions
        expressing = self.session.expressing
        # What other cells asked for is out of reach, or a selector's result would depend on its company.
        needed: dict[str, set[str]] = {site: set()}
        for at, where, statistic in self.plan.requests:
            if where == positions:
                needed.setdefault(at, set()).add(statistic)
        return Study(
            evidence=found.evidence(site, positions).only(needed[site]),
            shuffled=found.evidence(site, positions, shuffled=True).only(needed.pop(site)),
            others={at: found.evidence(at, positions).only(names) for at, names in needed.items()},
            others_shuffled={
                at: found.evidence(at, positions, shuffled=True).only(names) for at, names in needed.items()
            },
            engine=self.session.engine,
            items=found.items,
            readout=found.readout,
            seed=self.plan.cell.seed,
            mode=self.plan.protocol.mode,
            ask=lambda edits: self._answers(found, edits),
            neutral=expressing.plain(found.items) if expressing is not None else None,
        )

    def _answers(self, found: EvidencePass, edits: Sequence[Intervention]) -> Predictions:
        if self.session.expressing is not None:
            return self.session.expressing.predict(found.items, edits)
        return self.session.engine.predict(found.items, found.readout, edits)

    def short(self, study: Study) -> bool:
        """Whether an emotion has fewer items than the sample was to have."""
        wanted = self.sample.items if self.sample is not None else None
        return wanted is not None and int(study.evidence.items.min()) < wanted


def all_requests(plans: Sequence[CellPlan]) -> frozenset[Key]:
    """The statistics that all of `plans` need together."""
    return merged([plan.requests for plan in plans])
