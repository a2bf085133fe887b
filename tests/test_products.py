"""Matrix products through oneDNN: the same numbers, the same weights, and nothing else touched."""

from __future__ import annotations

import copy

import pytest
import torch

from affectbench import products
from affectbench.products import FEWEST_ROWS, OneDnnLinear, quicken

pytestmark = pytest.mark.skipif(
    not products.available(), reason="this machine's PyTorch has no oneDNN for x86"
)


@pytest.fixture
def layer() -> torch.nn.Linear:
    torch.manual_seed(0)
    plain = torch.nn.Linear(96, 40)
    quicken(torch.nn.Sequential(plain))
    return plain


@pytest.mark.parametrize("shape", [(1, 96), (FEWEST_ROWS, 96), (3, 50, 96), (2, 3, 30, 96)])
@torch.no_grad()
def test_products_are_those_of_double_precision(layer: torch.nn.Linear, shape: tuple[int, ...]) -> None:
    given = torch.randn(shape)
    exact = given.double() @ layer.weight.double().T + layer.bias.double()
    torch.testing.assert_close(layer(given).double(), exact, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_slices_and_transposes_are_read_right(layer: torch.nn.Linear) -> None:
    given = torch.randn(50, 7, 96)
    for view in (given[:, -1:], given.transpose(0, 1)):
        torch.testing.assert_close(layer(view), layer(view.clone(memory_format=torch.contiguous_format)))


@torch.no_grad()
def test_weights_changed_in_place_count_at_once_and_a_copy_has_its_own(layer: torch.nn.Linear) -> None:
    given = torch.randn(64, 96)
    twin = copy.deepcopy(layer)
    before = layer(given)
    twin.weight[:, :5] = 0
    assert torch.equal(layer(given), before)
    layer.weight[:, :5] = 0
    assert torch.equal(layer(given), twin(given))
    assert not torch.equal(layer(given), before)


@pytest.mark.parametrize("trained", [False, True])
def test_gradients_are_those_of_double_precision(layer: torch.nn.Linear, trained: bool) -> None:
    layer.requires_grad_(trained)
    given = torch.randn(4, 16, 96, requires_grad=True)
    slope = torch.randn(4, 16, 40)
    layer(given).backward(slope)
    assert given.grad is not None
    exact = slope.double() @ layer.weight.detach().double()
    torch.testing.assert_close(given.grad.double(), exact, rtol=1e-5, atol=1e-5)
    if trained:
        assert layer.weight.grad is not None
        wanted = slope.reshape(-1, 40).double().T @ given.detach().reshape(-1, 96).double()
        torch.testing.assert_close(layer.weight.grad.double(), wanted, rtol=1e-5, atol=1e-4)


def test_only_plain_single_precision_layers_change() -> None:
    class Special(torch.nn.Linear):
        pass

    network = torch.nn.Sequential(
        torch.nn.Linear(4, 4), Special(4, 4), torch.nn.Linear(4, 4, dtype=torch.bfloat16)
    )
    names = list(network.state_dict())
    quicken(network)
    assert [type(module) for module in network] == [OneDnnLinear, Special, torch.nn.Linear]
    assert list(network.state_dict()) == names
