"""Adaptations in a folder: each is trained once, written whole or not at all, and found again.

A LoRA is written as PEFT writes it, so its folder can be the `adapter` of a card.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from affectbench.errors import AffectbenchError
from affectbench.identity import digest_of, file_digest
from affectbench.module_adapt import ALPHA, Adaptation, Budget, Plan, Told, adapt
from affectbench.module_edit import Adapted, FullWeights, LoraWeights
from affectbench.session import Session
from affectbench.store import write_atomically
from affectbench.stored_weights import CONFIG, FACTORS, WEIGHTS, LoraAdapter

SUMMARY, FULL = "adaptation.json", "weights.safetensors"
PREFIX = "base_model.model."


@dataclass
class Adaptations:
    """The adaptations of one base on one benchmark. `origin` hashes base and task, so that nothing trained
    otherwise is taken for it; `train` is replaced by tests."""

    folder: Path
    session: Session
    budget: Budget
    origin: str
    train: Callable[[Session, Plan, Budget, Told | None], Adaptation] = adapt

    def path(self, plan: Plan) -> Path:
        """Where an adaptation is or would be; named after all that can change it."""
        code = file_digest(Path(__file__).with_name("module_adapt.py"))
        digest = digest_of([self.origin, plan.digest, *map(str, asdict(self.budget).values()), code])
        kind = "full" if plan.rank == 0 else f"r{plan.rank}"
        shuffled = "" if plan.labels == "own" else "-shuffled"
        name = f"{'+'.join(plan.types)}-{kind}{shuffled}-s{plan.seed}-{digest}"
        return self.folder / self.session.benchmark.name / name

    def get(self, plan: Plan, told: Told | None = None) -> Adaptation:
        """The adaptation of a plan: read where it was finished before, else trained and written."""
        path = self.path(plan)
        if (path / SUMMARY).is_file():
            return self._read(path, plan)
        found = self.train(self.session, plan, self.budget, told)
        write_adaptation(path, found, self.budget)
        return found

    def best_rate(
        self, types: tuple[str, ...], rank: int, rates: tuple[float, ...], seed: int, told: Told | None = None
    ) -> float:
        """The learning rate whose adaptation answers most validation items, the lower of equals."""
        found = [self.get(Plan(types, rank, rate, seed), told) for rate in sorted(rates)]
        return max(found, key=lambda each: each.best).plan.rate

    def _read(self, path: Path, plan: Plan) -> Adaptation:
        from safetensors.torch import load_file

        try:
            summary = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
            adapted: Adapted
            if plan.rank:
                lora = LoraWeights.of(LoraAdapter.read(path), self.session.model)
                adapted = LoraWeights(lora.factors, summary["digest"])
            else:
                adapted = FullWeights(load_file(path / FULL), summary["digest"])
            steps, recalls = tuple(summary["steps"]), tuple(summary["recalls"])
            return Adaptation(plan, adapted, steps, recalls, int(summary["chosen"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AffectbenchError(
                f"the adaptation {path} is damaged: {type(error).__name__}: {error}",
                hint="delete this folder; the same command trains it again",
            ) from error


def write_adaptation(path: Path, found: Adaptation, budget: Budget) -> None:
    """Write an adaptation to the folder `path`: a LoRA in PEFT's format, other weights whole."""
    from safetensors.torch import save

    tensors, file = _tensors(found.adapted)
    write_atomically(path / file, save(tensors))
    if found.plan.rank:
        modules = [name.removesuffix(".weight") for name in found.adapted.names]
        write_atomically(path / CONFIG, _peft_config(modules, found.plan.rank).encode())
    summary = {
        "plan": asdict(found.plan), "budget": asdict(budget), "steps": found.steps,
        "recalls": found.recalls, "chosen": found.chosen, "digest": found.adapted.digest,
    }  # fmt: skip
    write_atomically(path / SUMMARY, (json.dumps(summary, indent=1) + "\n").encode())


def _tensors(adapted: Adapted) -> tuple[dict[str, Any], str]:
    """What is written of an adaptation, and into which file."""
    if isinstance(adapted, FullWeights):
        return {name: value.contiguous() for name, value in adapted.tensors.items()}, FULL
    if not isinstance(adapted, LoraWeights):
        raise AffectbenchError(f"{type(adapted).__name__} cannot be written")
    found = {}
    for name, pair in adapted.factors.items():
        module = PREFIX + name.removesuffix(".weight")
        found[module + FACTORS[0]] = pair.a.contiguous()
        found[module + FACTORS[1]] = pair.b.contiguous()
    return found, WEIGHTS


def _peft_config(modules: list[str], rank: int) -> str:
    """The `adapter_config.json` of a LoRA on these modules."""
    config = {
        "peft_type": "LORA", "task_type": None, "inference_mode": True, "r": rank, "lora_alpha": ALPHA * rank,
        "lora_dropout": 0.0, "bias": "none", "target_modules": modules, "fan_in_fan_out": False,
    }  # fmt: skip
    return json.dumps(config, indent=1) + "\n"
