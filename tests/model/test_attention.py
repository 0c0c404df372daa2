"""Attention against the formula with a dense mask, forward and backward; what stays fp32 in a half-precision model."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from model import fast, load_decoder
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


@pytest.mark.parametrize("form", ["fast", "plain"])
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("window", [None, 1, 6, 22, 23, 39, 40])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_documents_windows_and_soft_caps_follow_the_formula(monkeypatch, form, causal, window, softcap, scale):
    monkeypatch.setattr(attention, "BLOCK", 16)  # which divides no document
    monkeypatch.setattr(fast, "_enabled", form == "fast")
    rules = {"causal": causal, "window": window, "softcap": softcap, "scale": scale}
    q = torch.randn(1, 4, sum(LENGTHS), 8, dtype=torch.float64, requires_grad=True)
    k = torch.randn(1, 2, sum(LENGTHS), 8, dtype=torch.float64, requires_grad=True)
    v = torch.randn(1, 2, sum(LENGTHS), 8, dtype=torch.float64, requires_grad=True)
    ours, expected = document_attention(q, k, v, LENGTHS, **rules), by_the_formula(q, k, v, **rules)
    assert_close(ours, expected, atol=1e-5, rtol=0)  # scores are fp32
    weight = torch.randn_like(expected)
    for ours_grad, expected_grad in zip(
        torch.autograd.grad((ours * weight).sum(), (q, k, v)),
        torch.autograd.grad((expected * weight).sum(), (q, k, v)),
        strict=True,
    ):
        assert_close(ours_grad, expected_grad, atol=1e-5, rtol=1e-4)


def test_the_residual_stream_and_the_angles_stay_fp32_in_half_precision(tiny_folder):
    decoder, kinds = load_decoder(str(tiny_folder), dtype=torch.bfloat16), []
    for layer in decoder.model.layers:
        layer.register_forward_hook(lambda module, inputs, out: kinds.append((inputs[0].dtype, out.dtype)))
    assert decoder(torch.tensor([[3, 4, 5]])).dtype == torch.bfloat16
    assert kinds == [(torch.float32, torch.float32)] * 3
    x, angle = torch.randn(1, 1, 9, 16).bfloat16(), torch.randn(9, 16)
    assert torch.equal(rotate(x, angle.cos(), angle.sin()), rotate(x.float(), angle.cos(), angle.sin()).bfloat16())
