"""What is asked of a model in a cell: answers, or judged replies, under every intervention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from affectbench.injection import Injection
from affectbench.intervention import Intervention
from affectbench.outcomes import Condition, Outcomes, Steered
from affectbench.preservation import Preserver
from affectbench.readout import Items, margins_of
from affectbench.score_models import Arm, PreservationScore
from affectbench.selector import Selection
from affectbench.session import Session
from affectbench.sites import MODULE
from affectbench.targets import Dosing, Target, targets_of
from affectbench.task import SplitName

JUDGING: tuple[SplitName, ...] = ("validation", "test")
"""Splits that are also answered untold of the emotion: doses of that are chosen on the first."""


@dataclass(frozen=True)
class Answering:
    """Asks a session under interventions as `dosing` makes them; `progress` is told of what was answered."""

    session: Session
    dosing: Dosing
    progress: Callable[[int], None] | None = None

    def outcomes(
        self,
        items: Items,
        selection: Selection,
        draws: Sequence[Target],
        doses: Sequence[tuple[Arm, float]],
    ) -> Outcomes:
        """Predictions of the untouched model, of each target's intervention and of each random draw."""
        own_targets, expressing = targets_of(selection), self.session.expressing
        if expressing is not None:
            return expressing.outcomes(items, own_targets, draws, self.dosing, doses, self.progress)
        session = self.session
        base, base_margin = session.base(items)
        sets = [*own_targets, *draws]
        interventions = [self.dosing.of(arm, dose, target) for arm, dose in doses for target in sets]
        if interventions:
            found = session.engine.predict(items, session.readout, interventions, self.progress)
        targets = len(selection.labels)
        injection = Injection(session.engine, items, session.readout, self.dosing, self.progress)
        conditions = []
        for place, (arm, dose) in enumerate(doses):
            rows = slice(place * len(sets), (place + 1) * len(sets))
            codes, margins = found.codes[rows], margins_of(found.scores[rows][:targets])
            own = np.stack([margins[target, :, target] for target in range(targets)])
            answers, drawn = codes[:targets], codes[targets:]
            steered: tuple[Steered, ...] = ()
            if arm == "amplify" and any(items is session.items(split) for split in JUDGING):
                steered = injection.steered(dose, own_targets, draws, answers, drawn)
            conditions.append(
                Condition(arm, dose, self.dosing.protocol.alpha(arm, dose), answers, own, drawn, steered)
            )
        return Outcomes(
            labels=selection.labels,
            items=np.array(items.ids),
            gold=items.gold,
            clusters=np.array(items.clusters),
            base=base,
            base_margin=base_margin,
            conditions=tuple(conditions),
        )

    def adapted(self, items: Items, labels: tuple[str, ...]) -> Outcomes:
        """What the other side of a pair answers, without intervention."""
        with self.session.model.weight_changes.crossed():
            codes, margins = self.session.base(items)
        return Outcomes(
            labels, np.array(items.ids), items.gold, np.array(items.clusters), codes, margins, conditions=()
        )

    def preserved(
        self,
        preserver: Preserver,
        selection: Selection,
        draws: Sequence[Target],
        doses: Sequence[tuple[Arm, float]],
        seed: int,
    ) -> list[PreservationScore]:
        """What is left of the language model at these doses, over all emotions that have units; and where all
        are amplified at once. Amplifying the emotion that is answered (`two_pass`) keeps what the ordinary
        doses keep, and `mix` differs from item to item. Damage to modules breaks what is not emotion too, so
        the suppress arm there has the capability under random `draws` beside it."""
        targets = [target for target in targets_of(selection) if any(each.units.size for each in target)]
        asked = [(arm, dose, [self.dosing.of(arm, dose, each) for each in targets]) for arm, dose in doses]
        unions = []
        if "union" in self.dosing.protocol.arms.amplify.targeting and targets:
            amplified = [(arm, dose) for arm, dose in doses if arm == "amplify"]
            unions = [(arm, dose, [self.dosing.union(targets, dose)]) for arm, dose in amplified]
        random: dict[tuple[Arm, float], list[Intervention]] = {
            (arm, dose): [self.dosing.of(arm, dose, draw) for draw in draws]
            for arm, dose in doses
            if selection.site == MODULE and arm == "suppress" and not self.dosing.protocol.transfers
        }
        found = preserver.measure([*asked, *unions], seed, random)
        at_once = [each.model_copy(update={"targeting": "union"}) for each in found[len(asked) :]]
        return [*found[: len(asked)], *at_once]
