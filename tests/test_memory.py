"""Memory: a batch that does not fit comes again in halves and nothing is lost; the peak does not grow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import items, long_readout, readout, tiny_qwen2

from affectbench.conformance_runs import Allocated
from affectbench.engine import CPU_GROWTH, Engine
from affectbench.errors import AffectbenchError
from affectbench.evidence import ATTRIBUTION, MEAN, MEAN_ABS, RATE, EvidencePass, requests_of
from affectbench.intervention import UNTOUCHED, Intervention, mean_ablation, scale
from affectbench.lm_harness import PackedLM, neutral_text
from affectbench.memory import peak_memory_mib, ran_out
from affectbench.model import Model
from affectbench.preservation import Capability, Preserver
from affectbench.readout import UNPARSED, Items, Readout

SHORTAGES = {
    "device": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 1099511627776 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "numpy": lambda: MemoryError("Unable to allocate 8.00 TiB for an array"),
}


@pytest.fixture
def model() -> Model:
    return tiny_qwen2()


def interventions(model: Model) -> list[Intervention]:
    """Edits that begin in different layers, so that passes are watched, folded and run whole."""
    shape = model.shape
    late, means = 2 * shape.width + np.arange(6), np.linspace(-1, 1, shape.units)
    found = [UNTOUCHED, scale("gate", shape, np.arange(9), 0.0), mean_ablation("gate", shape, late, means)]
    return [*found, *(scale("neuron", shape, late, dose) for dose in (0.0, 2.0, 4.0))]


def generated(engine: Engine, told: list[int]) -> np.ndarray:
    asked = readout(engine.model)
    spoken = Readout(asked.labels, asked.candidates, 5, lambda text, _order: len(text) % 100)
    return engine.predict(items(engine.model), spoken, interventions(engine.model), told.append).codes


def answers(asked: Callable[[Model], Readout]) -> Callable[[Engine, list[int]], np.ndarray]:
    def run(engine: Engine, told: list[int]) -> np.ndarray:
        model = engine.model
        return engine.predict(items(model), asked(model), interventions(model), told.append).scores

    return run


def evidence(*needs: str) -> Callable[[Engine, list[int]], np.ndarray]:
    def run(engine: Engine, told: list[int]) -> np.ndarray:
        requests = requests_of(needs, "gate", "content")
        found = EvidencePass(
            engine, items(engine.model), readout(engine.model), requests, correct_only=False
        ).run(told.append)
        both = [found.evidence("gate", "content", shuffled=shuffled) for shuffled in (False, True)]
        return np.stack([getattr(each, name) * each.items[:, None, None] for each in both for name in needs])

    return run


def neutral(engine: Engine, told: list[int]) -> np.ndarray:
    texts = ["the child lost a dog", "the night was very sad", "a song found the rain is sad very sad"]
    found = neutral_text(PackedLM(engine, interventions(engine.model)), texts)
    told.append(0)
    return np.stack([found.kl, found.nll])


def open_ended(engine: Engine, told: list[int]) -> np.ndarray:
    prompts = [
        engine.model.open_prompt(str(place), text)
        for place, text in enumerate(["the child", "a dog was lost", "very very sad the"])
    ]
    told.append(0)
    made = Preserver(engine, [], Capability("none"), prompts, 6)
    return made._degenerate(interventions(engine.model)[1:])


PLACES = {
    "answers": answers(readout),
    "long answers": answers(long_readout),
    "generation": generated,
    "evidence": evidence(MEAN, RATE),
    "evidence with gradients": evidence(MEAN, ATTRIBUTION),
    "neutral text": neutral,
    "open prompts": open_ended,
}


@dataclass
class Shortage:
    """Counts forward passes; runs out of memory in those that `short` names by number and tokens."""

    model: Model
    error: Callable[[], BaseException]
    short: Callable[[int, int], bool]
    passes: int = 0

    def decode(self, batch: Any, **options: Any) -> Any:
        self.passes += 1
        if self.short(self.passes, batch.embeds.shape[0] * batch.embeds.shape[1]):
            raise self.error()
        return type(self.model).decode(self.model, batch, **options)


def under(
    monkeypatch: pytest.MonkeyPatch,
    engine: Engine,
    short: Callable[[int, int], bool],
    error: Callable[[], BaseException] = SHORTAGES["device"],
) -> Shortage:
    shortage = Shortage(engine.model, error, short)
    monkeypatch.setattr(engine.model, "decode", shortage.decode)
    return shortage


def warm(model: Model) -> Engine:
    """An engine that has tried its model out already: only what is asked of it runs from here on."""
    engine = Engine(model)
    _ = engine.foldable
    engine.predict(items(model, count=2, seed=9), long_readout(model), [UNTOUCHED])
    return engine


@pytest.mark.parametrize(
    ("place", "shortage"),
    [
        *((place, "device") for place in PLACES),
        ("answers", "cpu"),
        ("generation", "cpu"),
        ("evidence", "numpy"),
    ],
)
def test_memory_may_run_out_in_any_pass(
    model: Model, monkeypatch: pytest.MonkeyPatch, place: str, shortage: str
) -> None:
    engine, steady = warm(model), []
    count = under(monkeypatch, engine, lambda *_: False)
    expected = PLACES[place](engine, steady)
    assert count.passes > 0
    for broken in range(1, count.passes + 1):
        engine, told = warm(model), []
        under(monkeypatch, engine, lambda number, _, broken=broken: number == broken, SHORTAGES[shortage])
        found = PLACES[place](engine, told)
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4, err_msg=f"pass {broken}")
        assert engine.cost.halvings == 1
        assert sum(told) == sum(steady), "no pair is reported twice"
        monkeypatch.undo()


@pytest.mark.parametrize("place", PLACES)
def test_a_run_goes_on_down_to_one_item(model: Model, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    expected = PLACES[place](warm(model), [])
    engine = warm(model)
    longest = 8 + len(long_readout(model).prefixes)
    under(monkeypatch, engine, lambda _, tokens: tokens > longest)
    np.testing.assert_allclose(PLACES[place](engine, []), expected, atol=1e-4, rtol=1e-4)
    assert engine.cost.halvings >= 1
    assert engine.tokens < 2 * longest


@pytest.mark.parametrize("place", PLACES)
def test_what_does_not_fit_alone_is_an_error(
    model: Model, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    engine = warm(model)
    under(monkeypatch, engine, lambda *_: True)
    with pytest.raises(AffectbenchError, match="does not fit into the memory of cpu"):
        PLACES[place](engine, [])


def test_other_errors_are_not_taken_for_a_shortage(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(ran_out(make()) for make in SHORTAGES.values())
    engine = warm(model)
    under(monkeypatch, engine, lambda *_: True, lambda: RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        PLACES["answers"](engine, [])
    assert engine.cost.halvings == 0


def test_an_allocation_that_really_fails_is_told_apart() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert ran_out(caught.value)


@pytest.mark.parametrize("extra", [0, 7])
def test_what_rows_grow_by_is_in_the_budget(
    model: Model, monkeypatch: pytest.MonkeyPatch, extra: int
) -> None:
    """A row's cache holds its prompt and all that it may be fed."""
    asked, budget = readout(model), 60
    most, rows = [0], []
    spoken = Readout(asked.labels, asked.candidates, extra, lambda *_: UNPARSED) if extra else asked
    engine = Engine(model, tokens=budget)
    count = under(monkeypatch, engine, lambda *_: False)
    real = count.decode

    def decode(batch: Any, **options: Any) -> Any:
        size = batch.embeds.shape[0] * (batch.mask.shape[1] if extra else batch.embeds.shape[1])
        most[0] = max(most[0], size)
        rows.append(batch.embeds.shape[0])
        return real(batch, **options)

    monkeypatch.setattr(model, "decode", decode)
    engine.predict(items(model), spoken, interventions(model))
    assert 0 < most[0] <= budget * (CPU_GROWTH if extra else 1)
    assert max(rows) > 1


def alike(model: Model, count: int, seed: int) -> Items:
    """Items of one length, so that all batches have one shape."""
    rng = np.random.default_rng(seed)
    one = items(model, count=1).items[0]
    made = [
        replace(one, id=f"{seed}-{place:04d}", ids=torch.as_tensor(rng.integers(3, 26, size=len(one))))
        for place in range(count)
    ]
    return Items("test", tuple(made), np.arange(count) % 3, tuple(map(str, range(count))))


def peak_over(model: Model, place: str, batches: int, seed: int) -> int:
    """Bytes that are allocated at once, at most, while so many batches of 8 items are worked on."""
    data = alike(model, 8 * batches, seed)
    engine = warm(model)
    engine.tokens = 8 * (len(data.items[0]) + 4)
    asked, edits = readout(model), interventions(model)[1:4]
    _ = data.digest  # The items themselves are not what is measured.
    with Allocated() as allocated:
        if place == "evidence":
            needs = requests_of({MEAN, MEAN_ABS, RATE, ATTRIBUTION}, "gate", "all")
            EvidencePass(engine, data, asked, needs, correct_only=False).run()
        elif place == "neutral text":
            texts = [" ".join(["the child lost a very sad dog"] * 2) + f" {n}" for n in range(8 * batches)]
            neutral_text(PackedLM(engine, edits), texts)
        elif place == "generation":
            spoken = Readout(asked.labels, asked.candidates, 4, lambda *_: UNPARSED)
            engine.predict(data, spoken, edits)
        else:
            engine.predict(data, (long_readout if place == "long answers" else readout)(model), edits)
    assert allocated.peak > 0
    return allocated.peak


@pytest.mark.parametrize("place", ["answers", "long answers", "generation", "evidence", "neutral text"])
def test_the_peak_does_not_grow_over_100_batches(model: Model, place: str) -> None:
    few, many = peak_over(model, place, 5, 0), peak_over(model, place, 100, 1)
    assert many <= few * 1.05


def test_one_small_tensor_kept_of_each_batch_would_be_seen(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, kept, real = peak_over(model, "answers", 5, 0), [], model.collate

    def collate(chosen: Any) -> Any:
        batch = real(chosen)
        kept.append(batch.embeds[:, -1].clone())
        return batch

    monkeypatch.setattr(model, "collate", collate)
    assert peak_over(model, "answers", 100, 1) > few * 1.05


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux passes the peak on to what a process starts")
def test_the_peak_is_not_that_of_whoever_started_the_process() -> None:
    code = "import affectbench.memory as memory; print(memory.peak_memory_mib())"
    held = np.ones(1 << 26)  # 512 MiB
    told = float(subprocess.check_output([sys.executable, "-c", code], text=True))
    assert 10 < told < peak_memory_mib() - held.nbytes / (1 << 21)
