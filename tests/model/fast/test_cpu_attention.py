"""Attention by products: the formula's numbers and gradients, and in bf16 the fused kernel's digits."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from model.attention import document_attention
from model.fast import attention
from model.fast import cpu_attention as product_attention


def by_the_formula(q, k, v, *, causal, window, scale):
    groups, tokens = q.shape[1] // k.shape[1], q.shape[2]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    distance = torch.arange(tokens)[:, None] - torch.arange(tokens)
    visible = torch.ones_like(distance, dtype=torch.bool)
    if window is not None:
        visible = distance < window if causal else distance.abs() <= window
    if causal:
        visible = visible & (distance >= 0)
    scores = q @ k.transpose(-1, -2) * (scale or q.shape[-1] ** -0.5)
    return scores.masked_fill(~visible, -torch.inf).softmax(-1) @ v


@pytest.mark.parametrize("tokens", [1, 16, 17, 40])
@pytest.mark.parametrize("window", [None, 1, 6, 16, 40])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_it_follows_the_formula(monkeypatch, tokens, window, causal, scale):
    monkeypatch.setattr(product_attention, "BLOCK", 16)
    rules = {"causal": causal, "window": window, "scale": scale}
    q, k, v = (torch.randn(2, heads, tokens, 8, dtype=torch.float64, requires_grad=True) for heads in (6, 2, 2))
    ours, expected = product_attention.product_attention(q, k, v, **rules), by_the_formula(q, k, v, **rules)
    assert_close(ours, expected)
    weight = torch.randn_like(expected)
    ours, expected = (torch.autograd.grad((out * weight).sum(), (q, k, v)) for out in (ours, expected))
    assert_close(ours, expected, atol=1e-5, rtol=1e-5)  # sums over the blocks are fp32
    assert all(grad.abs().max() > 0.1 for grad in expected[2:])


def errors(attend, q, k, v, window) -> torch.Tensor:
    """How far output and gradients in bf16 are from those in fp64, each relative to its size: [4]."""
    weight, results = torch.randn(q.shape, dtype=torch.float64), []
    rules = {"causal": True, "window": window, "scale": None}
    for dtype, function in ((torch.float64, by_the_formula), (torch.bfloat16, attend)):
        inputs = [x.to(dtype).detach().requires_grad_() for x in (q, k, v)]
        out = function(*inputs, **rules)
        results.append([out, *torch.autograd.grad(out, inputs, weight.to(dtype))])
    return torch.stack([(a.double() - b).norm() / b.norm() for b, a in zip(*results, strict=True)]).detach()


def fused(q, k, v, *, causal, window, scale):
    distance = torch.arange(q.shape[2])[:, None] - torch.arange(q.shape[2])
    return F.scaled_dot_product_attention(q, k, v, (distance >= 0) & (distance < (window or 10**6)))


def ordinary(q, k):
    return q, k


def a_common_part(q, k):
    """As a bias of k_proj makes it: scores of 100 that differ by ten."""
    shared = 30 * F.normalize(torch.randn(1, 4, 1, 64), dim=-1)
    return q + shared, k + shared


def a_first_key_that_all_look_at(q, k):
    k = k.clone()
    k[:, :, 0] += 30 * F.normalize(torch.ones(64), dim=-1)
    return q + 3 * F.normalize(torch.ones(64), dim=-1), k


@pytest.mark.parametrize("window", [None, 50])
@pytest.mark.parametrize("kind", [ordinary, a_common_part, a_first_key_that_all_look_at])
def test_in_bf16_its_errors_are_those_of_the_fused_kernel_however_large_the_scores(kind, window):
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 4, 300, 64) for _ in range(3))
    q, k, v = (x.bfloat16() for x in (*kind(q, k), v))
    ours, theirs = (errors(attend, q, k, v, window) for attend in (product_attention.product_attention, fused))
    assert (ours < 5 * theirs).all(), (ours, theirs)
    assert 0 < theirs.max() < 0.05


def test_long_documents_in_bf16_take_it_and_see_only_themselves(monkeypatch):
    taken, original = [], attention.product_attention

    def spy(q, k, v, **rules):
        taken.append(q.shape[2])
        return original(q, k, v, **rules)

    monkeypatch.setattr(attention, "product_attention", spy)
    lengths = [attention.SHORT + 1, 5, 300, attention.SHORT]
    q, k, v = (torch.randn(1, heads, sum(lengths), 16) for heads in (4, 2, 2))
    expected = document_attention(q, k, v, lengths, causal=True)
    assert taken == []
    half = [x.bfloat16() for x in (q, k, v)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = document_attention(*half, lengths, causal=True)
    assert out.dtype == torch.bfloat16 and taken == [attention.SHORT + 1, 300]
    assert_close(out.float(), expected, atol=0.03, rtol=0.03)
    document_attention(*half, lengths, causal=True, softcap=5.0)
    document_attention(*half, lengths, causal=True, dropout=0.1)
    assert len(taken) == 2


def test_no_more_scores_exist_at_once_than_those_of_a_block(monkeypatch):
    shapes, original = [], product_attention._weights

    def spy(q, k, shift, hidden, scale):
        shapes.append((q.shape[2], k.shape[1]))
        return original(q, k, shift, hidden, scale)

    monkeypatch.setattr(product_attention, "_weights", spy)
    q = torch.randn(1, 1, 1000, 8).bfloat16().requires_grad_()
    document_attention(q, q, q, None, causal=True, window=100).sum().backward()
    block = product_attention.BLOCK
    assert len(shapes) == 2 * -(-1000 // block)
    assert max(queries for queries, _ in shapes) == block and max(keys for _, keys in shapes) == block + 99
