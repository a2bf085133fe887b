"""The control of reconstruction alone, against the public forward pass of a shipped model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from affectbench.analyses import ANALYSES, Asked
from affectbench.dataset import load_benchmark
from affectbench.feature_reconstruction import analyse, reconstructed
from affectbench.placement import Options, Order, Placement
from affectbench.plan import job_of_names
from affectbench.registry import Registry
from affectbench.sae import SAE, LayerSAE
from affectbench.sae_formats import load_card
from affectbench.score_models import Estimate
from affectbench.session import Session

SETTINGS = ANALYSES["feature-reconstruction"].settings | {"bootstrap_draws": 50}
LIMIT = 3


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    registry = Registry(installed=False)
    job = job_of_names(registry, "reference-text", "reference-narratives", (), (), 0)
    dataset = load_benchmark(job.benchmark, None, LIMIT)
    options = Options(tmp_path_factory.mktemp("out"), limit=LIMIT)
    session = Placement(registry, Order(job, dataset, (), ()), options, lambda _text: None).session
    trained = load_card(registry.sae("reference-text-sae"))
    session.model.attach(SAE({layer: trained.at(layer) for layer in (0, 3)}, "reference-text"))
    return Asked(session, 0, SETTINGS)


def by_hand(session: Session, sae: LayerSAE, layer: int) -> np.ndarray:
    """Answers of transformers' own forward with the stream at the last token reconstructed, item by item."""
    network, found = session.model.network, []
    words = [tokens[0] for tokens in session.readout.candidates]

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[:, -1] = sae.decode(sae.encode(hidden[:, -1]))
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = network.model.layers[layer].register_forward_hook(hook)
    try:
        for item in session.items("test").items:
            with torch.no_grad():
                found.append(int(network(input_ids=item.ids[None]).logits[0, -1, words].argmax()))
    finally:
        handle.remove()
    return np.array(found)


def test_answers_are_those_of_the_public_forward_with_the_stream_replaced(asked: Asked) -> None:
    session, dictionary = asked.session, asked.session.model.dictionary
    content = analyse(asked)
    rows = {row[0]: row for row in content.tables[0].rows}
    gold, base = session.items("test").gold, session.base(session.items("test"))[0]
    assert rows["none"][1] == pytest.approx((base == gold).mean())
    for layer in (0, 3):
        codes = by_hand(session, dictionary.at(layer), layer)  # type: ignore[union-attr, arg-type]
        assert (reconstructed(session, dictionary.at(layer), layer, asked) == codes).all()  # type: ignore[union-attr]
        _, accuracy, change, f1, moved = rows[str(layer)]
        assert accuracy == pytest.approx((codes == gold).mean())
        assert f1 == pytest.approx(f1_score(gold, codes, labels=range(7), average="macro", zero_division=0))
        assert moved == pytest.approx((codes != base).mean())
        assert isinstance(change, Estimate)
        assert change.value == pytest.approx((codes == gold).mean() - (base == gold).mean())
        assert change.low is not None
        assert change.high is not None
        assert change.low <= change.value <= change.high
    assert content.n["items"] == len(gold)


def test_an_exact_reconstruction_changes_nothing(asked: Asked) -> None:
    width = asked.session.model.hidden_width
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    exact = LayerSAE(both.T, torch.zeros(2 * width), both, torch.zeros(width), torch.zeros(2 * width))
    base = asked.session.base(asked.session.items("test"))[0]
    assert (reconstructed(asked.session, exact, 1, asked) == base).all()


def test_passes_of_a_stopped_reconstruction_are_not_made_again(
    asked: Asked, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from affectbench.journal import Journal

    session = asked.session
    dictionary, decode, seen = session.model.dictionary, session.model.decode, [0]
    assert dictionary is not None
    monkeypatch.setattr(session.engine, "tokens", 200)
    whole = {layer: reconstructed(session, dictionary.at(layer), layer, asked) for layer in (0, 3)}

    def counted(*given: Any, **named: Any) -> Any:
        if seen[0] == stop:
            raise KeyboardInterrupt
        seen[0] += 1
        return decode(*given, **named)

    monkeypatch.setattr(session.model, "decode", counted)
    monkeypatch.setattr(session.engine, "journal", Journal(tmp_path, "f" * 16, pytest.fail))
    stop = 2
    with pytest.raises(KeyboardInterrupt):
        reconstructed(session, dictionary.at(0), 0, asked)
    monkeypatch.setattr(session.engine, "journal", Journal(tmp_path, "f" * 16, pytest.fail))
    stop, seen[0] = -1, 0
    assert (reconstructed(session, dictionary.at(0), 0, asked) == whole[0]).all()
    first = seen[0]
    assert (reconstructed(session, dictionary.at(3), 3, asked) == whole[3]).all()
    assert seen[0] - first == first + 2, "another layer takes nothing of it"
