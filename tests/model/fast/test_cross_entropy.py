"""Cross-entropy with the gradients formed in the forward pass, held to its plain twin."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from model import fast
from model.fast.cross_entropy import chunked_cross_entropy
from model.loss import IGNORE, causal_lm_loss

PLAIN = causal_lm_loss.__wrapped__
# fp32: another order of summation. Half precision: gradients are rounded at other places, each to a half's last digit
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
HALF = (torch.bfloat16, torch.float16)
DTYPES = [(torch.float32, False), *((dtype, autocast) for dtype in HALF for autocast in (False, True))]


def problem(dtype, supervised=1.0):
    hidden, head = torch.randn(4, 9, 16).to(dtype).requires_grad_(), torch.randn(50, 16).to(dtype).requires_grad_()
    labels = torch.randint(0, 50, (4, 9))
    labels[torch.rand(4, 9) > supervised] = IGNORE
    return hidden, head, labels


@pytest.fixture(params=["cpu", "gpu"])
def form(request, monkeypatch):
    """The form for each device. A CPU computes both."""
    monkeypatch.setattr("model.fast.cross_entropy.on_gpu", lambda where: request.param == "gpu")


@pytest.mark.parametrize(("dtype", "autocast"), DTYPES)
@pytest.mark.parametrize("supervised", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("chunk", [1, 5, 1024])
def test_loss_and_gradients_equal_the_plain_ones(form, dtype, autocast, supervised, softcap, chunk):
    hidden, head, labels = problem(torch.float32 if autocast else dtype, supervised)
    results = []
    for compute in (chunked_cross_entropy, PLAIN):
        with torch.autocast("cpu", dtype=dtype, enabled=autocast):
            loss = compute(hidden, head, labels, softcap=softcap, chunk=chunk)
        results.append((loss, *torch.autograd.grad(loss, (hidden, head))))
    for ours, plain in zip(*results, strict=True):
        assert ours.dtype == plain.dtype
        assert_close(ours, plain, rtol=CLOSE[dtype], atol=CLOSE[dtype] * max(1e-3, plain.abs().max().item()))
    assert (results[1][0] > 1) == (supervised > 0)


@pytest.mark.parametrize("wants", [(True, False), (False, True), (False, False)])
def test_no_gradient_is_formed_that_nobody_wants(form, wants):
    hidden, head, labels = problem(torch.float32)
    hidden.requires_grad_(wants[0]), head.requires_grad_(wants[1])
    ours, plain = chunked_cross_entropy(hidden, head, labels), PLAIN(hidden, head, labels)
    assert_close(ours, plain)
    assert ours.requires_grad == any(wants)
    inputs = [x for x in (hidden, head) if x.requires_grad]
    if inputs:
        assert_close(torch.autograd.grad(ours, inputs), torch.autograd.grad(plain, inputs))


def test_fp16_keeps_gradients_that_are_small_and_sums_that_are_large(form):
    head, labels = torch.eye(16, requires_grad=True), torch.full((1, 257), 3)
    for logit in (14.375, -40.0):  # right, each other word at 6e-7; wrong at every position
        hidden = (logit * F.one_hot(labels, 16)).requires_grad_()
        expected = torch.autograd.grad(PLAIN(hidden, head, labels), (hidden, head))
        with torch.autocast("cpu", dtype=torch.float16):
            loss = causal_lm_loss(hidden, head, labels)
        # 9e-6 stand for the right word: two roundings of fp32 next to 1 are 2.7 % of that; fp16 alone would be 5 % off
        assert_close(torch.autograd.grad(loss, (hidden, head)), expected, rtol=0.03, atol=0)


def test_no_logits_of_the_whole_row_are_ever_held(form):
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                seen.append(out.numel())
            return out

    hidden, head = torch.randn(1, 401, 8, requires_grad=True), torch.randn(1000, 8)
    with Watch():
        causal_lm_loss(hidden, head, torch.randint(0, 1000, (1, 401)), chunk=50).backward()
    assert max(seen) == 50 * 1000
    seen.clear()
    with Watch(), fast.off():
        causal_lm_loss(hidden, head, torch.randint(0, 1000, (1, 401)), chunk=50)
    assert max(seen) == 50 * 1000
