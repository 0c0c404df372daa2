"""GradCache (Gao et al., arXiv:2101.06983): contrastive batches larger than memory.

    forward     chunk 1 → vectors ┐
                chunk 2 → vectors ├ loss of the whole batch → gradient of every vector
                chunk 3 → vectors ┘
    backward    recompute chunk 3 with gradient → its share of the weights' gradients; then chunk 2, then 1

The gradients are those of the undivided batch, at the memory of one chunk and the cost of one more forward pass. A
chunk is an activation checkpoint, which also redraws the same dropout masks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from data.contrastive import PairBatch
from model.encoder import Encoder
from training import parallel


def embedder(encoder: Encoder, batch: PairBatch, chunk_tokens: int) -> Callable[[list[list[int]]], torch.Tensor]:
    """`encoder.embed`, in chunks if this rank's share of the batch exceeds `chunk_tokens`."""
    if batch.tokens <= chunk_tokens * parallel.world():
        return encoder.embed
    return partial(embed_in_chunks, encoder, chunk_tokens=chunk_tokens)


def embed_in_chunks(encoder: Encoder, rows: list[list[int]], *, chunk_tokens: int) -> torch.Tensor:
    """What `encoder.embed` returns, [N, D], at the memory of one chunk in the forward and the backward pass.

    rows          token ids of the texts
    chunk_tokens  most tokens of a chunk; a longer text is a chunk of its own
    """
    # texts in order, so that the vectors need no sorting back
    vectors, chunk = [], []
    for row in rows:
        if chunk and sum(map(len, chunk)) + len(row) > chunk_tokens:
            vectors.append(_recomputed(encoder, chunk))
            chunk = []
        chunk.append(row)
    return torch.cat([*vectors, _recomputed(encoder, chunk)])


def _recomputed(encoder: Encoder, rows: list[list[int]]) -> torch.Tensor:
    """The vectors of a chunk, recomputed in the backward pass.

    The reentrant checkpoint records no graph in the forward pass. The other kind keeps the graph's nodes, which
    fragment the heap between freed tensors: batches of 512 pairs held 4 GiB on a CPU, of which 0.2 were in use.
    """
    # a tensor as argument, so that its device's random state is saved; and one that requires a gradient, without which
    # the reentrant kind computes none
    packed, lengths = encoder.pack(rows)
    requires_grad = torch.zeros((), requires_grad=True)

    def embed(packed: torch.Tensor, requires_grad: torch.Tensor) -> torch.Tensor:
        return encoder.embed_packed(packed, lengths)

    return checkpoint(embed, packed, requires_grad, use_reentrant=True)[: len(rows)]
