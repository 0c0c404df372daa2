"""The model that a command asks for answers: its options, and the model with them applied."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from lora.adapter_file import load_adapter
from lora.frozen import QUANTIZE
from lora.inject import folded
from model import load_decoder, load_tokenizer
from model.console import UserError
from model.decoder import Decoder
from model.device import choose_device, choose_dtype
from model.tokenizer import Tokenizer

LESS_MEMORY = "--quantize nf4, fewer --max-new-tokens or --device cpu"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """What goes with --model."""
    parser.add_argument("--adapter", help="folder of a LoRA adapter for --model (default: none)")
    parser.add_argument("--quantize", choices=QUANTIZE, default="none", help="--model in 4 bits (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")


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
    """UserError for an adapter where no model is asked."""
    if options.adapter and not options.model:
        raise UserError("--adapter goes with --model, not with --answers")


@contextmanager
def asked_model(options: argparse.Namespace) -> Iterator[tuple[Decoder, Tokenizer]]:
    """--model in the dtype of the device, with the adapter folded in for speed."""
    device = choose_device(options.device)
    decoder = load_decoder(options.model, dtype=choose_dtype(device), device=device, put=QUANTIZE[options.quantize])
    if options.adapter:
        load_adapter(decoder, options.adapter)
    with folded(decoder):
        yield decoder, load_tokenizer(options.model)
