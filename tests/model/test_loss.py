from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from model import fast
from model.loss import IGNORE, causal_lm_loss, info_nce, supervised_tokens


def oracle(hidden_states, head_weight, labels, softcap=None):
    """The oracle: all logits at once, PyTorch's own cross-entropy and its autograd."""
    logits = hidden_states[:, :-1] @ head_weight.T
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    return F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE, reduction="sum")


@pytest.fixture(params=["fast", "plain"])
def problem(request):
    with fast.off() if request.param == "plain" else nullcontext():
        yield _problem()


def _problem():
    hidden = torch.randn(4, 9, 16, requires_grad=True)
    head = torch.randn(50, 16, requires_grad=True)
    labels = torch.randint(0, 50, (4, 9))
    labels[0, :7] = IGNORE  # rows with 2, 8, 8 and 0 supervised tokens
    labels[3] = IGNORE
    return hidden, head, labels


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("chunk", [1, 5, 1024])  # 18 positions: one divides them, one does not, one holds them all
def test_loss_and_gradients_equal_plain_cross_entropy(problem, chunk, softcap):
    hidden, head, labels = problem
    assert supervised_tokens(labels) == 18
    expected = torch.autograd.grad(2.5 * oracle(hidden, head, labels, softcap), (hidden, head))
    loss = causal_lm_loss(hidden, head, labels, softcap=softcap, chunk=chunk)
    assert_close(loss, oracle(hidden, head, labels, softcap))
    assert_close(torch.autograd.grad(2.5 * loss, (hidden, head)), expected)


def test_windows_of_unequal_masks_give_the_gradients_of_one_batch(problem):
    hidden, head, labels = problem
    supervised = supervised_tokens(labels)
    (causal_lm_loss(hidden, head, labels) / supervised).backward()
    whole, hidden.grad = hidden.grad, None
    whole_head, head.grad = head.grad, None
    for row in range(4):
        (causal_lm_loss(hidden[row : row + 1], head, labels[row : row + 1]) / supervised).backward()
    assert_close(hidden.grad, whole)
    assert_close(head.grad, whole_head)
    assert whole[3].abs().max() == 0 and whole[1].abs().max() > 0  # not passing because everything is zero


def test_a_micro_batch_with_nothing_supervised_contributes_exactly_zero(problem):
    hidden, head, labels = problem
    loss = causal_lm_loss(hidden[3:], head, labels[3:])
    assert loss.item() == 0
    grads = torch.autograd.grad(loss, (hidden, head))
    assert all(torch.count_nonzero(grad) == 0 for grad in grads)


def test_the_first_label_of_a_row_is_never_learnt_and_the_last_state_never_predicts(problem):
    hidden, head, labels = problem
    other = labels.clone()
    other[:, 0] = 7
    assert causal_lm_loss(hidden, head, other) == causal_lm_loss(hidden, head, labels)
    grad = torch.autograd.grad(causal_lm_loss(hidden, head, labels), hidden)[0]
    assert torch.count_nonzero(grad[:, -1]) == 0 and torch.count_nonzero(grad[1, :-1]) > 0


def test_half_precision_states_give_a_loss_in_fp32_near_the_exact_one(problem):
    hidden, head, labels = problem
    loss = causal_lm_loss(hidden.bfloat16(), head.detach().bfloat16(), labels)
    assert loss.dtype == torch.float32
    assert_close(loss, oracle(hidden, head, labels), rtol=0.02, atol=0)


def unit(*shape):
    return F.normalize(torch.randn(*shape), dim=-1)


def test_info_nce_is_cross_entropy_over_similarities():
    q, d = unit(6, 8), unit(9, 8)  # three more negatives than queries
    expected = F.cross_entropy(q @ d.T / 0.1, torch.arange(6))
    assert_close(info_nce(q, d, temperature=0.1), expected)
    other = F.cross_entropy((q @ d[:6].T / 0.1).T, torch.arange(6))
    assert_close(
        info_nce(q, d[:6], temperature=0.1, symmetric=True),
        (F.cross_entropy(q @ d[:6].T / 0.1, torch.arange(6)) + other) / 2,
    )


def test_equal_texts_are_not_each_others_negatives():
    q, d = unit(4, 8), unit(4, 8)
    d[1] = d[0]  # pairs 0 and 1 have the same code
    same = torch.eye(4, dtype=torch.bool)
    same[0, 1] = same[1, 0] = True
    q.requires_grad_()
    loss = info_nce(q, d, temperature=0.05, same=same)
    keep = [0, 2, 3]
    by_hand = [F.cross_entropy((q[[0]] @ d[keep].T) / 0.05, torch.tensor([0]))]
    by_hand += [F.cross_entropy((q[[1]] @ d[[1, 2, 3]].T) / 0.05, torch.tensor([0]))]
    by_hand += [F.cross_entropy((q[[i]] @ d.T) / 0.05, torch.tensor([i])) for i in (2, 3)]
    assert_close(loss, torch.stack(by_hand).mean())
    assert loss < info_nce(q, d, temperature=0.05)


def test_similarities_are_fp32_under_autocast():
    q, d = unit(32, 64), unit(32, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = info_nce(q, d, temperature=0.02)
    assert_close(under, info_nce(q, d, temperature=0.02), rtol=0, atol=0)
