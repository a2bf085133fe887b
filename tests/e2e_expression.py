"""Content for end-to-end tests of expression: a tiny model that replies in three moods, and all it takes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e_content import CUES, PEOPLE, THINGS, Bench, tokenizer, write_benchmark, write_protocol, write_yaml

from affectbench.recipes.judge import Labelled, train

TASK, MODEL, JUDGE, PROTOCOL = "toy-replies", "toy-writer", "toy-judge", "toy-add"
FLAT = "Text : {user} {system} Question :"
EVENTS = {"positive": "{p} has the {t} .", "neutral": "the {t} was in .", "negative": "the {t} was very ."}
NEUTRAL = "{p} was in the {t} ."
EXPRESSION: dict[str, Any] = {
    "kind": "expression",
    "source": {"reader": "scenarios", "files": {"all": "scenes.jsonl"}},
    "labels": list(CUES),
    "elicit": {"system": "very {emotion} .", "user": "{scenario} {event}"},
    "plain": {"system": "very .", "user": "{scenario} {event}"},
    "flat": FLAT,
    "readout": {"kind": "judge", "judge": JUDGE, "max_new_tokens": 6},
}


def scenes() -> list[dict[str, Any]]:
    """A scenario for each of 12 persons: 5 to identify on, 2 to choose doses, 5 to test."""
    splits = ["identification"] * 5 + ["validation"] * 2 + ["test"] * 5
    return [
        {
            "theme": "toys",
            "scenario": f"{person} was in the {THINGS[k % 6]} .",
            "event": {name: text.format(p=person, t=THINGS[k % 6]) for name, text in EVENTS.items()},
            "skeleton_id": person,
            "split": split,
        }
        for k, (person, split) in enumerate(zip(PEOPLE, splits, strict=True))
    ]


def reply(dice: random.Random, label: str | None, thing: str) -> str:
    """The mood's word comes first: a model this small would not look for it later."""
    return f"{dice.choice(CUES[label])} the {thing} ." if label else f"was in the {thing} ."


def save_writer(folder: Path, steps: int = 90) -> None:
    """Train a two-layer Qwen2 to reply to scenes in the mood that its prompt names, or in none; save it."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from transformers.utils import logging

    torch.manual_seed(0)
    words = tokenizer()
    config = Qwen2Config(
        vocab_size=len(words), hidden_size=48, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=96, tie_word_embeddings=True,
        eos_token_id=0, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    network = Qwen2ForCausalLM(config)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.0)
    dice, asks = random.Random(0), words(" :")["input_ids"][0]
    for _ in range(steps):
        lines = []
        for _ in range(32):
            label, person, thing = dice.choice([*CUES, None]), dice.choice(PEOPLE), dice.choice(THINGS)
            told = dice.choice(list(EVENTS.values())).format(p=person, t=thing)
            user = f"{NEUTRAL.format(p=person, t=thing)} {told}"
            system = f"very {label} ." if label else "very ."
            asked = FLAT.format(system=system, user=user)
            lines.append(f"{asked} {reply(dice, label, thing)}<|endoftext|>")
        batch = words(lines, padding=True, return_tensors="pt")
        ids, shown = batch["input_ids"], batch["attention_mask"].float()
        weights = shown * (1 + 30 * (ids.roll(1, dims=1) == asks))  # Above all the word after the colon.
        logits = network(**batch).logits[:, :-1].transpose(1, 2)
        losses = torch.nn.functional.cross_entropy(logits, ids[:, 1:], reduction="none")
        optimiser.zero_grad()
        ((losses * weights[:, 1:]).sum() / weights[:, 1:].sum()).backward()
        optimiser.step()
    logging.disable_progress_bar()
    network.save_pretrained(folder)
    words.save_pretrained(folder)


def save_judge(folder: Path) -> None:
    """A local judge of the toy language."""
    dice = random.Random(1)
    rows = [
        (reply(dice, label, thing), label or "none", person)
        for person in PEOPLE
        for thing in THINGS
        for label in (*CUES, None)
    ]
    texts, labels, groups = zip(*rows, strict=True)
    train(Labelled(texts, labels, groups), ["the dog was in the boat ."], "of a test").save(folder / JUDGE)
    card = {
        "kind": "judge",
        "name": JUDGE,
        "version": 1,
        "licence": "own",
        "reader": "local",
        "checkpoint": JUDGE,
    }
    write_yaml(folder / f"{JUDGE}.yaml", card)


def write_expression(root: Path) -> Path:
    """All of it below `root`."""
    save_writer(root / "models" / "checkpoints" / MODEL)
    card = {
        "kind": "model", "name": MODEL, "version": 1, "family": "causal_lm", "modality": "text",
        "licence": "own", "checkpoint": f"checkpoints/{MODEL}", "default_task": TASK,
    }  # fmt: skip
    write_yaml(root / "models" / f"{MODEL}.yaml", card)
    path = write_benchmark(root, name=TASK, **EXPRESSION)
    unused = ("data", "prompt", "cluster", "split")
    content = yaml.safe_load(path.read_text())
    write_yaml(path, {key: value for key, value in content.items() if key not in unused})
    (path.parent / "scenes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scenes()))
    save_judge(root / "tasks" / "judges")
    write_protocol(
        root,
        name=PROTOCOL,
        site="neuron",
        positions="answer",
        statistics={"positions": "answer", "items": "correct", "minimum_items": 5},
        fractions=[0.25],
        arms={
            "suppress": {"operation": "scale", "doses": [0]},
            "amplify": {"operation": "add", "doses": [1, 2]},
        },
    )
    return root


@pytest.fixture(scope="session")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The content folder, made once."""
    return Bench(write_expression(tmp_path_factory.mktemp("expression")))


@pytest.fixture(scope="session")
def written(writer: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of one finished cell; tests that change them work on a copy."""
    from affectbench.plan import job_of_names

    output = tmp_path_factory.mktemp("written")
    job = job_of_names(writer.registry(), MODEL, TASK, ["magnitude", "random"], [PROTOCOL], 0)
    writer.run(job, output)
    return output
