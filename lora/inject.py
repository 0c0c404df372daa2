"""Inject LoRA into a network, merge or remove it, switch adapters, list the trainable parameters.

An adapter is a dictionary from names to the LoRALinear layers that replace the network's linear layers of those names
while it is in use. The network's own weights stay the same tensors, so that switching adapters copies nothing:

    tuned, other = load_adapter(network, "a"), load_adapter(network, "b")      # lora/adapter_file.py
    use_adapter(network, tuned)          # and use_adapter(network, None) is the base again, to the last bit
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from common.console import UserError
from lora.frozen_weight import NF4Linear, linear_layer
from lora.layer import LoRALinear
from lora.nf4 import NF4Weight
from lora.targets import HEAD, is_target, matches_key, pattern_value
from model.decoder import Decoder

DECODER_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

Adapter = dict[str, LoRALinear]


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
    if lora_layers(network):
        raise UserError("the network already has an adapter; merge it or remove it first")

    # names of the layers to replace: model.layers.0.self_attn.q_proj …
    names = _chosen(network, targets, exclude, layers)

    # a pattern that matches none of them is a typo
    for pattern in (rank_pattern or {}, alpha_pattern or {}):
        unmatched = [key for key in pattern if not any(matches_key(name, key) for name in names)]
        if unmatched:
            raise UserError(f"the pattern {unmatched[0]!r} matches no layer with an adapter")

    # freeze everything
    network.requires_grad_(False)

    # then put layers in place whose A and B are trainable
    adapter = make_adapter(
        network, names, r=r, alpha=alpha, dropout=dropout, rank_pattern=rank_pattern or {},
        alpha_pattern=alpha_pattern or {}, rslora=rslora, dora=dora,
    )  # fmt: skip
    use_adapter(network, adapter)
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


def make_adapter(
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
    return {
        name: LoRALinear(
            network.get_submodule(name),  # pyright: ignore[reportArgumentType]
            r=pattern_value(name, rank_pattern, r),
            alpha=pattern_value(name, alpha_pattern, alpha),
            dropout=dropout,
            rslora=rslora,
            dora=dora,
        )
        for name in names
    }


def use_adapter(network: nn.Module, adapter: Adapter | None) -> None:
    """Switch to this adapter; None: the base alone. Adapters not in use cost no time.

    Raises ValueError for an adapter of another network, or of this one from before a merge.
    """
    # an adapter holds the network's own weights: the same tensors
    for name, layer in (adapter or {}).items():
        if network.get_submodule(name).weight is not layer.weight:
            raise ValueError(f"the adapter was made for other weights than the network's at {name}")

    # take out the adapter in use, then put this one in
    remove(network, merge=False)
    for name, layer in (adapter or {}).items():
        _replace(network, name, layer.to(layer.weight.device))  # the network may have moved since


def remove(network: nn.Module, *, merge: bool) -> None:
    """Turn every LoRALinear back into a linear layer, with the learnt update merged into its weight or dropped.

    A merged weight is dense even over NF4: updates are smaller than the steps between NF4's levels.
    UserError when there is nothing to merge.
    """
    # names, not layers: each old weight is freed as soon as the merged one is in place
    names = list(lora_layers(network))
    if merge and not names:
        raise UserError("the network carries no adapter to merge; it may have been merged already")
    for name in names:
        layer = network.get_submodule(name)
        assert isinstance(layer, LoRALinear)
        # [out, in]: W + s B A, or W itself
        weight = nn.Parameter(layer.merged_weight(), requires_grad=False) if merge else layer.weight
        _replace(network, name, linear_layer(weight, layer.bias))


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    # a new module starts in training mode, with its dropout on
    network.set_submodule(name, module.train(network.get_submodule(name).training))


@contextmanager
def folded(network: nn.Module) -> Iterator[None]:
    """Use merged weights inside the block: without the low-rank path, sampling is a fifth faster. The base is kept.

    Layers in NF4 stay as they are: merged, they would be the dense network, which may not fit into memory.
    """
    # a second matrix [out, in] beside the base's own: twice the memory of these layers
    layers = [layer for layer in lora_layers(network).values() if not isinstance(layer.weight, NF4Weight)]
    for layer in layers:
        layer.folded = layer.merged_weight()
    try:
        yield
    finally:
        # even after an error: the adapter must still train
        for layer in layers:
            layer.folded = None


def lora_layers(network: nn.Module) -> Adapter:
    """The adapter in use: name -> layer."""
    return {name: module for name, module in network.named_modules() if isinstance(module, LoRALinear)}


def linears(network: nn.Module) -> dict[str, nn.Linear | NF4Linear | LoRALinear]:
    """Every linear layer that has or may get an adapter: all but the head."""
    # lora_A and lora_B are linear layers too, those of an adapter in use
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | NF4Linear | LoRALinear) and not name.endswith((HEAD, ".lora_A", ".lora_B"))
    }


def trainable(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Name and tensor of every trainable parameter."""
    return ((name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad)
