"""The model that a command asks for answers: its options, and the model with them applied."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from common.console import UserError
from lora.adapter_file import load_adapter
from lora.adapter_tokenizer import load_trained_tokenizer
from lora.frozen_weight import QUANTIZE
from lora.inject import folded
from model import load_decoder
from model.decoder import Decoder
from model.device import DTYPES, choose_device, choose_dtype
from model.tokenizer import Tokenizer

LESS_MEMORY = "--quantize nf4, fewer --max-new-tokens or --device cpu"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """What goes with --model."""
    parser.add_argument("--adapter", help="folder of a LoRA adapter for --model (default: none)")
    parser.add_argument(
        "--chat-template", help="a Jinja file (default: what the adapter was trained with, else the model's own)"
    )
    parser.add_argument("--quantize", choices=QUANTIZE, default="none", help="--model in 4 bits (default: %(default)s)")
    add_dtype_options(parser)


def add_dtype_options(parser: argparse.ArgumentParser) -> None:
    """Where a network computes, and in what; `choose_device` and `choose_dtype` take the values."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument(
        "--dtype", choices=("auto", *DTYPES), default="auto",
        help="compute dtype; auto: half precision where the hardware has it, as in training (default: %(default)s)",
    )  # fmt: skip


def add_sampling_options(parser: argparse.ArgumentParser, *, max_new_tokens: int) -> None:
    """How answers are drawn, and where they are run."""
    parser.add_argument("--temperature", type=float, default=0.8, help="of the samples (default: %(default)s)")
    parser.add_argument("--top-p", type=float, default=0.95, help="nucleus of the samples (default: %(default)s)")
    parser.add_argument(
        "--max-new-tokens", type=int, default=max_new_tokens, help="tokens an answer may have (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default: %(default)s)")
    parser.add_argument("--processes", type=int, help="sandboxed processes at once (default: the cores)")
    parser.add_argument("--allow-unsafe-exec", action="store_true", help="run answers even where the network is open")


def refuse_lone_adapter(options: argparse.Namespace) -> None:
    """UserError for an adapter or a chat template where no model is asked."""
    for name in ("adapter", "chat_template"):
        if getattr(options, name) and not options.model:
            raise UserError(f"--{name.replace('_', '-')} goes with --model, not with --answers")


@contextmanager
def asked_model(options: argparse.Namespace) -> Iterator[tuple[Decoder, Tokenizer]]:
    """--model in --dtype, with the adapter folded in for speed."""
    device = choose_device(options.device)
    dtype = choose_dtype(device, options.dtype)
    tokenizer = load_trained_tokenizer(options.model, options.adapter, chat_template=options.chat_template)
    decoder = load_decoder(options.model, dtype=dtype, device=device, put=QUANTIZE[options.quantize])
    if options.adapter:
        load_adapter(decoder, options.adapter)
    with folded(decoder):
        yield decoder, tokenizer
