"""The options that evaluations share: the model to ask for answers, how it samples, where its code runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from common.console import UserError
from common.options import option
from lora.adapter import folded
from lora.adapter_file import load_adapter
from lora.adapter_tokenizer import load_trained_tokenizer
from lora.frozen_weight import QUANTIZE
from model import load_decoder
from model.decoder import Decoder
from model.device import DTYPES, choose_device, choose_dtype
from model.tokenizer import Tokenizer

LESS_MEMORY = "--quantize nf4, fewer --max-new-tokens or --device cpu"

MEASURE = "what to measure"
MODEL = "the model"
SAMPLING = "sampling"
SANDBOX = "the sandbox"


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """Device and compute dtype, as `choose_device` and `choose_dtype` take them."""

    device: str = option("auto", "auto, cpu, cuda or cuda:N", MODEL)
    dtype: str = option(
        "auto", "compute dtype; auto: half precision where the hardware is faster in it, as in training", MODEL,
        choices=("auto", *DTYPES),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AskOptions(ComputeOptions):
    """The model to ask for answers, unless they are given in a file."""

    GROUPS = (MEASURE, MODEL, SAMPLING, SANDBOX)

    model: str | None = option(
        None, "the model to ask: folder, .gguf file, hub id or embedded default (default: answers are given)", MODEL
    )
    adapter: str | None = option(None, "folder of an adapter for --model", MODEL, metavar="DIR")
    chat_template: str | None = option(
        None, "Jinja file (default: the template the adapter was trained with, else the model's own)", MODEL,
        metavar="FILE",
    )  # fmt: skip
    quantize: str = option("none", "--model's linear layers in 8 or 4 bits", MODEL, choices=tuple(QUANTIZE))

    def refuse_unless_one(self, **sources: object) -> None:
        """UserError unless exactly one source of answers is given, and for an adapter or a template without a model."""
        if sum(bool(given) for given in sources.values()) != 1:
            raise UserError(f"give one of {', '.join(f'--{name}' for name in sources)}")
        for flag, value in (("--adapter", self.adapter), ("--chat-template", self.chat_template)):
            if value and not self.model:
                raise UserError(f"{flag} goes with --model, not with --answers")


@dataclass(frozen=True, kw_only=True)
class SandboxOptions:
    """How generated code is run."""

    processes: int | None = option(None, "sandboxed processes at once (default: one per core)", SANDBOX)
    allow_unsafe_exec: bool = option(False, "run code even if it cannot be cut off from the network", SANDBOX)


@dataclass(frozen=True, kw_only=True)
class SampleOptions(SandboxOptions):
    """How answers are sampled and run."""

    samples: int = option(10, "sampled answers per task, in addition to the greedy one", SAMPLING)
    temperature: float = option(0.8, "temperature of the sampled answers", SAMPLING)
    top_p: float = option(0.95, "nucleus (top-p) of the sampled answers", SAMPLING)
    max_new_tokens: int = option(256, "tokens of an answer at most", SAMPLING)
    seed: int = option(0, "seed of the samples", SAMPLING)


@contextmanager
def asked_model(options: AskOptions) -> Iterator[tuple[Decoder, Tokenizer]]:
    """The model with its adapter folded in, and its tokenizer with the template that the adapter was trained with."""
    assert options.model is not None  # else the command has answers, and does not call this
    device = choose_device(options.device)
    dtype = choose_dtype(device, options.dtype)
    tokenizer = load_trained_tokenizer(options.model, options.adapter, chat_template=options.chat_template)
    decoder = load_decoder(options.model, dtype=dtype, device=device, put=QUANTIZE[options.quantize])
    if options.adapter:
        load_adapter(decoder, options.adapter)
    with folded(decoder):
        yield decoder, tokenizer
