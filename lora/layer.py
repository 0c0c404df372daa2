"""LoRA (Hu et al., arXiv:2106.09685): a linear layer that stays as it is, beside a path of low rank that learns.

         ┌──────────── W  [out, in]   frozen, any dtype ───────────┐
    x ───┤                                                         + ─── y
         └─ dropout ── A  [r, in] ── B  [out, r] ── · alpha / r ───┘
                       random        zero: a fresh adapter changes nothing

A and B are fp32 whatever W is, and are cast to the input's dtype where they are used; their gradients arrive in fp32.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


class LoRALinear(nn.Module):
    """Takes the place of an nn.Linear under the same name: `weight`, `bias` as before, plus `lora_A`, `lora_B`."""

    def __init__(self, base: nn.Linear, *, r: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.weight, self.bias = base.weight, base.bias
        self.alpha, self.scale = alpha, alpha / r
        self.dropout = nn.Dropout(dropout)
        self.folded: torch.Tensor | None = None  # the merged weight, while `lora.inject.folded` lends it
        self.lora_A = nn.Linear(base.in_features, r, bias=False, device=base.weight.device, dtype=torch.float32)
        self.lora_B = nn.Linear(r, base.out_features, bias=False, device=base.weight.device, dtype=torch.float32)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in] -> [..., out]."""
        if self.folded is not None:
            return F.linear(x, self.folded, self.bias)
        low_rank = F.linear(self.dropout(x), self.lora_A.weight.to(x.dtype))  # [..., r]
        delta = F.linear(low_rank, self.lora_B.weight.to(x.dtype))  # [..., out]
        return F.linear(x, self.weight, self.bias) + self.scale * delta

    @torch.no_grad()
    def merged_weight(self) -> torch.Tensor:
        """W + alpha / r · B A, added in fp32 and cast once, to W's dtype. [out, in]."""
        delta = self.scale * (self.lora_B.weight.float() @ self.lora_A.weight.float())
        return (self.weight.float() + delta).to(self.weight.dtype)
