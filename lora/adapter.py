"""An adapter in a network, whatever its method: put in, switched, folded in, merged, taken out.

    network    model.layers.0.self_attn.q_proj   a Linear         model.layers.0.mlp_adapter   None: an empty place
    adapter                            q_proj    a LoRALinear                    mlp_adapter   a Bottleneck

An adapter is a dictionary from names to modules. While it is in use they stand in the network under these names, in
place of the plain module or in a place that is empty without them. The network's own weights stay the same tensors, so
that switching adapters copies nothing:

    tuned, other = load_adapter(network, "a"), load_adapter(network, "b")      # lora/adapter_file.py
    use_adapter(network, tuned)          # and use_adapter(network, None) is the base again, to the last bit
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from common.console import UserError
from lora.frozen_weight import QuantisedLinear
from lora.quantised import QuantisedWeight
from lora.targets import HEAD


class AdapterModule(nn.Module):
    """One module of an adapter. Each method has its own: LoRALinear, IA3Linear, Bottleneck …

    If it replaces a module, it has the same `weight`; what it trains is fp32, whatever the weight is.
    """

    peft_type: str  # the method, as adapter_config.json names it
    unmergeable: str | None = None  # why no plain module computes the same; None: `merged` returns one

    def base(self) -> nn.Module | None:
        """The plain module that it replaces, with the same tensors; None if its place is empty in a plain network."""
        return None

    def merged(self) -> nn.Module:
        """A plain module that computes the same, the update added in fp32 and cast once."""
        raise NotImplementedError


Adapter = dict[str, AdapterModule]


class Method(NamedTuple):
    """What the files and the output of a run need to know of a method."""

    module: type[AdapterModule]
    describe: Callable[[Adapter], str]  # the method and its settings, for people
    to_config: Callable[[nn.Module, Adapter], dict]  # its part of adapter_config.json, for this network
    from_config: Callable[[nn.Module, dict, Path], Adapter]  # a fresh one, from the file of a folder, or UserError
    to_tensors: Callable[[Adapter], dict[str, torch.Tensor]]  # under the file's names
    # the inverse, into a fresh adapter; None: `to_tensors` returns the parameters themselves, and they are filled
    from_tensors: Callable[[Adapter, dict[str, torch.Tensor]], None] | None = None
    file: str = "adapter_model.safetensors"


def train_adapter(network: nn.Module, adapter: Adapter) -> None:
    """Freeze the network and use a fresh adapter. UserError if the network has an adapter already."""
    if adapter_in_use(network):
        raise UserError("the network already has an adapter; merge it or remove it first")
    network.requires_grad_(False)
    use_adapter(network, adapter)


def use_adapter(network: nn.Module, adapter: Adapter | None) -> None:
    """Switch to this adapter; None: the base alone. Adapters not in use cost no time.

    Raises ValueError for an adapter of another network, or of this one from before a merge.
    """
    # an adapter holds the network's own weights: the same tensors
    for name, module in (adapter or {}).items():
        if getattr(_module(network, name), "weight", None) is not getattr(module, "weight", None):
            raise ValueError(f"the adapter was made for other weights than the network's at {name}")

    # take out the adapter in use, then put this one in
    remove(network, merge=False)
    device = next(network.parameters()).device
    for name, module in (adapter or {}).items():
        _put(network, name, module.to(device))  # the network may have moved since


def remove(network: nn.Module, *, merge: bool) -> None:
    """Put the plain modules back, with the learnt update merged into them or dropped.

    A merged weight is dense even over NF4 and int8: updates are smaller than the steps between their levels.
    UserError, with the network unchanged, when there is nothing to merge, or a method that cannot be merged.
    """
    adapter = adapter_in_use(network)
    if merge and not adapter:
        raise UserError("the network carries no adapter to merge; it may have been merged already")
    if merge:
        refuse_unmergeable(adapter)

    # one at a time: each old weight is freed as soon as the merged one is in place
    names = list(adapter)
    del adapter
    for name in names:
        module = network.get_submodule(name)
        assert isinstance(module, AdapterModule)
        _put(network, name, module.merged() if merge else module.base())


def refuse_unmergeable(adapter: Adapter) -> None:
    """UserError, with the reason, for an adapter whose method cannot be merged into the weights."""
    for module in adapter.values():
        if module.unmergeable:
            raise UserError(f"this adapter cannot be merged: {module.unmergeable}; use it with --adapter instead")


@contextmanager
def folded(network: nn.Module) -> Iterator[None]:
    """Use merged modules inside the block: without LoRA's low-rank path, sampling is a fifth faster. The base is kept.

    What cannot be merged stays as it is, and so do quantised layers: merged, they would be the dense network, which may
    not fit into memory.
    """
    # a second matrix [out, in] beside the base's own: twice the memory of these layers
    adapter = {
        name: module
        for name, module in adapter_in_use(network).items()
        if not module.unmergeable and not isinstance(module.weight, QuantisedWeight)
    }
    try:
        for name, module in adapter.items():
            _put(network, name, module.merged())
        yield
    finally:
        # even after an error, such as a lack of memory for the merged weights: the adapter must still train
        for name, module in adapter.items():
            _put(network, name, module)


@contextmanager
def base_alone(network: nn.Module) -> Iterator[None]:
    """Inside the block the network is what it is without the adapter in use."""
    adapter = adapter_in_use(network)
    use_adapter(network, None)
    try:
        yield
    finally:
        use_adapter(network, adapter)


def adapter_in_use(network: nn.Module) -> Adapter:
    """The adapter in use: name -> module; {} if there is none."""
    return {name: module for name, module in network.named_modules() if isinstance(module, AdapterModule)}


def plain_modules(network: nn.Module) -> dict[str, nn.Module]:
    """Every module by name, as it is without the adapter in use."""
    adapter = adapter_in_use(network)
    inside = tuple(f"{name}." for name in adapter)  # lora_A and lora_B are linear layers, too
    plain = {
        name: adapter[name].base() if name in adapter else module
        for name, module in network.named_modules()
        if not name.startswith(inside)
    }
    return {name: module for name, module in plain.items() if module is not None}


def linears(network: nn.Module) -> dict[str, nn.Linear | QuantisedLinear]:
    """Every linear layer that may get an adapter, as it is without the one in use: all but the head."""
    return {
        name: module
        for name, module in plain_modules(network).items()
        if isinstance(module, nn.Linear | QuantisedLinear) and not name.endswith(HEAD)
    }


def trainable(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Name and tensor of every trainable parameter."""
    return ((name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad)


def _module(network: nn.Module, name: str) -> nn.Module | None:
    """As get_submodule, but an empty place is None."""
    owner, _, attribute = name.rpartition(".")
    return getattr(network.get_submodule(owner), attribute)


def _put(network: nn.Module, name: str, module: nn.Module | None) -> None:
    """Replace the module of this name; None empties the place."""
    owner, _, attribute = name.rpartition(".")
    place = network.get_submodule(owner)
    # a new module starts in training mode, with its dropout on
    setattr(place, attribute, None if module is None else module.train(place.training))
