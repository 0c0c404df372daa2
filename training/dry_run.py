"""What a run would be, before it is one: --dry-run."""

from __future__ import annotations

from data.masking import Example, show_mask
from data.packing import in_passes
from lora.inject import trainable
from model.decoder import Decoder
from model.tokenizer import Tokenizer
from training.fit import measure_pass
from training.memory import held_memory
from training.optim import STATE_BYTES
from training.precision import Precision
from training.run import Run


def describe_run(
    run: Run,
    decoder: Decoder,
    tokenizer: Tokenizer,
    precision: Precision,
    rows: list[list[Example]],
    windows: list[list[int]],
    *,
    row_tokens: int,
) -> str:
    """Rows, tokens, steps, memory, time, and a row with its mask. One pass of the largest step is really made.

    windows     rows of each optimiser step
    row_tokens  that a row could hold
    """
    options = run.options.values
    state_bytes = STATE_BYTES[options.optimizer]
    examples = [example for row in rows for example in row]
    tokens = sum(len(example.input_ids) for example in examples)
    supervised = sum(example.supervised for example in examples)
    in_all = sum(len(example.input_ids) for window in windows for row in window for example in rows[row])
    largest = max(windows, key=len)
    passes = in_passes([rows[row] for row in largest], options.micro_batch)
    held = held_memory(precision.device)
    cost = measure_pass(decoder, precision, passes[0])
    states = state_bytes * sum(p.numel() for _, p in trainable(decoder))
    gib = 2**30
    lines = (
        f"rows     {len(rows):,} of at most {row_tokens:,} tokens, {100 * tokens / len(rows) / row_tokens:.1f} % full",
        f"tokens   {tokens:,} in {len(examples):,} documents, {supervised:,} learnt · no padding",
        f"steps    {len(windows):,} of {len(largest)} rows in {len(passes)} passes · {in_all:,} tokens in all",
        f"memory   about {(held + cost.bytes + states) / gib:.2f} GiB: {held / gib:.2f} now, {cost.bytes / gib:.2f} "
        f"in a pass of {cost.tokens:,} tokens, {states / gib:.2f} for the optimiser",
        f"time     about {in_all / cost.tokens * cost.seconds / 60:.1f} minutes at {cost.tokens / cost.seconds:,.0f} "
        "tokens/s, and what is measured before and after",
        "",
        show_mask(tokenizer, rows[0][0]),
    )
    return "\n".join(lines)
