"""Adapted layers that are computed together: the same numbers as layer by layer, from less memory in fewer products.

    q, k, v and gate, up read one input:        the A matrices side by side are one product, the input is kept once
    down reads act(gate) · up:                  gate and up are kept anyway, their product is made again on the way back

    forward     low = x [A₁; A₂; …]ᵀ      yᵢ = x Wᵢᵀ + bᵢ + sᵢ lowᵢ Bᵢᵀ
    backward    dlowᵢ = sᵢ gᵢ Bᵢ          dx = Σ gᵢ Wᵢ + dlow [A₁; A₂; …]      dA = dlowᵀ x      dBᵢ = sᵢ gᵢᵀ lowᵢ

W is frozen, in half precision or NF4 (lora/frozen_weight.py); A and B are fp32, cast where they multiply; their
gradients are fp32. DoRA and dropout go layer by layer (lora/layer.py). Adding into the last product in place saves a
pass over memory for each sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from lora.frozen_weight import dense
from model.decoder import activate


def project(x: torch.Tensor, layers: Sequence) -> tuple[torch.Tensor, ...]:
    """x [..., in] through each of these LoRALinear layers: [..., out] each."""
    weights = [
        tensor for layer in layers for tensor in (layer.weight, layer.bias, layer.lora_A.weight, layer.lora_B.weight)
    ]
    return _Project.apply(x, [layer.scale for layer in layers], *weights)


def project_product(layer, gate: torch.Tensor, up: torch.Tensor, activation: str) -> torch.Tensor:
    """act(gate) · up [..., in] through a LoRALinear layer: [..., out]. activation: ModelConfig.activation."""
    return _ProjectProduct.apply(
        gate, up, activation, layer.scale, layer.weight, layer.bias, layer.lora_A.weight, layer.lora_B.weight
    )


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scales, *tensors):
        weights, biases, downs, ups = tensors[::4], tensors[1::4], tensors[2::4], tensors[3::4]
        flat = x.flatten(0, -2)  # [N, in]
        low = flat @ torch.cat(downs).to(x.dtype).T  # [N, sum of the ranks]
        lows = low.split([len(down) for down in downs], dim=1)
        outs = [_forward(flat, *each) for each in zip(weights, biases, lows, ups, scales, strict=True)]
        ctx.scales, ctx.shape = scales, x.shape
        ctx.weights = weights  # frozen: nothing has to watch for changes, and NF4 is no tensor
        ctx.save_for_backward(flat, low, *downs, *ups)
        return tuple(out.unflatten(0, x.shape[:-1]) for out in outs)

    @staticmethod
    def backward(ctx, *grads):
        flat, low, *saved = ctx.saved_tensors
        downs, ups = saved[: len(grads)], saved[len(grads) :]
        ranks = [len(down) for down in downs]
        grad_low, grad_x, grad_ups = torch.empty_like(low), None, []
        for i, (grad, low_i, grad_low_i) in enumerate(
            zip(grads, low.split(ranks, 1), grad_low.split(ranks, 1), strict=True)
        ):
            grad = grad.flatten(0, -2)  # [N, out]
            grad_ups.append(_backward(grad, low_i, grad_low_i, ups[i], ctx.scales[i]))
            if ctx.needs_input_grad[0]:
                weight = dense(ctx.weights[i])
                grad_x = grad @ weight if grad_x is None else grad_x.addmm_(grad, weight)
        if grad_x is not None:
            grad_x = grad_x.addmm_(grad_low, torch.cat(downs).to(low.dtype)).view(ctx.shape)
        grad_downs = (grad_low.T @ flat).float().split(ranks)
        of_layers = [(None, None, down, up) for down, up in zip(grad_downs, grad_ups, strict=True)]
        return grad_x, None, *(grad for of_layer in of_layers for grad in of_layer)


class _ProjectProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, up, activation, scale, weight, bias, lora_a, lora_b):
        flat = (activate(gate, activation) * up).flatten(0, -2)  # [N, in], not kept
        low = flat @ lora_a.to(flat.dtype).T
        ctx.activation, ctx.scale, ctx.weight = activation, scale, weight
        ctx.save_for_backward(gate, up, low, lora_a, lora_b)
        return _forward(flat, weight, bias, low, lora_b, scale).unflatten(0, gate.shape[:-1])

    @staticmethod
    def backward(ctx, grad):
        gate, up, low, lora_a, lora_b = ctx.saved_tensors
        grad = grad.flatten(0, -2)
        grad_low = torch.empty_like(low)
        grad_b = _backward(grad, low, grad_low, lora_b, ctx.scale)
        active = activate(gate, ctx.activation)
        grad_a = (grad_low.T @ (active * up).flatten(0, -2)).float()
        grad_product = (grad @ dense(ctx.weight)).addmm_(grad_low, lora_a.to(low.dtype)).view(gate.shape)
        grad_gate = _activate_backward(grad_product * up, gate, ctx.activation)
        return grad_gate, grad_product.mul_(active), None, None, None, None, grad_a, grad_b


def _forward(flat, weight, bias, low, lora_b, scale) -> torch.Tensor:
    return F.linear(flat, dense(weight), bias).addmm_(low, lora_b.to(low.dtype).T, alpha=scale)


def _backward(grad, low, grad_low, lora_b, scale) -> torch.Tensor:
    """Writes the gradient of `low`; returns that of B in fp32."""
    grad_low.copy_(grad @ lora_b.to(grad.dtype)).mul_(scale)
    return (grad.T @ low).float() * scale


def _activate_backward(grad: torch.Tensor, x: torch.Tensor, activation: str) -> torch.Tensor:
    if activation == "silu":
        return torch.ops.aten.silu_backward(grad, x)
    return torch.ops.aten.gelu_backward(grad, x, approximate="tanh")
