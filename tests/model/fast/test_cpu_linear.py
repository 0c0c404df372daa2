"""The product of a linear layer by oneDNN against fp64, and where it is taken."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from model.fast import cpu_linear
from model.linear import Linear, linear


@pytest.mark.skipif(not cpu_linear.HAS_ONEDNN, reason="this PyTorch has no oneDNN")
@pytest.mark.parametrize("shape", [(1, 1, 384), (3, 7, 384), (2, 300, 384), (5, 384), (1, 0, 384)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_without_gradients_a_product_is_the_same_and_as_exact(monkeypatch, shape, has_bias):
    layer, x = Linear(384, 96, bias=has_bias), torch.randn(shape)
    bias = layer.bias.double() if has_bias else None
    exact = F.linear(x.double(), layer.weight.double(), bias)
    with_gradients = layer(x)
    monkeypatch.setattr(cpu_linear, "USES_ONEDNN", True)
    monkeypatch.setattr(cpu_linear.F, "linear", None)  # what follows does not go there
    with torch.no_grad():
        without = layer(x)
    assert without.shape == exact.shape and without.dtype == torch.float32
    for ours in (with_gradients, without):
        assert_close(ours.double(), exact, rtol=0, atol=3e-6)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_are_left_alone(grad, dtype):
    layer, x = Linear(8, 4).to(dtype), torch.randn(3, 8, dtype=dtype)
    with torch.set_grad_enabled(grad):
        assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))


@torch.no_grad()
def test_autocast_still_decides_the_dtype():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(torch.randn(3, 8), torch.randn(4, 8)).dtype == torch.bfloat16


def test_gradients_arrive():
    layer, x = Linear(8, 4), torch.randn(3, 8, requires_grad=True)
    layer(x).sum().backward()
    assert_close(x.grad, layer.weight.sum(0).expand(3, 8))
    assert_close(layer.weight.grad, x.detach().sum(0).expand(4, 8))
