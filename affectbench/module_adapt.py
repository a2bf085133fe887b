"""Fine-tuning some module types of a base on a benchmark, under a fixed budget: LoRA through peft, or full.

The base is as it was afterwards; what was learnt is kept beside it (`Adapted`), at the step that answered
most validation items. Test items are never looked at.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from affectbench.batch import Prepared
from affectbench.errors import AffectbenchError
from affectbench.identity import digest_of
from affectbench.intervention import UNTOUCHED, VALID
from affectbench.model import Model
from affectbench.module_edit import Adapted, FullWeights, LoraWeights, is_transposed
from affectbench.module_types import Modules, modules_of
from affectbench.readout import Codes, IntArray, Items, Readout
from affectbench.session import Session
from affectbench.stored_weights import LowRank

Told = Callable[[str], None]
IGNORED = -100
ALPHA = 2
"""LoRA's alpha over its rank."""


@dataclass(frozen=True)
class Budget:
    """What every adaptation gets: updates, items of an update, and updates between looks at validation."""

    steps: int = 120
    batch: int = 32
    every: int = 20

    @classmethod
    def looking(cls, steps: int, batch: int) -> Budget:
        """With six looks at validation."""
        return cls(steps, batch, max(1, steps // 6))

    @property
    def looks(self) -> int:
        """Looks at validation of an adaptation, the first before any update."""
        return -(-self.steps // self.every) + 1


@dataclass(frozen=True)
class Plan:
    """One adaptation. `rank` 0 trains the weights themselves; `labels` may be shuffled among the items."""

    types: tuple[str, ...]
    rank: int
    rate: float
    seed: int = 0
    labels: Literal["own", "shuffled"] = "own"

    @property
    def digest(self) -> str:
        """Content hash, 16 hex."""
        return digest_of([*sorted(self.types), str(self.rank), f"{self.rate:g}", str(self.seed), self.labels])


@dataclass(frozen=True)
class Adaptation:
    """What came of a plan: the weights, and UAR on validation at each look (`steps`, `recalls`); those of
    `chosen` were kept, the first of the best."""

    plan: Plan
    adapted: Adapted
    steps: tuple[int, ...]
    recalls: tuple[float, ...]
    chosen: int

    @property
    def best(self) -> float:
        """UAR on validation of the weights that were kept."""
        return max(self.recalls)


def average_recall(codes: Codes, gold: IntArray) -> float:
    """Unweighted average recall: the mean over labels of the share of their items answered right."""
    return float(np.mean([(codes[gold == label] == label).mean() for label in np.unique(gold)]))


@contextmanager
def marked(model: Model, digest: str) -> Iterator[None]:
    """Tell the engine that the model is another one for the length of the block."""
    before = model.folds
    try:
        model.folds = (*before, digest)
        yield
    finally:
        model.folds = before


def adapt(session: Session, plan: Plan, budget: Budget, told: Told | None = None) -> Adaptation:
    """Train `plan` on the identification items of a session's benchmark; the step is chosen on validation.

    Raises `AffectbenchError` for types that cannot be trained apart, for a loss that is not finite, and where
    peft is missing.
    """
    modules = modules_of(session.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        trainer = _trainer(session.model, modules, plan)
        try:
            return _trained(session, plan, budget, trainer, told)
        finally:
            trainer.remove()


def _trained(
    session: Session, plan: Plan, budget: Budget, trainer: _Trainer, told: Told | None
) -> Adaptation:
    """Updates, with a look at validation every now and then."""
    items, readout = session.items("identification"), session.readout
    gold = _labels(items, plan)
    optimiser = torch.optim.AdamW(trainer.parameters, lr=plan.rate, betas=(0.9, 0.98), weight_decay=0.0)
    best, steps, recalls = -1.0, [], []
    kept, chosen = trainer.weights(), 0
    for step in range(budget.steps + 1):
        if step % budget.every == 0 or step == budget.steps:
            recall = _validated(session, plan, step)
            steps.append(step)
            recalls.append(recall)
            if recall > best:
                best, kept, chosen = recall, trainer.weights(), step
            if told is not None:
                told(f"step {step} of {budget.steps}, UAR {recall:.3f}")
        if step == budget.steps:
            break
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * _schedule(step, budget.steps)
        places = np.random.default_rng([plan.seed, 79, step]).integers(len(items), size=budget.batch)
        loss = answer_loss(session.model, items, readout, gold, places)
        if not bool(torch.isfinite(loss)):
            raise AffectbenchError(
                f"adapting {'+'.join(plan.types)}: the loss is {loss.item()} at step {step}",
                hint="use a smaller learning rate",
            )
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(trainer.parameters, 1.0)
        optimiser.step()
    return Adaptation(plan, trainer.adapted(kept, plan), tuple(steps), tuple(recalls), chosen)


def _schedule(step: int, steps: int) -> float:
    """Factor on the learning rate: a tenth of the steps up, then a straight line down to a tenth."""
    up = max(1, steps // 10)
    return (step + 1) / up if step < up else 1.0 - 0.9 * (step - up) / max(1, steps - up)


def _labels(items: Items, plan: Plan) -> IntArray:
    """The labels that are taught: an item's own, or another item's."""
    if plan.labels == "own":
        return items.gold
    return np.random.default_rng([plan.seed, 80]).permutation(items.gold)


def _validated(session: Session, plan: Plan, step: int) -> float:
    items = session.items("validation")
    with torch.no_grad(), marked(session.model, f"{plan.digest} step {step}"):
        codes = session.engine.predict(items, session.readout, [UNTOUCHED]).codes[0]
    return average_recall(codes, items.gold)


def answer_loss(
    model: Model, items: Items, readout: Readout, gold: IntArray, places: Sequence[int] | IntArray
) -> Tensor:
    """Mean cross-entropy, over the whole vocabulary, of the tokens of the right answers to some items."""
    rows: list[Prepared] = []
    answers: list[tuple[int, ...]] = []
    for place in places:
        label = int(gold[place])
        option = label if items.orders is None else int(np.flatnonzero(items.orders[place] == label)[0])
        answer, item = readout.candidates[option], items.items[place]
        ahead = torch.tensor(answer[:-1], dtype=torch.long)
        roles = torch.cat([item.roles, torch.full_like(ahead, VALID, dtype=item.roles.dtype)])
        rows.append(replace(item, ids=torch.cat([item.ids, ahead]), roles=roles))
        answers.append(answer)
    longest = max(map(len, answers))
    targets = torch.full((len(rows), longest), IGNORED)
    for row, answer in enumerate(answers):
        targets[row, longest - len(answer) :] = torch.tensor(answer)
    logits = model.logits(model.decode(model.collate(rows))[:, -longest:])
    return functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten().to(logits.device), ignore_index=IGNORED
    )


class _Trainer(ABC):
    """Makes some weights of a network trainable, and puts everything back."""

    parameters: list[nn.Parameter]

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """A copy of what is trained, as it is now."""

    @abstractmethod
    def adapted(self, weights: dict[str, Tensor], plan: Plan) -> Adapted:
        """The adaptation that a copy of the weights is."""

    @abstractmethod
    def remove(self) -> None:
        """Leave the network as it was."""


def _trainer(model: Model, modules: Modules, plan: Plan) -> _Trainer:
    names = _apart(modules, plan.types)
    return _Lora(model, names, plan.rank) if plan.rank else _Full(model, names)


def _apart(modules: Modules, types: Sequence[str]) -> list[str]:
    """The weights of these types. Raises where one is fused with a type that is not among them."""
    names: dict[str, None] = {}
    for piece in modules.of(types, matrices=True):
        others = {each.type for each in modules.pieces if each.parameter == piece.parameter} - set(types)
        if others:
            raise AffectbenchError(
                f"{piece.parameter} holds {piece.type} together with {', '.join(sorted(others))}",
                hint="this family cannot train them apart: adapt all of them together",
            )
        names[piece.parameter] = None
    if not names:
        raise AffectbenchError(f"there is nothing to train in {', '.join(types) or 'no type'}")
    return list(names)


class _Full(_Trainer):
    def __init__(self, model: Model, names: list[str]) -> None:
        self._named = {name: model.network.get_parameter(name) for name in names}
        self._before = {name: weight.detach().clone() for name, weight in self._named.items()}
        self.parameters = list(self._named.values())
        for weight in self.parameters:
            weight.requires_grad_(True)

    def weights(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self._named.items()}

    def adapted(self, weights: dict[str, Tensor], plan: Plan) -> Adapted:
        return FullWeights(weights, _digest(weights))

    @torch.no_grad()
    def remove(self) -> None:
        for name, weight in self._named.items():
            weight.requires_grad_(False)
            weight.grad = None
            weight.copy_(self._before[name])


class _Lora(_Trainer):
    def __init__(self, model: Model, names: list[str], rank: int) -> None:
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise AffectbenchError("adapting with LoRA needs peft", hint="pip install peft") from error
        modules = [name.removesuffix(".weight") for name in names]
        self._transposed = {name for name in names if is_transposed(model, name)}
        config = LoraConfig(r=rank, lora_alpha=ALPHA * rank, target_modules=modules, lora_dropout=0.0)
        self._wrapped: Any = get_peft_model(model.network, config).eval()
        network: Any = self._wrapped.base_model.model
        self._layers: dict[str, Any] = {
            name: network.get_submodule(module) for name, module in zip(names, modules, strict=True)
        }
        self.parameters = [weight for weight in self._wrapped.parameters() if weight.requires_grad]

    def weights(self) -> dict[str, Tensor]:
        found = {}
        for name, layer in self._layers.items():
            found[f"{name}/a"] = layer.lora_A["default"].weight.detach().clone()
            found[f"{name}/b"] = layer.lora_B["default"].weight.detach().clone()
        return found

    def adapted(self, weights: dict[str, Tensor], plan: Plan) -> Adapted:
        factors = {
            name: LowRank(weights[f"{name}/a"], weights[f"{name}/b"], float(ALPHA), name in self._transposed)
            for name in self._layers
        }
        return LoraWeights(factors, _digest(weights))

    def remove(self) -> None:
        self._wrapped.unload()
        for weight in self._wrapped.parameters():
            weight.requires_grad_(False)


def _digest(weights: dict[str, Tensor]) -> str:
    """Hash of tensors by name, 16 hex."""
    parts = []
    for name, value in sorted(weights.items()):
        parts += [name, value.contiguous().cpu().view(torch.uint8).numpy().tobytes().hex()]
    return digest_of(parts)
