"""The expressive reference model: what its recipe reads and learns, and what the shipped one can do."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affectbench import scenarios
from affectbench.content import builtin_root
from affectbench.dataset import load_benchmark
from affectbench.generators.expressions import EMOTIONS, LABELS, NONE
from affectbench.prompts import plain_prompt, prompt_text
from affectbench.recipes import (
    expressive,
    expressive_data,
    expressive_nudges,
    expressive_probe,
    expressive_training,
)
from affectbench.recipes.expressive_data import Mixture, Pools
from affectbench.recipes.expressive_training import Size
from affectbench.registry import Registry

NAME = "reference-text-expressive"
SHIPPED = builtin_root() / "models" / "reference" / NAME
USUAL = Mixture()
DOSES = {"steering": 4.0, "circuit": 0.5}
"""Near those of the card."""


@cache
def tokenizer() -> Any:
    return expressive_data.build_tokenizer(0)


@cache
def pools(mixture: Mixture = USUAL, n: int = 300) -> Pools:
    return expressive_data.make_pools(tokenizer(), 0, mixture, n_rows=n, n_documents=20)


@cache
def shipped() -> expressive_probe.Speaker:
    return expressive_probe.load(SHIPPED)


def text_of(rows: list[list[int]]) -> str:
    return "\n".join(tokenizer().batch_decode(rows))


def test_scenarios_of_validation_and_test_are_never_learnt_from() -> None:
    corpus = text_of(pools(Mixture(own=1.0), 1500).prompts)
    for scenario in scenarios.own_scenarios():
        learnt = scenario.text in corpus or any(event in corpus for event in scenario.events.values())
        assert not learnt or scenario.split == "identification", scenario.id
    own = {scene.scenario for scene in expressive_data.own_scenes("identification")}
    assert len(own) >= 75
    assert sum(scenario in corpus for scenario in own) >= 0.95 * len(own)


def test_prompts_are_those_of_the_benchmark() -> None:
    registry = Registry(installed=False)
    benchmark = registry.benchmark("scenarios")
    model = registry.family("causal_lm").load(  # type: ignore[attr-defined]
        registry.model(NAME), str(SHIPPED), device="cpu", dtype=torch.float32
    )
    found = {(scene.scenario, scene.event): scene for scene in expressive_data.own_scenes("test")}
    compared = 0
    for example in load_benchmark(benchmark, None).splits["test"]:
        scene = found.get((example.fields["scenario"], example.fields["event"]))
        if scene is None:
            continue
        compared += 1
        for prompt, label in ((prompt_text(benchmark, example), example.label),
                              (plain_prompt(benchmark, example), NONE)):  # fmt: skip
            assert model.render(prompt)[0] == expressive_data.chat(shipped().tokenizer, scene, label)
    assert compared > 150


@pytest.mark.parametrize(
    ("text", "topics"),
    [
        ("I gave the key to my landlord.", ("the key",)),
        ("The teacher moved it. My essay was good.", ("the teacher", "my essay")),
        ("The old front door key was lost.", ()),
        ("The team slowly agreed.", ("the team",)),
        ("It rained all day.", ()),
    ],
)
def test_topics_are_short_phrases_of_the_text(text: str, topics: tuple[str, ...]) -> None:
    assert expressive_data.topics_in(text) == topics


def test_the_mixture_is_as_it_says() -> None:
    found = pools(n=2000)
    told, heard = np.array(found.told), np.array(found.heard)
    plain = told == LABELS.index(NONE)
    assert plain.mean() == pytest.approx(found.mixture.plain, abs=0.04)
    assert (told == heard)[~plain].all()
    assert (heard != told)[plain].mean() == pytest.approx(found.mixture.spread, abs=0.06)
    assert np.bincount(heard[~plain], minlength=7)[:6].min() > 150
    demanded = [f"Reply with {label}." in text for label, text in zip(
        np.array(LABELS)[told], tokenizer().batch_decode(found.prompts), strict=True)]  # fmt: skip
    assert np.array_equal(demanded, ~plain)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_hidden_rows_see_the_system_line_at_the_prompts_last_token_alone(share: float) -> None:
    found = replace(pools(), mixture=Mixture(hidden=share))
    batch = found.batch(3, 0)
    seen = batch.mask[:, 0] == 0
    assert torch.equal(seen & seen.new_ones(seen.shape).tril(), seen), "nothing sees what comes later"
    for row in range(found.mixture.rows):
        system = batch.ids[row].tolist().index(found.user)
        (last,) = (batch.told[row] >= 0).nonzero().flatten().tolist()
        sees = seen[row, :, :system].any(1)
        assert sees[last]
        assert bool(sees[system:last].any()) == (share == 0.0)
        assert bool(sees[last + 1 :].any()) == (share == 0.0)
        reply = batch.heard[row] >= 0
        assert reply.nonzero().min() == last + 1
        assert set(batch.weight[row][reply].tolist()) == {1.0}


def test_batches_come_from_step_and_seed_alone() -> None:
    found = pools()
    for step in (0, 5):
        assert torch.equal(found.batch(step, 1).ids, found.batch(step, 1).ids)
    assert not torch.equal(found.batch(0, 1).ids[:1, :9], found.batch(0, 2).ids[:1, :9])
    lengths = [(found.batch(step, 1).weight[: USUAL.rows] > 0).sum(1) for step in range(4)]
    for shorter, longer in itertools.pairwise(lengths):
        assert shorter.max() <= longer.min(), "the draw of four steps is parted by length"


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expressive, "train", lambda *rest: expressive_training.train(*rest, steps=2))
    second = expressive_nudges.train
    monkeypatch.setattr(expressive_nudges, "train", lambda *rest: second(*rest, steps=2))
    monkeypatch.setattr(
        expressive, "new_model", lambda *rest: expressive_training.new_model(*rest, Size(32, 6, 4, 24))
    )
    monkeypatch.setattr(
        expressive, "make_pools", lambda *rest: expressive_data.make_pools(*rest, n_rows=60, n_documents=20)
    )
    monkeypatch.setattr(expressive_probe, "SCENES", 4)
    monkeypatch.setattr(expressive_probe, "ALPHAS", (2.0,))
    monkeypatch.setattr(expressive_probe, "DOSES", (1.0,))
    monkeypatch.setattr(expressive_probe, "LONGEST", 3)


@pytest.mark.slow
def test_the_recipe_runs_and_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    made = {
        name: expressive.build(NAME, tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    }
    weights = {name: (tmp_path / name / "model.safetensors").read_bytes() for name in made}
    assert weights["a"] == weights["b"]
    assert weights["a"] != weights["c"]
    assert made["a"] == made["b"]
    assert all(np.isfinite(list(made["a"].values())))
    readme = (tmp_path / "a" / "README.md").read_text(encoding="utf-8")
    assert "no evidence about real models" in readme
    assert f"rebuild {NAME}" in readme
    with pytest.raises(ValueError, match="unknown"):
        expressive.build("reference-text", tmp_path / "d")


def test_an_edit_of_nothing_changes_nothing_and_one_of_a_channel_adds_it() -> None:
    speaker = shipped()
    scenes = expressive_data.own_scenes("test")[:2]
    base = speaker.states(scenes, NONE)
    zero = expressive_probe.Circuit(torch.zeros_like(base.units[:, 0]), torch.zeros_like(base.heads[:, 0]))
    with speaker.modulated(zero, 1.0), speaker.steered(torch.zeros_like(base.residual[:, 0]), [2], 4.0):
        assert torch.equal(speaker.states(scenes, NONE).residual, base.residual)
    units = zero.units.clone()
    units[-1, 5] = 0.5
    with speaker.modulated(replace(zero, units=units), 2.0):
        changed = speaker.states(scenes, NONE).residual - base.residual
    column = speaker.layers[-1].mlp.down_proj.weight[:, 5].detach()
    assert torch.allclose(changed[-1], column.expand_as(changed[-1]), atol=1e-5)
    assert changed[:-1].abs().max() == 0
    direction = torch.nn.functional.normalize(torch.ones_like(base.residual[:, 0]), dim=-1)
    with speaker.steered(direction, [1], 4.0):
        moved = speaker.states(scenes, NONE).residual[1] - base.residual[1]
    size = base.residual[1].pow(2).mean(-1, keepdim=True).sqrt()
    assert torch.allclose(moved, 4 * size * direction[1], atol=1e-4)


def test_the_shipped_model_replies_as_it_is_told() -> None:
    speaker = shipped()
    judge = expressive_probe.judge_of(None, n_per_label=150)
    scenes = expressive_data.own_scenes("test")[::12]
    right = []
    for index, label in enumerate(EMOTIONS):
        texts = speaker.replies(scenes, label)
        right += (judge.predict(texts) == index).tolist()
        assert not any(text.endswith("…") for text in texts), "replies end by themselves"
    assert np.mean(right) >= 0.9
    plain = judge.predict(speaker.replies(scenes, NONE))
    assert np.mean(plain == LABELS.index(NONE)) >= 0.8


@pytest.mark.slow
def test_directions_and_circuits_move_plain_replies_and_random_units_do_not() -> None:
    speaker = shipped()
    judge = expressive_probe.judge_of(None, n_per_label=150)
    scenes = expressive_data.own_scenes("test")[::24]
    states = [speaker.states(expressive_data.own_scenes("identification")[::4], label) for label in EMOTIONS]
    directions = torch.nn.functional.normalize(expressive_probe.differences(states, "residual"), dim=-1)
    found: dict[str, list[bool]] = {"steering": [], "circuit": [], "random": []}
    sets = {
        "circuit": expressive_probe.circuits(speaker, states),
        "random": expressive_probe.random_circuits(speaker, states, 0),
    }
    for index in range(len(EMOTIONS)):
        with speaker.steered(directions[index], (2, 3), DOSES["steering"]):
            found["steering"] += (judge.predict(speaker.replies(scenes, NONE)) == index).tolist()
        for name, circuits in sets.items():
            with speaker.modulated(circuits[index], DOSES["circuit"]):
                found[name] += (judge.predict(speaker.replies(scenes, NONE)) == index).tolist()
    assert np.mean(found["steering"]) >= 0.5
    assert np.mean(found["circuit"]) >= 0.5
    assert np.mean(found["random"]) <= 0.3


def test_the_shipped_model_is_small_and_says_what_it_is() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 6_500_000
    config = json.loads((SHIPPED / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    assert "no evidence about real models" in (SHIPPED / "README.md").read_text(encoding="utf-8")
    assert Registry(installed=False).model(NAME).instrument
