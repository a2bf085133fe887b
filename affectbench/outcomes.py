"""What a cell's predictions look like before they are scored, checked when built."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from affectbench.errors import ScoreError
from affectbench.score_models import Targeting

UNPARSED, ERROR, OTHER = -1, -2, -3
"""Prediction codes beside the label indices 0..E-1. All count as wrong, the first two are counted.

`OTHER` is a label that the model may answer and that is not scored: a transferred selection has units for
the labels of both benchmarks only.
"""
Array = npt.NDArray[Any]
ANSWER_WORDS = "answer_words"
"""The name of that control's items among the splits of a cell's predictions."""
ADAPTED = "adapted"
"""The test items again: what the model answers that a base's modules come from, without conditions."""


@dataclass(frozen=True)
class Steered:
    """Answers with units amplified by a rule that knows no gold label: (N,) codes, and (R, N) with random
    units in the emotions' places."""

    targeting: Targeting
    answers: Array
    draws: Array


@dataclass(frozen=True)
class Condition:
    """Predictions under one (arm, dose), for each target emotion and each random draw.

    Attributes:
        arm: "suppress" or "amplify".
        dose: the operation's own number (a factor for `scale`).
        alpha: distance from no intervention, 0 = none; the x axis of steering strength.
        predictions: (E, N) codes; row s is the intervention that targets emotion s.
        margin: (E, N) logit of target s minus the largest other label's; NaN where there is none.
        draws: (R, N) codes under R random layer-matched selections; R may be 0.
        steered: answers under each label-free targeting that was run.
        base: (N,) codes without intervention that this condition is compared with, where those are not the
            outcomes' own: it was asked another question, which calls for no emotion. Then it is no collapse
            if all items answer its target.
    """

    arm: str
    dose: float
    alpha: float
    predictions: Array
    margin: Array
    draws: Array
    steered: tuple[Steered, ...] = ()
    base: Array | None = None

    def items_at(self, places: Array) -> Condition:
        """The condition for the items at these places, in this order."""
        return replace(
            self,
            predictions=self.predictions[:, places],
            margin=self.margin[:, places],
            draws=self.draws[:, places],
            steered=tuple(
                Steered(each.targeting, each.answers[places], each.draws[:, places]) for each in self.steered
            ),
            base=None if self.base is None else self.base[places],
        )

    @property
    def name(self) -> str:
        """How messages call this condition, e.g. "amplify 2"."""
        return f"{self.arm} {self.dose:g}"


@dataclass(frozen=True)
class Outcomes:
    """All predictions of one cell on one split.

    Attributes:
        labels: the E emotions, in the benchmark's order.
        items: (N,) item ids, each once.
        gold: (N,) label indices.
        clusters: (N,) speaker, dialogue or document of each item; strings or integers.
        base: (N,) codes without intervention.
        base_margin: (N, E) logit of each label minus the largest other label's; NaN where there is none.
        conditions: one for each (arm, dose).

    Raises:
        ScoreError: shapes or codes that do not fit, an id or a condition that comes twice, infinite margins.
    """

    labels: tuple[str, ...]
    items: Array
    gold: Array
    clusters: Array
    base: Array
    base_margin: Array
    conditions: tuple[Condition, ...]

    def __post_init__(self) -> None:
        n_labels, n_items = len(self.labels), len(self.items)
        if n_labels < 2 or n_items == 0:
            raise ScoreError(f"scoring needs 2 labels and 1 item, got {n_labels} and {n_items}")
        _check_unique(self.items)
        _check_shape("gold", self.gold, (n_items,))
        _check_shape("clusters", self.clusters, (n_items,))
        _check_codes("gold", self.gold, 0, n_labels)
        _check_shape("base", self.base, (n_items,))
        _check_codes("base", self.base, OTHER, n_labels)
        _check_shape("base_margin", self.base_margin, (n_items, n_labels))
        _check_margin("base_margin", self.base_margin, np.repeat(self.base[:, None] >= 0, n_labels, axis=1))
        names = [condition.name for condition in self.conditions]
        if len(set(names)) != len(names):
            raise ScoreError(f"a condition comes twice: {', '.join(names)}")
        for condition in self.conditions:
            _check_condition(condition, n_labels, n_items)

    def ordered(self) -> Outcomes:
        """The same outcomes sorted by item id, as they come back from a predictions file.

        Ids and clusters become strings and margins float32, so that neither the order of the items nor a
        detour over the disk changes a score.
        """
        order = np.argsort(self.items.astype(str), kind="stable")
        sorted_conditions = tuple(
            replace(each.items_at(order), margin=each.margin[:, order].astype(np.float32))
            for each in self.conditions
        )
        return replace(
            self,
            items=self.items[order].astype(str),
            gold=self.gold[order],
            clusters=self.clusters[order].astype(str),
            base=self.base[order],
            base_margin=self.base_margin[order].astype(np.float32),
            conditions=sorted_conditions,
        )


def base_of(outcomes: Outcomes, condition: Condition) -> Array:
    """(N,) codes without intervention that a condition is compared with."""
    return outcomes.base if condition.base is None else condition.base


def of_labels(outcomes: Outcomes, labels: Sequence[str]) -> Outcomes:
    """The part of outcomes that concerns some of the labels: targets and items of these, in this order.

    An answer with another label becomes `OTHER`. Margins stay those among all labels.
    """
    columns = [outcomes.labels.index(label) for label in labels]
    codes = np.full(len(outcomes.labels), OTHER, dtype=np.int8)
    codes[columns] = np.arange(len(columns))
    own = np.flatnonzero(np.isin(outcomes.gold, columns))

    def coded(answers: Array) -> Array:
        return np.where(answers >= 0, codes[answers], answers)

    conditions = tuple(
        replace(
            each,
            predictions=coded(each.predictions[columns]),
            margin=each.margin[columns],
            draws=coded(each.draws),
            steered=tuple(Steered(s.targeting, coded(s.answers), coded(s.draws)) for s in each.steered),
            base=None if each.base is None else coded(each.base),
        )
        for each in (condition.items_at(own) for condition in outcomes.conditions)
    )
    return Outcomes(
        labels=tuple(labels),
        items=outcomes.items[own],
        gold=codes[outcomes.gold[own]],
        clusters=outcomes.clusters[own],
        base=coded(outcomes.base[own]),
        base_margin=outcomes.base_margin[own][:, columns],
        conditions=conditions,
    )


def content_digest(outcomes: Mapping[str, Outcomes]) -> str:
    """sha256 (16 hex) of all predictions, by split; the order of items does not matter."""
    digest = hashlib.sha256()

    def add(name: str, values: Array, kind: str) -> None:
        digest.update(f"{name} {values.shape}\n".encode())
        digest.update(np.ascontiguousarray(values, dtype=kind).tobytes())

    for split in sorted(outcomes):
        ordered = outcomes[split].ordered()
        names = [*ordered.labels, *map(str, ordered.items), *map(str, ordered.clusters)]
        digest.update("\0".join([split, *names]).encode())
        add("gold", ordered.gold, "<i2")
        add("base", ordered.base, "<i2")
        add("base_margin", _plain(ordered.base_margin), "<f4")
        for condition in ordered.conditions:
            add(condition.name, condition.predictions, "<i2")
            add("margin", _plain(condition.margin), "<f4")
            add("draws", condition.draws, "<i2")
            if condition.base is not None:
                add("base", condition.base, "<i2")
            for each in condition.steered:
                add(f"steered {each.targeting}", each.answers, "<i2")
                add("draws", each.draws, "<i2")
    return digest.hexdigest()[:16]


def _plain(values: Array) -> Array:
    """One kind of NaN, one kind of zero."""
    plain: Array = np.where(np.isnan(values), np.nan, values.astype(np.float32) + 0.0)
    return plain


def _check_condition(condition: Condition, n_labels: int, n_items: int) -> None:
    name = condition.name
    if condition.arm not in ("suppress", "amplify"):
        raise ScoreError(f"condition {name}: arm must be 'suppress' or 'amplify'")
    if not (np.isfinite(condition.dose) and np.isfinite(condition.alpha) and condition.alpha > 0):
        raise ScoreError(f"condition {name}: dose must be finite and alpha above 0, got {condition.alpha}")
    _check_shape(f"{name}: predictions", condition.predictions, (n_labels, n_items))
    _check_shape(f"{name}: margin", condition.margin, (n_labels, n_items))
    _check_shape(f"{name}: draws", condition.draws, (len(condition.draws), n_items))
    _check_codes(f"{name}: predictions", condition.predictions, OTHER, n_labels)
    _check_codes(f"{name}: draws", condition.draws, OTHER, n_labels)
    if condition.base is not None:
        _check_shape(f"{name}: base", condition.base, (n_items,))
        _check_codes(f"{name}: base", condition.base, OTHER, n_labels)
    for each in condition.steered:
        _check_shape(f"{name}: {each.targeting}", each.answers, (n_items,))
        _check_shape(f"{name}: {each.targeting}: draws", each.draws, (len(each.draws), n_items))
        _check_codes(f"{name}: {each.targeting}", each.answers, OTHER, n_labels)
        _check_codes(f"{name}: {each.targeting}: draws", each.draws, OTHER, n_labels)
    _check_margin(f"{name}: margin", condition.margin, condition.predictions >= 0)


def _check_unique(items: Array) -> None:
    ids, counts = np.unique(items, return_counts=True)
    if len(ids) < len(items):
        twice = ", ".join(str(i) for i in ids[counts > 1][:5])
        raise ScoreError(f"item ids must be unique; these come more than once: {twice}")


def _check_shape(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ScoreError(f"{name} has shape {array.shape}, expected {shape}")


def _check_codes(name: str, codes: Array, lowest: int, n_labels: int) -> None:
    if not np.issubdtype(codes.dtype, np.integer):
        raise ScoreError(f"{name} must hold integer codes, got {codes.dtype}")
    if codes.size and not (lowest <= codes.min() and codes.max() < n_labels):
        raise ScoreError(
            f"{name} holds codes {codes.min()}..{codes.max()}, expected {lowest}..{n_labels - 1}"
        )


def _check_margin(name: str, margin: Array, parsed: Array) -> None:
    """A readout has margins for every parsed answer or for none: a gap in between is a defect upstream."""
    if np.isinf(margin).any():
        raise ScoreError(f"{name} holds an infinite value", hint="use NaN where a readout has no margins")
    known = ~np.isnan(margin)
    if known.any() and not known[parsed].all():
        raise ScoreError(
            f"{name} is NaN for {int((~known & parsed).sum())} parsed answers and a number for others"
        )
