"""A language model with real weights that no one here trained: preservation, generation and parity.

`stories260K` (A. Karpathy, MIT; Llama architecture, TinyStories). Skipped where it is absent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from e2e_content import Outcome
from tiny_models import by_hand

from affectbench.conformance_report import Conformance
from affectbench.engine import Engine
from affectbench.generation import generate
from affectbench.intervention import UNTOUCHED, Intervention, scale
from affectbench.lm_harness import PackedLM, neutral_text
from affectbench.model import Model
from affectbench.plan import card_of
from affectbench.registry import Registry

STORIES = Path(__file__).resolve().parents[2] / "shared" / "models" / "stories260K"
pytestmark = pytest.mark.skipif(not STORIES.is_dir(), reason=f"not on this machine: {STORIES}")

TEXTS = (
    "Once upon a time, there was a little girl named Lily. She loved to play in the park.",
    "Tom had a red ball.",
    "One day, the dog saw a big bird in the tree and wanted to fly too.",
)
PROMPTS = ("Once upon a time", "Tom and his mom went to the", "The cat was")
LENGTH = 24


@pytest.fixture(scope="module")
def model() -> Model:
    registry = Registry(installed=False)
    card = card_of(registry, str(STORIES))
    family = registry.family(card.family)
    return family.load(card, str(STORIES), device="cpu", dtype=torch.float32)  # type: ignore[attr-defined,no-any-return]


@pytest.fixture(scope="module")
def swept(model: Model) -> list[Intervention]:
    """A few units off, a tenth of them doubled, half of them off, and the last layer's first units off."""
    shape, rng = model.shape, np.random.default_rng(0)
    order, last = rng.permutation(shape.units), shape.units - shape.width
    return [
        scale("gate", shape, order[:5], 0.0),
        scale("neuron", shape, order[: shape.units // 10], 2.0),
        scale("gate", shape, order[: shape.units // 2], 0.0),
        scale("gate", shape, np.arange(last, last + 40), 0.0),
    ]


def divergence_by_hand(model: Model, intervention: Intervention) -> float:
    """KL(untouched || edited) in nats a token, from the public forward of the class, a text at a time."""
    total, tokens = 0.0, 0
    for text in TEXTS:
        encoded = model.tokenizer(text)["input_ids"]  # Opens with a BOS; lm-eval puts a second one before it.
        ids = torch.tensor([[model.tokenizer.bos_token_id, *encoded[:-1]]])
        with torch.no_grad():
            base = model.network(input_ids=ids).logits.log_softmax(-1)
            with by_hand(model, intervention):
                edited = model.network(input_ids=ids).logits.log_softmax(-1)
        total += float((base.exp() * (base - edited)).sum())
        tokens += ids.shape[1]
    return total / tokens


def test_neutral_text_tells_edits_from_none_and_large_from_small(
    model: Model, swept: Sequence[Intervention]
) -> None:
    same = scale("gate", model.shape, np.arange(50), 1.0)
    found = neutral_text(PackedLM(Engine(model), [*swept, same]), TEXTS)
    kl = found.kl.sum(-1) / found.n_tokens.sum()
    assert kl[[0, 5]] == pytest.approx(0, abs=1e-7)
    assert (kl[1:5] > 1e-5).all()
    assert kl[3] > 10 * kl[1]
    assert found.nll[3].sum() > found.nll[0].sum(), "a trained model needs half of its units"
    for place, intervention in enumerate(swept, start=1):
        assert kl[place] == pytest.approx(divergence_by_hand(model, intervention), rel=1e-3)


def test_packed_stories_are_those_of_transformers_one_at_a_time(
    model: Model, swept: Sequence[Intervention]
) -> None:
    engine, interventions = Engine(model), [UNTOUCHED, *swept]
    prompts = [model.open_prompt(f"story-{place}", text) for place, text in enumerate(PROMPTS)]
    told: dict[tuple[int, int], str] = {}

    def read(rows, edits, prefix):  # type: ignore[no-untyped-def]
        return generate(model, rows, edits, prefix, LENGTH, engine.spent)

    for chosen, tokens in engine.sweep(model.collate(prompts), interventions, read, last=1, grow=LENGTH):
        for row, written in enumerate(tokens):
            kept = written[written >= 0]
            told[chosen[row // len(prompts)], row % len(prompts)] = model.tokenizer.decode(kept)
    for place, intervention in enumerate(interventions):
        for at, prompt in enumerate(prompts):
            ids = prompt.ids[None]
            with by_hand(model, intervention):
                output = model.network.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=LENGTH, do_sample=False
                )
            written = [token for token in output[0, ids.shape[1] :] if not torch.isin(token, model.stops)]
            assert told[place, at] == model.tokenizer.decode(written)
    assert "Lily" in told[0, 0] or "named" in told[0, 0], "an untouched model tells a story"
    assert any(told[3, at] != told[0, at] for at in range(len(PROMPTS))), "half of the units matter"


@pytest.mark.slow
def test_its_wrapper_conforms(tmp_path: Path, run_cli: Callable[..., Outcome]) -> None:
    report = tmp_path / "report.json"
    code, _, err = run_cli("verify-model", STORIES, "--checkpoint", "-o", report)
    assert (code, err) == (0, "")
    found = Conformance.model_validate_json(report.read_text(encoding="utf-8"))
    assert found.instance == "checkpoint"
    assert not [outcome.id for outcome in found.checks if outcome.status == "failed"]
