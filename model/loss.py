"""The losses: next-token cross-entropy of a causal LM, and InfoNCE of an encoder. Pure functions, fp32 results."""

from __future__ import annotations

import torch
from torch.nn import functional as F

IGNORE = -100  # a label that is not learnt from; the value is that of F.cross_entropy and of Hugging Face's data


def supervised_tokens(labels: torch.Tensor) -> torch.Tensor:
    """How many positions `causal_lm_loss` sums over: labels [B, T] -> int64 scalar, on labels' device."""
    return (labels[:, 1:] != IGNORE).sum()


def causal_lm_loss(
    hidden_states: torch.Tensor,
    head_weight: torch.Tensor,
    labels: torch.Tensor,
    *,
    softcap: float | None = None,
    chunk: int = 256,
) -> torch.Tensor:
    """Next-token cross-entropy, summed over the supervised positions.

    hidden_states  [B, T, D]  last layer's output; position t predicts token t + 1
    head_weight    [V, D]
    labels         [B, T]     token ids, IGNORE where nothing is to be learnt (the first token of every document
                              is one of those: data/packing.py)
    softcap        c: logits become c tanh(logit / c) (ModelConfig.final_logit_softcapping)
    chunk          positions whose logits exist at the same time; 256 × 152k words in fp32 are 0.16 GB
    Returns a scalar in nats, fp32; exactly 0 when nothing is supervised. Divide it by the supervised tokens of the
    whole accumulation window, never by those of one micro-batch: a mean of means weighs tokens unequally.
    """
    predicting = hidden_states[:, :-1].flatten(0, 1)  # [B*(T-1), D]   the one place where labels are shifted
    target = labels[:, 1:].flatten()  # [B*(T-1)]
    at = (target != IGNORE).nonzero()[:, 0]  # [N]   a GPU tells the host N, once; a mask would thrice
    predicting, target = predicting.index_select(0, at), target.index_select(0, at)  # no label, no logits
    return _ChunkedCrossEntropy.apply(predicting, head_weight, target, softcap, chunk)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of h W^T against targets, a chunk of logits at a time.

    d loss / d logits = softmax(logits) - one_hot(target) is known as soon as the logits are, so the gradients of h and
    of W are formed in the forward pass: no logits are kept, none computed twice. The backward pass only scales. In fp16
    the small probabilities are lifted before they are rounded, for the loss scale comes too late to save them.

    All chunks share two pieces of memory [chunk, V]: to be given so much anew takes as long as what is computed in it.
    """

    @staticmethod
    def forward(ctx, h, weight, target, softcap, chunk):
        """h [N, D], weight [V, D], target [N] -> scalar in fp32."""
        if torch.is_autocast_enabled(h.device.type):
            h = h.to(torch.get_autocast_dtype(h.device.type))
        head = weight.to(h.dtype)
        wants_h, wants_weight = ctx.needs_input_grad[:2]
        loss = torch.zeros((), dtype=torch.float32, device=h.device)
        grad_h = torch.empty_like(h, dtype=torch.float32) if wants_h else None
        lift = 1024.0 if h.dtype == torch.float16 else 1.0
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        product = h.new_empty(min(chunk, len(target)), len(head))  # in h's dtype: logits, then their gradient
        wide = product if h.dtype == torch.float32 else torch.empty_like(product, dtype=torch.float32)
        for start in range(0, len(target), chunk):
            part = slice(start, start + chunk)
            words = target[part, None]  # [n, 1]
            logits = wide[: len(words)].copy_(torch.mm(h[part], head.T, out=product[: len(words)]))  # [n, V]
            slope = None
            if softcap is not None:
                logits.div_(softcap).tanh_()
                slope = 1 - logits.square() if wants_h or wants_weight else None  # d capped / d logit
                logits *= softcap
            right = logits.gather(-1, words)
            largest = logits.amax(-1, keepdim=True)
            total = logits.sub_(largest).exp_().sum(-1, keepdim=True)  # [n, 1]
            loss += (largest + total.log() - right).sum()
            if wants_h or wants_weight:
                error = logits.div_(total)  # softmax
                error.scatter_add_(-1, words, torch.full_like(right, -1.0))
                error = error if slope is None else error.mul_(slope)
                error = product[: len(words)].copy_(error.mul_(lift) if lift != 1 else error)
                if wants_h:
                    grad_h[part] = (error @ head).float() / lift
                if wants_weight:  # a sum over positions: lifted, it would leave fp16's range
                    grad_weight += (error.T @ (h[part] / lift)).float()
        ctx.save_for_backward(grad_h, grad_weight)
        return loss

    @staticmethod
    def backward(ctx, grad):
        """Chain rule with the gradients that the forward pass has left."""
        grad_h, grad_weight = ctx.saved_tensors
        return (
            None if grad_h is None else grad_h * grad,
            None if grad_weight is None else grad_weight * grad,
            None,
            None,
            None,
        )


def info_nce(
    queries: torch.Tensor,
    documents: torch.Tensor,
    *,
    temperature: float | torch.Tensor,
    same: torch.Tensor | None = None,
    symmetric: bool = False,
) -> torch.Tensor:
    """InfoNCE with in-batch negatives (van den Oord et al., arXiv:1807.03748), mean over the queries.

    queries    [B, D]  unit vectors
    documents  [M, D]  unit vectors, M >= B; document i answers query i, all others are its negatives
    same       [B, M]  bool; True where document j is as good as i for query i (equal text, equal query): such a pair
                       is nobody's negative. The diagonal is ignored
    symmetric  average with the other direction: each of the first B documents must find its query
    Similarities and softmax are computed in fp32: at a temperature of 0.02 fp16 leaves no digits.
    """
    with torch.autocast(queries.device.type, enabled=False):
        scores = queries.float() @ documents.float().T / temperature  # [B, M]
    target = torch.arange(len(queries), device=queries.device)
    if same is not None:
        others = same.clone()
        others[target, target] = False
        scores = scores.masked_fill(others, float("-inf"))
    loss = F.cross_entropy(scores, target)
    if symmetric:
        loss = (loss + F.cross_entropy(scores[:, : len(queries)].T, target)) / 2
    return loss


def distillation(
    queries: torch.Tensor, documents: torch.Tensor, teacher: torch.Tensor, *, temperature: float | torch.Tensor
) -> torch.Tensor:
    """KL divergence from a stronger model's order of a query's documents to ours (arXiv:2010.11386), mean over queries.

    queries    [B, D]  unit vectors
    documents  [M, D]  unit vectors
    teacher    [B, M]  logits of the teacher, that is its scores over its temperature; -inf where it gave none. The
                       softmax of both sides is over what it gave; a query without any counts for nothing
    Returns an fp32 scalar, 0 where the teacher says nothing.
    """
    given = teacher > float("-inf")
    at = given.any(1).nonzero()[:, 0]  # rows with a score. How many there are, a GPU's host waits for once
    if not len(at):
        return queries.float().sum() * 0  # a gradient of 0 for all, as ranks wait for each other's
    with torch.autocast(queries.device.type, enabled=False):
        scores = queries.float() @ documents.float().T / temperature  # [B, M]
    ours = scores.masked_fill(~given, float("-inf")).index_select(0, at).log_softmax(1)
    theirs = teacher.index_select(0, at).log_softmax(1)
    return torch.where(given.index_select(0, at), theirs.exp() * (theirs - ours), 0.0).sum(1).mean()
