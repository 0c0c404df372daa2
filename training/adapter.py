"""The adapter that a run's options ask for, and how the weights beneath it are kept: the same in all scripts."""

from __future__ import annotations

import typing

from torch import nn

from lora.frozen import put_nf4
from lora.inject import inject
from lora.targets import parse_pattern, parse_targets
from model.console import UserError
from model.weights import Put, put


class AdapterOptions(typing.Protocol):
    """What a script's options say about its adapter."""

    r: int
    alpha: float
    dropout: float
    targets: str
    rank_pattern: str | None
    alpha_pattern: str | None
    rslora: bool
    dora: bool


def add_adapter(network: nn.Module, options: AdapterOptions) -> None:
    """Freeze the network and put a fresh adapter into it. UserError for options that do not fit it."""
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


def how_to_put(quantize: str | None, *, full: bool) -> Put:
    """What load_decoder shall do with the weights. UserError for --quantize with --full, or other than nf4."""
    if quantize is None:
        return put
    if quantize != "nf4":
        raise UserError(f"--quantize {quantize}: not known; give nf4, or leave it out")
    if full:
        raise UserError("--quantize nf4 with --full: weights in 4 bits cannot learn; leave out one of the two")
    return put_nf4
