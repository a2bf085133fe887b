"""A model whose layers accelerate keeps elsewhere gives the answers of one in memory, edited and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from e2e_content import MODEL, Bench, card, contents, write_yaml
from test_engine import some_interventions
from tiny_models import items, long_readout, readout, tiny_model

from affectbench.engine import Engine
from affectbench.evidence import ATTRIBUTION, MEAN, EvidencePass, requests_of
from affectbench.model import Model
from affectbench.placement import load_model
from affectbench.plan import job_of_names
from affectbench.readout import Readout

PARTS = ("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head")
MIXED = {
    **dict.fromkeys(PARTS, "cpu"),
    "model.layers.0": "disk",
    "model.layers.1": "cpu",
    "model.layers.2": "disk",
}
ALL_BUT_ONE = dict.fromkeys(MIXED, "disk") | {"model.layers.1": "cpu"}


def spread(model: Model, places: dict[str, str], folder: Path) -> Model:
    """A copy of a model, read again and spread by accelerate over memory and disk."""
    from transformers import AutoModelForCausalLM

    model.network.save_pretrained(folder)
    kept = {"device_map": places, "offload_folder": str(folder / "offloaded")}
    moved = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **kept)
    assert any(parameter.device.type == "meta" for parameter in moved.parameters())
    return type(model)(moved, model.tokenizer, model.card, None)


@pytest.fixture(params=["Qwen2", "Gemma2", "Mixtral"])
def whole(request: pytest.FixtureRequest) -> Model:
    return tiny_model(request.param, 0)


@pytest.fixture(params=[MIXED, ALL_BUT_ONE], ids=["mixed", "all but one on disk"])
def parted(whole: Model, tmp_path: Path, request: pytest.FixtureRequest) -> Model:
    return spread(whole, request.param, tmp_path)


@pytest.mark.parametrize("answers", [readout, long_readout])
@pytest.mark.parametrize("site", ["gate", "neuron"])
def test_answers_under_edits_are_the_same(whole: Model, parted: Model, site: str, answers: Any) -> None:
    data, interventions = items(whole), some_interventions(whole, site)
    assert parted.device == torch.device("cpu")
    expected = Engine(whole).predict(data, answers(whole), interventions)
    found = Engine(parted).predict(data, answers(parted), interventions)
    np.testing.assert_allclose(found.scores, expected.scores, atol=3e-5)
    # What the engine lent to a pass is back: accelerate's own hooks still fetch the weights.
    again = Engine(parted).predict(data, answers(parted), interventions[:2])
    np.testing.assert_allclose(again.scores, expected.scores[:2], atol=3e-5)
    assert all(hasattr(layer, "_hf_hook") for layer in parted.layers)


def test_generation_under_edits_is_the_same(whole: Model, parted: Model) -> None:
    data, interventions = items(whole, 5), some_interventions(whole)
    words = Readout(("a", "b"), ((3,), (4,)), 6, lambda text, _order: len(text.split()) % 2)
    expected = Engine(whole).predict(data, words, interventions)
    found = Engine(parted).predict(data, words, interventions)
    np.testing.assert_array_equal(found.codes, expected.codes)


def test_evidence_is_the_same(whole: Model, parted: Model) -> None:
    requests = requests_of((MEAN, ATTRIBUTION), "gate", "all")
    expected, found = (
        EvidencePass(Engine(model), items(model), readout(model), requests, correct_only=False)
        .run()
        .evidence("gate", "all")
        for model in (whole, parted)
    )
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-5)
    np.testing.assert_allclose(found.attribution, expected.attribution, atol=1e-6)
    assert np.abs(expected.attribution).max() > 1e-5


# From the card.


def test_a_card_spreads_its_checkpoint(bench: Bench, tmp_path: Path) -> None:
    checkpoint = str(bench.root / "models" / "checkpoints" / MODEL)
    places = {**dict.fromkeys(PARTS, "cpu"), "model.layers.0": "cpu", "model.layers.1": "disk"}
    content = card(name="spread", checkpoint=checkpoint, device_map=places, offload_folder="offloaded")
    write_yaml(tmp_path / "models" / "spread.yaml", content)
    registry = bench.registry(tmp_path)
    job = job_of_names(registry, "spread", None, ["magnitude"], ["toy-gain"], 0)
    model = load_model(registry, job, "cpu")
    assert next(model.layers[1].parameters()).device.type == "meta"
    assert model.device.type == "cpu"
    records, _ = bench.run(job, tmp_path / "out", more=[tmp_path])
    assert records[0].status == "ok", records[0].reason
    assert records[0].model.device == "cpu, disk"
    plain, _ = bench.run(bench.job("magnitude"), tmp_path / "plain")
    assert records[0].hashes.model == plain[0].hashes.model, "where it lies does not change what it is"
    assert records[0].headline is not None
    assert plain[0].headline is not None
    assert records[0].headline.spec.value == pytest.approx(plain[0].headline.spec.value, abs=1e-6)


def test_on_the_command_line(bench: Bench, tmp_path: Path, run_cli: Any) -> None:
    arguments = ("run", "--model", MODEL, "--selector", "magnitude", "--intervention", "toy-gain")
    included = ("--include", bench.root, "--data", bench.root / "data", "-o", tmp_path)
    code, _, said = run_cli(*arguments, *included, "--device-map", "atuo")
    assert code == 1
    assert "did you mean 'auto'" in said
    assert run_cli(*arguments, *included, "--device-map", "auto")[0] == 0
    bench.run(bench.job("magnitude"), tmp_path / "plain")
    assert contents(tmp_path / "plain").keys() == contents(tmp_path).keys()
