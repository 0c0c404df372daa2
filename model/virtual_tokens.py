"""Virtual tokens: P learnt positions before every document of a row.

    a a a b b          lengths = [3, 2]
        │              P = 2
    · · a a a · · b b  lengths = [5, 4]: the tokens of every document stand at positions 2, 3, …

In prompt tuning they are input vectors and pass through all layers (lora/prompt.py). In prefix tuning they exist inside
attention alone, as keys and values of each layer (lora/prefix.py). Neither is a token of the text: what `drop` leaves
has the rows, labels and positions in the loss that it has without them.
"""

from __future__ import annotations

import torch
from torch import nn

from model.attention import document_attention


class VirtualTokens(nn.Module):
    """What an adapter puts at `model.prompt`, input vectors, or at `model.prefix`, keys and values for each layer."""

    count: int  # P


def prepend(virtual: torch.Tensor, x: torch.Tensor, lengths: list[int] | None) -> torch.Tensor:
    """Put the same P vectors before every document: virtual [..., P, D], x [B, ..., T, D] -> [B, ..., T + N · P, D].

    lengths  of the N documents of the row (B = 1); None: every row is one document
    """
    # one copy for each row and head, in x's dtype; gradients are summed over all of them
    virtual = virtual.to(x.dtype).expand(*x.shape[:-2], -1, -1)
    documents = x.split(lengths or [x.shape[-2]], dim=-2)
    return torch.cat([part for document in documents for part in (virtual, document)], dim=-2)


def drop(count: int, x: torch.Tensor, lengths: list[int] | None) -> torch.Tensor:
    """The inverse of `prepend`: without the first `count` vectors of every document. lengths: without them, too."""
    documents = x.split(longer(count, lengths) or [x.shape[-2]], dim=-2)
    return torch.cat([document[..., count:, :] for document in documents], dim=-2)


def longer(count: int, lengths: list[int] | None) -> list[int] | None:
    """The lengths of documents with `count` virtual tokens before each."""
    return None if lengths is None else [count + length for length in lengths]


def prefix_attention(q, k, v, lengths: list[int] | None, *, prefix: torch.Tensor, **rules) -> torch.Tensor:
    """`document_attention` with P learnt keys and values before those of every document.

    prefix  [2, H_kv, P, D]: keys, which are neither normalised nor rotated, and values
    rules   causal, window, scale and softcap, which hold for them as for any other key
    """
    # queries of zeros stand beside the learnt keys, so that the fast forms of attention need no other mask. What they
    # attend to is dropped; it costs P² / 2 products a document
    count = prefix.shape[-2]
    virtual = prefix.new_zeros(count, q.shape[-1]), *prefix
    q, k, v = (prepend(learnt, x, lengths) for learnt, x in zip(virtual, (q, k, v), strict=True))
    return drop(count, document_attention(q, k, v, longer(count, lengths), **rules), lengths)
