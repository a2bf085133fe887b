"""Training of SAEs: what it recovers, that it goes on after a kill, and what is reported of it."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import family

from affectbench.dataset import load_benchmark
from affectbench.errors import AffectbenchError
from affectbench.recipes import sae_stream
from affectbench.recipes.sae_report import measure
from affectbench.recipes.sae_stream import Streams, texts_of
from affectbench.recipes.sae_training import BATCH, Options, Trainer, train
from affectbench.registry import Registry
from affectbench.sae import SAE, LayerSAE, load

REGISTRY = Registry(installed=False)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def streams() -> Streams:
    card = REGISTRY.model("reference-text")
    model = family("causal_lm").load(card, str(card.folder), device="cpu", dtype=torch.float32)
    return Streams(model, REGISTRY.benchmark("reference-narratives"), (1, 3))


def dictionary_data(tokens: int, directions: torch.Tensor, seed: int) -> torch.Tensor:
    """Sparse non-negative sums of `directions` (F, d), about 3 of them a token, off the origin: (1, N, d)."""
    drawn = torch.Generator().manual_seed(seed)
    active = torch.rand(tokens, len(directions), generator=drawn) < 3 / len(directions)
    amounts = active * (0.5 + torch.rand(tokens, len(directions), generator=drawn))
    return (7.0 * amounts @ directions + 2.0)[None]


@pytest.mark.slow
def test_a_known_dictionary_is_recovered() -> None:
    """The directions that data were made of come out as decoder rows, and their amounts as activations."""
    directions = torch.nn.functional.normalize(
        torch.randn(24, 32, generator=torch.Generator().manual_seed(1)), dim=-1
    )
    trainer = Trainer(Options(32, 3, 0, seed=0), 1, 32, CPU)
    for number in range(25):
        trainer.use(dictionary_data(32 * BATCH, directions, number), 25)
    (sae,) = trainer.saes()
    torch.testing.assert_close(sae.decoder.norm(dim=-1), torch.ones(32))
    cosine = directions @ sae.decoder.T
    assert float(cosine.max(dim=1).values.median()) > 0.97
    h = dictionary_data(4096, directions, 99)[0]
    z = sae.encode(h)
    explained = 1 - (h - sae.decode(z)).pow(2).sum() / (h - h.mean(0)).pow(2).sum()
    assert float(explained) > 0.9
    assert 2 < float((z > 0).float().sum(-1).mean()) < 6
    assert sae.activation == "jumprelu"


def test_folding_at_the_end_changes_no_reconstruction() -> None:
    """What is saved gives the stream itself back: scaled in, and out again, by hand."""
    trainer = Trainer(Options(20, 4, 0, seed=3), 1, 8, CPU)
    h = 5 * torch.randn(1, 4 * BATCH, 8, generator=torch.Generator().manual_seed(2)) + 1
    trainer.use(h, 2)
    (sae,) = trainer.saes()
    encoder, bias, decoder, centre = (each.detach()[0] for each in trainer.parameters.values())
    scale, x = float(trainer.scale[0]), h[0, :50] * float(trainer.scale[0])
    pre = (x - centre) @ encoder + bias
    z = pre * (pre > float(trainer.threshold[0]))
    torch.testing.assert_close(sae.decode(sae.encode(h[0, :50])), (z @ decoder + centre) / scale)
    torch.testing.assert_close(sae.encode(h[0, :50]) * scale, z)


def test_a_token_that_begins_a_text_is_left_out_and_padding_too(streams: Streams) -> None:
    texts = ["Mara sat down.", "Otto saw the long green boat on the water."]
    ((batch, ids, counted),) = streams.batches(texts)
    beginning = {streams.model.tokenizer.bos_token_id, streams.model.tokenizer.eos_token_id}
    for row, text in enumerate(texts):
        length = len(streams.model.tokenizer(text)["input_ids"])
        assert int(counted[row].sum()) == length
        assert int(batch.mask[row].sum()) == length + 1
        first = int(batch.mask[row].float().argmax())
        assert int(ids[row, first]) in beginning
        assert not counted[row, first]
    assert streams.read(batch, counted).shape == (2, int(counted.sum()), 128)


def test_streams_are_the_hidden_states_of_transformers(streams: Streams) -> None:
    ((batch, ids, counted),) = streams.batches(["Otto saw the long green boat."])
    found = streams.read(batch, counted)
    states = streams.model.network(input_ids=ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(found[0], states[2][0, 1:], atol=1e-5, rtol=1e-5)  # After layer 1.


def test_chunks_are_of_one_size_and_depend_on_their_number_alone(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sae_stream, "CHUNK_BYTES", 4 * 2 * 128 * 1500)
    texts = texts_of(streams.benchmark, load_benchmark(streams.benchmark, None, 2)).training
    chunks = streams.chunks(texts, seed=4)
    first, second = next(chunks), next(chunks)
    assert first.shape == second.shape == (2, 1500, 128)
    torch.testing.assert_close(next(streams.chunks(texts, seed=4, start=1)), second)
    assert not torch.equal(first, next(streams.chunks(texts, seed=5)))


def test_training_goes_on_where_it_was_killed(
    streams: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from affectbench.recipes import sae_training

    monkeypatch.setattr(sae_training, "PAUSE", -1.0)
    monkeypatch.setattr(sae_stream, "CHUNK_TOKENS", 1024)
    texts = texts_of(streams.benchmark, load_benchmark(streams.benchmark, None, 2)).training
    options = Options(32, 4, 4096)

    def killed(done: int, total: int, loss: float) -> None:
        if done == 2048:
            raise KeyboardInterrupt

    whole = train(streams, texts, options, tmp_path / "a", ("model",))
    with pytest.raises(KeyboardInterrupt):
        train(streams, texts, options, tmp_path / "b", ("model",), killed)
    seen: list[int] = []
    gone_on = train(
        streams, texts, options, tmp_path / "b", ("model",), lambda done, _t, _l: seen.append(done)
    )
    assert seen == [2048, 3072, 4096]
    for one, other in zip(whole.saes(), gone_on.saes(), strict=True):
        assert torch.equal(one.encoder, other.encoder)
        assert torch.equal(one.threshold, other.threshold)
    again: list[int] = []
    train(streams, texts, options, tmp_path / "b", ("other",), lambda done, _t, _l: again.append(done))
    assert again == [1024, 2048, 3072, 4096], "nothing is taken from training on another model"
    (tmp_path / "b").write_bytes(b"damaged")
    assert not Trainer(options, 2, 128, CPU).load(tmp_path / "b", "any")


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    trainer = Trainer(Options(8, 2, 0), 1, 4, CPU)
    with pytest.raises(AffectbenchError, match="not finite"):
        trainer.use(torch.full((1, BATCH, 4), torch.nan), 1)


def exact(width: int) -> LayerSAE:
    """Reconstructs anything: a feature for each direction and for its opposite."""
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    return LayerSAE(both.T, torch.zeros(2 * width), both, torch.zeros(width), torch.zeros(2 * width))


def test_figures_of_a_perfect_and_of_a_useless_sae(streams: Streams) -> None:
    perfect, nothing = exact(128), exact(128)
    nothing = LayerSAE(
        nothing.encoder, nothing.encoder_bias, nothing.decoder * 0, nothing.decoder_bias, nothing.threshold
    )
    texts = ["Otto saw the long green boat.", "In the morning Mara sat down and read a book."]
    first, second = measure(streams, SAE({1: perfect, 3: nothing}), texts)
    assert first.explained_variance == pytest.approx(1, abs=1e-6)
    assert first.loss_recovered == pytest.approx(1, abs=1e-4)
    assert (second.loss_recovered, second.loss_reconstructed) == (0, second.loss_zero)
    assert first.l0 == 128  # One of each pair of opposites.
    assert first.dead < 0.2
    network, tokenizer = streams.model.network, streams.model.tokenizer
    losses, counts = [], []
    for text in texts:
        ids = streams.prepared(text).ids[None]
        losses.append(float(network(input_ids=ids, labels=ids).loss))
        counts.append(ids.shape[1] - 1)
    assert tokenizer is not None
    assert first.loss_clean == pytest.approx(np.average(losses, weights=counts), rel=1e-5)


@pytest.fixture
def trained(
    tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]]
) -> Callable[..., tuple[int, str, str]]:
    def run(*more: str) -> tuple[int, str, str]:
        return run_cli(
            "train-sae", "reference-text", "--output", str(tmp_path / "mine"), "--features", "24",
            "--active", "3", "--tokens", "2048", "--limit", "2", "--name", "mine", *more,
        )  # fmt: skip

    return run


def test_the_command_leaves_weights_a_readme_and_a_card_that_loads(
    tmp_path: Path, trained: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sae_stream, "CHUNK_TOKENS", 1024)
    monkeypatch.setattr(sae_stream, "MADE_TEXTS", 50)
    code, out, err = trained("--layers", "0,2-3")
    assert (code, err) == (0, ""), out
    folder = tmp_path / "mine" / "mine"
    assert {path.name for path in folder.iterdir()} == {"README.md", "sae.safetensors"}
    sae = load(folder / "sae.safetensors")
    assert (sae.layers, sae.features, sae.base) == ((0, 2, 3), 24, "reference-text")
    assert sae.facts is not None
    quality = sae.facts["quality"]
    assert [each["layer"] for each in quality] == [0, 2, 3]
    assert all(math.isfinite(each["loss_recovered"]) for each in quality)
    readme = (folder / "README.md").read_text()
    assert f"| 2 | {quality[1]['explained_variance']:.3f} |" in readme
    from affectbench.sae_formats import load_card

    card = Registry([tmp_path / "mine"], installed=False).sae("mine")
    torch.testing.assert_close(load_card(card).at(3).encoder, sae.at(3).encoder)
    assert json.loads(json.dumps(sae.facts)) == sae.facts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layers", "0,x"), "--layers 0,x: cannot read 'x'"),
        (("--layers", "3-9"), "no layer 4"),
        (("--active", "25"), "25 active of 24 features"),
        (("--task", "reference-speech"), "benchmark reference-speech is audio"),
    ],
)
def test_bad_requests_are_refused(
    trained: Callable[..., tuple[int, str, str]], arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = trained(*arguments)
    assert code == 1
    assert message in (out + err).replace("\n", " ")


def test_shipped_saes_keep_what_their_readmes_say() -> None:
    from affectbench.sae_formats import load_card

    for name in ("reference-text", "reference-text-emergent"):
        card = REGISTRY.sae(str(REGISTRY.model(name).dictionary))
        facts = load_card(card).facts
        assert facts is not None
        for each in facts["quality"]:
            assert each["explained_variance"] > 0.9, (name, each)
            assert each["loss_recovered"] > 0.9, (name, each)
            assert each["dead"] < 0.1
