"""The experiments on module types: transfer, damage and adaptation, on a task and on its control.

What is asked of the models, not what it means: `module_report` turns answers into analyses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from torch import Tensor

from affectbench.errors import AffectbenchError
from affectbench.intervention import UNTOUCHED
from affectbench.lm_harness import ChoiceQuestions, PackedLM
from affectbench.module_adapt import Budget, Plan
from affectbench.module_change import Change, Metric, change_of, low_rank_change, square_of, together
from affectbench.module_edit import OPERATIONS, Adapted, LoraWeights, Operation, Overlay, Pair
from affectbench.module_pairs import Changes
from affectbench.module_store import Adaptations
from affectbench.module_types import OTHER, Modules, Piece, members
from affectbench.session import Session

Told = Callable[[str], None]
SINGLE = ("q", "k", "v", "o", "gate", "up", "down")
TRANSFERS = (*SINGLE, "attn", "up+down", "mlp", "gate+down", "attn+gate", "attn+up+down", "all")
"""The types one by one, all sets of {attn, gate, up+down}, and gate with down alone."""
DAMAGED = (*SINGLE, "attn", "mlp")
TRAINED = ("all", *SINGLE, "attn", "up+down", "mlp", "gate+down", "attn+gate", "attn+up+down")
"""The same sets, adapted alone; all of them first, for it takes the longest."""
Mode = Literal["sound", "paper"]
LEAST = 0.05
"""What validation UAR has to gain for an adaptation to have learnt anything."""


@dataclass(frozen=True)
class Recipe:
    """How adaptations are made: rank of those at equal rank (0 trains the weights themselves), learning rates
    to choose from, seeds."""

    rank: int = 8
    rates: tuple[float, ...] = (0.001, 0.003)
    seeds: int = 3
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True)
class Design:
    """What is asked: the headline of change, which sets of types are transferred, damaged and how, and
    adapted alone, and whether they are also adapted with as many parameters as gate."""

    metric: Metric
    transfers: tuple[str, ...]
    damaged: tuple[str, ...]
    operations: tuple[Operation, ...]
    trained: tuple[str, ...]
    matched: bool

    @classmethod
    def of(cls, mode: Mode) -> Design:
        """Our way, or (``paper``) as far as arXiv 2601.15906 is known: types one by one, the combinations
        that it names, zeroing, and the Frobenius norm as it is, which is larger for larger matrices."""
        if mode == "sound":
            return cls("relative", TRANSFERS, DAMAGED, OPERATIONS, TRAINED, True)
        named = tuple(each for each in TRAINED if each in (*SINGLE, "gate+down", "attn+gate", "all"))
        singles = tuple(each for each in TRANSFERS if each in SINGLE)
        return cls("absolute", singles, singles, ("zero",), named, False)


@dataclass(frozen=True)
class Measured:
    """`codes` (K, S, N): answers of S pairs under K conditions; `kept` (K, S, D), 0 or 1: whether capability
    items are answered, where they were asked."""

    names: tuple[str, ...]
    codes: np.ndarray
    kept: np.ndarray | None = None


@dataclass(frozen=True)
class Trained:
    """Adaptations of some types: one pair a seed, and what they took."""

    name: str
    types: tuple[str, ...]
    rank: int
    rate: float
    parameters: int
    pairs: tuple[Pair, ...]
    curves: tuple[tuple[float, ...], ...]
    steps: tuple[int, ...]

    @property
    def learnt(self) -> bool:
        """Whether validation got better than before the first update, in any seed."""
        return any(max(curve) > curve[0] + LEAST for curve in self.curves)


def known(names: Sequence[str], modules: Modules) -> dict[str, tuple[str, ...]]:
    """The types behind names, for those names whose types this model all has."""
    found = {}
    for name in names:
        try:
            found[name] = tuple(each for part in name.split("+") for each in members(part, modules.types))
        except AffectbenchError:
            continue
    return found


def whole(
    pair: Pair, *, damaged: Sequence[str] = (), operation: Operation = "reset", seed: int = 0
) -> Overlay:
    """The adapted model, with damage to some types."""
    return Overlay(pair.everything, tuple(damaged), operation, seed)


def measure(
    session: Session,
    pairs: Sequence[Pair],
    conditions: Mapping[str, Callable[[Pair, int], Overlay]],
    *,
    capability: bool = False,
    told: Told | None = None,
) -> Measured:
    """Answers to the test items under each condition, which is made from a pair and its place."""
    items = session.items("test")
    codes = np.zeros((len(conditions), len(pairs), len(items)), dtype=np.int8)
    kept, asked = [], Capability(session) if capability else None
    for row, (name, condition) in enumerate(conditions.items()):
        right = []
        for place, pair in enumerate(pairs):
            if told is not None:
                told(f"{session.benchmark.name}: {name}, seed {place}")
            with pair.overlaid(condition(pair, place)):
                codes[row, place] = session.engine.predict(items, session.readout, [UNTOUCHED]).codes[0]
                if asked is not None:
                    right.append(asked.answers())
        kept.append(right)
    return Measured(tuple(conditions), codes, np.array(kept) if capability else None)


class Capability:
    """What a benchmark says must be preserved: multiple-choice documents, or items of another benchmark."""

    def __init__(self, session: Session) -> None:
        self._engine = session.engine
        self._asked = session.preserver.capability
        if self._asked.items is None:
            self._questions = ChoiceQuestions(self._asked.docs)
            self._lm = PackedLM(session.engine, [])

    def answers(self) -> np.ndarray:
        """Whether each item is answered right, (D,) 0 or 1, by the model as it is now."""
        if self._asked.items is None or self._asked.readout is None:
            self._lm.answers.clear()  # They are of the model as it was.
            return np.asarray(self._questions.answers(self._lm)[0])
        found = self._engine.predict(self._asked.items, self._asked.readout, [UNTOUCHED])
        return np.asarray(found.codes[0] == self._asked.items.gold, dtype=np.int64)


def transfer_conditions(
    modules: Modules, transfers: Sequence[str], other: bool
) -> dict[str, Callable[[Pair, int], Overlay]]:
    """Base plus the adapted weights of some types; `other`: also of what is of no type, alone."""
    found: dict[str, Callable[[Pair, int], Overlay]] = {"none": lambda _pair, _place: Overlay()}
    for name, types in known(transfers, modules).items():
        found[name] = lambda _pair, _place, types=types: Overlay(types)  # type: ignore[misc]
    if other:
        found[OTHER] = lambda _pair, _place: Overlay((OTHER,))
    found["adapted"] = lambda pair, _place: whole(pair)
    return found


def damage_conditions(modules: Modules, design: Design) -> dict[str, Callable[[Pair, int], Overlay]]:
    """The adapted model, and that with each type damaged in each way, named ``TYPE OPERATION``."""
    found: dict[str, Callable[[Pair, int], Overlay]] = {"adapted": lambda pair, _place: whole(pair)}
    for operation in design.operations:
        for name, types in known(design.damaged, modules).items():
            found[f"{name} {operation}"] = lambda pair, place, types=types, operation=operation: whole(  # type: ignore[misc]
                pair, damaged=types, operation=operation, seed=place
            )
    return found


def train(
    store: Adaptations,
    name: str,
    recipe: Recipe,
    modules: Modules,
    *,
    rank: int = 0,
    told: Told | None = None,
) -> Trained:
    """Adaptations of some types, one a seed, at the rate that does best on validation with the first seed."""
    types, rank = known([name], modules)[name], rank or recipe.rank

    def tell(text: str) -> None:
        if told is not None:
            told(f"{store.session.benchmark.name}: training {name} at rank {rank}: {text}")

    rate = store.best_rate(types, rank, recipe.rates, 0, tell)
    found = [store.get(Plan(types, rank, rate, seed), tell) for seed in range(recipe.seeds)]
    count = modules.lora_parameters(types, rank) if rank else modules.parameters(types)
    return Trained(
        name, types, rank, rate, count,
        tuple(Pair(store.session.model, each.adapted) for each in found),
        tuple(each.recalls for each in found), found[0].steps,
    )  # fmt: skip


def shuffled(store: Adaptations, like: Trained, recipe: Recipe, told: Told | None = None) -> Trained:
    """The same adaptations from labels that were shuffled among the items."""
    plans = [Plan(like.types, like.rank, like.rate, seed, "shuffled") for seed in range(recipe.seeds)]
    found = [store.get(plan, told) for plan in plans]
    pairs = tuple(Pair(store.session.model, each.adapted) for each in found)
    curves = tuple(each.recalls for each in found)
    return Trained(
        f"{like.name}, labels shuffled", like.types, like.rank, like.rate, like.parameters, pairs, curves,
        found[0].steps,
    )  # fmt: skip


@dataclass(frozen=True)
class Alone:
    """Which sets of types are adapted alone: ranks of a LoRA by name, as they are and with as many parameters
    as gate (0: the weights themselves, which cannot be matched). `fused`: what cannot be trained apart."""

    equal: Mapping[str, int]
    matched: Mapping[str, int]
    fused: tuple[str, ...]

    @classmethod
    def of(cls, modules: Modules, rank: int, design: Design) -> Alone:
        named = known(design.trained, modules)
        reference = named.get("gate", named["up"])
        apart = {name: types for name, types in named.items() if trained_apart(modules, types)}
        matched = {name: matched_rank(modules, types, rank, reference) for name, types in apart.items()}
        fused = tuple(name for name in named if name not in apart)
        return cls(dict.fromkeys(apart, rank), matched if rank and design.matched else {}, fused)


def trained_apart(modules: Modules, types: Sequence[str]) -> bool:
    """Whether these types can be trained without others: no parameter of theirs holds another type too."""
    names = {piece.parameter for piece in modules.of(types)}
    return all(piece.type in types for piece in modules.pieces if piece.parameter in names)


def matched_rank(modules: Modules, types: Sequence[str], rank: int, reference: Sequence[str]) -> int:
    """The rank at which a LoRA on `types` has about as many parameters as one of `rank` on `reference`."""
    wanted = modules.lora_parameters(reference, rank)
    return max(1, round(wanted / modules.lora_parameters(types, 1)))


def changes_of_pair(pair: Pair) -> Changes:
    """What an adaptation in memory changes, by type and layer."""
    parameters = dict(pair.model.network.named_parameters())
    found: dict[tuple[str, int], list[Change]] = {}
    for piece in pair.modules.of(pair.modules.types, matrices=True):
        change = _change(piece, parameters[piece.parameter].detach(), pair.adapted)
        found.setdefault((piece.type, piece.layer), []).append(change)
    outside = [name for name in pair.adapted.names if name in pair.modules.others]
    squares = [
        square_of(pair.adapted.read(name, before).float() - before.float())
        for name, before in ((name, parameters[name].detach()) for name in outside)
    ]
    return Changes(pair.modules, {key: together(each) for key, each in found.items()}, sum(squares) ** 0.5)


def _change(piece: Piece, before: Tensor, adapted: Adapted) -> Change:
    matrix = piece.matrices(before)
    if piece.parameter not in adapted.names:
        return Change(0.0, square_of(matrix), matrix.numel(), 0.0)
    if isinstance(adapted, LoraWeights):
        pair = adapted.factors[piece.parameter]
        rows = pair.b.view(piece.groups, -1, pair.rank)[:, piece.start : piece.stop].flatten(0, 1)
        return low_rank_change(pair.a, rows, pair.scaling, matrix)
    return change_of(matrix, piece.matrices(adapted.read(piece.parameter, before)))
