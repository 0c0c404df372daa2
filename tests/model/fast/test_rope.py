"""Rotation in place, held to its plain twin."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from model.fast.rope import in_place_rotate
from model.rope import rotate

CLOSE = {torch.float64: 1e-6, torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 1e-3}


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("shape", [(2, 1, 5), (1, 1, 5), (5,)], ids=["by row", "for all rows", "without axes"])
def test_a_rotation_and_its_gradient_equal_the_plain_ones(dtype, shape):
    x, weighting = torch.randn(2, 3, 5, 8).to(dtype).requires_grad_(), torch.randn(2, 3, 5, 8).to(dtype)
    angles = torch.rand(*shape, 4).repeat(*[1] * len(shape), 2)
    cos, sin = 1.2 * angles.cos(), 1.2 * angles.sin()  # YaRN stretches both
    results = []
    for form in (in_place_rotate, rotate.__wrapped__):
        y = form(x, cos, sin)
        results.append((y, *torch.autograd.grad(y, x, weighting)))
    for ours, plain in zip(*results, strict=True):
        assert ours.dtype == plain.dtype == dtype and plain.abs().max() > 0.5
        assert_close(ours, plain, rtol=CLOSE[dtype], atol=CLOSE[dtype])


def test_only_the_angles_are_kept():
    x, angles, kept = torch.randn(1, 3, 5, 8, requires_grad=True), torch.rand(5, 8), []
    cos, sin = angles.cos(), angles.sin()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        rotate(x, cos, sin)
    assert {tensor.data_ptr() for tensor in kept} == {cos.data_ptr(), sin.data_ptr()}
