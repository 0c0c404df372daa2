"""Attention over documents packed one after another in a row.

There is no padding anywhere. A row [1, T] holds whole documents, `lengths` says where they end, and no token attends
across a border:

      a a a b b      lengths = [3, 2]
    a ■
    a ■ ■
    a ■ ■ ■
    b       ■
    b       ■ ■

Time and memory grow with the sum of the squares of the documents' lengths, not with the square of the row's.
Attention to a KV cache, one token at a time, is in model/cache.py.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from model import fast
from model.fast.attention import fused_attention


def soft_cap(x: torch.Tensor, cap: float) -> torch.Tensor:
    """c tanh(x / c), which stays inside (-c, c)."""
    return torch.tanh(x / cap) * cap


def document_positions(lengths: list[int], first: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The position of each token in its document, from `first` on, and where the document ends: [1, T] each."""
    positions = torch.cat([torch.arange(first, first + n, device=device) for n in lengths])
    ends = torch.cat([torch.full((n,), first + n, device=device) for n in lengths])
    return positions[None], ends[None]


def visible(tokens: int, *, causal: bool, window: int | None, device: torch.device) -> torch.Tensor:
    """[T, T] bool: whether query i (row) attends to key j (column), in one document."""
    # how many tokens each key lies before each query: [T, T]
    at = torch.arange(tokens, device=device)
    distance = at[:, None] - at
    # no window is one that holds everything
    window = tokens if window is None else window
    return (distance >= 0) & (distance < window) if causal else distance.abs() <= window


@fast.has_twin(fused_attention, visible, soft_cap)
def document_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lengths: list[int] | None,
    *,
    causal: bool,
    dropout: float = 0.0,
    window: int | None = None,
    scale: float | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """Softmax attention inside each document; scores and softmax in fp32.

    q        [B, H, T, D], D the width of a head
    k, v     [B, H_kv, T, D], each key head serves H / H_kv query heads (grouped-query attention, arXiv:2305.13245)
    lengths  of the row's documents (B = 1, they sum to T); None: every row is one document
    window   causal: a token attends to itself and the window - 1 tokens before it (arXiv:2310.06825);
             not causal: to the tokens at a distance of at most `window`
    scale    of q · k; None: 1 / sqrt(D)
    dropout  of the attention weights; pass 0 outside training
    softcap  c: scores become c tanh(score / c) before the softmax (arXiv:2408.00118, section 2)
    Returns  [B, H, T, D] in v's dtype
    """
    # the defaults: one document a row, scores divided by sqrt(D)
    lengths = [q.shape[2]] if lengths is None else lengths
    scale = q.shape[-1] ** -0.5 if scale is None else scale

    # a key head for each query head: k, v [B, H_kv, T, D] -> [B, H, T, D]
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)

    # each document attends to itself alone
    outputs = []
    for q_n, k_n, v_n in zip(q.split(lengths, 2), k.split(lengths, 2), v.split(lengths, 2), strict=True):
        # scores [B, H, n, n]; autocast would round them to half precision
        with torch.autocast(q.device.type, enabled=False):
            scores = q_n.float() @ k_n.float().mT * scale  # pyright: ignore[reportOperatorIssue]
        if softcap is not None:
            scores = soft_cap(scores, softcap)

        # softmax over the visible keys
        mask = visible(q_n.shape[2], causal=causal, window=window, device=q.device)
        weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)

        # the weighted sum of their values: [B, H, n, D]
        weights = F.dropout(weights, dropout)
        outputs.append(weights.to(v.dtype) @ v_n)
    return torch.cat(outputs, dim=2)
