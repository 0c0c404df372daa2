"""What fits into memory, by trying: how many packed rows at once, and how little is to be computed twice.

    peak of a pass = a + b · tokens        there is no padding and no T×T mask: memory grows with the tokens

Two short passes give a and b for each way of checkpointing, the first way that has room for a row is taken, and one
whole step is then done at the size that was chosen, as proof. Where memory runs out all the same, fewer rows are tried,
then the next way.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from common.console import UserError, lack_of_memory
from common.files import read_json
from data.masking import Example
from data.packing import to_batch
from lora.inject import trainable
from model.decoder import Decoder
from model.loss import causal_lm_loss, supervised_tokens
from training import parallel
from training.memory import free_memory, held_memory, peak_memory, release_memory, reset_peak
from training.optim import STATE_BYTES
from training.precision import Precision
from training.run import FITTED, Run

MARGIN = {"cuda": 0.9, "cpu": 0.8}  # of the free memory; the rest is for fragments, and for others on a CPU
MODES = ("none", "selective", "full")  # from the fastest to the smallest


@dataclass(frozen=True)
class Cost:
    """Of one forward and backward pass."""

    tokens: int
    bytes: int  # above what was held before it
    seconds: float


def measure_pass(decoder: Decoder, precision: Precision, row: list[Example]) -> Cost:
    """One pass over a packed row; the gradients are thrown away, nothing learns."""
    batch = to_batch(row, precision.device)
    held, started = held_memory(precision.device), time.perf_counter()
    reset_peak(precision.device)
    with precision.autocast():
        hidden_states = decoder.hidden_states(batch.input_ids, batch.lengths)
        loss = causal_lm_loss(hidden_states, decoder.head_weight, batch.labels, softcap=decoder.softcap)
    (loss / supervised_tokens(batch.labels)).backward()
    if precision.device.type == "cuda":
        torch.cuda.synchronize(precision.device)
    seconds = time.perf_counter() - started
    decoder.zero_grad(set_to_none=True)
    return Cost(batch.input_ids.shape[1], max(0, peak_memory(precision.device) - held), seconds)


def fit_run(run: Run, decoder: Decoder, precision: Precision, rows: list[list[Example]], *, rows_per_step: int) -> None:
    """Set --micro-batch and --checkpointing to what fits; a run that is resumed keeps what was found at its start."""
    if run.resume_from:
        saved = read_json(run.folder / "config.json")["options"]
        found = {name: saved[name]["value"] for name in FITTED}
    else:
        share = -(-rows_per_step // parallel.world())
        fitting = parallel.of_every_rank(fit(decoder, precision, rows, run.options.values.optimizer, share))
        careful = max(fitting, key=lambda each: (MODES.index(each[1]), -each[0]))  # what fits on every device
        found = dict(zip(FITTED, careful, strict=True))
    run.options = run.options.with_values("--fit", **found)
    decoder.checkpointing = found["checkpointing"]


def fit(
    decoder: Decoder, precision: Precision, rows: list[list[Example]], optimizer: str, rows_per_step: int
) -> tuple[int, str]:
    """(rows of a pass, checkpointing) that fit, the fastest such; prints what was measured.

    rows       packed rows that will be trained on
    optimizer  by name: what it will take is set aside
    UserError when not even one row fits.
    """
    device = precision.device
    longest = max(rows, key=_tokens)
    learning = sum(p.numel() for _, p in trainable(decoder))
    room = MARGIN[device.type] * free_memory(device) - STATE_BYTES[optimizer] * learning
    _attempt(decoder, precision, _head(longest, 64))  # warm-up: one-time allocations
    taken = ""
    for decoder.checkpointing in MODES:
        short = [_attempt(decoder, precision, _head(longest, _tokens(longest) // n)) for n in (4, 2)]
        if None in short:
            continue
        small, large = short
        per_token = max(1.0, (large.bytes - small.bytes) / max(1, large.tokens - small.tokens))
        fixed = max(0.0, large.bytes - per_token * large.tokens)
        taken = f" ({(fixed + per_token * _tokens(longest)) / 2**30:.1f} GiB)"
        count = min(rows_per_step, int((room - fixed) / per_token / _tokens(longest)))
        while count > 0:
            chosen = sorted(rows, key=_tokens)[-count:]
            cost = _attempt(decoder, precision, [example for row in chosen for example in row])
            if cost is not None:
                print(
                    f"fit      {count} rows a pass, checkpointing {decoder.checkpointing}: {cost.bytes / 2**30:.2f} "
                    f"GiB of {room / 2**30:.2f} for {cost.tokens:,} tokens · "
                    f"{cost.tokens / cost.seconds:,.0f} tokens/s"
                )
                return count, decoder.checkpointing
            count //= 2
    raise UserError(
        f"a row of {_tokens(longest)} tokens does not fit{taken} even with everything computed twice; "
        f"{room / 2**30:.1f} GiB are free: give shorter rows, or --quantize nf4"
    )


def _attempt(decoder: Decoder, precision: Precision, row: list[Example]) -> Cost | None:
    """`measure_pass`, or None when memory runs out; what the failed pass had taken is free again."""
    try:
        return measure_pass(decoder, precision, row)
    except Exception as error:
        if not lack_of_memory(error):
            raise
    # Only here, outside of the clause, has the exception let go of its frames, and of their tensors.
    decoder.zero_grad(set_to_none=True)
    release_memory(precision.device)
    return None


def _tokens(row: list[Example]) -> int:
    return sum(len(example.input_ids) for example in row)


def _head(row: list[Example], tokens: int) -> list[Example]:
    """The first documents of a row, the last of them cut, so that so many tokens are left; all are learnt."""
    kept: list[Example] = []
    for example in row:
        ids = example.input_ids[: max(2, tokens) - _tokens(kept)]
        if ids:
            kept.append(Example(ids, ids))
    return kept
