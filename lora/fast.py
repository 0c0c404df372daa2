"""LoRA layers that meet, computed together: fewer products, and less kept for the backward pass.

    q, k, v and gate, up share an input       their A matrices form one product; the input is kept once, without a cast
    down reads act(gate) · up                 gate and up are kept anyway; their product is recomputed

    forward     low = x [A₁; A₂; …]ᵀ      yᵢ = x Wᵢᵀ + bᵢ + sᵢ lowᵢ Bᵢᵀ
    backward    dlowᵢ = sᵢ gᵢ Bᵢ          dx = Σ gᵢ Wᵢ + dlow [A₁; A₂; …]      dA = dlowᵀ x      dBᵢ = sᵢ gᵢᵀ lowᵢ

W is frozen, dense or quantised; A and B are fp32, cast where they are multiplied, with gradients in fp32. Each
sum is accumulated into the product before it, which saves a pass over memory. DoRA and dropout use lora/layer.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from lora.quantised import FrozenWeight, QuantisedWeight
from model import fast
from model.linear import activate, linear


@fast.written_for("57e51883", "303c5beb")
def joint_lora(x: torch.Tensor, layers: Sequence) -> tuple[torch.Tensor, ...]:
    """layer(x) of each of these LoRALinear layers: x [..., in] -> [..., out] each."""
    # the matrices one by one: only a tensor that is an argument of its own gets a gradient
    weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
    downs, ups = [layer.lora_A.weight for layer in layers], [layer.lora_B.weight for layer in layers]
    return _Joint.apply(x, weights, biases, [layer.scale for layer in layers], *downs, *ups)


@fast.written_for("57e51883", "17eb860d", "72789b3b")
def gated_lora(layer, gate: torch.Tensor, up: torch.Tensor, activation: str) -> torch.Tensor:
    """layer(activation(gate) · up) of a LoRALinear layer: two of [..., in] -> [..., out]."""
    a, b = layer.lora_A.weight, layer.lora_B.weight
    return _Gated.apply(gate, up, activation, layer.weight, layer.bias, layer.scale, a, b)


@fast.written_for("b3f4d059")
def quantised_multiply(x: torch.Tensor, weight: FrozenWeight, bias: torch.Tensor | None) -> torch.Tensor:
    """lora/frozen_weight.py: multiply. Keeps the stored bits for the backward pass, where autograd keeps W dense."""
    return _Multiply.apply(x, weight, bias) if isinstance(weight, QuantisedWeight) else linear(x, weight, bias)


class _Joint(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weights, biases, scales, *matrices):
        # each layer's A, then each layer's B
        downs, ups = matrices[: len(scales)], matrices[len(scales) :]

        # all A in one product: [N, in] -> [N, sum of the ranks]
        flat = x.flatten(0, -2)
        low = flat @ torch.cat(downs).to(x.dtype).T

        # then each layer by itself: [N, out] each
        lows = low.split([len(down) for down in downs], dim=1)
        outs = [_lora(flat, *layer) for layer in zip(weights, biases, lows, ups, scales, strict=True)]
        ctx.scales, ctx.shape = scales, x.shape
        ctx.weights = weights  # not saved: frozen, and an NF4Weight is no tensor
        ctx.save_for_backward(flat, low, *matrices)
        return tuple(out.unflatten(0, x.shape[:-1]) for out in outs)

    @staticmethod
    def backward(ctx, *grads):
        flat, low, *matrices = ctx.saved_tensors
        downs, ups = matrices[: len(grads)], matrices[len(grads) :]
        ranks = [len(down) for down in downs]
        grads = [grad.flatten(0, -2) for grad in grads]  # [N, out] each

        # through each layer's B
        of_layers = zip(grads, low.split(ranks, dim=1), ups, ctx.scales, strict=True)
        grad_lows, grad_ups = zip(*(_lora_backward(*layer) for layer in of_layers), strict=True)
        grad_low = torch.cat(grad_lows, dim=1)  # [N, sum of the ranks]

        # to the input, and to each layer's A
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = _product_back(grads[0], ctx.weights[0])
            for grad, weight in zip(grads[1:], ctx.weights[1:], strict=True):
                _product_back(grad, weight, onto=grad_x)
            grad_x = grad_x.addmm_(grad_low, torch.cat(downs).to(low.dtype)).view(ctx.shape)
        grad_downs = (grad_low.T @ flat).float().split(ranks)
        return grad_x, None, None, None, *grad_downs, *grad_ups


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, up, activation, weight, bias, scale, lora_a, lora_b):
        # the product [N, in] is not kept: the backward pass computes it again from gate and up
        flat = (activate(gate, activation) * up).flatten(0, -2)
        low = flat @ lora_a.to(flat.dtype).T  # [N, r]
        ctx.activation, ctx.scale, ctx.weight = activation, scale, weight
        ctx.save_for_backward(gate, up, low, lora_a, lora_b)
        return _lora(flat, weight, bias, low, lora_b, scale).unflatten(0, gate.shape[:-1])

    @staticmethod
    def backward(ctx, grad):
        gate, up, low, lora_a, lora_b = ctx.saved_tensors
        grad = grad.flatten(0, -2)  # [N, out]

        # through B, and to A by way of the recomputed product
        grad_low, grad_b = _lora_backward(grad, low, lora_b, ctx.scale)
        active = activate(gate, ctx.activation)
        grad_a = (grad_low.T @ (active * up).flatten(0, -2)).float()

        # to the product, and from it to gate and up: [..., in] each
        grad_product = _product_back(grad, ctx.weight).addmm_(grad_low, lora_a.to(low.dtype)).view(gate.shape)
        grad_gate = _activate_backward(grad_product * up, gate, ctx.activation)
        return grad_gate, grad_product.mul_(active), None, None, None, None, grad_a, grad_b


class _Multiply(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.weight = weight
        return weight.product(x, bias)

    @staticmethod
    def backward(ctx, grad):
        return ctx.weight.product_back(grad), None, None


def _product(x, weight, bias) -> torch.Tensor:
    """x Wᵀ + bias: [..., in] -> [..., out]."""
    return weight.product(x, bias) if isinstance(weight, QuantisedWeight) else F.linear(x, weight, bias)


def _product_back(grad, weight, onto: torch.Tensor | None = None) -> torch.Tensor:
    """grad W, added to `onto` in place if given: [N, out] -> [N, in]."""
    if isinstance(weight, QuantisedWeight):
        return weight.product_back(grad, onto)
    return grad @ weight if onto is None else onto.addmm_(grad, weight)


def _lora(flat, weight, bias, low, lora_b, scale) -> torch.Tensor:
    """flat [N, in], low [N, r] -> [N, out]."""
    return _product(flat, weight, bias).addmm_(low, lora_b.to(low.dtype).T, alpha=scale)


def _lora_backward(grad, low, lora_b, scale) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of low [N, r] and, in fp32, of B [out, r]."""
    return (grad @ lora_b.to(grad.dtype)).mul_(scale), (grad.T @ low).float() * scale


def _activate_backward(grad: torch.Tensor, x: torch.Tensor, activation: str) -> torch.Tensor:
    if activation == "silu":
        return torch.ops.aten.silu_backward(grad, x)
    return torch.ops.aten.gelu_backward(grad, x, approximate="tanh")
