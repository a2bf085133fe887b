"""The arithmetic of emotion circuits against a model that is run again, and a stream known in full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import LABELS, items, tiny_qwen2

from affectbench.circuit import (
    STRENGTHS,
    best_of_layers,
    contributions,
    frame,
    head_contributions,
    influence,
)
from affectbench.directions import differences, unit
from affectbench.errors import AffectbenchError
from affectbench.model import Model

EMOTIONS = len(LABELS)
rng = np.random.default_rng(0)


class Shown:
    """The last column of what flows in a tiny decoder, all items: plain hooks of torch, and what they saw."""

    def __init__(self, model: Model) -> None:
        self.passes = 0
        self.model = model
        self.ids = items(model, 9).items
        self.all = self.run()

    def run(self, layer: int | None = None, channels: slice = slice(0)) -> dict[str, np.ndarray]:
        """(N, layers, ...) of a pass in which `channels` of the input of a layer's o_proj are zero."""
        seen: dict[tuple[str, int], list[torch.Tensor]] = {}

        def note(name: str, at: int, value: torch.Tensor) -> None:
            seen.setdefault((name, at), []).append(value[0, -1].clone())

        def masked(_module: Any, args: Any) -> Any:
            value = args[0].clone()
            value[..., channels] = 0
            return (value, *args[1:])

        handles: list[Any] = []
        for at, block in enumerate(self.model.layers):
            attention, mlp = block.self_attn, block.mlp
            if at == layer:
                handles.append(attention.o_proj.register_forward_pre_hook(masked))
            handles += [
                attention.o_proj.register_forward_pre_hook(lambda _m, a, at=at: note("head", at, a[0])),
                mlp.down_proj.register_forward_pre_hook(lambda _m, a, at=at: note("neuron", at, a[0])),
                mlp.register_forward_hook(lambda _m, _a, out, at=at: note("mlp", at, out)),
                # What the norm behind attention is given is the layer's input + the attention's output.
                block.post_attention_layernorm.register_forward_pre_hook(
                    lambda _m, a, at=at: note("middle", at, a[0])
                ),
                block.register_forward_hook(lambda _m, _a, out, at=at: note("residual", at, out)),
            ]
        with torch.no_grad():
            for item in self.ids:
                self.passes += 1
                self.model.network(input_ids=item.ids[None])
        for handle in handles:
            handle.remove()
        layers = len(self.model.layers)
        names = ("head", "neuron", "mlp", "middle", "residual")
        return {
            name: np.stack([torch.stack(seen[name, at]).double().numpy() for at in range(layers)], axis=1)
            for name in names
        }


@contextmanager
def planted(model: Model, layer: int, neuron: int, token: int) -> Iterator[np.ndarray]:
    """A neuron that fires at a token, at the end of a prompt, and writes a random direction (d,)."""
    block = model.layers[layer]
    write = torch.randn(block.mlp.down_proj.out_features, generator=torch.Generator().manual_seed(5))
    kept = {name: value.clone() for name, value in block.state_dict().items()}
    with torch.no_grad():
        shown = Shown(model)
        ends = np.array([int(item.ids[-1]) == token for item in shown.ids])
        middle = torch.as_tensor(shown.all["middle"][:, layer]).float()
        read = block.post_attention_layernorm(middle)
        # Least squares: 3 for items that end in the token, 0 for the others.
        wanted = torch.as_tensor(3.0 * ends, dtype=torch.float32)
        rows = torch.linalg.lstsq(read, wanted[:, None], driver="gelsd").solution[:, 0]
        block.mlp.gate_proj.weight[neuron] = rows
        block.mlp.up_proj.weight[neuron] = rows
        block.mlp.down_proj.weight[:, neuron] = 20 * write / write.norm()
    try:
        yield (write / write.norm()).numpy()
    finally:
        block.load_state_dict(kept)


def writes_of(weight: torch.Tensor) -> np.ndarray:
    return weight.detach().T.double().numpy()


def directions_of(model: Model, place: str, gold: np.ndarray) -> np.ndarray:
    """(E, layers, d) unit differences of the means of a place."""
    shown = Shown(model).all[place]
    return unit(differences(np.stack([shown[gold == emotion].mean(axis=0) for emotion in range(EMOTIONS)])))


def test_neurons_account_for_all_that_an_mlp_writes() -> None:
    model = tiny_qwen2()
    shown = Shown(model).all
    along = rng.normal(size=(9, 32))
    for layer, block in enumerate(model.layers):
        found = contributions(shown["neuron"][:, layer], writes_of(block.mlp.down_proj.weight), along)
        expected = (shown["mlp"][:, layer] * along).sum(axis=-1)
        np.testing.assert_allclose(found.sum(axis=1), expected, rtol=1e-5, atol=1e-6)


def test_one_pass_shows_for_all_heads_what_masking_each_shows() -> None:
    model = tiny_qwen2()
    once = Shown(model)
    scan = Shown(model)
    heads, width = 4, model.layers[0].self_attn.o_proj.in_features // 4
    along = rng.normal(size=(9, 32))
    for layer, block in enumerate(model.layers):
        found = head_contributions(
            once.all["head"][:, layer], writes_of(block.self_attn.o_proj.weight), along, heads
        )
        for head in range(heads):
            without = scan.run(layer, slice(head * width, (head + 1) * width))
            fall = ((scan.all["middle"] - without["middle"])[:, layer] * along).sum(axis=-1)
            np.testing.assert_allclose(found[:, head], fall, rtol=1e-4, atol=1e-5)
    assert scan.passes == once.passes * (1 + len(model.layers) * heads)


def test_contributions_of_means_are_means_of_contributions() -> None:
    activations, writes, along = rng.normal(size=(7, 5)), rng.normal(size=(5, 4)), rng.normal(size=(1, 4))
    each = contributions(activations, writes, np.repeat(along, 7, axis=0)).mean(axis=0)
    np.testing.assert_allclose(contributions(activations.mean(axis=0)[None], writes, along)[0], each)


def test_a_planted_neuron_ranks_first_and_others_near_zero() -> None:
    model = tiny_qwen2()
    ids = items(model, 9).items
    token = int(ids[0].ids[-1])
    gold = np.array([0 if int(item.ids[-1]) == token else 1 + place % 2 for place, item in enumerate(ids)])
    with planted(model, 1, 7, token) as write:
        along = directions_of(model, "residual", gold)
        assert along[0, 1] @ write > 0.9
        shown = Shown(model).all["neuron"]
        means = np.stack([shown[gold == emotion].mean(axis=0) for emotion in range(EMOTIONS)])
        weight = model.layers[1].mlp.down_proj.weight
        found = contributions(means[:, 1], writes_of(weight), along[:, 1])[0]
    others = np.delete(found, 7)
    assert found.argmax() == 7
    assert found[7] > 10 * np.abs(others).max()
    draws = [rng.choice(others, 4, replace=False).mean() for _ in range(200)]
    assert abs(np.mean(draws)) < 0.02 * found[7]


class Stream:
    """A linear residual stream: each sublayer adds a matrix times what it reads."""

    def __init__(self, layers: int, width: int) -> None:
        self.matrices = 0.4 * rng.normal(size=(layers, 2, width, width)) / np.sqrt(width)
        self.start = rng.normal(size=(20, width))

    def end(self, added: dict[tuple[int, int], np.ndarray]) -> np.ndarray:
        """The stream (N, d) at its end; `added` joins what (layer, place) writes."""
        stream = self.start
        for layer, places in enumerate(self.matrices):
            for place, matrix in enumerate(places):
                stream = stream + stream @ matrix.T + added.get((layer, place), 0.0)
        return stream

    def after(self, layer: int, place: int) -> np.ndarray:
        """The matrix that takes an addition at (layer, place) to the end."""
        width = self.matrices.shape[-1]
        found = np.eye(width)
        for matrix in self.matrices.reshape(-1, width, width)[layer * 2 + place + 1 :]:
            found = (np.eye(width) + matrix) @ found
        return found


@pytest.mark.parametrize("factor", [1, 2])
def test_influence_of_a_linear_stream_is_that_of_its_matrices_at_any_strength(factor: float) -> None:
    stream = Stream(layers=3, width=12)
    view = frame(rng.normal(size=(EMOTIONS, 2, 3, 12)))
    sizes = rng.uniform(0.5, 4, size=(2, 3))
    doses = sizes[..., None] * factor * np.array(STRENGTHS)
    injected = np.empty((EMOTIONS, 2, 3, len(STRENGTHS)))
    expected = np.empty((EMOTIONS, 2, 3))
    for emotion, place, layer in np.ndindex(EMOTIONS, 2, 3):
        step = view.local[emotion, place, layer]
        for at, dose in enumerate(doses[place, layer]):
            end = stream.end({(layer, place): dose * step})
            injected[emotion, place, layer, at] = (end @ view.reference[emotion]).mean()
        expected[emotion, place, layer] = view.reference[emotion] @ stream.after(layer, place) @ step
    base = (stream.end({}) @ view.reference.T).mean(axis=0)
    np.testing.assert_allclose(influence(injected, base, doses), expected, atol=1e-10)


def test_a_place_without_a_stream_has_no_influence() -> None:
    found = influence(np.ones((1, 2, 1, 1)), np.zeros(1), np.array([[[0.0]], [[2.0]]]))
    assert found.ravel().tolist() == [0.0, 0.5]


def test_frame_is_turned_to_its_reference() -> None:
    directions = rng.normal(size=(EMOTIONS, 2, 5, 9))
    view = frame(directions)
    assert (np.einsum("epld,ed->epl", view.local, view.reference) >= 0).all()
    np.testing.assert_allclose(np.abs((view.local * unit(directions)).sum(axis=-1)), 1)
    assert len(view.stable) >= 2
    assert frame(directions, "paper").stable == range(4, 5)


def test_ranking_by_layer() -> None:
    scores = np.array([[5.0, 1, 7, 0], [0, 9, 9, 1], [2, 2, 2, 2]])
    assert best_of_layers(scores, np.array([1, 2, 3])).tolist() == [5, 6, 2, 8, 9, 10]
    assert best_of_layers(scores, np.zeros(3, dtype=np.int64)).size == 0
    with pytest.raises(AffectbenchError, match="2 counts for 3 layers"):
        best_of_layers(scores, np.array([1, 2]))
