"""The adapter that a run's options ask for: the same in all three scripts."""

from __future__ import annotations

import typing

from torch import nn

from lora.inject import inject
from lora.targets import parse_pattern, parse_targets


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
