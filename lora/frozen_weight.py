"""A frozen matrix W [out, in], dense or quantised: its product, its layer, and loading a network in NF4 or int8.

A quantised matrix is dense during one product at a time at most: the backward pass keeps the stored bits and reads
them again, as QLoRA does (arXiv:2305.14314, section 3).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from lora.fast import quantised_multiply
from lora.int8 import Int8Weight
from lora.nf4 import NF4Weight
from lora.quantised import FrozenWeight, QuantisedWeight, dense
from lora.targets import HEAD
from model import fast
from model.linear import Linear, Projection, linear
from model.weights import Put, set_parameter


@fast.has_twin(quantised_multiply)
def multiply(x: torch.Tensor, weight: FrozenWeight, bias: torch.Tensor | None) -> torch.Tensor:
    """x Wᵀ + bias: [..., in] -> [..., out]. Quantised, only x gets a gradient."""
    return linear(x, dense(weight), bias)


class QuantisedLinear(Projection):
    """A frozen linear layer, quantised; its bias, if any, is dense."""

    def __init__(self, weight: QuantisedWeight, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in] -> [..., out]."""
        return multiply(x, self.weight, self.bias)


def linear_layer(weight: FrozenWeight, bias: nn.Parameter | None) -> nn.Linear | QuantisedLinear:
    """The layer of W and bias; nothing is copied."""
    if isinstance(weight, QuantisedWeight):
        return QuantisedLinear(weight, bias)
    # built without memory, then given these very tensors
    out_features, in_features = weight.shape
    layer = Linear(in_features, out_features, bias=bias is not None, device="meta")
    layer.register_parameter("weight", weight)  # pyright: ignore[reportArgumentType]
    layer.register_parameter("bias", bias)
    return layer


def put_quantised(form: type[QuantisedWeight], network: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """For load_decoder: quantise the linear layers except the head, load everything else as it is.

    Each matrix is dense only until the next one is read.
    """
    owner, _, attribute = name.rpartition(".")
    layer = network.get_submodule(owner)
    if isinstance(layer, nn.Linear) and attribute == "weight" and owner != HEAD:
        network.set_submodule(owner, QuantisedLinear(form(tensor), layer.bias))
    else:
        set_parameter(network, name, tensor)


put_nf4: Put = partial(put_quantised, NF4Weight)
put_int8: Put = partial(put_quantised, Int8Weight)


def dequantise(network: nn.Module) -> None:
    """Make every quantised layer dense, in place: the matrices that it has computed with."""
    for name, layer in list(network.named_modules()):
        if isinstance(layer, QuantisedLinear):
            weight = nn.Parameter(dense(layer.weight), requires_grad=False)
            network.set_submodule(name, linear_layer(weight, layer.bias))


# for load_decoder, by the value of --quantize
QUANTIZE: dict[str, Put] = {"none": set_parameter, "int8": put_int8, "nf4": put_nf4}
