"""Inject LoRA: which linear layers get it, of what rank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from common.console import UserError
from lora.adapter import Adapter, linears, train_adapter
from lora.layer import LoRALinear
from lora.targets import HEAD, is_target, matches_key, pattern_value
from model.decoder import Decoder

DECODER_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def inject(
    network: nn.Module,
    *,
    r: int,
    alpha: float,
    targets: str | Iterable[str],
    dropout: float = 0.0,
    exclude: str | Iterable[str] = (),
    layers: Iterable[int] | None = None,
    rank_pattern: Mapping[str, int] | None = None,
    alpha_pattern: Mapping[str, float] | None = None,
    rslora: bool = False,
    dora: bool = False,
) -> Adapter:
    """Freeze the network and replace every target by a LoRALinear, in place.

    targets, exclude, layers     which linear layers: see lora.targets.is_target
    rank_pattern, alpha_pattern  r and alpha of layers by name: see lora.targets.pattern_value
    rslora, dora                 see lora/layer.py

    Raises UserError for a target or pattern that matches no linear layer, for the head (tied, its adapter would
    change the embedding; untied, loss and sampling would bypass it), and for an adapter on an adapter.
    """
    # names of the layers to replace: model.layers.0.self_attn.q_proj …
    names = _chosen(network, targets, exclude, layers)

    # a pattern that matches none of them is a typo
    for pattern in (rank_pattern or {}, alpha_pattern or {}):
        unmatched = [key for key in pattern if not any(matches_key(name, key) for name in names)]
        if unmatched:
            raise UserError(f"the pattern {unmatched[0]!r} matches no layer with an adapter")

    # freeze everything, and put layers in place whose A and B are trainable
    adapter = make_lora(
        network, names, r=r, alpha=alpha, dropout=dropout, rank_pattern=rank_pattern or {},
        alpha_pattern=alpha_pattern or {}, rslora=rslora, dora=dora,
    )  # fmt: skip
    train_adapter(network, adapter)
    return adapter


def _chosen(network: nn.Module, targets, exclude, layers) -> list[str]:
    """Names of the targets. UserError for the head and for a target that does not exist."""
    # each is read several times below: an iterator would be empty the second time
    targets = targets if isinstance(targets, str) else tuple(targets)
    exclude = exclude if isinstance(exclude, str) else tuple(exclude)

    # the head has no adapter, tied or not
    if isinstance(network, Decoder) and is_target(HEAD, targets, exclude=exclude):
        tied = "this model's head is tied to its embedding"
        bypassed = "loss and sampling multiply by its weight directly, bypassing any adapter"
        raise UserError(f"LoRA on {HEAD} is refused: {tied if network.config.tie_word_embeddings else bypassed}")

    # every target must match a layer: a typo would silently leave one out
    found = linears(network)
    wanted = [targets] if isinstance(targets, str) else [(target,) for target in targets]
    unknown = ["".join(target) for target in wanted if not any(is_target(name, target) for name in found)]
    if unknown:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in found}))
        raise UserError(f"LoRA target {', '.join(sorted(unknown))} not found; the linear layers are {known}")

    # and at least one layer must remain
    names = [name for name in found if is_target(name, targets, exclude=exclude, layers=layers)]
    if not names:
        raise UserError(
            "no layer is selected for LoRA: all that match the targets are excluded or outside the given layers"
        )
    return names


def make_lora(
    network: nn.Module,
    names: Iterable[str],
    *,
    r: int,
    alpha: float,
    dropout: float,
    rank_pattern: Mapping[str, int],
    alpha_pattern: Mapping[str, float],
    rslora: bool,
    dora: bool,
) -> Adapter:
    """A fresh adapter for the linear layers `names`, not yet in use."""
    # each has its own r and alpha, if a pattern names it
    layers = linears(network)
    return {
        name: LoRALinear(
            layers[name],
            r=pattern_value(name, rank_pattern, r),
            alpha=pattern_value(name, alpha_pattern, alpha),
            dropout=dropout,
            rslora=rslora,
            dora=dora,
        )
        for name in names
    }
