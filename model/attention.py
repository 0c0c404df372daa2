"""Attention over documents that lie one after another in a row, and over a cache when tokens are generated.

There is no padding anywhere. A row [1, T] holds whole documents; `lengths` says where they end, and nobody looks
across a border:

      a a a b b      lengths = [3, 2]
    a ■                              No T×T mask is ever built: each document is one call of the fused
    a ■ ■                            kernel with is_causal, so time and memory grow with the sum of the
    a ■ ■ ■                          squares of the documents' lengths, not with the square of the row's.
    b       ■
    b       ■ ■
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


def document_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lengths: list[int] | None,
    *,
    causal: bool,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Softmax attention inside each document.

    q        [B, H, T, D]
    k, v     [B, H_kv, T, D], each key head serves H / H_kv query heads (grouped-query attention, arXiv:2305.13245)
    lengths  documents of the row (B = 1, they sum to T); None: every row is one document
    Returns  [B, H, T, D]
    """
    groups = q.shape[1] // k.shape[1]
    if groups > 1:  # expanded, because the kernels of a T4 and of a CPU know no grouped heads and would fall back
        k = k.repeat_interleave(groups, dim=1)
        v = v.repeat_interleave(groups, dim=1)
    if lengths is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, dropout_p=dropout)
    assert q.shape[0] == 1 and sum(lengths) == q.shape[2], "lengths describe one row of documents"
    documents = zip(q.split(lengths, 2), k.split(lengths, 2), v.split(lengths, 2), strict=True)
    return torch.cat(
        [F.scaled_dot_product_attention(*qkv, is_causal=causal, dropout_p=dropout) for qkv in documents], dim=2
    )


class KVCache:
    """Keys and values of what was read so far, a row a sequence, in one block of memory of fixed size.

    keys     [L, B, H_kv, D, S]   S slots a row, filled from the left; slots last, as the product with q reads them
    values   [L, B, H_kv, S, D]
    lengths  [B]                  filled slots of each row: also the position of its next token

    Rows of unequal length need no padding: each writes at its own next slot and sees only its own filled ones.
    """

    def __init__(self, layers: int, rows: int, heads: int, slots: int, head_dim: int, *, dtype, device) -> None:
        self.keys = torch.zeros(layers, rows, heads, head_dim, slots, dtype=dtype, device=device)
        self.values = torch.zeros(layers, rows, heads, slots, head_dim, dtype=dtype, device=device)
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        self.filled = 0  # the longest row, known to the host so that no step waits for the device

    def fill(self, layer: int, k: torch.Tensor, v: torch.Tensor, lengths: list[int]) -> None:
        """Store prompts: k, v [1, H_kv, T, D] hold one document a row of the cache, `lengths` long."""
        for row, (key, value) in enumerate(zip(k.split(lengths, 2), v.split(lengths, 2), strict=True)):
            self.keys[layer, row, :, :, : key.shape[2]] = key[0].transpose(-1, -2)
            self.values[layer, row, :, : key.shape[2]] = value[0]

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Store one new token a row and attend to all that the row holds.

        q [B, H, 1, D]; k, v [B, H_kv, 1, D]. Returns [B, H, 1, D].
        """
        rows, heads, _, head_dim = q.shape
        every = torch.arange(rows, device=q.device)
        self.keys[layer][every, :, :, self.lengths] = k[:, :, 0].to(self.keys.dtype)
        self.values[layer][every, :, self.lengths] = v[:, :, 0].to(self.values.dtype)
        used = self.filled + 1
        visible = torch.arange(used, device=q.device) <= self.lengths[:, None]  # [B, S]
        # The query heads that share a key head become its queries: nothing is copied to expand the cache. Written out,
        # because for so few queries the fused kernel is 2.3 times slower on a CPU.
        grouped = q.view(rows, k.shape[1], heads // k.shape[1], head_dim).to(self.keys.dtype)
        scores = (grouped @ self.keys[layer, ..., :used]).float() / head_dim**0.5  # [B, H_kv, H/H_kv, S]
        weights = scores.masked_fill(~visible[:, None, None], float("-inf")).softmax(-1)
        return (weights.to(self.values.dtype) @ self.values[layer, :, :, :used]).view(rows, heads, 1, head_dim)

    def advance(self) -> None:
        """Count the token that every layer has just stored."""
        self.lengths += 1
        self.filled += 1

    def set_lengths(self, lengths: list[int]) -> None:
        """Say how many slots of each row `fill` has used."""
        self.lengths = torch.tensor(lengths, device=self.keys.device)
        self.filled = max(lengths)

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows in this order; a row named twice is copied. rows [B'] int64."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.lengths = self.lengths[rows]
