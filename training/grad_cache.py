"""Batches larger than memory: the vectors of all texts are kept, what made them is made again a few texts at a time.

    forward     chunk 1 → vectors ┐
                chunk 2 → vectors ├ loss of the whole batch → gradient of every vector
                chunk 3 → vectors ┘
    backward    chunk 3 again, with gradient → its weights' part; then chunk 2, then 1

This is GradCache (Gao et al., arXiv:2101.06983): the gradients are those of the batch in one piece, at the memory of
one chunk and the time of one more forward pass. Autograd has the parts: a chunk is a checkpoint, which also draws the
same dropout again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from common.console import UserError
from common.files import read_json
from data.contrastive import PairBatch, PairTable
from lora.inject import trainable
from model.encoder import Encoder
from training import parallel
from training.fit import MARGIN
from training.memory import free_memory, held_memory, peak_memory, reset_peak
from training.optim import STATE_BYTES
from training.precision import Precision
from training.run import Run

TRIAL = 1024  # tokens of the larger of two passes that are measured
SIMILARITIES = 6  # matrices [B, M] in fp32 that exist at a time: scores, their masks, softmax and gradients


def embedder(encoder: Encoder, batch: PairBatch, chunk_tokens: int) -> Callable[[list[list[int]]], torch.Tensor]:
    """`encoder.embed`, in chunks if this rank's share of the batch has more tokens than a chunk."""
    if batch.tokens <= chunk_tokens * parallel.world():
        return encoder.embed
    return partial(embed_in_chunks, encoder, chunk_tokens=chunk_tokens)


def embed_in_chunks(encoder: Encoder, rows: list[list[int]], *, chunk_tokens: int) -> torch.Tensor:
    """What `encoder.embed` gives [N, D], at the memory of one chunk, forward and backward.

    chunk_tokens  of a chunk at most; a longer text is one alone
    """
    vectors, chunk = [], []
    for row in rows:
        if chunk and sum(map(len, chunk)) + len(row) > chunk_tokens:
            vectors.append(_again(encoder, chunk))
            chunk = []
        chunk.append(row)
    return torch.cat([*vectors, _again(encoder, chunk)])


def _again(encoder: Encoder, rows: list[list[int]]) -> torch.Tensor:
    """A checkpoint of the reentrant kind: it records no graph on the way there.

    The other one keeps the graph's nodes. These lie between the tensors that are freed, and the holes that they leave
    fit no tensor of the next chunk: on a CPU, batches of 512 pairs took 4 GiB of which 0.2 were in use.
    """
    packed, lengths = encoder.pack(rows)  # a tensor among the arguments: the random state of its device is kept
    learns = torch.zeros((), requires_grad=True)  # this kind asks for an argument that does
    again = lambda packed, learns: encoder.embed_packed(packed, lengths)  # noqa: E731
    return checkpoint(again, packed, learns, use_reentrant=True)[: len(rows)]


def fit_chunks(
    run: Run, encoder: Encoder, precision: Precision, table: PairTable, plan: list[tuple[int, list[int]]]
) -> None:
    """Set --chunk-tokens, unless it was given, by measuring two small passes; says whether the batches fit.

    A run that is resumed keeps what was found at its start. UserError when not even one text fits.
    """
    options = run.options.values
    if options.chunk_tokens or not plan:
        return
    if run.resume_from:
        found = read_json(run.folder / "config.json")["options"]["chunk_tokens"]["value"]
    else:
        batch = table.largest(plan)
        found = min(parallel.of_every_rank(_measured(encoder, precision, batch, options.optimizer)))
        if found < batch.tokens / parallel.world():
            print(f"cached   a batch of {batch.tokens:,} tokens does not fit: chunks of {found:,}, each computed twice")
    run.options = run.options.with_values("--fit", chunk_tokens=found)


def _measured(encoder: Encoder, precision: Precision, batch: PairBatch, optimizer: str) -> int:
    """Tokens that fit at once into the memory of this rank, beside what a batch takes as a whole."""
    device = precision.device
    needed = -(-batch.tokens // parallel.world())
    if needed <= TRIAL or (device.type == "cpu" and sys.platform != "linux"):  # where it is not told what is free
        return max(needed, TRIAL)
    learning = sum(p.numel() for _, p in trainable(encoder))
    room = MARGIN[device.type] * free_memory(device) - STATE_BYTES[optimizer] * learning
    room -= SIMILARITIES * 4 * len(batch.queries) * len(batch.documents)
    rows = sorted([*batch.queries, *batch.documents], key=len, reverse=True)
    encoder.train()  # dropout takes memory too
    heads = [_head(rows, tokens) for tokens in (64, TRIAL // 4, TRIAL)]  # what is made once, for ever, the first makes
    held = held_memory(device)
    _, small, large = (_peak_of_a_pass(encoder, precision, head) - held for head in heads)
    encoder.eval()
    small_tokens, large_tokens = (sum(map(len, head)) for head in heads[1:])
    per_token = max(1.0, (large - small) / (large_tokens - small_tokens))
    fixed = max(0.0, large - per_token * large_tokens)
    fits = int((room - fixed) / per_token)
    if fits < len(rows[0]):
        takes = (fixed + per_token * len(rows[0])) / 2**30
        raise UserError(
            f"a text of {len(rows[0])} tokens takes {takes:.1f} GiB to learn from, and {room / 2**30:.1f} are free; "
            "give a smaller --max-length, or a smaller --batch"
        )
    return fits


def _peak_of_a_pass(encoder: Encoder, precision: Precision, rows: list[list[int]]) -> int:
    """Bytes held at most in a forward and a backward pass; the gradients are thrown away, nothing learns."""
    reset_peak(precision.device)
    with precision.autocast():
        vectors = encoder.embed(rows)
    vectors.sum().backward()
    encoder.zero_grad(set_to_none=True)
    return peak_memory(precision.device)


def _head(rows: list[list[int]], tokens: int) -> list[list[int]]:
    """The first texts, the last of them cut, so that so many tokens are left."""
    kept: list[list[int]] = []
    for row in rows:
        if left := tokens - sum(map(len, kept)):
            kept.append(row[:left])
    return kept
