"""Attention by fused kernels, held to its plain twin; which kernels are used, and that no dense mask is made."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from model.attention import document_attention
from model.fast import attention
from model.fast.attention import fused_attention

PLAIN = document_attention.__wrapped__
# fp32: another order of summation. Half precision: kernels round scores, weights and their gradients; PLAIN does not
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
HALF = (torch.bfloat16, torch.float16)
DTYPES = [(torch.float32, False), *((dtype, autocast) for dtype in HALF for autocast in (False, True))]


def heads(lengths, dtype, seed=0):
    """q with four heads, k and v with two: [1, H, T, 16]."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(1, count, sum(lengths), 16, generator=generator).to(dtype).requires_grad_() for count in (4, 2, 2)
    ]


@pytest.mark.parametrize(("dtype", "autocast"), DTYPES)
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("window", [None, 1, 50, 400])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_and_its_gradients_equal_the_plain_ones(dtype, autocast, softcap, window, causal):
    lengths = [300, 1, 97, 96]  # longer than a block, and on both sides of SHORT
    inputs, results = heads(lengths, dtype), []
    rules = {"causal": causal, "window": window, "softcap": softcap, "scale": 0.3}
    weighting = torch.randn(inputs[0].shape).to(dtype)
    for form in (fused_attention, PLAIN):
        with torch.autocast("cpu", dtype=dtype, enabled=autocast):
            out = form(*inputs, lengths, **rules)
        results.append((out, *torch.autograd.grad(out, inputs, weighting)))
    size = results[1][0].float().norm()
    for ours, plain in zip(*results, strict=True):
        assert ours.dtype == plain.dtype == dtype
        assert (ours - plain).float().norm() <= CLOSE[dtype] * max(0.1 * size, plain.float().norm())
    assert all(plain.abs().max() > 0.1 for plain in results[1][:1] + results[1][3:])  # a window of 1 moves no q and k


@pytest.mark.parametrize("causal", [True, False])
def test_rows_that_are_one_document_each(causal):
    q, k, v = (torch.randn(3, count, 20, 16, requires_grad=True) for count in (4, 2, 2))
    results = []
    for form in (fused_attention, PLAIN):
        out = form(q, k, v, None, causal=causal, window=7)
        results.append((out, *torch.autograd.grad(out.square().sum(), (q, k, v))))
    assert_close(results[0], results[1], atol=1e-5, rtol=1e-5)


def test_dropout_drops_weights_and_keeps_their_mean():
    q, k, v = heads([32], torch.float32)
    whole = PLAIN(q, k, v, None, causal=False)
    for form in (fused_attention, PLAIN):
        drawn = torch.stack([form(q, k, v, None, causal=False, dropout=0.5) for _ in range(50)])
        assert not torch.equal(drawn[0], drawn[1])
        assert (drawn.mean(0) - whole).abs().mean() < 0.3 * whole.abs().mean()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize(
    ("head_dim", "causal", "window"),
    [(64, True, None), (128, True, None), (32, False, None), (64, False, None), (64, True, 96)],
)
def test_on_a_gpu_one_call_does_what_a_call_for_each_document_does(monkeypatch, dtype, head_dim, causal, window):
    lengths = [700, 1, 64, 283]
    q, k, v = (
        torch.randn(1, heads, 1048, head_dim, device="cuda", dtype=dtype, requires_grad=True) for heads in (4, 2, 2)
    )
    assert attention._knows_borders(q.device, dtype, head_dim, causal, window is not None)
    results = []
    for knows in (True, False):
        monkeypatch.setattr(attention, "_knows_borders", lambda *_, knows=knows: knows)
        out = document_attention(q, k, v, lengths, causal=causal, window=window, scale=0.3)
        results.append([out, *torch.autograd.grad(out.float().square().sum(), (q, k, v))])
    for together, apart in zip(*results, strict=True):
        assert_close(together, apart, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(("causal", "windowed"), [(True, False), (False, False), (True, True)])
def test_a_kernel_that_is_missing_or_computes_something_else_is_not_used(monkeypatch, causal, windowed):
    here = (torch.device("cpu"), torch.float32, 8, causal, windowed)

    def by_documents(q, k, v, lengths, *, causal, window, **_):
        return document_attention(q, k, v, lengths, causal=causal, window=window)

    def across_documents(q, k, v, lengths, *, causal, window, **_):
        return document_attention(q, k, v, None, causal=causal, window=window)

    def in_another_order(q, k, v, lengths, *, causal, window, **_):
        return document_attention(q, k, v, lengths, causal=not causal, window=window)

    def without_window(q, k, v, lengths, *, causal, window, **_):
        return document_attention(q, k, v, lengths, causal=causal)

    of_kernel = {attention._in_one_call: False, across_documents: False, in_another_order: False, by_documents: True}
    for kernel, knows in (of_kernel | {without_window: not windowed}).items():
        monkeypatch.setattr(attention, "_in_one_call", kernel)
        with torch.inference_mode():
            assert attention._knows_borders.__wrapped__(*here) == knows


def test_a_window_on_a_long_row_makes_no_dense_mask(monkeypatch):
    tokens, shapes = 4096, []
    q = torch.randn(1, 1, tokens, 8)
    original = torch.nn.functional.scaled_dot_product_attention

    def spy(q, k, v, mask=None, **rest):
        shapes.append((q.shape[2], k.shape[2]))
        return original(q, k, v, mask, **rest)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    document_attention(q, q, q, None, causal=True, window=100)
    assert len(shapes) == tokens // attention.BLOCK
    assert max(queries * keys for queries, keys in shapes) <= attention.BLOCK * (attention.BLOCK + 100)
