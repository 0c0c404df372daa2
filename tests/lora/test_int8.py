"""int8: what is stored, and products with the integers themselves."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import lora.int8
from lora.adapter import linears, trainable
from lora.frozen_weight import QuantisedLinear, linear_layer, multiply, put_int8
from lora.inject import DECODER_TARGETS, inject
from lora.int8 import FEW, ROWS, Int8Weight
from model import fast, load_decoder
from model.loss import causal_lm_loss

IDS = torch.randint(3, 320, (1, 21), generator=torch.Generator().manual_seed(5))


@pytest.fixture(autouse=True)
def with_integers(monkeypatch):
    """On every processor: without VNNI `_int_mm` is exact too, only slow; the operator for few rows is not."""
    monkeypatch.setattr(lora.int8, "multiplies_integers", lambda codes: codes.device.type == "cpu")
    if not torch.cpu._is_vnni_supported():
        monkeypatch.setattr(lora.int8, "FEW", -1)


def matrix(*shape, dtype=torch.float32) -> torch.Tensor:
    """Rows of very different sizes."""
    return torch.randn(shape, dtype=dtype) * torch.rand(shape[0], 1, dtype=dtype) * 10


# ------------------------------------------------------------------------------------------------------------- stored


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_number_becomes_the_nearest_of_255_steps_of_its_row(dtype):
    weight = matrix(300, 50, dtype=dtype)
    weight[3] = 0
    stored = Int8Weight(weight)
    half_a_step = weight.float().abs().amax(dim=1, keepdim=True) / 127 / 2
    error = (stored.codes * stored.scales[:, None] - weight.float()).abs()
    assert (error <= 1.001 * half_a_step).all() and error.max() > 0.9 * half_a_step.max()
    assert torch.equal(stored.dense(), (stored.codes * stored.scales[:, None]).to(dtype))
    assert (stored.dense()[3] == 0).all()
    assert_close(stored.dense().abs().amax(dim=1), weight.abs().amax(dim=1))  # the largest stays what it is


def test_it_takes_eight_bits_a_number_and_a_scale_a_row():
    weight = Int8Weight(matrix(300, 200, dtype=torch.bfloat16))
    assert sum(buffer.numel() * buffer.element_size() for buffer in weight.buffers()) == 300 * 200 + 4 * 300


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_moves_with_its_network_and_loses_nothing_to_another_dtype(dtype):
    weight = Int8Weight(matrix(96, 64))
    exact = weight.dense()
    weight.product(torch.randn(1, 64), None)  # kept reordered from here on
    network = nn.Sequential(QuantisedLinear(weight, None)).to(dtype)
    assert weight.dtype == dtype and torch.equal(weight.dense(), exact.to(dtype))
    weight.product(torch.randn(1, 64), None)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(twin.float()[0].weight.dense(), exact)
    assert copy.deepcopy(network).to("meta")[0].weight.device.type == "meta"
    other, x = Int8Weight(matrix(96, 64)), torch.randn(1, 64)
    other.product(x, None)
    other.load_state_dict(weight.state_dict())
    assert torch.equal(other.product(x, None), weight.product(x, None))


# ----------------------------------------------------------------------------------------------------------- products


def relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    return ((found.double() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("rows", [(), (0,), (1,), (FEW,), (FEW + 1,), (3, ROWS)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_only_the_rounding_of_the_matrix_is_lost(rows, bias):
    weight, x = Int8Weight(matrix(70, 33)), torch.randn(*rows, 33)
    offset = torch.randn(70) if bias else None
    found = multiply(x, weight, offset)
    exact = nn.functional.linear(x.double(), weight.dense().double(), None if offset is None else offset.double())
    assert found.dtype == torch.float32 and found.shape == (*rows, 70)
    assert relative(found, exact) < 1e-4 or not found.numel()


@pytest.mark.parametrize("rows", [5, 500])
def test_a_few_enormous_numbers_cost_less_than_half_precision_does(rows):
    """As in a language model: some columns of x are hundreds of times the others, some rows thousands."""
    weight, x = Int8Weight(torch.randn(80, 256)), torch.randn(rows, 256)
    x[:, 7] *= 300
    x[0] *= 5000
    exact = x.double() @ weight.dense().double().T
    in_bf16 = x.bfloat16().double() @ weight.dense().double().T
    assert relative(weight.product(x, None), exact) < 0.1 * relative(in_bf16, exact)
    # one plane would not do: eight bits leave the small columns next to nothing
    step = x.abs().amax(1, keepdim=True) / 127
    eight_bits = ((x / step).round() * step).double() @ weight.dense().double().T
    small = [column for column in range(256) if column != 7]
    rest = x[:, small].double() @ weight.dense().double()[:, small].T
    of_small = exact - rest
    assert relative(eight_bits - of_small, rest) > 50 * relative(weight.product(x, None) - of_small, rest)


def test_half_precision_goes_in_and_comes_out():
    weight = Int8Weight(matrix(70, 33, dtype=torch.bfloat16))
    x, grad = torch.randn(2, 5, 33, dtype=torch.bfloat16), torch.randn(5, 70, dtype=torch.bfloat16)
    found, back = weight.product(x, None), weight.product_back(grad)
    assert found.dtype == back.dtype == torch.bfloat16
    assert relative(found, x.double() @ (weight.codes * weight.scales[:, None].double()).T) < 0.004
    assert relative(back, grad.double() @ (weight.codes * weight.scales[:, None].double())) < 0.004


@pytest.mark.parametrize("rows", [1, 3, FEW + 1])
def test_what_is_no_number_stays_within_its_row(rows):
    weight, x = Int8Weight(matrix(70, 33)), torch.randn(rows + 2, 33)
    x[0, 5], x[1] = float("nan"), 0
    found = weight.product(x, None)
    assert found[0].isnan().all() and (found[1] == 0).all()
    assert torch.equal(found[2:], weight.product(x[2:], None)) and found[2:].isfinite().all()


@pytest.mark.parametrize("rows", [3, 2 * ROWS + 1])
def test_the_gradient_of_the_input(rows):
    weight, x = Int8Weight(matrix(70, 33)), torch.randn(rows, 33, requires_grad=True)
    grad = torch.randn(rows, 70)
    found, onto = torch.autograd.grad(multiply(x, weight, None), x, grad)[0], torch.ones(rows, 33)
    exact = grad.double() @ weight.dense().double()
    assert relative(found, exact) < 1e-4
    assert weight.product_back(grad, onto) is onto and relative(onto - 1, exact) < 1e-4


def test_the_plain_form_multiplies_the_dense_matrix(monkeypatch):
    weight, x = Int8Weight(matrix(70, 33)), torch.randn(4, 33)
    monkeypatch.setattr(Int8Weight, "product", lambda *args: pytest.fail("with integers"))
    with fast.off():
        assert torch.equal(multiply(x, weight, None), nn.functional.linear(x, weight.dense()))


def test_without_instructions_for_it_the_matrix_is_dequantised(monkeypatch):
    weight, x = Int8Weight(matrix(70, 33)), torch.randn(4, 33)
    with_integers = weight.product(x, None)
    monkeypatch.setattr(lora.int8, "multiplies_integers", lambda codes: False)
    assert torch.equal(weight.product(x, None), x @ weight.dense().T)
    assert not torch.equal(weight.product(x, None), with_integers)


# ----------------------------------------------------------------------------------------------------------- a network


@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_a_network_computes_and_learns_as_its_dense_twin(tiny_folder, checkpointing):
    results = []
    for integers in (False, True):
        network = load_decoder(str(tiny_folder), put=put_int8)
        if not integers:
            for name, layer in linears(network).items():
                weight = nn.Parameter(layer.weight.dense(), requires_grad=False)
                network.set_submodule(name, linear_layer(weight, layer.bias))
        torch.manual_seed(0)
        inject(network, r=4, alpha=8, targets=DECODER_TARGETS)
        for _, parameter in trainable(network):
            nn.init.normal_(parameter, std=0.05)
        network.checkpointing = checkpointing
        network.train()
        loss = causal_lm_loss(network.hidden_states(IDS), network.head_weight, IDS)
        loss.backward()
        results.append([loss, *(parameter.grad for _, parameter in trainable(network))])
    assert not torch.equal(results[0][1], results[1][1])
    for dense, found in zip(*results, strict=True):
        assert relative(found, dense.double()) < 1e-3
