"""Attention against the formula with a dense mask, forward and backward; what stays fp32 in a half-precision model."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from model import load_decoder
from model.attention import document_attention
from model.fast import attention
from model.rope import rotate

LENGTHS = [23, 1, 40, 7]


def by_the_formula(q, k, v, *, causal, window, scale, softcap):
    """One row, every document, a dense mask."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    document = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    at = torch.arange(sum(LENGTHS))
    distance = at[:, None] - at
    visible = document[:, None] == document
    if causal:
        visible &= (distance >= 0) & (distance < (window or 10**6))
    elif window is not None:
        visible &= distance.abs() <= window
    scores = q @ k.transpose(-1, -2) * (scale or q.shape[-1] ** -0.5)
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    return scores.masked_fill(~visible, -torch.inf).softmax(-1) @ v


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-13), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_short_documents_keep_the_precision_that_they_come_in(dtype, error):
    q, k, v = (torch.randn(1, 2, sum(LENGTHS), 8, dtype=torch.float64).to(dtype) for _ in range(3))
    out = document_attention(q, k, v, LENGTHS, causal=True)
    exact = by_the_formula(q.double(), k.double(), v.double(), causal=True, window=None, scale=None, softcap=None)
    assert out.dtype == dtype
    assert_close(out.double(), exact, rtol=error, atol=error)


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("window", [None, 1, 6, 22, 23, 39, 40])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_documents_windows_and_soft_caps_follow_the_formula(monkeypatch, causal, window, softcap, scale):
    monkeypatch.setattr(attention, "BLOCK", 16)  # which divides no document
    rules = {"causal": causal, "window": window, "softcap": softcap, "scale": scale}
    q = torch.randn(1, 4, sum(LENGTHS), 8, dtype=torch.float64, requires_grad=True)
    k = torch.randn(1, 2, sum(LENGTHS), 8, dtype=torch.float64, requires_grad=True)
    v = torch.randn(1, 2, sum(LENGTHS), 8, dtype=torch.float64, requires_grad=True)
    ours, expected = document_attention(q, k, v, LENGTHS, **rules), by_the_formula(q, k, v, **rules)
    assert_close(ours, expected, atol=1e-5, rtol=0)  # a soft-capped score is fp32
    weight = torch.randn_like(expected)
    for ours_grad, expected_grad in zip(
        torch.autograd.grad((ours * weight).sum(), (q, k, v)),
        torch.autograd.grad((expected * weight).sum(), (q, k, v)),
        strict=True,
    ):
        assert_close(ours_grad, expected_grad, atol=1e-5, rtol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize(("head_dim", "causal"), [(64, True), (128, True), (32, False), (64, False)])
def test_on_a_gpu_one_call_does_what_a_call_for_each_document_does(monkeypatch, dtype, head_dim, causal):
    lengths = [700, 1, 64, 283]
    q, k, v = (
        torch.randn(1, heads, 1048, head_dim, device="cuda", dtype=dtype, requires_grad=True) for heads in (4, 2, 2)
    )
    assert attention._knows_borders(q.device, dtype, head_dim, causal)
    results = []
    for knows in (True, False):
        monkeypatch.setattr(attention, "_knows_borders", lambda *_, knows=knows: knows)
        out = document_attention(q, k, v, lengths, causal=causal, scale=0.3)
        results.append([out, *torch.autograd.grad(out.float().square().sum(), (q, k, v))])
    for together, apart in zip(*results, strict=True):
        assert_close(together, apart, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("causal", [True, False])
def test_a_kernel_that_is_missing_or_computes_something_else_is_not_used(monkeypatch, causal):
    here = (torch.device("cpu"), torch.float32, 8, causal)

    def by_documents(q, k, v, lengths, *, causal, **_):
        return document_attention(q, k, v, lengths, causal=causal)

    def across_documents(q, k, v, lengths, *, causal, **_):
        return document_attention(q, k, v, None, causal=causal)

    def in_another_order(q, k, v, lengths, *, causal, **_):
        return document_attention(q, k, v, lengths, causal=not causal)

    kernels = (attention._in_one_call, across_documents, in_another_order, by_documents)
    for kernel, knows in zip(kernels, (False, False, False, True), strict=True):
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


def test_the_residual_stream_and_the_angles_stay_fp32_in_half_precision(tiny_folder):
    decoder, kinds = load_decoder(str(tiny_folder), dtype=torch.bfloat16), []
    for layer in decoder.model.layers:
        layer.register_forward_hook(lambda module, inputs, out: kinds.append((inputs[0].dtype, out.dtype)))
    assert decoder(torch.tensor([[3, 4, 5]])).dtype == torch.bfloat16
    assert kinds == [(torch.float32, torch.float32)] * 3
    x, angle = torch.randn(1, 1, 9, 16).bfloat16(), torch.randn(9, 16)
    assert torch.equal(rotate(x, angle.cos(), angle.sin()), rotate(x.float(), angle.cos(), angle.sin()).bfloat16())
