"""LoRA (Hu et al., arXiv:2106.09685): a linear layer that stays as it is, beside a path of low rank that learns.

         ┌──────────── W  [out, in]   frozen, any dtype or NF4 ────┐
    x ───┤                                                         + ───( · m / ‖W + s B A‖ )─── + bias ─── y
         └─ dropout ── A  [r, in] ── B  [out, r] ── · s ───────────┘       DoRA only
                       random        zero: a fresh adapter changes nothing

    s = alpha / r         LoRA
        alpha / sqrt(r)   rsLoRA (arXiv:2312.03732): the size of what is added does not shrink as r grows
    m   [out]            DoRA (arXiv:2402.09353): the length of each row of the matrix, learnt apart from its direction;
                         at first that of W. ‖·‖ is a constant to the gradient (section 4.3)

While training, several of these layers are computed at once by lora/fast.py: the same numbers, which its test holds
against `forward` here. Whoever changes `forward` changes that too, or lets `_is_plain` be false.

A, B and m are fp32 whatever W is. A and B are cast to the input's dtype where they are used; their gradients arrive in
fp32. The names of the parameters are those of PEFT's files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from lora.fast import project, project_product
from lora.frozen_weight import NF4Linear, dense, multiply
from model.decoder import activate
from model.fast.cpu_linear import product


class LoRALinear(nn.Module):
    """Takes the place of a linear layer under the same name: its very `weight` and `bias`, plus `lora_A`, `lora_B`."""

    def __init__(
        self,
        base: nn.Linear | NF4Linear | LoRALinear,
        *,
        r: int,
        alpha: float,
        dropout: float = 0.0,
        rslora: bool = False,
        dora: bool = False,
    ) -> None:
        super().__init__()
        self.weight, self.bias = base.weight, base.bias
        self.r, self.alpha, self.rslora = r, alpha, rslora
        self.scale = alpha / math.sqrt(r) if rslora else alpha / r
        self.dropout = nn.Dropout(dropout)
        self.folded: torch.Tensor | None = None  # the merged weight, while `lora.inject.folded` lends it
        out_features, in_features = base.weight.shape
        self.lora_A = nn.Linear(in_features, r, bias=False, device=base.weight.device, dtype=torch.float32)
        self.lora_B = nn.Linear(r, out_features, bias=False, device=base.weight.device, dtype=torch.float32)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)
        self.lora_magnitude_vector = nn.Parameter(self._sum().norm(dim=1)) if dora else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in] -> [..., out]."""
        if self.folded is not None:
            return product(x, self.folded, self.bias)
        plain = multiply(x, self.weight, self.bias)
        low_rank = F.linear(self.dropout(x), self.lora_A.weight.to(x.dtype))  # [..., r]
        delta = self.scale * F.linear(low_rank, self.lora_B.weight.to(x.dtype))  # [..., out]
        if self.lora_magnitude_vector is None:
            return plain + delta
        stretch = self.lora_magnitude_vector / self._sum().norm(dim=1)  # [out], exactly 1 while fresh
        unbiased = plain if self.bias is None else plain - self.bias
        # written as a change to `plain`, which a fresh adapter then leaves alone to the last bit
        return plain + (stretch - 1).to(plain.dtype) * unbiased + stretch.to(plain.dtype) * delta

    @staticmethod
    def project(x: torch.Tensor, layers: Sequence[nn.Module]) -> tuple[torch.Tensor, ...]:
        """Layers of one input, together where that is the same: x [..., in] -> [..., out] each."""
        if all(isinstance(layer, LoRALinear) and layer._is_plain for layer in layers):
            return project(x, layers)
        return tuple(layer(x) for layer in layers)

    def project_product(self, gate: torch.Tensor, up: torch.Tensor, activation: str) -> torch.Tensor:
        """This layer of activation(gate) · up [..., in]: [..., out]."""
        if self._is_plain:
            return project_product(self, gate, up, activation)
        return self(activate(gate, activation) * up)

    @property
    def _is_plain(self) -> bool:
        """Whether a step of training may take the way of lora/fast.py. Without gradients hooks must see each layer."""
        has_dropout = self.training and self.dropout.p > 0
        return (
            torch.is_grad_enabled() and self.folded is None and self.lora_magnitude_vector is None and not has_dropout
        )

    @torch.no_grad()
    def merged_weight(self) -> torch.Tensor:
        """W + s B A, its rows scaled to length m for DoRA: computed in fp32, cast once to W's dtype. [out, in]."""
        merged = self._sum()
        if self.lora_magnitude_vector is not None:
            merged *= (self.lora_magnitude_vector / merged.norm(dim=1))[:, None]
        return merged.to(self.weight.dtype)

    @torch.no_grad()
    def _sum(self) -> torch.Tensor:
        """W + s B A in fp32, [out, in], also where autocast would multiply in half precision."""
        with torch.autocast(self.weight.device.type, enabled=False):
            return dense(self.weight).float() + self.scale * (self.lora_B.weight.float() @ self.lora_A.weight.float())
