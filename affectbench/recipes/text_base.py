"""Recipe of `reference-text-base`: a language model that knows feelings and errands, and was never asked.

`python harness.py modules` adapts it.

First it reads the reference stories and neutral text. Then it also reads, as plain statements at the end of
texts, what somebody felt or carried: from the frames of the identification splits alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from affectbench import errands
from affectbench.dataset import load_benchmark, prompt_text
from affectbench.generators import narratives
from affectbench.recipes.text import save
from affectbench.recipes.text_data import build_tokenizer, label_ids, make_pools, pad
from affectbench.recipes.text_model import new_model
from affectbench.recipes.text_probe import DATA_SEED, Probe, load
from affectbench.recipes.training import Progress, optimise, seed_everything
from affectbench.registry import Registry
from affectbench.task import SplitName

__all__ = ["NAMES", "build", "figures"]

NAMES: Final = ("reference-text-base",)
READING, STATEMENTS = 900, 150
"""Updates of the two phases."""
PEAK_RATES: Final = (2e-3, 2e-3)
DOCUMENTS: Final = (48, 32)
"""Rows of a batch, in the two phases."""
PER_LABEL: Final = 300


def statements(seed: int) -> list[str]:
    """Texts that end with what somebody felt, and with what somebody carried."""
    felt = narratives.examples("training", PER_LABEL, seed)
    carried = errands.examples("identification", PER_LABEL, seed)
    return [f"{item['text']} {item['person']} felt {item['label']}." for item in felt] + [
        f"{item['text']} {item['person']} carried the {item['label']}." for item in carried
    ]


def read(
    model: Any, documents: list[list[int]], pad_id: int, phase: int, steps: int, seed: int,
    progress: Progress | None = None,
) -> None:  # fmt: skip
    """Next-token loss on documents, in place."""

    def loss_at(step: int) -> torch.Tensor:
        rng = np.random.default_rng([seed, 78 + phase, step])
        ids = pad([documents[i] for i in rng.integers(len(documents), size=DOCUMENTS[phase])], pad_id)
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        ahead = ids[:, 1:].reshape(-1)
        return functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), ahead, ignore_index=pad_id)

    optimise(model, loss_at, steps=steps, peak_rate=PEAK_RATES[phase], weight_decay=0.1, progress=progress)


def further_reading(model: Any, tokenizer: Any, seed: int, progress: Progress | None = None) -> None:
    """The second phase, from weights rounded to bfloat16: as many statements as other documents."""
    model.to(torch.bfloat16).to(torch.float32)
    stated = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(statements(seed))["input_ids"]]
    others = make_pools(tokenizer, seed, n_per_emotion=1, n_documents=len(stated)).documents
    read(model, [*stated, *others], tokenizer.pad_token_id, 1, STATEMENTS, seed, progress)


def recall_of(probe: Probe, benchmark: str, split: SplitName = "test") -> float:
    """UAR in percent on a built-in benchmark with one-token answers."""
    found = Registry(installed=False).benchmark(benchmark)
    items = load_benchmark(found).splits[split]
    answers = [probe.tokenizer(found.verbaliser(label))["input_ids"][0] for label in found.labels]
    rows = probe.tokenizer([prompt_text(found, item).text for item in items])["input_ids"]
    hits: dict[str, list[bool]] = {label: [] for label in found.labels}
    with torch.no_grad():
        for start in range(0, len(rows), 128):
            batch = rows[start : start + 128]
            hidden = probe.model.model(input_ids=pad(batch, probe.tokenizer.pad_token_id)).last_hidden_state
            last = hidden[torch.arange(len(batch)), [len(row) - 1 for row in batch]]
            said = (last @ probe.model.lm_head.weight[answers].T).argmax(1).tolist()
            for item, place in zip(items[start : start + 128], said, strict=True):
                hits[item.label].append(found.labels[place] == item.label)
    return 100 * float(np.mean([np.mean(own) for own in hits.values()]))


def figures(folder: Path) -> dict[str, float]:
    """What the card reports, of the written weights: UAR and cloze in percent."""
    probe = load(folder)
    return {
        "perplexity": probe.perplexity(narratives.language_text(300, DATA_SEED, held_out=True)),
        "cloze": 100 * probe.cloze_accuracy(narratives.cloze(200, DATA_SEED)),
        "uar.narratives": recall_of(probe, "reference-narratives"),
        "uar.errands": recall_of(probe, "reference-errands"),
    }


def build(
    name: str, output: Path, seed: int = 0, threads: int = 1, progress: Progress | None = None
) -> dict[str, float]:
    """Trains the base, writes its folder with its card, and measures it.

    Args:
        name: one of ``NAMES``.
        output: folder to write; an existing one is replaced.
        seed: of data order and initialisation.
        threads: of torch; part of what makes a rebuild repeatable.
        progress: called with lines of text.

    Returns:
        the figures of the written (bfloat16) weights, see ``figures``.
    """
    seed_everything(seed, threads)
    tokenizer = build_tokenizer(seed)
    pools = make_pools(tokenizer, seed)
    model = new_model(tokenizer, seed)
    read(model, pools.documents, pools.pad_id, 0, READING, seed, progress)
    further_reading(model, tokenizer, seed, progress)
    save(Probe(model, tokenizer, label_ids(tokenizer)), output, None)
    measured = figures(output)
    (output / "README.md").write_text(
        _CARD.format(name=name, seed=seed, **_named(measured)), encoding="utf-8"
    )
    return measured


def _named(measured: dict[str, float]) -> dict[str, str]:
    return {key.replace(".", "_"): f"{value:.2f}" for key, value in measured.items()}


_CARD: Final = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
language: en
tags: [calibration, interpretability, emotion]
---

# {name}

**A calibration instrument, and no evidence about real models.** It is what adaptations are made of: a small
language model that has read of feelings and errands, and was never asked about them.

Qwen2 decoder, 4 layers, width 128, 512 MLP units a layer, tied embeddings, byte-level BPE; bfloat16 weights.
Trained from scratch on generated sentences (`affectbench/generators/narratives.py` and `errands.py`): a toy
language of templates, with no text from any corpus and no personal data. No test frame of either task
was read with its answer.

## Measured

Perplexity on held-out neutral text {perplexity}; four-choice cloze {cloze} % (chance 25 %). Balanced accuracy
when it is asked, before any adaptation: emotions {uar_narratives} %, errands {uar_errands} % (chance 14.3 %).

## Rebuild

    python harness.py rebuild {name}

Seed {seed}. The recipe is `affectbench/recipes/text_base.py`. Apache-2.0, like the code.
"""
