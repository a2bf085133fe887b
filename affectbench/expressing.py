"""Expression in a session: what the model writes to scenarios under interventions, and what a judge says.

Suppression is seen on elicited prompts, which demand an emotion; amplification on plain ones, which demand
none and are shared by all emotions of a scenario and outcome. So each arm has a base of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from affectbench.benchmark import ExpressionBenchmark
from affectbench.dataset import Dataset
from affectbench.emotion_words import STEMS, masked, names, says_noun
from affectbench.examples import Example
from affectbench.intervention import UNTOUCHED, Intervention
from affectbench.judges.judgement import Judge, Judgement
from affectbench.outcomes import ERROR, Array, Condition, Outcomes
from affectbench.pieces import Progress
from affectbench.preservation import degenerate
from affectbench.prompts import plain_prompt
from affectbench.readout import FAILED, Codes, IntArray, Items, Predictions, decode_texts
from affectbench.replies import COLUMNS, Replies
from affectbench.score_models import Arm
from affectbench.targets import Dosing, Target
from affectbench.text_measures import Topicality
from affectbench.writing import Writer

Conditions = Sequence[tuple[Arm, float]]


class Judged(NamedTuple):
    """Texts, codes, whether the token limit was hit, and why there is no judgement; each (K, N)."""

    texts: Array
    codes: Codes
    capped: Array
    failures: Array


@dataclass
class Expressing:
    """Writes and judges for one session. A text is judged once, unless the judge failed."""

    task: ExpressionBenchmark
    dataset: Dataset
    writer: Writer
    judge: Judge
    _said: dict[str, Judgement] = field(init=False, default_factory=dict)
    _plain: dict[str, Items] = field(init=False, default_factory=dict)

    @cached_property
    def _examples(self) -> dict[str, Example]:
        return {each.id: each for split in self.dataset.splits.values() for each in split}

    @cached_property
    def _topicality(self) -> Topicality:
        return Topicality([str(each.text) for each in self._examples.values()])

    def group(self, item: str) -> str:
        """What an elicited item shares with those of the other emotions: scenario and outcome."""
        return item[: -len(self._examples[item].label) - 2]

    def plain(self, items: Items) -> Items:
        """One plain prompt for each group of elicited items, in the order of its first."""
        if items.digest not in self._plain:
            first: dict[str, str] = {}
            for item in items.ids:
                first.setdefault(self.group(item), item)
            model, kept = self.writer.engine.model, []
            for group, item in first.items():
                example = self._examples[item]
                prepared = model.prepare(example, plain_prompt(self.task, example))
                kept.append(type(prepared)(group, prepared.ids, prepared.roles))
            gold = np.zeros(len(kept), dtype=np.int64)
            gold.setflags(write=False)
            clusters = tuple(self._examples[item].cluster for item in first.values())
            self._plain[items.digest] = Items(f"{items.split}:plain", tuple(kept), gold, clusters)
        return self._plain[items.digest]

    def judged(
        self, items: Items, interventions: Sequence[Intervention], progress: Progress | None = None
    ) -> Judged:
        """What the model writes to prompts under interventions, judged."""
        tokens = self.writer.write(items, interventions, progress)
        shape = tokens.shape[:2]
        rows = tokens.reshape(-1, tokens.shape[-1])
        texts = [text.strip() for text in decode_texts(self.writer.engine.model, torch.as_tensor(rows))]
        failed = (rows == FAILED).any(axis=1)
        said = self.judgements(texts)
        codes = np.array([each.code for each in said], dtype=np.int8)
        failures = np.array([each.failure for each in said], dtype=object)
        return Judged(
            np.array(texts, dtype=object).reshape(shape),
            np.where(failed, ERROR, codes).astype(np.int8).reshape(shape),
            np.all(rows >= 0, axis=1).reshape(shape),
            np.where(failed, "model", failures).reshape(shape),
        )

    def judgements(self, texts: Sequence[str]) -> list[Judgement]:
        """What the judge says of texts, each asked about once; failures are asked about again."""
        fresh = [text for text in dict.fromkeys(texts) if text not in self._said]
        found = dict(zip(fresh, self.judge.judge(fresh), strict=True))
        self._said.update({text: said for text, said in found.items() if said.code != ERROR})
        return [self._said.get(text) or found[text] for text in texts]

    def accepted(self, items: Items) -> Array:
        """(N,) which elicited items belong to a group whose replies all express what was demanded."""
        right = self.judged(items, [UNTOUCHED]).codes[0] == items.gold
        groups = [self.group(item) for item in items.ids]
        count: dict[str, int] = {}
        for group, ok in zip(groups, right, strict=True):
            count[group] = count.get(group, 0) + int(ok)
        return np.array([count[group] == len(self.task.labels) for group in groups])

    def predict(self, items: Items, interventions: Sequence[Intervention]) -> Predictions:
        """Judgements as predictions; there are no scores."""
        codes = self.judged(items, interventions).codes
        return Predictions(codes, np.full((*codes.shape, len(self.task.labels)), np.nan, dtype=np.float32))

    def outcomes(
        self,
        items: Items,
        targets: Sequence[Target],
        draws: Sequence[Target],
        dosing: Dosing,
        doses: Conditions,
        progress: Progress | None = None,
    ) -> Outcomes:
        """Judgements of elicited items without edit and suppressed, of plain ones without edit and amplified;
        an answer to a plain prompt counts once for each emotion."""
        labels, n = self.task.labels, len(items)
        plain, place = self.plain(items), self._places(items)
        base = self.judged(items, [UNTOUCHED]).codes[0]
        calm = self.judged(plain, [UNTOUCHED]).codes[0][place]
        conditions = []
        for arm, dose in doses:
            edits = [dosing.of(arm, dose, target) for target in (*targets, *draws)]
            if arm == "suppress":
                codes = self.judged(items, edits, progress).codes
            else:
                codes = self.judged(plain, edits, progress).codes[:, place]
            no_margin = np.full((len(labels), n), np.nan, dtype=np.float32)
            answers, drawn = codes[: len(targets)], codes[len(targets) :]
            alpha = dosing.protocol.alpha(arm, dose)
            own = None if arm == "suppress" else calm
            conditions.append(Condition(arm, dose, alpha, answers, no_margin, drawn, base=own))
        return Outcomes(
            labels=labels,
            items=np.array(items.ids),
            gold=items.gold,
            clusters=np.array(items.clusters),
            base=base,
            base_margin=np.full((n, len(labels)), np.nan, dtype=np.float32),
            conditions=tuple(conditions),
        )

    def replies(self, items: Items, targets: Sequence[Target], dosing: Dosing, doses: Conditions) -> Replies:
        """All texts of `outcomes` but those under random units, with what is measured of each."""
        plain = self.plain(items)
        blocks = [
            self._block("elicited", items, "base", np.nan, "", UNTOUCHED),
            self._block("plain", plain, "base", np.nan, "", UNTOUCHED),
        ]
        for arm, dose in doses:
            shown = ("elicited", items) if arm == "suppress" else ("plain", plain)
            for label, target in zip(self.task.labels, targets, strict=True):
                blocks.append(self._block(*shown, arm, dose, label, dosing.of(arm, dose, target)))
        return Replies(
            self.task.labels, {name: np.concatenate([block[name] for block in blocks]) for name in COLUMNS}
        )

    def _block(
        self, prompt: str, items: Items, condition: str, dose: float, target: str, edit: Intervention
    ) -> dict[str, Array]:
        n, labels = len(items), list(self.task.labels)
        found = self.judged(items, [edit])
        texts = list(found.texts[0])
        aim = labels.index(target) if target else -1
        gold = items.gold if prompt == "elicited" else np.full(n, aim)
        aims = [labels[k] if k >= 0 else "" for k in gold]
        chat = bool(getattr(self.writer.engine.model.tokenizer, "chat_template", None))
        contexts = [str(self._examples[self._example_of(item)].text) for item in items.ids]
        words = {
            "prompt": [prompt] * n, "condition": [condition] * n, "target": [target] * n,
            "item": items.ids, "cluster": items.clusters, "text": texts, "failure": found.failures[0],
        }  # fmt: skip
        return {name: np.array(list(values), dtype=object) for name, values in words.items()} | {
            "dose": np.full(n, dose),
            "gold": gold.astype(np.int16),
            "code": found.codes[0].astype(np.int16),
            "masked_code": np.array(
                [each.code for each in self.judgements([masked(text) for text in texts])], dtype=np.int16
            ),
            "noun": np.array(
                [bool(aim) and says_noun(text, aim) for text, aim in zip(texts, aims, strict=True)]
            ),
            "stem": np.array(
                [aim in STEMS and names(text, aim) for text, aim in zip(texts, aims, strict=True)]
            ),
            "degenerate": np.array(
                [
                    degenerate(text, endless=chat and bool(cut))
                    for text, cut in zip(texts, found.capped[0], strict=True)
                ]
            ),
            "capped": found.capped[0],
            "topicality": self._topicality.of(texts, contexts).astype(np.float32),
        }

    def _example_of(self, item: str) -> str:
        """An elicited item's own id; for a plain one, that of the first emotion."""
        return item if item in self._examples else f"{item}__{self.task.labels[0]}"

    def _places(self, items: Items) -> IntArray:
        """(N,) which plain item each elicited one belongs to."""
        known = {group: place for place, group in enumerate(self.plain(items).ids)}
        return np.array([known[self.group(item)] for item in items.ids], dtype=np.int64)
