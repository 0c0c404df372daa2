"""The hand-written gradients of the decoder's small operations, against autograd's."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from model.decoder import CHECKPOINTING
from model.norm import RMSNorm
from model.rope import rotate


def leaf(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norm_and_its_gradients_are_those_of_its_definition(offset, dtype):
    norm = RMSNorm(48, 1e-5, offset)
    norm.weight.data = (torch.rand(48, generator=torch.Generator().manual_seed(1)) - offset + 0.5).to(dtype)
    x, grad = leaf(3, 5, 48), torch.randn(3, 5, 48, generator=torch.Generator().manual_seed(2)).to(dtype)
    weight = norm.weight.detach().float().requires_grad_()
    expected = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * (weight + offset)
    wanted = torch.autograd.grad(expected, (x, weight), grad.float())
    y = norm(x)
    got = torch.autograd.grad(y, (x, norm.weight), grad)
    assert y.dtype == dtype and got[1].dtype == dtype
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 2e-2, "rtol": 1e-2}
    assert_close(y.float(), expected, **tolerance)
    assert_close(got[0], wanted[0], atol=1e-5, rtol=1e-5)  # the stream is fp32, whatever the weights are
    assert_close(got[1].float(), wanted[1], **tolerance)


def test_a_frozen_norm_keeps_only_its_input():
    norm, x = RMSNorm(64, 1e-5).requires_grad_(False), leaf(7, 64)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        norm(x)
    assert sum(tensor.numel() for tensor in kept if tensor.numel() > 64) == x.numel()


def test_the_gradient_of_a_rotation_is_turned_back():
    x, grad = leaf(2, 3, 5, 8), torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(2))
    angle = torch.rand(2, 1, 5, 4, generator=torch.Generator().manual_seed(3)).repeat(1, 1, 1, 2)
    cos, sin = 1.2 * angle.cos(), 1.2 * angle.sin()  # YaRN stretches both
    first, second = x.chunk(2, dim=-1)
    expected = x * cos + torch.cat((-second, first), dim=-1) * sin
    assert_close(rotate(x, cos, sin), expected)
    assert_close(torch.autograd.grad(rotate(x, cos, sin), x, grad), torch.autograd.grad(expected, x, grad))


def test_less_is_kept_from_each_way_of_checkpointing_to_the_next(tiny):
    ids = torch.arange(10, 74)[None]
    kept = {}
    for tiny.checkpointing in CHECKPOINTING[:3]:
        held = {}

        def pack(tensor, held=held):
            held[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            tiny.hidden_states(ids)
        kept[tiny.checkpointing] = sum(held.values())
    assert kept["none"] > kept["selective"] > kept["full"]
    with pytest.raises(ValueError, match="none, selective, full, offload"):
        tiny.checkpointing = "half"
