"""Adaptation trains what it says and nothing else, the same each time, and is found again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_module_edit import digest, logits
from tiny_models import family, tiny_card

from affectbench import tiny
from affectbench.dataset import load_benchmark
from affectbench.errors import AffectbenchError
from affectbench.model import Model
from affectbench.module_adapt import Budget, Plan, adapt, answer_loss, average_recall
from affectbench.module_edit import FullWeights, Overlay, Pair
from affectbench.module_experiments import (
    Recipe,
    changes_of_pair,
    matched_rank,
    shuffled,
    train,
    trained_apart,
)
from affectbench.module_store import Adaptations
from affectbench.module_types import TYPES, modules_of
from affectbench.registry import Registry
from affectbench.session import Session

SHORT = Budget(steps=4, batch=4, every=2)


def model_of(name: str) -> Model:
    words = tiny.byte_tokenizer()
    kind = tiny.network_class(f"{name}ForCausalLM")
    network = tiny.random_network(kind, tiny.shrunk(kind.config_class, words), 0)
    return family("causal_lm")(network, words, tiny_card("causal_lm", f"tiny-{name.lower()}"), None)


def session_of(model: Model, task: str = "reference-narratives") -> Session:
    registry = Registry(installed=False)
    benchmark = registry.benchmark(task)
    return Session(model, benchmark, load_benchmark(benchmark, limit=2), registry.benchmark, 2)


@pytest.fixture(scope="module")
def session() -> Session:
    return session_of(model_of("Qwen2"))


@pytest.fixture
def rising(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last step is the best one."""
    monkeypatch.setattr("affectbench.module_adapt._validated", lambda _session, _plan, step: step / 100)


@pytest.mark.usefixtures("rising")
@pytest.mark.parametrize("rank", [3, 0])
def test_only_the_planned_types_change_and_the_base_comes_back(session: Session, rank: int) -> None:
    model = session.model
    before, plain = digest(model), logits(model)
    found = adapt(session, Plan(("gate", "o"), rank, 0.01), SHORT)
    assert digest(model) == before
    assert not any(weight.requires_grad for weight in model.network.parameters())
    assert model.folds == ()
    pair = Pair(model, found.adapted)
    changes = changes_of_pair(pair)
    sizes = dict(zip(changes.modules.types, changes.values("absolute"), strict=True))
    assert {kind for kind, row in sizes.items() if row.all()} == {"gate", "o"}
    assert not any(row.any() for kind, row in sizes.items() if kind not in ("gate", "o"))
    assert changes.other == 0
    if rank:
        names = found.adapted.names
        assert all(found.adapted.factors[name].rank == rank for name in names)  # type: ignore[attr-defined]
        assert pair.modules.lora_parameters(("gate", "o"), rank) == sum(
            found.adapted.factors[name].a.numel() + found.adapted.factors[name].b.numel()  # type: ignore[attr-defined]
            for name in names
        )
    with pair.overlaid(Overlay(pair.everything)):
        assert not torch.allclose(logits(model), plain, atol=1e-4)
    assert digest(model) == before


def test_the_loss_is_that_of_the_answers_tokens(session: Session) -> None:
    """Several tokens an answer here; compared with transformers' own loss, one item at a time."""
    items, readout, model = session.items("identification"), session.readout, session.model
    assert max(map(len, readout.candidates)) > 1
    places = [0, 5, 9]
    losses, counts = [], []
    for place in places:
        answer = readout.candidates[int(items.gold[place])]
        ids = torch.cat([items.items[place].ids, torch.tensor(answer)])[None]
        labels = torch.full_like(ids, -100)
        labels[0, -len(answer) :] = torch.tensor(answer)
        losses.append(float(model.network(input_ids=ids, labels=labels).loss) * len(answer))
        counts.append(len(answer))
    found = float(answer_loss(model, items, readout, items.gold, places))
    assert found == pytest.approx(sum(losses) / sum(counts), rel=1e-4)


def test_adapting_learns_and_the_same_plan_gives_the_same_weights(session: Session) -> None:
    plan, budget = Plan(TYPES, 4, 0.02), Budget(steps=20, batch=14, every=5)
    found = adapt(session, plan, budget)
    items = session.items("identification")
    everything = np.arange(len(items))
    with torch.no_grad():
        before = float(answer_loss(session.model, items, session.readout, items.gold, everything))
        pair = Pair(session.model, found.adapted)
        with pair.overlaid(Overlay(pair.everything)):
            after = float(answer_loss(session.model, items, session.readout, items.gold, everything))
    assert found.steps == (0, 5, 10, 15, 20)
    assert found.chosen == found.steps[int(np.argmax(found.recalls))]
    assert found.chosen == 0 or after < before
    again = adapt(session, plan, budget)
    assert again.recalls == found.recalls
    assert again.adapted.digest == found.adapted.digest
    other = adapt(session, replace(plan, seed=1), SHORT)
    assert other.adapted.digest != adapt(session, plan, SHORT).adapted.digest


def test_what_is_kept_is_the_best_on_validation(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    recalls = iter([0.1, 0.5, 0.5])
    monkeypatch.setattr("affectbench.module_adapt._validated", lambda *_: next(recalls))
    found = adapt(session, Plan(("up",), 0, 0.01), SHORT)
    assert (found.chosen, found.best, found.recalls) == (2, 0.5, (0.1, 0.5, 0.5))
    monkeypatch.setattr("affectbench.module_adapt._validated", lambda *_: 0.3)
    nothing = adapt(session, Plan(("up",), 0, 0.01), SHORT)
    assert nothing.chosen == 0
    assert isinstance(nothing.adapted, FullWeights)
    parameters = dict(session.model.network.named_parameters())
    assert all(torch.equal(value, parameters[name]) for name, value in nothing.adapted.tensors.items())


def test_test_items_are_never_looked_at(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    own = Session.items
    monkeypatch.setattr(Session, "items", lambda self, split: asked.append(split) or own(self, split))
    adapt(session, Plan(("up",), 2, 0.01, labels="shuffled"), SHORT)
    assert set(asked) == {"identification", "validation"}


@pytest.mark.usefixtures("rising")
def test_square_transposed_weights_get_the_change_that_was_trained() -> None:
    """GPT-2 keeps (inputs, outputs); its attention's output is square, so a shape cannot tell."""
    words = tiny.byte_tokenizer()
    kind = tiny.network_class("GPT2LMHeadModel")
    network = tiny.random_network(kind, tiny.shrunk(kind.config_class, words, n_inner=24), 0)
    session = session_of(family("causal_lm")(network, words, tiny_card("causal_lm", "tiny-gpt2"), None))
    found = adapt(session, Plan(("o",), 2, 0.01), SHORT)
    pair = Pair(session.model, found.adapted)
    (name, *_) = found.adapted.names
    factors = found.adapted.factors[name]  # type: ignore[attr-defined]
    inputs = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    module = network.get_submodule(name.removesuffix(".weight"))
    before = module(inputs)
    with pair.overlaid(Overlay(("o",))):
        after = module(inputs)
    expected = factors.scaling * (inputs @ factors.a.T @ factors.b.T)
    torch.testing.assert_close(after - before, expected, rtol=1e-4, atol=1e-6)


def test_fused_types_are_trained_together_or_refused() -> None:
    session = session_of(model_of("Phi3"))
    with pytest.raises(AffectbenchError, match=r"gate_up_proj.weight holds gate together with up"):
        adapt(session, Plan(("gate",), 2, 0.01), SHORT)
    found = adapt(session, Plan(("gate", "up"), 2, 0.01), SHORT)
    assert len(found.adapted.names) == 3
    modules = modules_of(session.model)
    assert trained_apart(modules, ("gate", "up"))
    assert not trained_apart(modules, ("gate",))
    assert trained_apart(modules, ("o",))


def test_a_loss_that_is_not_finite_is_an_error_and_leaves_the_base(session: Session) -> None:
    before = digest(session.model)
    with pytest.raises(AffectbenchError, match=r"adapting up: the loss is (nan|inf) at step \d"):
        adapt(session, Plan(("up",), 0, 3e37), Budget(steps=8, batch=4, every=8))
    assert digest(session.model) == before


@pytest.fixture
def store(session: Session, tmp_path: Path) -> Adaptations:
    return Adaptations(tmp_path, session, SHORT, "origin")


@pytest.mark.usefixtures("rising")
def test_an_adaptation_is_trained_once_and_peft_reads_it(store: Adaptations, tmp_path: Path) -> None:
    from peft import PeftModel

    plan = Plan(("gate", "q"), 2, 0.01)
    trained = store.get(plan)
    store.train = lambda *_: pytest.fail("it was trained again")  # type: ignore[assignment]
    again = store.get(plan)
    assert (again.adapted.digest, again.recalls, again.chosen) == (
        trained.adapted.digest, trained.recalls, trained.chosen
    )  # fmt: skip
    model = store.session.model
    with Pair(model, again.adapted).overlaid(Overlay(TYPES)):
        found = {name: value.clone() for name, value in model.network.state_dict().items()}
    network = model_of("Qwen2").network
    merged = PeftModel.from_pretrained(network, store.path(plan)).merge_and_unload().state_dict()
    for name, value in found.items():
        torch.testing.assert_close(merged[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("rising")
def test_full_weights_are_found_again_and_damage_is_told(store: Adaptations) -> None:
    plan = Plan(("down",), 0, 0.01)
    trained = store.get(plan)
    store.train = lambda *_: pytest.fail("it was trained again")  # type: ignore[assignment]
    assert isinstance(again := store.get(plan).adapted, FullWeights)
    assert all(torch.equal(value, trained.adapted.tensors[name]) for name, value in again.tensors.items())  # type: ignore[attr-defined]
    summary = store.path(plan) / "adaptation.json"
    summary.write_text(summary.read_text()[:-20])
    with pytest.raises(AffectbenchError, match=r"is damaged.*delete this folder"):
        store.get(plan)


def test_names_tell_all_that_can_change_an_adaptation(store: Adaptations) -> None:
    plan = Plan(("gate",), 2, 0.01)
    paths = {
        store.path(each)
        for each in (
            plan, replace(plan, rank=3), replace(plan, rate=0.02), replace(plan, seed=1),
            replace(plan, labels="shuffled"), replace(plan, types=("up",)),
        )
    }  # fmt: skip
    paths |= {replace(store, budget=Budget(5, 4, 2)).path(plan), replace(store, origin="other").path(plan)}
    assert len(paths) == 8


@pytest.mark.usefixtures("rising")
def test_the_rate_is_chosen_with_the_first_seed_and_labels_can_be_shuffled(store: Adaptations) -> None:
    asked: list[Plan] = []
    real = store.train

    def noted(session: Session, plan: Plan, budget: Budget, told: Any) -> Any:
        asked.append(plan)
        best = {0.01: 0.2, 0.02: 0.6, 0.03: 0.6}[plan.rate]
        return replace(real(session, plan, budget, told), recalls=(0.1, best))

    store.train = noted
    modules = modules_of(store.session.model)
    found = train(store, "gate", Recipe(2, (0.03, 0.01, 0.02), 3, SHORT), modules)
    assert found.rate == 0.02
    assert [(plan.rate, plan.seed) for plan in asked] == [
        (0.01, 0), (0.02, 0), (0.03, 0), (0.02, 1), (0.02, 2)
    ]  # fmt: skip
    assert len(found.pairs) == 3
    assert found.learnt
    assert not replace(found, curves=((0.1, 0.14), (0.2, 0.15))).learnt
    control = shuffled(store, found, Recipe(2, (0.02,), 2, SHORT))
    assert {plan.labels for plan in asked[5:]} == {"shuffled"}
    assert control.pairs[0].adapted.digest != found.pairs[0].adapted.digest
    summaries = list(store.folder.rglob("adaptation.json"))
    assert len(summaries) == 7
    assert json.loads(summaries[0].read_text())["plan"]["types"] == ["gate"]


def test_matched_ranks_have_about_as_many_parameters() -> None:
    modules = modules_of(model_of("Qwen2"))
    for types in (("q",), ("k",), ("up",), ("q", "k", "v", "o"), TYPES):
        rank = matched_rank(modules, types, 16, ["gate"])
        wanted = modules.lora_parameters(["gate"], 16)
        assert abs(modules.lora_parameters(types, rank) - wanted) <= modules.lora_parameters(types, 1) / 2
    assert matched_rank(modules, ("up",), 16, ["gate"]) == 16


def test_average_recall_is_the_mean_over_labels() -> None:
    gold = np.array([0, 0, 0, 1])
    assert average_recall(np.array([0, 0, 1, -2], dtype=np.int8), gold) == pytest.approx((2 / 3 + 0) / 2)
