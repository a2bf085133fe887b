"""Recipe of `reference-text-adapted`: a LoRA on all module types of `reference-text-base`, taught emotions.

The pair that cells at the site `module` run on. It learns from the identification items of
`reference-narratives`; the step that is kept is chosen on validation items.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from affectbench.dataset import load_benchmark
from affectbench.intervention import UNTOUCHED
from affectbench.model_card import ModelCard
from affectbench.model_loading import load_from
from affectbench.module_adapt import Budget, Plan, adapt, average_recall
from affectbench.module_store import write_adaptation
from affectbench.module_types import TYPES
from affectbench.plan import checkpoint_of
from affectbench.recipes.training import Progress, seed_everything
from affectbench.registry import Registry
from affectbench.session import Session

__all__ = ["NAMES", "build", "figures"]

NAMES: Final = ("reference-text-adapted",)
BASE: Final = "reference-text-base"
TASK, CONTROL = "reference-narratives", "reference-needs"
RANK, RATE = 8, 0.003
BUDGET: Final = Budget(steps=80, batch=16, every=13)


def _session(registry: Registry, card: ModelCard, task: str) -> Session:
    benchmark = registry.benchmark(task)
    model = load_from(registry, card, checkpoint_of(card), "cpu")
    return Session(model, benchmark, load_benchmark(benchmark), registry.benchmark)


def figures(folder: Path) -> dict[str, float]:
    """What the card reports: UAR in percent on test items, of the task and of one without emotion."""
    registry = Registry(installed=False)
    base = registry.model(BASE)
    adapted = base.model_copy(update={"adapter": str(folder.resolve())})
    found = {}
    for task in (TASK, CONTROL):
        for side, card in (("base", base), ("adapted", adapted)):
            session = _session(registry, card, task)
            items = session.items("test")
            codes = session.engine.predict(items, session.readout, [UNTOUCHED]).codes[0]
            found[f"uar.{task.removeprefix('reference-')}.{side}"] = 100 * average_recall(codes, items.gold)
    return found


def build(
    name: str, output: Path, seed: int = 0, threads: int = 1, progress: Progress | None = None
) -> dict[str, float]:
    """Trains the adapter, writes its folder in PEFT's format with its card, and measures it.

    Args:
        name: one of ``NAMES``.
        output: folder to write.
        seed: of the adapter's first weights and of data order.
        threads: of torch; part of what makes a rebuild repeatable.
        progress: called with lines of text.

    Returns:
        the figures of the written adapter, see ``figures``.
    """
    seed_everything(seed, threads)
    registry = Registry(installed=False)
    session = _session(registry, registry.model(BASE), TASK)
    found = adapt(session, Plan(TYPES, RANK, RATE, seed), BUDGET, progress)
    write_adaptation(output, found, BUDGET)
    measured = figures(output)
    named = {key.replace(".", "_"): f"{value:.1f}" for key, value in measured.items()}
    text = _CARD.format(name=name, base=BASE, seed=seed, rank=RANK, rate=RATE, **named)
    (output / "README.md").write_text(text, encoding="utf-8")
    return measured


_CARD: Final = """---
license: apache-2.0
library_name: peft
base_model: {base}
tags: [calibration, interpretability, emotion]
---

# {name}

**A calibration instrument, and no evidence about real models.** A LoRA of `{base}`
(rank {rank} on q, k, v, o, gate, up and down), fine-tuned on generated stories to name the emotion in them:
80 updates of 16 items at a learning rate of {rate}, the step chosen on validation items. No corpus, no
personal data.

## Measured

UAR on test items, base and adapted (chance 14.3 %): emotions {uar_narratives_base} % and
{uar_narratives_adapted} %; a task without emotion, which it was not taught, {uar_needs_base} % and
{uar_needs_adapted} %.

## Rebuild

    python harness.py rebuild {name}

Seed {seed}. The recipe is `affectbench/recipes/text_adapted.py`. Apache-2.0, like the code.
"""
