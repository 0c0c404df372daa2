"""A frozen matrix W [out, in] of either kind, a parameter or one in NF4 (lora/nf4.py), and multiplying by it.

Whatever LoRA does with W goes through here. In NF4 the dense matrix exists during one product at a time: the backward
pass keeps the 4 bits and multiplies them out again, as QLoRA does (arXiv:2305.14314, section 3).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from lora.nf4 import NF4Weight
from lora.targets import HEAD
from model.fast.cpu_linear import Linear, product
from model.weights import Put, put

FrozenWeight = nn.Parameter | NF4Weight


def dense(weight: FrozenWeight) -> torch.Tensor:
    """W as a tensor: itself, or multiplied out for the moment."""
    return weight.dense() if isinstance(weight, NF4Weight) else weight


def multiply(x: torch.Tensor, weight: FrozenWeight, bias: torch.Tensor | None) -> torch.Tensor:
    """x Wᵀ + bias: [..., in] -> [..., out]. In NF4 the gradient is that of x alone."""
    return _Multiply.apply(x, weight, bias) if isinstance(weight, NF4Weight) else product(x, weight, bias)


class _Multiply(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.weight = weight
        return F.linear(x, weight.dense(), bias)

    @staticmethod
    def backward(ctx, grad):
        return grad @ ctx.weight.dense(), None, None


class NF4Linear(nn.Module):
    """A frozen linear layer in NF4; the bias, if it has one, is dense."""

    def __init__(self, weight: NF4Weight, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in] -> [..., out]."""
        return multiply(x, self.weight, self.bias)


def linear(weight: FrozenWeight, bias: nn.Parameter | None) -> nn.Linear | NF4Linear:
    """The layer that W makes; nothing is copied."""
    if isinstance(weight, NF4Weight):
        return NF4Linear(weight, bias)
    out_features, in_features = weight.shape
    layer = Linear(in_features, out_features, bias=bias is not None, device="meta")
    layer.weight, layer.bias = weight, bias
    return layer


def put_nf4(network: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """For load_decoder: linear layers in NF4, but the head, and whatever else there is as it is.

    Each matrix is dense only until the next one is read.
    """
    owner, _, attribute = name.rpartition(".")
    layer = network.get_submodule(owner)
    if isinstance(layer, nn.Linear) and attribute == "weight" and owner != HEAD:
        network.set_submodule(owner, NF4Linear(NF4Weight(tensor), layer.bias))
    else:
        put(network, name, tensor)


QUANTIZE: dict[str, Put] = {"none": put, "nf4": put_nf4}  # for load_decoder, by what --quantize says
