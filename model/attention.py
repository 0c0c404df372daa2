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
    """Keys and values of what was read and written so far, in blocks of memory of fixed size.

    Sampling asks one prompt for several continuations, and a step's time goes into reading the cache. So a prompt is
    kept once and shared by its continuations (bifurcated attention, arXiv:2403.08845):

        prompt_keys  [L, P, H_kv, D, S]      P prompts of unequal length, filled from the left; `lengths` [P]
        keys         [L, P·K, H_kv, D, N]    K continuations of each prompt, side by side, all `written` tokens long

    prompt_values and values are alike but for the last two axes, [S, D] and [N, D]: each is laid out as its product
    reads it. There is no padding to see: what lies beyond a prompt's length is masked, and N has no gaps.
    """

    def __init__(self, shape: tuple[int, int, int], samples: int, slots: tuple[int, int], *, dtype, device) -> None:
        """shape: layers, key heads, numbers a head. slots: for the prompt, for the new tokens."""
        self.shape, self.samples, self.slots = shape, samples, slots
        self.options = {"dtype": dtype, "device": device}
        self.lengths = torch.zeros(0, dtype=torch.int64, device=device)
        self.written = 0

    def allocate(self, lengths: list[int]) -> None:
        """Make room for prompts of these lengths."""
        layers, heads, head_dim = self.shape
        prompts, (slots, new) = len(lengths), self.slots
        self.prompt_keys = torch.zeros(layers, prompts, heads, head_dim, slots, **self.options)
        self.prompt_values = torch.zeros(layers, prompts, heads, slots, head_dim, **self.options)
        self.keys = torch.zeros(layers, prompts * self.samples, heads, head_dim, new, **self.options)
        self.values = torch.zeros(layers, prompts * self.samples, heads, new, head_dim, **self.options)
        self.lengths = torch.tensor(lengths, device=self.options["device"])

    def positions(self) -> torch.Tensor:
        """Position of the next token of every continuation: [P·K] int64."""
        return (self.lengths + self.written).repeat_interleave(self.samples)

    def fill(self, layer: int, k: torch.Tensor, v: torch.Tensor, lengths: list[int]) -> None:
        """Store prompts: k, v [1, H_kv, T, D] hold them one after another, `lengths` long."""
        for prompt, (key, value) in enumerate(zip(k.split(lengths, 2), v.split(lengths, 2), strict=True)):
            self.prompt_keys[layer, prompt, :, :, : key.shape[2]] = key[0].transpose(-1, -2)
            self.prompt_values[layer, prompt, :, : key.shape[2]] = value[0]

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Store one new token of every continuation and attend to its prompt and to what it has written.

        q [P·K, H, 1, D]; k, v [P·K, H_kv, 1, D]. Returns [P·K, H, 1, D]. Softmax in fp32.
        """
        now, (rows, heads, _, head_dim) = self.written, q.shape
        prompts, key_heads = len(self.lengths), k.shape[1]
        q = (q / head_dim**0.5).to(self.keys.dtype).view(rows, key_heads, -1, head_dim)  # [P·K, H_kv, G, D]
        self.keys[layer, :, :, :, now] = k[:, :, 0]
        self.values[layer, :, :, now] = v[:, :, 0]

        def by_prompt(x):  # [P·K, H_kv, G, *] -> [P, H_kv, K·G, *]: whoever shares keys becomes their queries
            return x.view(prompts, self.samples, *x.shape[1:]).transpose(1, 2).flatten(2, 3)

        def by_row(x):  # and back
            return x.view(prompts, key_heads, self.samples, -1, x.shape[-1]).transpose(1, 2).flatten(0, 1)

        past = int(self.slots[0])
        beyond = torch.arange(past, device=q.device) >= self.lengths[:, None]  # [P, S]
        read = (by_prompt(q) @ self.prompt_keys[layer]).float().masked_fill(beyond[:, None, None], float("-inf"))
        wrote = (q @ self.keys[layer, ..., : now + 1]).float()  # [P·K, H_kv, G, written + 1]
        weights = torch.cat((by_row(read), wrote), dim=-1).softmax(-1).to(self.values.dtype)
        out = by_row(by_prompt(weights[..., :past]) @ self.prompt_values[layer])
        out = out + weights[..., past:] @ self.values[layer, :, :, : now + 1]
        return out.reshape(rows, heads, 1, head_dim)

    def advance(self) -> None:
        """Count the token that every layer has just stored."""
        self.written += 1

    def keep(self, prompts: list[int]) -> None:
        """Go on with these prompts and their continuations alone."""
        at = torch.tensor(prompts, device=self.lengths.device)
        rows = (at[:, None] * self.samples + torch.arange(self.samples, device=at.device)).flatten()
        self.prompt_keys, self.prompt_values = self.prompt_keys[:, at], self.prompt_values[:, at]
        self.keys, self.values, self.lengths = self.keys[:, rows], self.values[:, rows], self.lengths[at]
