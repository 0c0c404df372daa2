"""--chunk-tokens by measurement: how many tokens of a contrastive batch fit into memory in one pass.

peak of a pass = a + b · tokens, as in training/fit.py; two small passes give a and b.
"""

from __future__ import annotations

import sys

from common.console import UserError
from common.files import read_json
from data.contrastive import PairBatch, PairTable
from lora.adapter import trainable
from model.encoder import Encoder
from model.memory import free_memory, held_memory, peak_memory, reset_peak
from training import parallel
from training.fit import MARGIN
from training.optim import STATE_BYTES
from training.precision import Precision
from training.run import Run

TRIAL = 1024  # tokens of the larger of the two measured passes
SIMILARITIES = 6  # fp32 matrices [B, M] alive at once: scores, their masks, softmax and gradients


def fitted_chunk_tokens(
    run: Run, encoder: Encoder, precision: Precision, table: PairTable, plan: list[tuple[int, list[int]]]
) -> int:
    """The chunk size that fits on every rank; says so if batches are divided. A resumed run keeps that of its start.

    plan  the pairs of each step

    Raises UserError when not even one text fits.
    """
    if run.resume_from:
        return read_json(run.folder / "config.json")["options"]["chunk_tokens"]["value"]
    # the batch with the most tokens; the smallest chunk that any rank found
    batch = table.largest(plan)
    found = min(parallel.of_every_rank(_measured(encoder, precision, batch, run.options.values.optimizer)))
    if found < batch.tokens / parallel.world():
        print(f"cached   a batch of {batch.tokens:,} tokens does not fit: chunks of {found:,}, each computed twice")
    return found


def _measured(encoder: Encoder, precision: Precision, batch: PairBatch, optimizer: str) -> int:
    """Tokens of a chunk that fit into this rank's memory beside the similarities of the whole batch."""
    # no measuring for a small batch, or where free memory is unknown
    device = precision.device
    needed = -(-batch.tokens // parallel.world())
    if needed <= TRIAL or (device.type == "cpu" and sys.platform != "linux"):  # free memory is known on Linux only
        return max(needed, TRIAL)

    # the room: free memory, less a margin, the optimiser's state and the similarities
    learning = sum(p.numel() for _, p in trainable(encoder))
    room = MARGIN[device.type] * free_memory(device) - STATE_BYTES[optimizer] * learning
    room -= SIMILARITIES * 4 * len(batch.queries) * len(batch.documents)
    rows = sorted([*batch.queries, *batch.documents], key=len, reverse=True)

    # two small passes: bytes = fixed + per_token · tokens
    encoder.train()  # dropout takes memory, too
    warm_up, small, large = (_head(rows, tokens) for tokens in (64, TRIAL // 4, TRIAL))
    held = held_memory(device)
    _peak_of_a_pass(encoder, precision, warm_up)  # one-time allocations
    small_bytes = _peak_of_a_pass(encoder, precision, small) - held
    large_bytes = _peak_of_a_pass(encoder, precision, large) - held
    encoder.eval()
    small_tokens, large_tokens = sum(map(len, small)), sum(map(len, large))
    per_token = max(1.0, (large_bytes - small_bytes) / (large_tokens - small_tokens))
    fixed = max(0.0, large_bytes - per_token * large_tokens)

    # the room, solved for tokens; at least the longest text must fit
    fits = int((room - fixed) / per_token)
    if fits < len(rows[0]):
        gib = (fixed + per_token * len(rows[0])) / 2**30
        raise UserError(
            f"training on a text of {len(rows[0])} tokens takes {gib:.1f} GiB, and {room / 2**30:.1f} are free; "
            "give a smaller --max-length, or a smaller --batch"
        )
    return fits


def _peak_of_a_pass(encoder: Encoder, precision: Precision, rows: list[list[int]]) -> int:
    """Peak bytes of a forward and backward pass; the gradients are discarded, no weight changes."""
    reset_peak(precision.device)
    with precision.autocast():
        vectors = encoder.embed(rows)
    vectors.sum().backward()
    encoder.zero_grad(set_to_none=True)
    return peak_memory(precision.device)


def _head(rows: list[list[int]], tokens: int) -> list[list[int]]:
    """The first `tokens` tokens of the texts, the last one truncated."""
    kept: list[list[int]] = []
    for row in rows:
        if left := tokens - sum(map(len, kept)):
            kept.append(row[:left])
    return kept
