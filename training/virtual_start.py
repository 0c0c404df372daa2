"""--method prefix and prompt: the virtual tokens that a run starts with, and what they change before it begins.

Other adapters change nothing while they are fresh. Virtual tokens cannot: attention divides its weight among all keys,
so that a key takes some of it whatever it is. A gate could switch it off, but PEFT's format has none. So a run starts
from tokens, whose effect is that of a text before every text; it says which, measures what that costs, and reports as
"before" what the base does without them.
"""

from __future__ import annotations

import torch

from common.console import UserError
from data.masking import Example
from data.packing import to_batch
from lora.adapter import Adapter, base_alone
from lora.initial_tokens import initial_tokens
from lora.prefix import Prefix
from lora.prompt import Prompt
from model.decoder import Decoder
from model.loss import causal_lm_loss, supervised_tokens
from model.tokenizer import Tokenizer
from training.precision import Precision
from training.shared_options import DecoderOptions


def fresh_virtual_tokens(decoder: Decoder, tokenizer: Tokenizer, options: DecoderOptions) -> Adapter:
    """A prefix or a prompt, not yet in use. UserError for options that contradict each other or the model."""
    count, positions = options.virtual_tokens, decoder.config.max_tokens
    if count >= positions:
        raise UserError(f"--virtual-tokens {count} leaves no room in the model's {positions} positions; give fewer")
    if options.init_text is not None and (options.random_init or options.prefix_mlp):
        switch = "--random-init" if options.random_init else "--prefix-mlp"
        raise UserError(f"{switch} starts from random numbers, --init-text from a text; drop one of them")

    # random, then what the base makes of some tokens
    is_prompt = options.method == "prompt"
    learnt = Prompt(decoder, count) if is_prompt else Prefix(decoder, count, hidden=options.prefix_mlp)
    if not starts_at_random(options):
        learnt.start_as_text(decoder, initial_tokens(tokenizer, count, text=options.init_text, seed=options.seed))
    return {learnt.place: learnt}


def starts_at_random(options: DecoderOptions) -> bool:
    """Whether the virtual tokens start as random numbers, and not as tokens."""
    return options.random_init or options.prefix_mlp > 0


def describe_start(
    decoder: Decoder, tokenizer: Tokenizer, precision: Precision, row: list[Example], options: DecoderOptions
) -> str:
    """A line on the fresh virtual tokens: what they are, and the loss of a packed row with and without them."""
    fresh = _loss(decoder, precision, row)
    with base_alone(decoder):
        plain = _loss(decoder, precision, row)
    what = "random" if starts_at_random(options) else _initial_text(tokenizer, options)
    return f"start    {what} · loss of the first row {fresh:.3f}, without virtual tokens {plain:.3f}"


def _initial_text(tokenizer: Tokenizer, options: DecoderOptions) -> str:
    """What every text now seems to follow; long ones are shortened, and a text that was cut is said to be."""
    count = options.virtual_tokens
    text = tokenizer.decode(initial_tokens(tokenizer, count, text=options.init_text, seed=options.seed))
    shown = repr(text if len(text) <= 60 else text[:60] + "…")
    given = 0 if options.init_text is None else len(tokenizer.encode(options.init_text))
    return f"every text seems to follow {shown}" + (f" (cut to {count} of {given} tokens)" if given > count else "")


@torch.no_grad()
def _loss(decoder: Decoder, precision: Precision, row: list[Example]) -> float:
    """Nats per supervised token of a packed row."""
    batch = to_batch(row, precision.device)
    with precision.autocast():
        hidden_states = decoder.hidden_states(batch.input_ids, batch.lengths)  # [1, T, D]
        loss = causal_lm_loss(hidden_states, decoder.head_weight, batch.labels, softcap=decoder.softcap)
    return (loss / supervised_tokens(batch.labels)).item()
