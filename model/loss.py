"""The losses: next-token cross-entropy of a causal LM, and InfoNCE of an encoder. Pure functions, fp32 results."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

IGNORE = -100  # a label that is not learnt from; the value is that of F.cross_entropy and of Hugging Face's data


def supervised_tokens(labels: torch.Tensor) -> torch.Tensor:
    """How many positions `causal_lm_loss` sums over: labels [B, T] -> int64 scalar, on labels' device."""
    return (labels[:, 1:] != IGNORE).sum()


def causal_lm_loss(
    hidden_states: torch.Tensor, head_weight: torch.Tensor, labels: torch.Tensor, *, chunk: int = 1024
) -> torch.Tensor:
    """Next-token cross-entropy, summed over the supervised positions.

    hidden_states  [B, T, D]  last layer's output; position t predicts token t + 1
    head_weight    [V, D]
    labels         [B, T]     token ids, IGNORE where nothing is to be learnt (the first token of every document
                              is one of those: data/packing.py)
    chunk          positions whose logits exist at the same time; 1024 × 152k words in fp32 are 0.6 GB
    Returns a scalar in nats, fp32; exactly 0 when nothing is supervised. Divide it by the supervised tokens of the
    whole accumulation window, never by those of one micro-batch: a mean of means weighs tokens unequally.
    """
    predicting = hidden_states[:, :-1].flatten(0, 1)  # [B*(T-1), D]   the one place where labels are shifted
    target = labels[:, 1:].flatten()  # [B*(T-1)]
    supervised = target != IGNORE
    predicting, target = predicting[supervised], target[supervised]  # no label, no logits
    loss = predicting.sum(dtype=torch.float32) * 0  # exactly 0, yet part of the graph
    for h, t in zip(predicting.split(chunk), target.split(chunk), strict=True):
        if torch.is_grad_enabled():  # a chunk's logits are formed again in the backward pass, not kept
            loss = loss + checkpoint(_summed_cross_entropy, h, head_weight, t, use_reentrant=False)
        else:
            loss = loss + _summed_cross_entropy(h, head_weight, t)
    return loss


def _summed_cross_entropy(h: torch.Tensor, head_weight: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy((h @ head_weight.T).float(), target, reduction="sum")


def info_nce(
    queries: torch.Tensor,
    documents: torch.Tensor,
    *,
    temperature: float,
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
