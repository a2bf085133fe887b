"""What is computed once and used again: it is, and no score changes by it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from e2e_content import BENCHMARK, Bench
from tiny_models import items, long_readout, readout, tiny_dense, tiny_qwen2
from torch import Tensor

from affectbench.controls import layer_matched
from affectbench.dataset import load_benchmark
from affectbench.engine import Engine, Start
from affectbench.intervention import UNTOUCHED, Edit, Intervention, scale
from affectbench.lm_harness import PackedLM, neutral_text
from affectbench.model import Model
from affectbench.placement import load_model
from affectbench.readout import Readout, codes_of, margins_of
from affectbench.registry import Registry
from affectbench.selector import Selection
from affectbench.session import Session


@pytest.fixture
def model() -> Model:
    return tiny_qwen2()


def spoken(model: Model) -> Readout:
    asked = readout(model)
    return Readout(asked.labels, asked.candidates, 4, lambda text, _order: len(text) % 100)


def late(model: Model, count: int = 5) -> list[Intervention]:
    """Edits of the last layer alone."""
    units = 2 * model.shape.width + np.arange(6)
    return [scale("gate", model.shape, units, dose) for dose in np.linspace(-2, 0.5, count)]


@contextmanager
def seen(module: Any) -> Iterator[list[tuple[int, ...]]]:
    """The shape of the first input of each call."""
    shapes: list[tuple[int, ...]] = []

    def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args[0] if args else kwargs["hidden_states"]
        shapes.append(tuple(given.shape))

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield shapes
    finally:
        handle.remove()


def ready(model: Model) -> Engine:
    """An engine that has tried its model out already."""
    engine = Engine(model)
    _ = engine.foldable
    engine.predict(items(model, count=2, seed=9), long_readout(model), [UNTOUCHED])
    return engine


def attention(model: Model, layer: int) -> Any:
    return model.layers[layer].self_attn.q_proj


@pytest.mark.parametrize("asked", [readout, long_readout])
def test_layers_below_the_edits_run_once_a_batch(model: Model, asked: Any) -> None:
    engine, data = ready(model), items(model)
    with seen(attention(model, 0)) as first, seen(attention(model, 2)) as last:
        found = engine.predict(data, asked(model), late(model)).scores
    assert sum(shape[0] for shape in first) == len(data)
    assert sum(shape[0] for shape in last) <= 2 * len(data), "a folded layer is corrected, not run"
    engine = ready(model)
    engine._start = lambda *_args, **_options: Start(0)  # type: ignore[method-assign]
    whole = engine.predict(data, asked(model), late(model)).scores
    np.testing.assert_allclose(found, whole, atol=2e-5)


def test_prompts_run_once_below_the_edits_for_generation_too(model: Model) -> None:
    data, asked = items(model), spoken(model)
    engine = ready(model)
    with seen(attention(model, 0)) as first:
        found = engine.predict(data, asked, late(model)).codes
    assert sum(shape[0] for shape in first if shape[1] > 1) == len(data), "prompts"
    engine = ready(model)
    engine._start = lambda *_args, **_options: Start(0)  # type: ignore[method-assign]
    with seen(attention(model, 0)) as first:
        whole = engine.predict(data, asked, late(model)).codes
    assert sum(shape[0] for shape in first if shape[1] > 1) == 5 * len(data)
    np.testing.assert_array_equal(found, whole)


def test_generations_share_their_steps_where_prompts_are_short(model: Model) -> None:
    """Edits of all layers would make three groups; apart, each would take its own steps."""
    data, asked = items(model), spoken(model)
    width = model.shape.width
    mixed = [scale("gate", model.shape, layer * width + np.arange(6), -1.0) for layer in (0, 1, 2)]
    together, apart = ready(model), ready(model)
    before = together.cost.forward_passes
    found = together.predict(data, asked, mixed).codes
    steps = together.cost.forward_passes - before
    before = apart.cost.forward_passes
    each = np.concatenate([apart.predict(data, asked, [one]).codes for one in mixed])
    assert steps <= (apart.cost.forward_passes - before) / 2
    np.testing.assert_array_equal(found, each)


def test_long_prompts_are_not_run_again_to_share_a_few_steps(model: Model) -> None:
    mixed = [scale("gate", model.shape, np.arange(6), 0.0), *late(model)]
    short, long = model.collate(list(items(model).items)), SimpleNamespace(mask=torch.ones(64, 512))
    engine = ready(model)
    assert len(engine._groups(short, mixed, 24, False)) == 1
    assert len(engine._groups(long, mixed, 24, False)) == 2  # type: ignore[arg-type]


def test_one_pass_shows_the_base_and_what_edits_start_from(model: Model) -> None:
    """Neutral text under late edits: the untouched model is run once, for its likelihood and for the rest."""
    texts = ["the child lost the dog", "the night was very sad"]
    engine = ready(model)
    with seen(attention(model, 0)) as first:
        found = neutral_text(PackedLM(engine, late(model)), texts)
    assert sum(shape[0] for shape in first) == len(texts)
    alone = [neutral_text(PackedLM(ready(model), [edit]), texts) for edit in late(model)]
    np.testing.assert_allclose(found.kl, [np.zeros(len(texts)), *(one.kl[1] for one in alone)], atol=1e-6)
    np.testing.assert_allclose(found.nll, [alone[0].nll[0], *(one.nll[1] for one in alone)], rtol=1e-5)
    assert (found.kl[0] == 0).all()
    assert (found.kl[1:] > 0).all()


def test_folding_changes_no_score(model: Model) -> None:
    data, asked = items(model), readout(model)
    folded = ready(model)
    plain = ready(model)
    vars(plain)["foldable"] = frozenset()
    np.testing.assert_allclose(
        folded.predict(data, asked, late(model)).scores,
        plain.predict(data, asked, late(model)).scores,
        atol=2e-5,
    )
    assert folded.foldable


def test_logits_are_read_at_the_answer_alone(model: Model) -> None:
    data, head = items(model), model.network.get_output_embeddings()
    engine = ready(model)
    for asked, columns in ((readout(model), 1), (long_readout(model), 3)):
        with seen(head) as shapes:
            engine.predict(data, asked, [UNTOUCHED, *late(model, 2)])
        assert sum(int(np.prod(shape[:-1])) for shape in shapes) == 3 * len(data) * columns


def test_logits_of_other_positions_change_no_score(model: Model) -> None:
    data, asked, edits = items(model), readout(model), [UNTOUCHED, *late(model, 2)]
    engine = ready(model)
    found = engine.predict(data, asked, edits).scores
    for row, intervention in enumerate(edits):
        for place, item in enumerate(data.items):
            batch = model.collate([item])
            with torch.no_grad(), engine.editing([intervention]) as held:
                held.roles = batch.roles
                logits = model.logits(model.decode(batch))
            assert logits.shape[1] == len(item), "of all positions"
            whole = logits[0, -1].log_softmax(-1)[[ids[0] for ids in asked.candidates]]
            np.testing.assert_allclose(found[row, place], whole, atol=2e-5)


def test_prompts_are_embedded_once_a_batch(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    data, asked, edits = items(model), readout(model), [UNTOUCHED, *late(model)]
    alone = [ready(model).predict(data, asked, [each]).scores[0] for each in edits]
    engine, real, rows = ready(model), Model.embed, []  # type: ignore[var-annotated]

    def embed(self: Model, ids: Tensor) -> Tensor:
        rows.append(len(ids))
        return real(self, ids)

    monkeypatch.setattr(Model, "embed", embed)
    found = engine.predict(data, asked, edits).scores
    assert sum(rows) == len(data), "not once an intervention"
    np.testing.assert_allclose(found, np.stack(alone), atol=2e-5)


def test_answers_with_a_common_beginning_share_its_tokens(model: Model) -> None:
    shared = Readout(("a", "b", "c"), ((5, 6, 7), (5, 6, 8), (5, 9)))
    assert shared.prefixes == ((5,), (5, 6))
    data = items(model)
    with seen(attention(model, 0)) as shapes:
        ready(model).predict(data, shared, [UNTOUCHED])
    width = max(len(item) for item in data.items) + 2
    assert (len(data), width, 32) in shapes, "one pass with the prompt and two columns more"


def test_the_same_intervention_is_run_once_whoever_asks(model: Model) -> None:
    engine, data, asked = ready(model), items(model), readout(model)
    units = np.array([3, 50, 9])
    one = scale("gate", model.shape, units, 2.0)
    same = [
        scale("gate", model.shape, units[::-1].copy(), 2.0),
        Intervention((*one.edits, Edit("neuron", model.shape, units, "scale", np.ones(3)))),
    ]
    alone = ready(model)
    alone.predict(data, asked, [one])
    first = engine.predict(data, asked, [one, *same, one])
    assert engine.cost == alone.cost
    again = engine.predict(data, asked, same[::-1])
    assert engine.cost == alone.cost
    for row in (*first.scores, *again.scores):
        assert row.tobytes() == first.scores[0].tobytes()
    fresh = ready(model).predict(data, asked, [same[0]]).scores[0]
    np.testing.assert_allclose(first.scores[0], fresh, atol=2e-5)


@pytest.fixture
def session(bench: Bench) -> Session:
    registry = bench.registry()
    benchmark = registry.benchmark(BENCHMARK)
    job = bench.suite()[0]
    model = load_model(registry, job, "cpu")
    dataset = load_benchmark(benchmark, bench.root / "data", None)
    return Session(model, benchmark, dataset, registry.benchmark)


def test_the_baseline_is_computed_once_a_model_and_task(session: Session) -> None:
    codes, margins = session.base(session.items("test"))
    spent = replace(session.engine.cost)
    again, found = session.base(session.items("test"))
    session.engine.predict(session.items("test"), session.readout, [UNTOUCHED])
    assert session.engine.cost == spent
    np.testing.assert_array_equal(codes, again)
    np.testing.assert_array_equal(margins, found)


def test_a_baseline_that_is_shared_changes_no_score(session: Session) -> None:
    units = np.arange(9)
    edits = [scale("gate", session.model.shape, units, dose) for dose in (0.0, 2.0)]
    packed = session.engine.predict(session.items("test"), session.readout, [UNTOUCHED, *edits]).scores[0]
    session.engine._known.clear()
    codes, margins = session.base(session.items("test"))
    np.testing.assert_array_equal(codes, codes_of(packed))
    np.testing.assert_allclose(margins, margins_of(packed), atol=4e-5)


def test_evidence_is_collected_once_for_all_cells(session: Session) -> None:
    both = frozenset({("gate", "answer", "mean"), ("gate", "answer", "rate")})
    first = session.collect(both, correct_only=False, seed=0, progress=None)
    spent = replace(session.engine.cost)
    part = frozenset({("gate", "answer", "mean")})
    assert session.collect(part, correct_only=False, seed=0, progress=None) is first
    assert session.engine.cost == spent
    alone = Session(session.model, session.benchmark, session.dataset, session.lookup)
    found = alone.collect(part, correct_only=False, seed=0, progress=None).evidence("gate", "answer").mean
    np.testing.assert_array_equal(found, first.evidence("gate", "answer").mean)


def test_an_audio_tower_runs_once_an_item(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    card = registry.model("reference-audio")
    benchmark = registry.benchmark(card.default_task)
    folder = Path(registry.find("model", "reference-audio").path).parent / card.checkpoint
    model = registry.family(card.family).load(card, str(folder), device="cpu", dtype=torch.float32)
    dataset = load_benchmark(benchmark, None, 1)
    heard: list[int] = []
    real = model.audio_embeddings

    def counted(waveform: Any) -> Tensor:
        heard.append(len(waveform))
        return real(waveform)

    monkeypatch.setattr(model, "audio_embeddings", counted)
    session = Session(model, benchmark, dataset, registry.benchmark)
    units = np.arange(9)
    edits = [scale("gate", model.shape, units, dose) for dose in (0.0, 2.0)]
    for _ in range(2):
        session.base(session.items("test"))
        session.engine.predict(session.items("test"), session.readout, edits)
    found = session.engine.predict(session.items("test"), session.readout, [UNTOUCHED, *edits]).scores
    assert len(heard) == len(session.items("test"))
    again = Session(model, benchmark, dataset, registry.benchmark)
    np.testing.assert_allclose(
        again.engine.predict(again.items("test"), again.readout, [UNTOUCHED, *edits]).scores, found, atol=2e-5
    )


def test_a_clip_too_large_for_the_tower_is_a_failed_item(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Preparing an item has no batch to halve: the item fails, the others are answered."""
    real, made = session.model.prepare, []

    def prepare(example: Any, prompt: Any) -> Any:
        made.append(example.id)
        if len(made) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(example, prompt)

    monkeypatch.setattr(session.model, "prepare", prepare)
    assert len(session.items("test")) == len(session.dataset.splits["test"]) - 1
    assert [failure.id for failure in session.failures] == [made[2]]
    assert "out of memory" in session.failures[0].reason


def test_a_random_draw_serves_all_emotions(bench: Bench, tmp_path: Path) -> None:
    """Answers are asked for once a (condition, target) and once a (condition, draw), not for each pair."""
    _, log = bench.run(bench.job("magnitude"), tmp_path)
    labels, draws, doses, tested, validated = 3, 6, 3, 36, 12
    most = doses * ((labels + draws) * tested + labels * validated)
    assert 0 < log.passes <= most + tested + validated


def test_a_draw_that_is_shared_changes_no_answer(session: Session) -> None:
    """Each draw alone answers as it does in the pass that all emotions and draws share."""
    shape = session.model.shape
    chosen = tuple(np.arange(4 * each, 4 * each + 4) for each in range(3))
    selection = Selection("gate", shape, session.benchmark.labels, chosen)
    draws = layer_matched(selection, 3, seed=0)
    edits = [scale("gate", shape, units, 0.0) for units in (*chosen, *draws)]
    together = session.engine.predict(session.items("test"), session.readout, edits)
    for row, one in enumerate(edits[3:], start=3):
        session.engine._known.clear()
        alone = session.engine.predict(session.items("test"), session.readout, [one])
        np.testing.assert_array_equal(together.codes[row], alone.codes[0])
        np.testing.assert_allclose(together.scores[row], alone.scores[0], atol=2e-5)
    assert np.abs(together.scores[3] - together.scores[4]).max() > 1e-3, "draws are not alike"


class TestAnswerColumn:
    """Where only the answer position is edited, a prompt runs once for all interventions."""

    def test_it_changes_no_answer_and_runs_the_prompt_once(self, model: Model) -> None:
        data, asked, shape = items(model, 9), readout(model), model.shape
        units = [np.array([place, shape.width + place]) for place in range(6)]
        here = [scale("gate", shape, each, 0.0, "answer") for each in units]
        engine, longest = Engine(model), max(map(len, data.items))
        with seen(model.layers[0].mlp) as shapes:
            found = engine.predict(data, asked, here)
        run = sum(rows * columns for rows, columns, _ in shapes)
        assert run <= len(data) * longest + len(data) * len(here)
        # Content and answer together are edited in whole prompts: the same edit, said in two parts.
        nothing = scale("gate", shape, np.array([0]), 1.0 + 1e-12, "content")
        whole = [Intervention((*each.edits, *nothing.edits)) for each in here]
        np.testing.assert_allclose(found.scores, Engine(model).predict(data, asked, whole).scores, atol=2e-5)

    @pytest.mark.parametrize("name", ["Llama", "Qwen2 with windows", "Gemma2", "GPTNeoX", "Olmo3"])
    def test_text_is_generated_as_from_whole_prompts(self, name: str) -> None:
        model = tiny_dense(name)
        data, shape, first = items(model, 5), model.shape, readout(model)
        asked = Readout(
            first.labels, first.candidates, max_new_tokens=6, parse=lambda text, _: crc32(text.encode()) % 97
        )
        units = [np.arange(place, shape.units, 7) for place in range(4)]
        here = [scale("neuron", shape, each, 30.0, "answer") for each in units]
        nothing = scale("neuron", shape, np.array([0]), 1.0 + 1e-12, "content")
        whole = [Intervention((*each.edits, *nothing.edits)) for each in here]
        found, expected = (Engine(model).predict(data, asked, each).codes for each in (here, whole))
        np.testing.assert_array_equal(found, expected)
        assert len({tuple(row) for row in found}) > 1, "no edit changed a text"

    def test_what_is_edited_before_the_answer_runs_whole(self, model: Model) -> None:
        data, asked, shape = items(model, 4), readout(model), model.shape
        both = [scale("gate", shape, np.array([3]), 0.0, place) for place in ("answer", "all")]
        found = Engine(model).predict(data, asked, both)
        alone = [Engine(model).predict(data, asked, [each]).scores[0] for each in both]
        np.testing.assert_allclose(found.scores, np.stack(alone), atol=2e-5)
