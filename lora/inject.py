"""Putting LoRA into a network, taking it out, and asking which weights learn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from lora.layer import LoRALinear
from model.console import UserError

DECODER_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ENCODER_TARGETS = ("query", "key", "value", "dense")


def inject(network: nn.Module, *, r: int, alpha: float, dropout: float = 0.0, targets: Iterable[str]) -> None:
    """Freeze the network and replace every nn.Linear whose last name is in `targets` by a LoRALinear, in place.

    Raises UserError for a target that no linear layer has, for a tied head (it has no weight of its own: what is learnt
    for it would silently change the embedding), and for an adapter on an adapter.
    """
    targets = set(targets)
    if "lm_head" in targets and not hasattr(network, "lm_head"):
        raise UserError("LoRA on lm_head is refused: this model's head is tied to its embedding")
    if lora_layers(network):
        raise UserError("the network already carries an adapter; merge it or remove it first")
    found = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    unknown = targets - {name.rpartition(".")[2] for name, _ in found}
    if unknown:
        known = sorted({name.rpartition(".")[2] for name, _ in found})
        raise UserError(f"LoRA target {', '.join(sorted(unknown))} not found; the linear layers are {', '.join(known)}")
    network.requires_grad_(False)
    for name, _ in found:
        if name.rpartition(".")[2] in targets:
            adapt(network, name, r=r, alpha=alpha, dropout=dropout)


def adapt(network: nn.Module, name: str, *, r: int, alpha: float, dropout: float = 0.0) -> LoRALinear:
    """Replace the one nn.Linear called `name` by a LoRALinear and return it."""
    owner, _, attribute = name.rpartition(".")
    parent = network.get_submodule(owner)
    layer = LoRALinear(network.get_submodule(name), r=r, alpha=alpha, dropout=dropout)
    layer.train(parent.training)
    # ModuleDict and Module both keep their children in _modules, which setattr does not reach for the former
    parent._modules[attribute] = layer
    return layer


@contextmanager
def folded(network: nn.Module) -> Iterator[None]:
    """Use merged weights inside the block: a fifth faster sampling without the second path. The base stays."""
    layers = lora_layers(network).values()
    for layer in layers:
        layer.folded = layer.merged_weight()
    try:
        yield
    finally:
        for layer in layers:
            layer.folded = None


def remove(network: nn.Module, *, merge: bool) -> None:
    """Turn every LoRALinear back into an nn.Linear, with the low-rank part added to its weight or dropped."""
    for name, layer in lora_layers(network).items():
        out_features, in_features = layer.weight.shape
        linear = nn.Linear(in_features, out_features, bias=layer.bias is not None, device="meta")
        linear.weight = nn.Parameter(layer.merged_weight(), requires_grad=False) if merge else layer.weight
        linear.bias = layer.bias
        owner, _, attribute = name.rpartition(".")
        network.get_submodule(owner)._modules[attribute] = linear


def lora_layers(network: nn.Module) -> dict[str, LoRALinear]:
    """Name -> layer."""
    return {name: module for name, module in network.named_modules() if isinstance(module, LoRALinear)}


def trainable(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Name and parameter of everything that learns."""
    return ((name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad)
