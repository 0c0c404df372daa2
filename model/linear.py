"""The linear layers of a network, and the two places where several of them meet."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from model import fast
from model.fast.cpu_linear import onednn_linear


@fast.has_twin(onednn_linear)
def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x Wᵀ + bias: x [..., in], weight [out, in], bias [out] -> [..., out]."""
    return F.linear(x, weight, bias)


def activate(x: torch.Tensor, activation: str) -> torch.Tensor:
    """ModelConfig.activation of x: SiLU, or GELU by its tanh approximation."""
    return F.silu(x) if activation == "silu" else F.gelu(x, approximate="tanh")


class Projection(nn.Module):
    """A linear layer, plain or adapted. Adapters compute the two methods below from less memory (lora/layer.py)."""

    def forward_with(self, x: torch.Tensor, *others: Projection) -> tuple[torch.Tensor, ...]:
        """This layer and others on the same input, as q, k and v: x [..., in] -> [..., out] each."""
        # an adapter multiplies x by all its A matrices at once
        return self(x), *(other(x) for other in others)

    def forward_gated(self, gate: torch.Tensor, up: torch.Tensor, activation: str) -> torch.Tensor:
        """This layer on activation(gate) · up, as the MLP ends: two of [..., in] -> [..., out]."""
        # an adapter recomputes the product in the backward pass
        return self(activate(gate, activation) * up)


class Linear(Projection, nn.Linear):
    """nn.Linear by `linear`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in] -> [..., out]."""
        return linear(x, self.weight, self.bias)
