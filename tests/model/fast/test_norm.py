"""RMSNorm in one autograd step, held to its plain twin."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from model import fast
from model.fast.norm import fused_rms_norm
from model.norm import RMSNorm, rms_norm

CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@pytest.mark.parametrize("stream", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("shape", [(3, 5, 48), (2, 4, 5, 48), (1, 48)])
def test_the_norm_and_its_gradients_equal_the_plain_ones(shape, dtype, stream):
    x, weight = torch.randn(shape).to(stream).requires_grad_(), (torch.rand(48) + 0.5).to(dtype).requires_grad_()
    weighting, results = torch.randn(shape).to(dtype), []
    for form in (fused_rms_norm, rms_norm.__wrapped__):
        y = form(x, weight, 1e-5, dtype)
        results.append((y, *torch.autograd.grad(y, (x, weight), weighting)))
    for ours, plain in zip(*results, strict=True):
        assert ours.dtype == plain.dtype and plain.abs().max() > 0.1
        close = max(CLOSE[ours.dtype], CLOSE[dtype] if ours is results[0][2] else 0)
        assert_close(ours, plain, rtol=close, atol=close * plain.abs().max().item())


@pytest.mark.parametrize("form", ["fast", "plain"])
@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_layer_follows_the_definition(monkeypatch, form, offset, dtype):
    monkeypatch.setattr(fast, "_enabled", form == "fast")
    norm, x = RMSNorm(48, 1e-5, offset), torch.randn(3, 5, 48)
    assert torch.equal(norm.weight + offset, torch.ones(48))  # fresh, it scales by 1
    norm.weight.data = (torch.rand(48) - offset + 0.5).to(dtype)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * (norm.weight.float() + offset)
    y = norm(x)
    assert y.dtype == dtype
    assert_close(y.float(), expected, atol=CLOSE[dtype], rtol=CLOSE[dtype])


def test_a_frozen_norm_keeps_only_its_input():
    norm, x = RMSNorm(64, 1e-5).requires_grad_(False), torch.randn(7, 64, requires_grad=True)

    def kept() -> int:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            norm(x)
        return sum(size for size in sizes if size > 64)

    assert kept() == x.numel()
    with fast.off():
        assert kept() > x.numel()
