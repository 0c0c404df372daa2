"""The losses: next-token cross-entropy of a causal LM, InfoNCE and distillation of an encoder. Results are fp32."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from model import fast
from model.fast.cross_entropy import chunked_cross_entropy

IGNORE = -100  # the label of a token that is not trained on, as in F.cross_entropy and Hugging Face's data


def supervised_tokens(labels: torch.Tensor) -> torch.Tensor:
    """How many positions `causal_lm_loss` sums over: labels [B, T] -> int64 scalar on the labels' device."""
    return (labels[:, 1:] != IGNORE).sum()


@fast.has_twin(chunked_cross_entropy)
def causal_lm_loss(
    hidden_states: torch.Tensor,
    head_weight: torch.Tensor,
    labels: torch.Tensor,
    *,
    softcap: float | None = None,
    chunk: int = 256,
) -> torch.Tensor:
    """Next-token cross-entropy, summed over the supervised positions.

    hidden_states  [B, T, D]  the last layer's output; position t predicts token t + 1
    head_weight    [V, D]
    labels         [B, T]     token ids, or IGNORE (as for the first token of every document: data/packing.py)
    softcap        c: logits become c tanh(logit / c) (ModelConfig.final_logit_softcapping)
    chunk          positions whose logits are computed together; 256 × a vocabulary of 152k in fp32 is 0.16 GB
    Returns a scalar in nats, fp32; exactly 0 if nothing is supervised. Divide it by the supervised tokens of the whole
    accumulation window, never by those of one micro-batch: a mean of means weighs tokens unequally.
    """
    # shift: position t predicts token t + 1
    predicting = hidden_states[:, :-1].flatten(0, 1)  # [B*(T-1), D]
    target = labels[:, 1:].flatten()  # [B*(T-1)]

    # no label, no logits: [N, D], [N]
    supervised = target != IGNORE
    predicting, target = predicting[supervised], target[supervised]

    # a chunk at a time: the logits of 4k tokens over 152k words would be 2.5 GB
    loss = predicting.new_zeros((), dtype=torch.float32)
    for h, t in zip(predicting.split(chunk), target.split(chunk), strict=True):  # N = 0: one empty chunk
        # [n, V], in fp32 before the softmax
        logits = (h @ head_weight.T).float()
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        # a sum, not a mean: what it is divided by is known only to the caller
        loss = loss + F.cross_entropy(logits, t, reduction="sum")
    return loss


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
    same       [B, M]  bool; True where document j answers query i as well (equal text, equal query): such a pair is
                       no negative. The diagonal is ignored
    symmetric  average with the other direction: each of the first B documents must find its query
    Similarities and softmax are computed in fp32: at a temperature of 0.02 fp16 leaves no digits.
    """
    # cosines over the temperature: [B, M]
    with torch.autocast(queries.device.type, enabled=False):
        scores = queries.float() @ documents.float().T / temperature

    # off the diagonal, documents that answer the query too are no negatives
    target = torch.arange(len(queries), device=queries.device)
    if same is not None:
        others = same.clone()
        others[target, target] = False
        scores = scores.masked_fill(others, float("-inf"))

    # each query must find its document and, if symmetric, each document its query
    loss = F.cross_entropy(scores, target)
    if symmetric:
        loss = (loss + F.cross_entropy(scores[:, : len(queries)].T, target)) / 2
    return loss


def distillation(
    queries: torch.Tensor, documents: torch.Tensor, teacher: torch.Tensor, *, temperature: float | torch.Tensor
) -> torch.Tensor:
    """KL divergence from a teacher's ranking of a query's documents to ours (arXiv:2010.11386), mean over queries.

    queries    [B, D]  unit vectors
    documents  [M, D]  unit vectors
    teacher    [B, M]  the teacher's scores over its temperature, -inf where it gave none: both softmaxes are over the
                       documents that it scored, and a query without any does not count
    Returns an fp32 scalar, 0 if the teacher scored nothing.
    """
    # queries with a score; the one place where the host waits for a GPU
    given = teacher > float("-inf")
    scored = given.any(1).nonzero()[:, 0]
    if not len(scored):
        return queries.float().sum() * 0  # a gradient of 0 for all: other ranks wait for it

    # cosines over the temperature: [B, M]
    with torch.autocast(queries.device.type, enabled=False):
        scores = queries.float() @ documents.float().T / temperature

    # KL(theirs || ours) over the documents that the teacher scored
    ours = scores.masked_fill(~given, float("-inf")).index_select(0, scored).log_softmax(1)
    theirs = teacher.index_select(0, scored).log_softmax(1)
    return torch.where(given.index_select(0, scored), theirs.exp() * (theirs - ours), 0.0).sum(1).mean()
