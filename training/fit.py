"""--fit: choose micro-batch size and activation checkpointing by measuring what fits into memory.

    peak of a pass = a + b · tokens        no padding, no T×T mask: memory is linear in the tokens

Two short passes give a and b for each checkpointing mode. The fastest mode in which a row fits is taken, and one pass
at the chosen size is run as proof. If memory runs out all the same, fewer rows are tried, then the next mode.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from common.console import UserError, lack_of_memory
from common.files import read_json
from data.masking import Example
from data.packing import to_batch
from lora.adapter import trainable
from model.decoder import Decoder
from model.loss import causal_lm_loss, supervised_tokens
from model.memory import free_memory, held_memory, peak_memory, release_memory, reset_peak
from training import parallel
from training.optim import STATE_BYTES
from training.precision import Precision
from training.resume import FITTED
from training.run import Run

MARGIN = {"cuda": 0.9, "cpu": 0.8}  # of the free memory; the rest is for fragmentation, and for other processes
MODES = ("none", "selective", "full")  # of checkpointing, from the fastest to the smallest


@dataclass(frozen=True)
class Cost:
    """The cost of one forward and backward pass."""

    tokens: int
    bytes: int  # peak, above what was held before the pass
    seconds: float


def measure_pass(decoder: Decoder, precision: Precision, row: list[Example]) -> Cost:
    """One forward and backward pass over a packed row; the gradients are discarded, no weight changes."""
    # memory above what is held already, from here on
    batch = to_batch(row, precision.device)
    held, started = held_memory(precision.device), time.perf_counter()
    reset_peak(precision.device)

    # the pass of the training loop
    with precision.autocast():
        hidden_states = decoder.hidden_states(batch.input_ids, batch.lengths)  # [1, T, D]
        loss = causal_lm_loss(hidden_states, decoder.head_weight, batch.labels, softcap=decoder.softcap)
    (loss / supervised_tokens(batch.labels)).backward()

    # a GPU computes asynchronously: wait for it before reading the clock
    if precision.device.type == "cuda":
        torch.cuda.synchronize(precision.device)
    seconds = time.perf_counter() - started
    decoder.zero_grad(set_to_none=True)
    return Cost(batch.input_ids.shape[1], max(0, peak_memory(precision.device) - held), seconds)


def fitted_options(
    run: Run, decoder: Decoder, precision: Precision, rows: list[list[Example]], *, rows_per_step: int
) -> dict[str, int | str]:
    """{"micro_batch", "checkpointing"} that fit on every rank; a resumed run keeps those of its start.

    Sets the decoder's checkpointing mode.
    """
    fitted: dict[str, int | str]
    if run.resume_from:
        saved = read_json(run.folder / "config.json")["options"]
        fitted = {name: saved[name]["value"] for name in FITTED}
    else:
        # every rank must fit: the mode that needs the least memory on any of them, then the fewest rows
        share = -(-rows_per_step // parallel.world())
        found = parallel.of_every_rank(fit(decoder, precision, rows, run.options.values.optimizer, share))
        smallest = max(found, key=lambda each: (MODES.index(each[1]), -each[0]))
        fitted = dict(zip(FITTED, smallest, strict=True))
    decoder.checkpointing = str(fitted["checkpointing"])
    return fitted


def fit(
    decoder: Decoder, precision: Precision, rows: list[list[Example]], optimizer: str, rows_per_step: int
) -> tuple[int, str]:
    """The fastest (rows per pass, checkpointing mode) that fits; prints what was measured. Sets the decoder's mode.

    rows       the packed rows to train on
    optimizer  by name: memory is reserved for its state

    Raises UserError when not even one row fits.
    """
    # the room: free memory, less a margin and what the optimiser will hold
    device = precision.device
    longest = max(rows, key=_tokens)
    learning = sum(p.numel() for _, p in trainable(decoder))
    room = MARGIN[device.type] * free_memory(device) - STATE_BYTES[optimizer] * learning
    _attempt(decoder, precision, _head(longest, 64))  # warm-up: one-time allocations
    needed = ""
    for mode in MODES:
        decoder.checkpointing = mode

        # two short passes: bytes = fixed + per_token · tokens
        small = _attempt(decoder, precision, _head(longest, _tokens(longest) // 4))
        large = _attempt(decoder, precision, _head(longest, _tokens(longest) // 2))
        if small is None or large is None:
            continue
        per_token = max(1.0, (large.bytes - small.bytes) / max(1, large.tokens - small.tokens))
        fixed = max(0.0, large.bytes - per_token * large.tokens)
        needed = f" ({(fixed + per_token * _tokens(longest)) / 2**30:.1f} GiB)"

        # the proof, with the longest rows; half as many if memory runs out all the same
        count = min(rows_per_step, int((room - fixed) / per_token / _tokens(longest)))
        while count > 0:
            chosen = sorted(rows, key=_tokens)[-count:]
            cost = _attempt(decoder, precision, [example for row in chosen for example in row])
            if cost is not None:
                print(
                    f"fit      {count} rows per pass, checkpointing {mode}: {cost.bytes / 2**30:.2f} of "
                    f"{room / 2**30:.2f} GiB for {cost.tokens:,} tokens · {cost.tokens / cost.seconds:,.0f} tokens/s"
                )
                return count, mode
            count //= 2

    # not one row fits, in any mode
    raise UserError(
        f"a row of {_tokens(longest)} tokens does not fit{needed} even with full activation checkpointing; "
        f"{room / 2**30:.1f} GiB are free: give shorter rows, or --quantize nf4"
    )


def _attempt(decoder: Decoder, precision: Precision, row: list[Example]) -> Cost | None:
    """`measure_pass`, or None when memory runs out; the memory of the failed pass is released."""
    try:
        return measure_pass(decoder, precision, row)
    except Exception as error:
        if not lack_of_memory(error):
            raise
    # only here, outside the except clause, are the exception's frames gone, and their tensors with them
    decoder.zero_grad(set_to_none=True)
    release_memory(precision.device)
    return None


def _tokens(row: list[Example]) -> int:
    return sum(len(example.input_ids) for example in row)


def _head(row: list[Example], tokens: int) -> list[Example]:
    """The first `tokens` tokens of a row, the last document truncated; all of them supervised."""
    kept: list[Example] = []
    for example in row:
        ids = example.input_ids[: max(2, tokens) - _tokens(kept)]
        if ids:
            kept.append(Example(ids, ids))
    return kept
