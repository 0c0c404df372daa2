"""Summed cross-entropy whose gradients are formed in the forward pass, chunk by chunk: no logits are kept for the
backward pass, none computed twice, and the one buffer of [chunk, V] is reused.
"""

from __future__ import annotations

import math

import torch

from model import fast
from model.device import on_gpu

IGNORE = -100  # as model/loss.py, which imports this file


@fast.written_for("2861a1be")
def chunked_cross_entropy(
    hidden_states: torch.Tensor,
    head_weight: torch.Tensor,
    labels: torch.Tensor,
    *,
    softcap: float | None = None,
    chunk: int = 256,
) -> torch.Tensor:
    """model/loss.py: causal_lm_loss. hidden_states [B, T, D], head_weight [V, D], labels [B, T] -> fp32 scalar."""
    # shift: position t predicts token t + 1
    predicting = hidden_states[:, :-1].flatten(0, 1)  # [B*(T-1), D]
    target = labels[:, 1:].flatten()  # [B*(T-1)]

    # no label, no logits: [N]. A GPU tells the host N once; a mask would three times
    supervised = (target != IGNORE).nonzero()[:, 0]
    predicting, target = predicting.index_select(0, supervised), target.index_select(0, supervised)
    return _ChunkedCrossEntropy.apply(predicting, head_weight, target, softcap, chunk)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """d loss / d logits = softmax(logits) - one_hot(target) is known as soon as the logits are; the backward pass only
    scales what it gives for h and W. In fp16 small probabilities are multiplied by 1024 before they are rounded, since
    the loss scale comes too late to save them.

    All chunks share a buffer [chunk, V]: reallocating buffers this large costs as much as the computation.
    """

    @staticmethod
    def forward(ctx, h, weight, target, softcap, chunk):
        """h [N, D], weight [V, D], target [N] -> scalar in fp32."""
        # autocast leaves products with `out` alone
        if torch.is_autocast_enabled(h.device.type):
            h = h.to(torch.get_autocast_dtype(h.device.type))
        head = weight.to(h.dtype)

        # the results, in fp32
        wants_h, wants_weight = ctx.needs_input_grad[:2]
        loss = torch.zeros((), dtype=torch.float32, device=h.device)
        grad_h = torch.empty_like(h, dtype=torch.float32) if wants_h else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None

        # the buffer holds the logits, then their gradient; on a CPU another one holds them in fp32
        lift = 1024.0 if h.dtype == torch.float16 else 1.0
        buffer = h.new_empty(min(chunk, len(target)), len(head))
        wide = None
        if not on_gpu(h):
            wide = buffer if h.dtype == torch.float32 else torch.empty_like(buffer, dtype=torch.float32)

        for start in range(0, len(target), chunk):
            part = slice(start, start + chunk)
            words = target[part, None]  # [n, 1]
            product = torch.mm(h[part], head.T, out=buffer[: len(words)])  # [n, V]
            wanted = lift if wants_h or wants_weight else None
            if wide is None:
                loss += _fused(product, words, softcap, wanted)
            else:
                loss += _in_place(product, wide[: len(words)], words, softcap, wanted)

            # `product` is the gradient of the logits now, times `lift`
            if grad_h is not None:
                grad_h[part] = (product @ head).float() / lift
            # a sum over positions would leave fp16's range if it were multiplied by 1024 too
            if wants_weight:
                grad_weight += (product.T @ (h[part] / lift)).float()
        ctx.save_for_backward(grad_h, grad_weight)
        return loss

    @staticmethod
    def backward(ctx, grad):
        """The chain rule over the gradients from the forward pass."""
        of_h, of_weight = (None if kept is None else kept * grad for kept in ctx.saved_tensors)
        return of_h, of_weight, None, None, None


def _in_place(
    product: torch.Tensor, wide: torch.Tensor, words: torch.Tensor, softcap: float | None, lift: float | None
) -> torch.Tensor:
    """The summed loss of logits [n, V]; `product` becomes their gradient times `lift`, unless that is None.

    wide   [n, V] fp32, overwritten; may be `product` itself
    words  [n, 1]
    For a CPU: one buffer that stays in its cache, one exponential per logit.
    """
    logits, slope = wide.copy_(product), None
    if softcap is not None:
        logits.div_(softcap).tanh_()
        slope = None if lift is None else 1 - logits.square()  # d capped / d logit
        logits *= softcap

    # the loss: log-sum-exp minus the target's logit; `logits` becomes exp(logits - largest)
    right = logits.gather(-1, words)
    largest = logits.amax(-1, keepdim=True)
    total = logits.sub_(largest).exp_().sum(-1, keepdim=True)  # [n, 1]
    loss = (largest + total.log() - right).sum()
    if lift is None:
        return loss

    # its gradient: softmax minus one-hot, in fp32 until here
    error = logits.div_(total)
    error.scatter_add_(-1, words, torch.full_like(right, -1.0))
    error = error if slope is None else error.mul_(slope)
    product.copy_(error.mul_(lift) if lift != 1 else error)
    return loss


def _fused(product: torch.Tensor, words: torch.Tensor, softcap: float | None, lift: float | None) -> torch.Tensor:
    """As `_in_place`, for a GPU: fewer passes over memory, and a second exponential, which costs nothing there."""
    logits, slope = product, None
    if softcap is not None:
        logits = product.float().div_(softcap).tanh_()
        slope = None if lift is None else (1 - logits.square()).mul_(lift)
        logits.mul_(softcap)

    # read in half precision, written in fp32, by one kernel
    log_probabilities = torch.log_softmax(logits, -1, dtype=torch.float32)
    right = log_probabilities.gather(-1, words)
    if lift is None:
        return -right.sum()

    # softmax minus one-hot, rounded once; at the right word, where p - 1 would round p first, by itself
    error_there = torch.expm1(right)  # [n, 1]
    if slope is not None:
        error_there = error_there * slope.gather(-1, words)
        product.copy_(log_probabilities.exp_().mul_(slope))
    else:
        error_there = error_there * lift
        torch.exp(log_probabilities.add_(math.log(lift)) if lift != 1 else log_probabilities, out=product)
    product.scatter_(-1, words, error_there.to(product.dtype))
    return -right.sum()
