"""What a run says before it trains: its model and adapter; with --dry-run also its rows, steps, memory and time."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

from data.contrastive import PairBatch
from data.masking import Example, show_mask
from data.packing import in_passes
from lora.adapter import adapter_in_use, trainable
from lora.adapter_file import method_of
from lora.quantised import QuantisedWeight
from model.decoder import Decoder
from model.encoder import Encoder
from model.memory import held_memory, peak_memory, reset_peak
from model.tokenizer import Tokenizer
from training.contrastive_loss import ContrastiveLoss
from training.fit import measure_pass
from training.methods import learning_rates
from training.optim import STATE_BYTES
from training.precision import Precision
from training.shared_options import DecoderOptions, TrainOptions
from training.sweep import trial_steps

GIB = 2**30


def describe_model(options: TrainOptions, network: nn.Module, dtype: torch.dtype) -> str:
    """Two lines: the model, and its trainable parameters with their learning rate."""
    # a quantised weight has buffers instead of parameters, so it is counted apart
    weights = [module for module in network.modules() if isinstance(module, QuantisedWeight)]
    quantised = sum(weight.shape.numel() for weight in weights)
    total = quantised + sum(parameter.numel() for parameter in network.parameters())
    learning = sum(parameter.numel() for _, parameter in trainable(network))

    # the model's own parameters: all but those of the adapter
    adapter = adapter_in_use(network)
    own = total - (learning if adapter else 0)
    precision = str(dtype).removeprefix("torch.")
    if weights:
        precision += f", {quantised / 1e6:.1f} M of them in {weights[0].label}"
    subject = f"adapter  {method_of(adapter).describe(adapter)} · " if adapter else "weights  "
    trained = f"{learning / 1e6:.2f} M trainable ({100 * learning / total:.3g} %)"
    sweep = options.sweep if isinstance(options, DecoderOptions) else None
    return (
        f"model    {options.model} · {own / 1e6:.1f} M parameters · {precision}\n"
        f"{subject}{trained} · peak learning rate {sweep or f'{options.lr:g}'}"
    )


def describe_decoder_run(
    options: DecoderOptions,
    decoder: Decoder,
    tokenizer: Tokenizer,
    precision: Precision,
    rows: list[list[Example]],
    windows: list[list[int]],
    *,
    row_tokens: int,
) -> str:
    """Rows, tokens, steps, memory, time, and one example with its mask. Measures one pass of the largest step.

    rows        packed rows
    windows     the rows of each optimiser step
    row_tokens  capacity of a row
    """
    # the data: tokens of the rows, and of all steps together
    examples = [example for row in rows for example in row]
    tokens = sum(len(example.input_ids) for example in examples)
    supervised = sum(example.supervised for example in examples)
    total = sum(len(example.input_ids) for window in windows for row in window for example in rows[row])

    # --sweep trains on the first windows several times before
    trials = ""
    if options.sweep:
        trials = f", after {len(learning_rates(options.sweep))} trials of {trial_steps(len(windows))} steps"

    # one measured pass of the largest step; memory for the optimiser is added, since its state does not exist yet
    largest = max(windows, key=len)
    passes = in_passes([rows[row] for row in largest], options.micro_batch)
    held = held_memory(precision.device)
    cost = measure_pass(decoder, precision, passes[0])
    states = STATE_BYTES[options.optimizer] * sum(p.numel() for _, p in trainable(decoder))
    lines = (
        f"rows     {len(rows):,} of at most {row_tokens:,} tokens, {100 * tokens / len(rows) / row_tokens:.1f} % full",
        f"tokens   {tokens:,} in {len(examples):,} documents, {supervised:,} supervised · no padding",
        f"steps    {len(windows):,} of {len(largest)} rows in {len(passes)} passes · {total:,} tokens in total{trials}",
        f"memory   about {(held + cost.bytes + states) / GIB:.2f} GiB: {held / GIB:.2f} now, {cost.bytes / GIB:.2f} "
        f"for a pass of {cost.tokens:,} tokens, {states / GIB:.2f} for the optimiser",
        f"time     about {total / cost.tokens * cost.seconds / 60:.1f} minutes at {cost.tokens / cost.seconds:,.0f} "
        "tokens/s, plus the evaluations before and after",
        "",
        show_mask(tokenizer, rows[0][0]),
    )
    return "\n".join(lines)


def describe_encoder_run(
    options: TrainOptions,
    encoder: Encoder,
    embed: Callable[[list[list[int]]], torch.Tensor],
    loss: ContrastiveLoss,
    precision: Precision,
    largest: PairBatch,
    *,
    steps: int,
) -> str:
    """Steps, memory and time. Measures one step on the largest batch; `embed` is the `embedder` of that batch."""
    # one step without its update
    held, started = held_memory(precision.device), time.perf_counter()
    reset_peak(precision.device)
    with precision.autocast():
        value = loss(embed(largest.queries), embed(largest.documents), largest)
    value.backward()
    encoder.zero_grad(set_to_none=True)
    seconds, learning = time.perf_counter() - started, sum(p.numel() for _, p in trainable(encoder))

    # the optimiser's state does not exist yet: it is added
    peak = peak_memory(precision.device) + STATE_BYTES[options.optimizer] * learning
    return (
        f"steps    {steps:,} of {len(largest.queries)} pairs · no padding\n"
        f"memory   about {peak / GIB:.2f} GiB: {held / GIB:.2f} now, the rest for a step\n"
        f"time     about {steps * seconds / 60:.1f} minutes at {seconds:.2f} s a step, plus the evaluations before "
        "and after"
    )
