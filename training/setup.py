"""From a run's options to its parts: the network with its adapter, precision, optimiser and schedule."""

from __future__ import annotations

import torch
from torch import nn

from common.console import UserError
from lora.adapter import train_adapter
from lora.bitfit import make_bitfit
from lora.bottleneck import make_bottleneck
from lora.frozen_weight import QUANTIZE
from lora.ia3 import default_ia3
from lora.inject import inject
from lora.targets import parse_pattern, parse_targets
from model import load_decoder
from model.decoder import Decoder
from model.device import on_gpu
from model.generate import positions_of
from model.tokenizer import Tokenizer
from training.optim import adamw, make_schedule
from training.overflow import keep_in_fp32, modules_named
from training.precision import Precision
from training.shared_options import DecoderOptions, TrainOptions
from training.virtual_start import fresh_virtual_tokens


def load_for_training(options: DecoderOptions, dtype: torch.dtype, device: torch.device) -> Decoder:
    """The decoder that --model names: in the compute dtype under an adapter, in fp32 if its own weights are trained."""
    # a frozen weight is only read; a trained one accumulates small steps, which half precision would round away
    weights_dtype = torch.float32 if options.method == "full" else dtype
    return load_decoder(options.model, dtype=weights_dtype, device=device, put=QUANTIZE[options.quantize])


def prepare(
    decoder: Decoder, tokenizer: Tokenizer, options: DecoderOptions, device: torch.device, dtype: torch.dtype
) -> Precision:
    """Put the adapter in, set up activation checkpointing, and return the precision of the steps."""
    # options that contradict each other
    if options.patience and not options.validate_every:
        raise UserError("--patience counts validations; give --validate-every, too")
    if options.shard and options.sample_every:
        raise UserError("--sample-every generates with the whole network, which --shard divides; drop one of them")
    if options.shard and options.optimizer != "adamw":
        raise UserError(f"--shard cannot divide the state of --optimizer {options.optimizer}; give adamw")

    # what is trained, and what the backward pass recomputes
    add_adapter(decoder, tokenizer, options)
    if options.checkpointing == "offload" and not on_gpu(device):
        raise UserError("--checkpointing offload moves activations from a GPU to host memory; without a GPU, give full")
    decoder.checkpointing = options.checkpointing

    # autocast and loss scale, and the modules that stay out of them
    precision = Precision(device, dtype)
    if options.fp32_modules:
        keep_in_fp32(decoder, modules_named(decoder, options.fp32_modules), precision)
    return precision


def optimizer_of(network: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """--optimizer over the trainable parameters."""
    assert options.lr is not None  # training.methods.with_method
    return adamw(
        network,
        options.optimizer,
        lr=options.lr,
        weight_decay=options.weight_decay,
        lora_plus_ratio=options.lora_plus_ratio,
    )


def schedule_of(optimizer: torch.optim.Optimizer, options: TrainOptions, *, steps: int):
    """--schedule. Do not advance it after a skipped step."""
    return make_schedule(
        optimizer,
        options.schedule,
        steps=steps,
        warmup=options.warmup,
        start=options.initial_lr,
        floor=options.final_lr,
    )


def add_adapter(decoder: Decoder, tokenizer: Tokenizer, options: DecoderOptions) -> None:
    """Freeze the decoder and put a fresh adapter in, unless all weights are trained. UserError for bad options."""
    match options.method:
        case "lora":
            add_lora(decoder, options)
        case "ia3":
            train_adapter(decoder, default_ia3(decoder))
        case "bitfit":
            train_adapter(decoder, make_bitfit(decoder))
        case "bottleneck":
            shape = {"reduction_factor": options.reduction_factor, "activation": options.activation}
            train_adapter(decoder, make_bottleneck(decoder, placement=options.placement, **shape))
        case "prefix" | "prompt":
            train_adapter(decoder, fresh_virtual_tokens(decoder, tokenizer, options))


def refuse_longer_texts(option: str, tokens: int, decoder: Decoder) -> None:
    """UserError if texts of so many tokens do not fit beside the adapter's virtual tokens; `option` says how many."""
    if tokens > decoder.max_tokens:
        raise UserError(f"{option} {tokens} exceeds {positions_of(decoder)}; give less")


def add_lora(network: nn.Module, options: TrainOptions) -> None:
    """Freeze the network and inject a fresh LoRA adapter. UserError for options that do not fit it."""
    inject(
        network,
        r=options.r,
        alpha=options.alpha,
        dropout=options.dropout,
        targets=parse_targets(options.targets),
        rank_pattern=parse_pattern(options.rank_pattern, int, "--rank-pattern"),
        alpha_pattern=parse_pattern(options.alpha_pattern, float, "--alpha-pattern"),
        rslora=options.rslora,
        dora=options.dora,
    )


def train_top_layers(network: nn.Module, count: int) -> None:
    """Freeze all but the last `count` layers and the modules after them. UserError when it has fewer layers."""
    # the list of layers: "layers" or "encoder.layer", by family
    name, layers = next((name, part) for name, part in network.named_modules() if isinstance(part, nn.ModuleList))
    if count > len(layers):
        raise UserError(f"--top-layers {count}: the model has {len(layers)}")

    # the last `count` of them, and what comes after the list
    network.requires_grad_(False)
    parts = [part for part, _ in network.named_children()]
    after = parts[parts.index(name.partition(".")[0]) + 1 :]  # the final norm, which all but BERT have
    for part in [*layers[-count:], *map(network.get_submodule, after)]:
        part.requires_grad_(True)
