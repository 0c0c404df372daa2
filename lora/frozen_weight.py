"""A frozen matrix W [out, in], dense or in NF4 (lora/nf4.py): its product, its layer, and loading a network in NF4.

In NF4 the dense matrix exists during one product at a time: the backward pass keeps the 4 bits and dequantises them
again, as QLoRA does (arXiv:2305.14314, section 3).
"""

from __future__ import annotations

import torch
from torch import nn

from lora.fast import nf4_multiply
from lora.nf4 import FrozenWeight, NF4Weight, dense
from lora.targets import HEAD
from model import fast
from model.linear import Linear, Projection, linear
from model.weights import Put, set_parameter


@fast.has_twin(nf4_multiply)
def multiply(x: torch.Tensor, weight: FrozenWeight, bias: torch.Tensor | None) -> torch.Tensor:
    """x Wᵀ + bias: [..., in] -> [..., out]. In NF4 only x gets a gradient."""
    return linear(x, dense(weight), bias)


class NF4Linear(Projection):
    """A frozen linear layer in NF4; its bias, if any, is dense."""

    def __init__(self, weight: NF4Weight, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in] -> [..., out]."""
        return multiply(x, self.weight, self.bias)


def linear_layer(weight: FrozenWeight, bias: nn.Parameter | None) -> nn.Linear | NF4Linear:
    """The layer of W and bias; nothing is copied."""
    if isinstance(weight, NF4Weight):
        return NF4Linear(weight, bias)
    # built without memory, then given these very tensors
    out_features, in_features = weight.shape
    layer = Linear(in_features, out_features, bias=bias is not None, device="meta")
    layer.register_parameter("weight", weight)  # pyright: ignore[reportArgumentType]
    layer.register_parameter("bias", bias)
    return layer


def put_nf4(network: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """For load_decoder: quantise the linear layers except the head, load everything else as it is.

    Each matrix is dense only until the next one is read.
    """
    owner, _, attribute = name.rpartition(".")
    layer = network.get_submodule(owner)
    if isinstance(layer, nn.Linear) and attribute == "weight" and owner != HEAD:
        network.set_submodule(owner, NF4Linear(NF4Weight(tensor), layer.bias))
    else:
        set_parameter(network, name, tensor)


def dequantise(network: nn.Module) -> None:
    """Make every layer in NF4 dense, in place: the matrices that it has computed with."""
    for name, layer in list(network.named_modules()):
        if isinstance(layer, NF4Linear):
            weight = nn.Parameter(dense(layer.weight), requires_grad=False)
            network.set_submodule(name, linear_layer(weight, layer.bias))


QUANTIZE: dict[str, Put] = {"none": set_parameter, "nf4": put_nf4}  # for load_decoder, by the value of --quantize
